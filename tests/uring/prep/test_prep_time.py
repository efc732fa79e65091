"""Polls and timeouts, run."""

import errno
import os
import select
import time
from typing import Any

import pytest

from iocancel.errors import CancelNotFound
from iocancel.uring import PollFlags, Ring, SqeFlags, TimeoutFlags


def test_a_poll(go: Any, pipe: tuple[int, int]) -> None:
    number = go.start("poll_add", pipe[0], select.POLLIN)
    os.write(pipe[1], b"x")
    [cqe] = go.wait()
    assert (cqe.user_data, cqe.res) == (number, select.POLLIN)
    assert go("poll_add", pipe[1], select.POLLOUT | select.POLLIN).res == select.POLLOUT


def test_a_poll_removed(go: Any, pipe: tuple[int, int]) -> None:
    number = go.start("poll_add", pipe[0], select.POLLIN)
    removal = go.start("poll_remove", number)
    assert {c.user_data: c.res for c in go.wait(2)} == {number: -errno.ECANCELED, removal: 0}
    with pytest.raises(CancelNotFound):
        go("poll_remove", number).check()


def test_a_multishot_poll(go: Any, pipe: tuple[int, int]) -> None:
    number = go.start("poll_multishot", pipe[0], select.POLLIN)
    for _ in range(3):
        os.write(pipe[1], b"x")
        [cqe] = go.wait()
        assert cqe.more
        assert cqe.res == select.POLLIN
    cqe = go.cancel(number)
    assert not cqe.more


def test_a_poll_s_events_are_changed(go: Any, pipe: tuple[int, int]) -> None:
    number = go.start("poll_add", pipe[1], select.POLLIN)
    change = go.start("poll_update", number, 0, select.POLLOUT, PollFlags.UPDATE_EVENTS)
    assert {c.user_data: c.res for c in go.wait(2)} == {change: 0, number: select.POLLOUT}


def test_a_poll_s_user_data_is_changed(go: Any, ring: Ring, pipe: tuple[int, int]) -> None:
    number = go.start("poll_add", pipe[0], select.POLLIN)
    assert go("poll_update", number, 4242, 0, PollFlags.UPDATE_USER_DATA).check() == 0
    os.write(pipe[1], b"x")
    [cqe] = go.wait()
    assert (cqe.user_data, cqe.res) == (4242, select.POLLIN)
    assert ring.in_flight == 0  # nothing will come under the old number


def test_a_timeout_runs_out(go: Any) -> None:
    began = time.monotonic()
    cqe = go("timeout", 0.01)
    assert cqe.res == -errno.ETIME
    assert time.monotonic() - began >= 0.01
    assert go("timeout", time.monotonic() + 0.01, 0, TimeoutFlags.ABS).res == -errno.ETIME
    assert go("timeout", 0).res == -errno.ETIME


@pytest.mark.parametrize(
    ("flag", "clock"), [("REALTIME", time.CLOCK_REALTIME), ("BOOTTIME", time.CLOCK_BOOTTIME)]
)
def test_a_timeout_by_another_clock(go: Any, flag: str, clock: int) -> None:
    cqe = go("timeout", time.clock_gettime(clock) + 0.005, 0, TimeoutFlags.ABS | TimeoutFlags[flag])
    if cqe.res == -errno.EINVAL:
        pytest.skip(f"this kernel has no {flag} timeouts")
    assert cqe.res == -errno.ETIME


def test_a_timeout_by_count(go: Any) -> None:
    number = go.start("timeout", 60, 2)
    go.start("nop")
    go.start("nop")
    assert {c.user_data: c.res for c in go.wait(3)}[number] == 0


def test_a_multishot_timeout(go: Any) -> None:
    number = go.start("timeout", 0.001, 2, TimeoutFlags.MULTISHOT)
    [first] = go.wait()
    if first.res == -errno.EINVAL:
        pytest.skip("this kernel has no multishot timeouts")
    [second] = go.wait()
    assert [(c.user_data, c.res, c.more) for c in (first, second)] == [
        (number, -errno.ETIME, True),
        (number, -errno.ETIME, False),
    ]


def test_a_timeout_removed(go: Any) -> None:
    number = go.start("timeout", 60)
    removal = go.start("timeout_remove", number)
    assert {c.user_data: c.res for c in go.wait(2)} == {number: -errno.ECANCELED, removal: 0}
    with pytest.raises(CancelNotFound):
        go("timeout_remove", number).check()


def test_a_timeout_updated(go: Any) -> None:
    number = go.start("timeout", 60)
    update = go.start("timeout_update", 0.001, number)
    assert {c.user_data: c.res for c in go.wait(2)} == {number: -errno.ETIME, update: 0}


def linked(ring: Ring, reader: int, seconds: float) -> tuple[int, int]:
    """A read of an empty pipe with a link timeout."""
    sqe = ring.get_sqe()
    sqe.prep_read(reader, bytearray(8))
    sqe.flags = SqeFlags.IO_LINK
    limit = ring.get_sqe()
    limit.prep_link_timeout(seconds)
    numbers = sqe.user_data, limit.user_data
    assert ring.submit() == 2
    return numbers


def test_a_link_timeout(go: Any, ring: Ring, pipe: tuple[int, int]) -> None:
    read, limit = linked(ring, pipe[0], 0.005)
    assert {c.user_data: c.res for c in go.wait(2)} == {read: -errno.ECANCELED, limit: -errno.ETIME}


def test_a_link_timeout_that_was_not_needed(go: Any, ring: Ring, pipe: tuple[int, int]) -> None:
    read, limit = linked(ring, pipe[0], 60)
    os.write(pipe[1], b"abc")
    assert {c.user_data: c.res for c in go.wait(2)} == {read: 3, limit: -errno.ECANCELED}


def test_a_link_timeout_updated(go: Any, ring: Ring, pipe: tuple[int, int]) -> None:
    read, limit = linked(ring, pipe[0], 60)
    update = go.start("timeout_update", 0.001, limit, TimeoutFlags.LINK_UPDATE)
    results = {c.user_data: c.res for c in go.wait(1)}
    if results.get(update) == -errno.EINVAL:
        go.cancel(read)
        pytest.skip("this kernel updates no link timeouts")
    results |= {c.user_data: c.res for c in go.wait(3 - len(results))}
    assert results == {read: -errno.ECANCELED, limit: -errno.ETIME, update: 0}
