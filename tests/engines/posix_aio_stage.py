"""What the tests of the engine on POSIX AIO share."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from iocancel import posix_aio as aio
from iocancel.engines.posix_aio import PosixAioEngine, lines
from iocancel.engines.posix_aio.carrier import interrupts
from iocancel.posix_aio import notify

from ..support import calls_on, leaving_nothing, not_measured, python, until

GLIBC = not interrupts()
only_glibc = pytest.mark.skipif(not GLIBC, reason="this C library interrupts what runs")


def own_number(op: Any) -> int:
    """The number that the C library was given for an operation."""
    return int(op._entry.line.number)


def runs(op: Any) -> None:
    """Wait until a thread of the C library's is blocked in the operation: then it can't be cancelled."""
    try:
        until(lambda: calls_on(own_number(op)), f"a thread that runs {op!r}")
    except PermissionError:
        pytest.skip("what the threads are doing can't be seen here (/proc/self/task/*/syscall)")


def sibling(source: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in a Python of its own."""
    inherited = not_measured()
    inherited.pop("IOCANCEL_ENGINE", None)
    return python(source, *options, environment={**inherited, **environment})


def gone() -> bool:
    notify.sweep(9)
    return not lines.sweep() and not aio.in_progress() and not notify.waiting()


def settle() -> None:
    gc.collect()
    until(gone, "the end of what the C library had")


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No operation, memory, fd or thread."""
    gc.collect()
    with leaving_nothing(settle):
        yield


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
