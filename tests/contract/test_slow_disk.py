"""What no cancel can stop, on a disk that takes its time (guests only; facts 2.4, 5.2, 9.5)."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path
from typing import Any

import pytest

from iocancel import CancelTooLate, Verdict
from iocancel.uring import limbo

from ..slow_disk import DELAY, SIZE
from ..slow_disk import buffered as buffered
from ..slow_disk import direct as direct
from ..slow_disk import page as page
from ..slow_disk import slow_disk as slow_disk
from ..support import BOUND, until
from .helpers import C, F, need_verbs


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
    page.close()  # though `op` is alive
