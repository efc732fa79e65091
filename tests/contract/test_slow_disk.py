"""What no cancel can stop, on a disk that takes its time (guests only; facts 2.4, 5.2, 9.5)."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iocancel import CancelTooLate, Verdict
from iocancel.uring import limbo

from ..uring.conftest import DELAY
from ..uring.conftest import slow_disk as slow_disk  # a fixture
from .helpers import BOUND, C, F, need_verbs, until

SIZE = 4096


@pytest.fixture
def direct(slow_disk: Path) -> Iterator[int]:
    """Its requests go to the disk itself."""
    fd = os.open(slow_disk, os.O_RDWR | os.O_DIRECT)
    yield fd
    os.close(fd)


@pytest.fixture
def buffered(slow_disk: Path) -> Iterator[int]:
    """Each read of it is of a page that is not cached: the disk is made anew for each test."""
    fd = os.open(slow_disk, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # no reading ahead
    yield fd
    os.close(fd)


@pytest.fixture
def page() -> mmap.mmap:
    return mmap.mmap(-1, SIZE)


@pytest.mark.parametrize("verb", ["read", "write"])
def test_direct_io_goes_on(engine: Any, direct: int, page: mmap.mmap, verb: str) -> None:
    """Not found, or not to be stopped: COMPLETED in the end, asked as often as one likes."""
    need_verbs(engine, verb)
    op = getattr(engine, verb)(direct, page, 0)
    engine.submit()
    assert op.cancel()
    assert op.wait(BOUND) is C
    assert op.result() == SIZE
    assert op.verdict in (Verdict.NOT_FOUND, Verdict.TOO_LATE)


def test_a_buffered_read_goes_on(engine: Any, buffered: int, page: mmap.mmap) -> None:
    need_verbs(engine, "read")
    op = engine.read(buffered, page, 8 * SIZE)
    engine.submit()
    op.cancel()
    assert op.wait(BOUND) is C
    assert op.result() == SIZE


def test_closing_the_file_waits_for_it(engine: Any, slow_disk: Path, page: mmap.mmap) -> None:
    need_verbs(engine, "read")
    fd = os.open(slow_disk, os.O_RDONLY | os.O_DIRECT)
    op = engine.read(fd, page, 0)
    engine.submit()
    assert engine.close_fd(fd, BOUND) == {op: C}
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)
    assert op.result() == SIZE


def test_a_wait_that_gives_up(engine: Any, direct: int, page: mmap.mmap) -> None:
    """Past the deadline it waits for a while for what can't be stopped, then says so; or it had ended."""
    need_verbs(engine, "read")
    op = engine.read(direct, page, 0)
    try:
        outcome = op.wait(0.01)
    except CancelTooLate:
        assert not op.done()
        outcome = op.wait()
    assert outcome is C
    assert op.result() == SIZE


def test_closing_without_haste_waits_for_the_disk(engine: Any, direct: int, page: mmap.mmap) -> None:
    need_verbs(engine, "read")
    op = engine.read(direct, page, 0)
    engine.submit()
    engine.close(BOUND)
    assert op.outcome is C
    assert limbo.sweep() == 0
    page.close()


def test_closing_in_haste_keeps_the_memory(ring: Any, direct: int, page: mmap.mmap) -> None:
    """5.2: a closed ring's reads go on; past its bound close() puts the memory behind the barrier."""
    op = ring.read(direct, page, 0)
    ring.submit()
    began = time.monotonic()
    with pytest.warns(ResourceWarning, match="still ran"):
        ring.close(0)
    if time.monotonic() - began < DELAY / 2:  # the disk can't have answered
        assert op.outcome is F
    with pytest.raises(CancelTooLate):
        op.result()
    with pytest.raises(BufferError):
        page.close()
    until(lambda: limbo.sweep() == 0, "the barrier hangs up")
    del op
