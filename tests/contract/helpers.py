"""What the tests of the contract share."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from iocancel import Operation, Outcome, Reach

NAMES = ("uring", "libaio", "posix_aio")
GUEST = os.environ.get("IOCANCEL_GUEST") == "1"
"""In a guest under software emulation, which is many times slower."""
BOUND = 60.0 if GUEST else 20.0
"""How many seconds anything may take that has to happen."""
REQUIRED = frozenset(filter(None, os.environ.get("IOCANCEL_REQUIRE", "").split(",")))
"""The engines that have to be there: lacking one of these is a failure, not a skip."""
C, F, X = Outcome.COMPLETED, Outcome.FAILED, Outcome.CANCELLED


def need(condition: object, reason: str) -> None:
    """Skip the test where something is lacking; with IOCANCEL_NO_SKIPS=1 that is a failure."""
    if not condition:
        if os.environ.get("IOCANCEL_NO_SKIPS") == "1":
            pytest.fail(f"lacking, and IOCANCEL_NO_SKIPS is set: {reason}")
        pytest.skip(reason)


def need_verbs(engine: Any, *verbs: str) -> None:
    """Skip what an engine can't do here: that it says so is tested elsewhere."""
    for verb in verbs:
        if not engine.supports(verb):
            pytest.skip(f"{engine.name} has no {verb} here")


def stops(engine: Any, verb: str) -> bool:
    """Whether a verb's operations can be stopped once they run; the others go on to their end."""
    return engine.reach(verb) is not Reach.NONE


def need_stopping(engine: Any, *verbs: str) -> None:
    """Skip where a verb is not there, or where what runs can't be stopped."""
    need_verbs(engine, *verbs)
    for verb in verbs:
        if not stops(engine, verb):
            pytest.skip(f"{engine.name} can't stop a {verb} that runs")


def few(many: int) -> int:
    """How often to repeat, or how many at a time: much less in an emulated guest."""
    return max(many // 20, 5) if GUEST else many


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for what nothing announces, as the state of another thread."""
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen: {what}"
        os.sched_yield()


def outcomes(ops: Iterable[Operation[Any]]) -> set[Outcome | None]:
    """How they ended."""
    return {op.outcome for op in ops}


def blocked_in(where: str) -> int:
    """How many threads of this process sleep in a kernel function whose name has this in it."""
    found = 0
    for task in Path("/proc/self/task").iterdir():
        try:
            state = (task / "stat").read_text().rsplit(")", 1)[1].split()[0]
            found += state in "SD" and where in _sleeps_in(task)
        except OSError:  # it has ended
            continue
    return found


def _sleeps_in(task: Path) -> str:
    name = (task / "wchan").read_text()
    if name == "0" and os.getuid() == 0:  # Debian's 5.10 has no names there
        return (task / "stack").read_text()
    return name


def until_blocked(where: str, many: int = 1) -> None:
    """Wait until as many threads (those of io_uring's workers, too) are blocked in this kernel function."""
    need(Path("/proc/self/wchan").exists(), "no /proc/self/wchan: nobody sees what a worker is doing")
    until(lambda: blocked_in(where) >= many, f"{many} blocked in {where}")


def readable(fd: int) -> int:
    """How many bytes a pipe or a socket holds."""
    raw = fcntl.ioctl(fd, termios.FIONREAD, bytes(4))
    number: int = struct.unpack("i", raw)[0]
    return number


def fill(fd: int) -> int:
    """Write to a pipe or a socket until it takes no more; returns how many bytes that were."""
    was = os.get_blocking(fd)
    os.set_blocking(fd, False)
    many = 0
    try:
        while True:
            many += os.write(fd, bytes(4096))
    except BlockingIOError:
        return many
    finally:
        os.set_blocking(fd, was)


def drain(fd: int) -> int:
    """Read all that there is; returns how many bytes that were."""
    was = os.get_blocking(fd)
    os.set_blocking(fd, False)
    many = 0
    try:
        while got := os.read(fd, 1 << 20):
            many += len(got)
    except BlockingIOError:
        pass
    finally:
        os.set_blocking(fd, was)
    return many
