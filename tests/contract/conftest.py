"""One engine after the other, and what each test's teardown looks for.

A whole engine that can't be had here is a skip with its reason; IOCANCEL_REQUIRE=uring,libaio makes that a
failure for those that it names.
"""

from __future__ import annotations

import contextlib
import gc
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from iocancel import open_engine
from iocancel.engines.posix_aio import lines
from iocancel.libaio import kernel
from iocancel.posix_aio import notify
from iocancel.uring import limbo

from ..support import BOUND, lacks_engine, leaving_nothing, need_engine, python, until
from .helpers import NAMES


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """An engine's name."""
    wanted = str(request.param)
    need_engine(wanted)
    return wanted


@pytest.fixture
def uring() -> str:
    """The name of the engine on io_uring, for what only it can be asked."""
    need_engine("uring")
    return "uring"


def settle() -> None:
    until(lambda: lines.sweep() == 0, "what the C library's threads still ran has ended")
    gc.collect()
    until(all_free, "what the system may write to is all free")


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    # What is probed once a process is probed before the fds are counted.
    for each in NAMES:
        lacks_engine(each)
    with leaving_nothing(settle):
        yield


def all_free() -> bool:
    """Whether what outlived its engine is gone: each of the three systems lets go a little later."""
    kernel.sweep()  # contexts of Linux AIO that were closed while something ran
    notify.sweep(
        notify.waiting()
    )  # threads of the C library that have told of an ending, and have yet to leave
    # The kernel gives a closed ring's files back 25 to 57 ms later (facts 5.5).
    return not (limbo.sweep() or notify.waiting() or kernel._abandoned)


@contextlib.contextmanager
def opened(name: str, **options: Any) -> Iterator[Any]:
    """An engine that has nothing in flight at the end; the test may close it."""
    engine = open_engine(name, **options)
    try:
        yield engine
        left = engine.in_flight
        assert not left, f"{engine!r} has {left} in flight at the end"
    finally:
        engine.close()


@pytest.fixture
def engine(name: str) -> Iterator[Any]:
    """An engine of each kind."""
    with opened(name) as engine:
        yield engine


@pytest.fixture
def ring(uring: str) -> Iterator[Any]:
    """An engine on io_uring."""
    with opened(uring) as engine:
        yield engine


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Any]:
    """A file of ten bytes, open for reading and writing."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("r+b", buffering=0) as opened_file:
        yield opened_file


@pytest.fixture
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program in a Python of its own, with the engine's name in its arguments."""

    def start(name: str, program: str, *flags: str) -> subprocess.CompletedProcess[str]:
        head = "import gc, os, sys, threading, iocancel\nname = sys.argv[1]\n"
        return python(head + program, *flags, arguments=(name,), timeout=BOUND)

    return start
