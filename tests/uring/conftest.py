"""What the tests of `iocancel.uring` share; each test's teardown looks for what it left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import pytest

from iocancel import FeatureUnavailable
from iocancel.uring import Ring, cancel_flags, limbo

from ..support import BOUND, leaving_nothing, need, need_uring, not_measured, python, until
from .helpers import Asked
from .stage import Wrapped


def settle() -> None:
    gc.collect()
    # The kernel lets go of a closed ring's files a little later, hence the wait (facts 5.5: 25 to 57 ms).
    until(lambda: limbo.sweep() == 0, "what the kernel may write to is all free")


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    with leaving_nothing(settle):
        yield


@pytest.fixture(scope="session", autouse=True)
def probed() -> None:
    """What is found out once a process is found out before the fds are counted."""
    need_uring()
    cancel_flags()


def make_ring(entries: int, flags: int, cq_entries: int | None) -> Ring:
    """A ring, or a skip where this kernel has none of this kind."""
    try:
        return Ring(entries, flags=flags, cq_entries=cq_entries)
    except FeatureUnavailable as error:
        need(False, str(error))
        raise


@pytest.fixture
def ring() -> Iterator[Ring]:
    """A plain ring."""
    with Ring(64) as ring:
        yield ring


@pytest.fixture
def open_ring() -> Iterator[Callable[..., Asked]]:
    """Opens rings of any kind (`entries, flags, cq_entries`), closed at the end of the test."""
    rings: list[Ring] = []

    def make(entries: int = 64, flags: int = 0, cq_entries: int | None = None) -> Asked:
        rings.append(make_ring(entries, flags, cq_entries))
        return Asked(rings[-1])

    yield make
    for ring in rings:
        ring.close()


@pytest.fixture
def asked(open_ring: Callable[..., Asked]) -> Asked:
    """A plain ring."""
    return open_ring()


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A FIFO with nobody at either end."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def alarm() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Sets what SIGALRM does."""
    before = signal.getsignal(signal.SIGALRM)

    def on(act: Callable[[], None]) -> None:
        def handler(number: int, frame: FrameType | None) -> None:
            act()

        signal.signal(signal.SIGALRM, handler)

    yield on
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def in_a_thread() -> Iterator[Wrapped]:
    """Has something done by another thread, which stays: its requests would end with it."""
    with ThreadPoolExecutor(1) as other:
        yield lambda act: lambda: other.submit(act).result(BOUND)


@pytest.fixture
def run() -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs a program in a Python of its own; it must succeed and say nothing on stderr."""

    def start(program: str) -> subprocess.CompletedProcess[str]:
        head = "import os, sys\nfrom iocancel.uring import *\n"
        # Not measured: some of these programs give up their rights, and could not write what was measured.
        done = python(head + program, "-W", "error", environment=not_measured())
        assert (done.returncode, done.stderr) == (0, "")
        return done

    return start
