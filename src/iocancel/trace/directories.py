"""The directories of tracefs' instances: writing to their files, and removing them, also what others left."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import re
import time
from pathlib import Path

_TRIES = 10  # to remove an instance, 10 ms each
_NAME = re.compile(r"iocancel-(\d+)-(\d+)")
_numbers = itertools.count(1)
ours: set[str] = set()
"""The names of this process's instances."""


def new_name() -> str:
    """A name that no other living process gives to an instance."""
    return f"iocancel-{os.getpid()}-{next(_numbers)}"


def put(path: Path, text: str) -> None:
    """Write in one call, as tracefs wants it."""
    # A FileIO by its mode is opened within C: a signal's exception finds either no fd or one that is owned.
    try:
        with io.FileIO(path, "r+") as file:
            file.write(text.encode())
    except OSError as error:
        error.filename = str(path)
        raise


def put_filter(path: Path, text: str) -> None:
    """Write an event's filter.

    Raises:
        ValueError: the kernel does not take it; it says why.
    """
    try:
        put(path, text)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        said = " ".join(path.read_text().split())
        raise ValueError(f"not a filter of {path.parent.name}: {text!r}: {said}") from error


def remove(path: Path) -> None:
    """Remove an instance that nobody uses any more.

    Raises:
        OSError: somebody does (EBUSY).
    """
    for tries in itertools.count(1):
        try:
            path.rmdir()
        except FileNotFoundError:  # it was not made yet, or somebody else has removed it
            return
        except OSError as error:
            # Another thread's new process has our fds for a moment, until its exec.
            if error.errno != errno.EBUSY or tries == _TRIES:
                raise
            time.sleep(0.01)
        else:
            return


def remove_stale(root: Path) -> list[str]:
    """Remove the instances that killed processes of ours have left.

    Args:
        root: where tracefs is mounted.

    Returns:
        The names of those that were removed. One that is in use stays, whoever uses it.
    """
    gone = []
    for path in (root / "instances").iterdir():
        match = _NAME.fullmatch(path.name)
        if match is None or path.name in ours or not dead(int(match[1]), path):
            continue
        with contextlib.suppress(OSError):  # EBUSY: it is read (by a process of another PID namespace)
            path.rmdir()
            gone.append(path.name)
    return gone


def dead(pid: int, path: Path) -> bool:
    """Whether the process that made an instance has ended."""
    if pid == os.getpid():
        return True  # it is not among ours: one of the same number had it before
    try:
        state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if state in "ZX":
            return True
        up = time.clock_gettime(time.CLOCK_BOOTTIME) - int(numbers[18]) / os.sysconf("SC_CLK_TCK")
        age = time.time() - path.stat().st_mtime
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:
        return False
    return up + 2.0 < age  # that process began after the instance: it has the number of a dead one
