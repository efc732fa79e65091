"""What the tests of the engine on POSIX AIO share."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import iocancel
from iocancel import _lifetime
from iocancel import posix_aio as aio
from iocancel.engines.posix_aio import PosixAioEngine, lines
from iocancel.engines.posix_aio.carrier import interrupts
from iocancel.posix_aio import notify

from ..uring.helpers import BOUND, until

GLIBC = not interrupts()
only_glibc = pytest.mark.skipif(not GLIBC, reason="this C library interrupts what runs")


def blocked_on(number: int) -> bool:
    """Whether a thread of this process is in a system call on this number, as its first argument."""
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if (task / "syscall").read_text().split()[1:2] == [hex(number)]:
                return True
    return False


def own_number(op: Any) -> int:
    """The number that the C library was given for an operation."""
    return int(op._entry.line.number)


def runs(op: Any) -> None:
    """Wait until a thread of the C library's is blocked in the operation: then it can't be cancelled."""
    try:
        until(lambda: blocked_on(own_number(op)), f"a thread that runs {op!r}")
    except PermissionError:
        pytest.skip("what the threads are doing can't be seen here (/proc/self/task/*/syscall)")


def sibling(source: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in a Python of its own."""
    folders = [str(Path(iocancel.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    inherited.pop("IOCANCEL_ENGINE", None)
    return subprocess.run(
        [sys.executable, *options, "-c", source],
        env={**inherited, "PYTHONPATH": os.pathsep.join(folders), **environment},
        capture_output=True,
        text=True,
        timeout=5 * BOUND,
        stdin=subprocess.DEVNULL,
    )


def gone() -> bool:
    notify.sweep(9)
    return not lines.sweep() and not aio.in_progress() and not notify.waiting()


def open_fds() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return found


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No operation, memory, fd or thread."""
    gc.collect()
    fds, threads, kept = open_fds(), set(threading.enumerate()), _lifetime.kept()
    yield
    gc.collect()
    until(gone, "the end of what the C library had")
    assert _lifetime.kept() == kept
    assert not set(threading.enumerate()) - threads
    left = {number: to for number, to in open_fds().items() if fds.get(number) != to}
    assert not left, f"fds left open: {left}"


@pytest.fixture
def engine() -> Iterator[PosixAioEngine]:
    """The engine; everything has ended at the test's end."""
    with PosixAioEngine() as engine:
        yield engine
        assert engine.in_flight == 0


@pytest.fixture
def ends() -> Iterator[Callable[[], tuple[int, int]]]:
    """Makes pipes. At the end the write ends are closed first: whoever reads is let go."""
    made: list[tuple[int, int]] = []

    def make() -> tuple[int, int]:
        made.append(os.pipe())
        return made[-1]

    yield make
    for number in (1, 0):
        for pair in made:
            with contextlib.suppress(OSError):
                os.close(pair[number])
