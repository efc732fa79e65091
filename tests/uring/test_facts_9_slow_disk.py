"""facts.md 2.4, 3.3, 5.2, 9.5: what no cancel can stop, on a disk that takes its time (guests only)."""

from __future__ import annotations

import mmap
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from iocancel import CancelNotFound, CancelTimeout
from iocancel.uring import CancelFlags, Ring, SqeFlags, cancel_flags, limbo

from ..slow_disk import SIZE
from ..slow_disk import buffered as buffered
from ..slow_disk import direct as direct
from ..slow_disk import page as page
from ..slow_disk import slow_disk as slow_disk
from ..support import BOUND, blocked_in, need, until
from .helpers import RING_KINDS, Asked, need_flags

NOENT, ALREADY = -2, -114
ANY_ALL = CancelFlags.ANY | CancelFlags.ALL


@pytest.fixture
def reading(asked: Asked, buffered: int, page: mmap.mmap) -> Asked:
    """A ring with a buffered read, number 1, that runs in a worker and can't be interrupted."""
    asked.go(1, "read", buffered, page, 8 * SIZE, flags=SqeFlags.ASYNC)
    # State D there: neither asleep as an idle worker, nor running.
    until(in_disk_sleep, "a worker waits for the disk")
    return asked


def in_disk_sleep() -> bool:
    for task in Path("/proc/self/task").iterdir():
        try:
            if (task / "stat").read_text().rsplit(")", 1)[1].split()[0] == "D":
                return True
        except OSError:
            continue
    return False


def sync_cancels() -> bool:
    return CancelFlags.FD_FIXED in cancel_flags()  # both are of Linux 6.0


@pytest.mark.parametrize("call", ["read", "write"])
@pytest.mark.parametrize("flags", [SqeFlags(0), SqeFlags.ASYNC], ids=["inline", "async"])
def test_direct_io_in_flight_is_not_found(
    asked: Asked, direct: int, page: mmap.mmap, call: str, flags: SqeFlags
) -> None:
    asked.go(1, call, direct, page, 0, flags=flags)
    if flags:  # the worker hands it to the disk, and is done with it
        until(lambda: blocked_in("io_wq", "S"), "the worker is idle again")
    assert asked.cancel(1) == NOENT
    if sync_cancels():
        with pytest.raises(CancelNotFound):
            asked.ring.register_sync_cancel(1, timeout=0.3)
    assert asked.pending(1)
    assert asked.end(1) == SIZE  # it ended as if nobody had asked


def test_direct_io_and_cancels_of_all(asked: Asked, direct: int, page: mmap.mmap) -> None:
    need_flags(ANY_ALL | CancelFlags.FD)
    asked.go(1, "read", direct, page, 0)
    assert asked.cancel(0, ANY_ALL) == 0
    assert asked.cancel_fd(direct, CancelFlags.ALL) == 0
    assert asked.pending(1)
    assert asked.end(1) == SIZE


def test_a_buffered_read_that_no_worker_has(asked: Asked, buffered: int, page: mmap.mmap) -> None:
    asked.go(1, "read", buffered, page, 8 * SIZE)
    # It waits for its page, or in a worker, as the file system has it.
    assert asked.cancel(1) in (NOENT, ALREADY)
    assert asked.end(1) == SIZE


def test_a_running_buffered_read_is_told_too_late_each_time(reading: Asked) -> None:
    for _ in range(3):
        assert reading.cancel(1) == ALREADY
    assert reading.pending(1)
    assert reading.end(1) == SIZE


def test_any_says_0(reading: Asked) -> None:
    need_flags(ANY_ALL)
    assert reading.cancel(0, ANY_ALL) == 0
    assert reading.pending(1)
    assert reading.end(1) == SIZE


def test_a_synchronous_cancel_waits_as_long_as_it_may(reading: Asked) -> None:
    need(sync_cancels(), "synchronous cancels are of Linux 6.0")
    with pytest.raises(CancelTimeout):
        reading.ring.register_sync_cancel(1, timeout=0)
    assert reading.ring.register_sync_cancel(flags=ANY_ALL) == 0  # never waits
    with pytest.raises(CancelTimeout):
        reading.ring.register_sync_cancel(1, timeout=0.05)
    assert reading.pending(1)
    try:
        assert reading.ring.register_sync_cancel(1) == 0
    except CancelNotFound:  # it had just ended (facts 3.5)
        pass
    assert not reading.pending(1)
    assert reading.end(1) == SIZE


def test_a_signal_does_not_shorten_the_wait(
    reading: Asked, alarm: Callable[[Callable[[], None]], None]
) -> None:
    need(sync_cancels(), "synchronous cancels are of Linux 6.0")
    calls: list[int] = []
    alarm(lambda: calls.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        assert reading.ring.register_sync_cancel(1, timeout=BOUND) == 0
    except CancelNotFound:
        pass
    assert calls
    assert not reading.pending(1)
    assert reading.end(1) == SIZE


def test_a_link_timeout_fires_for_direct_io_and_cannot_end_it(
    asked: Asked, direct: int, page: mmap.mmap
) -> None:
    asked.put(1, "read", direct, page, 0, flags=SqeFlags.IO_LINK)
    asked.put(2, "link_timeout", 0.01)
    asked.ring.submit()
    assert asked.end(2) in (-62, NOENT, ALREADY)  # -ETIME; or what its cancel was answered
    assert asked.end(1) == SIZE


@pytest.mark.parametrize("kind", ["default", "defer", "sqpoll"])
@pytest.mark.parametrize("way", ["direct", "worker"])
def test_closing_keeps_the_memory_until_the_disk_has_answered(
    open_ring: Callable[..., Asked], direct: int, buffered: int, page: mmap.mmap, kind: str, way: str
) -> None:
    """5.2: a closed ring's reads go on; so close() past its bound keeps their memory (5.5)."""
    asked = open_ring(8, RING_KINDS[kind])
    if way == "direct":
        asked.go(1, "read", direct, page, 0)
        assert asked.pending(1)
    else:
        asked.go(1, "read", buffered, page, 8 * SIZE, flags=SqeFlags.ASYNC)
        until(in_disk_sleep, "a worker waits for the disk")
    asked.ring.close(timeout=0)
    assert limbo.sweep() == 1
    with pytest.raises(BufferError):
        page.close()
    until(lambda: limbo.sweep() == 0, "the barrier hangs up")


def test_closing_without_haste_waits_for_the_disk(direct: int, page: mmap.mmap) -> None:
    ring = Ring(8)
    sqe = ring.get_sqe()
    sqe.prep_read(direct, page, 0)
    ring.submit()
    ring.close(timeout=BOUND)
    assert limbo.sweep() == 0
    page.close()
