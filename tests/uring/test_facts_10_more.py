"""facts.md 10: FIFOs, listeners, what is level-triggered; removing and updating polls and timers."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from iocancel import CancelNotFound, CancelTooLate
from iocancel.uring import CancelFlags, Opcode, PollFlags, SqeFlags, TimeoutFlags
from iocancel.uring.prep_wait import EPOLL_EVENT_SIZE, epoll_events

from ..support import until_blocked
from .helpers import INTERRUPTED, RING_KINDS, RUNS, Asked, need_flags, need_op

CANCELED, NOENT, ALREADY, TIME, INVAL, NXIO = -125, -2, -114, -62, -22, -6


# 10.1


def test_a_fifos_open_without_async_is_not_open_2(asked: Asked, fifo: Path) -> None:
    """For reading it succeeds with nobody there, and read(2) is at the end; for writing it is -ENXIO.

    So it is where the kernel has the name in its cache. Where it has not, the open goes to a worker, and
    blocks there as open(2) does (seen on 5.10 and 7.2 with ext4).
    """
    for user_data, mode in ((1, os.O_RDONLY), (2, os.O_WRONLY)):
        asked.go(user_data, "openat", None, fifo, mode)
        asked.told += asked.ring.peek()
        if not any(cqe.user_data == user_data for cqe in asked.told):
            until_blocked("wait_for_partner")
            assert asked.cancel(user_data) in RUNS
            assert asked.end(user_data) in INTERRUPTED
        elif mode == os.O_WRONLY:
            assert asked.end(user_data) == NXIO
        else:
            fd = asked.end(user_data)
            try:
                assert os.read(fd, 8) == b""
            finally:
                os.close(fd)


@pytest.mark.parametrize(("mode", "other"), [(os.O_RDONLY, os.O_WRONLY), (os.O_WRONLY, os.O_RDONLY)])
def test_with_async_it_blocks_as_open_2(asked: Asked, fifo: Path, mode: int, other: int) -> None:
    asked.go(1, "openat", None, fifo, mode, flags=SqeFlags.ASYNC)
    until_blocked("wait_for_partner")
    partner = os.open(fifo, other | os.O_NONBLOCK)
    fd = asked.end(1)
    os.close(partner)
    os.close(fd)


@pytest.mark.parametrize("mode", [os.O_RDONLY, os.O_WRONLY])
def test_with_async_it_can_be_cancelled(asked: Asked, fifo: Path, mode: int) -> None:
    asked.go(1, "openat", None, fifo, mode, flags=SqeFlags.ASYNC)
    until_blocked("wait_for_partner")
    assert asked.cancel(1) in RUNS
    assert asked.end(1) in INTERRUPTED


# 10.4


def test_a_synchronous_cancel_before_the_submit_finds_nothing(asked: Asked, pipe: tuple[int, int]) -> None:
    """It falls between the owner's last look and its enter: the request blocks all the same."""
    need_flags(CancelFlags.FD_FIXED)  # of the same kernel, 6.0
    asked.put(1, "read", pipe[0], bytearray(8))
    with pytest.raises(CancelNotFound):
        asked.ring.register_sync_cancel(1)
    asked.ring.submit()
    assert asked.pending(1)
    assert asked.ring.register_sync_cancel(1) == 0
    assert asked.end(1) == CANCELED


# 10.5


@pytest.mark.parametrize("kind", RING_KINDS)
def test_a_wait_that_ran_out_tells_what_was_submitted(
    open_ring: Callable[..., Asked], pipe: tuple[int, int], kind: str
) -> None:
    asked = open_ring(8, RING_KINDS[kind])
    asked.put(1, "read", pipe[0], bytearray(8))
    asked.put(2, "poll_add", pipe[0], select.POLLIN)
    assert asked.ring.submit_and_wait(1, 0.001) == 2
    assert asked.ring.peek() == []
    assert asked.ring.submit_and_wait(1, 0.001) == 0
    assert asked.ring.wait(1, 0) == []
    assert asked.pending(1, 2)


# 10.6


def test_an_armed_poll_keeps_a_closed_listeners_port(asked: Asked) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        asked.go(1, "poll_add", listener, select.POLLIN)
    with socket.socket() as other:
        with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
            other.bind(address)
        assert asked.cancel(1) == 0
        assert asked.end(1) == CANCELED
        other.bind(address)


def test_an_armed_poll_hides_a_pipes_end(asked: Asked, pipe: tuple[int, int]) -> None:
    asked.go(1, "poll_add", pipe[1], select.POLLERR)
    os.close(pipe[1])
    os.set_blocking(pipe[0], False)
    with pytest.raises(BlockingIOError):
        os.read(pipe[0], 8)
    assert asked.cancel(1) == 0
    assert asked.end(1) == CANCELED
    assert os.read(pipe[0], 8) == b""


# 10.7


def test_multishot_poll_does_not_repeat_for_what_is_left_unread(asked: Asked, pipe: tuple[int, int]) -> None:
    asked.go(1, "poll_multishot", pipe[0], select.POLLIN)
    os.write(pipe[1], b"xy")
    first = asked.next(1)
    assert first.res == select.POLLIN
    assert first.more
    assert asked.pending(1)
    assert os.read(pipe[0], 1) == b"x"
    assert asked.pending(1)  # one byte is still there, and nothing is said
    os.write(pipe[1], b"z")
    assert asked.next(1).more
    assert asked.cancel(1) == 0
    assert asked.end(1) == CANCELED


def test_level_triggered_polls_are_refused(asked: Asked, pipe: tuple[int, int]) -> None:
    """No call of ours makes a POLL_ADD with the LEVEL flag; an update with it is -EINVAL, too."""
    asked.go(1, "poll_add", pipe[0], select.POLLIN)
    flags = PollFlags.UPDATE_EVENTS | PollFlags.ADD_LEVEL
    assert asked.ask("poll_update", 1, 0, select.POLLIN, flags) == INVAL
    assert asked.pending(1)


def test_epoll_wait_is_level_triggered(asked: Asked, pipe: tuple[int, int]) -> None:
    need_op(asked.ring, Opcode.EPOLL_WAIT)
    with select.epoll() as epoll:
        epoll.register(pipe[0], select.EPOLLIN)
        events = bytearray(4 * EPOLL_EVENT_SIZE)
        os.write(pipe[1], b"xy")
        for _ in range(3):  # each time, as long as it is not read
            assert asked.ask("epoll_wait", epoll, events) == 1
            [(data, mask)] = epoll_events(events, 1)
            assert (data & 0xFFFFFFFF, mask) == (pipe[0], select.EPOLLIN)  # Python sets the lower half only
        os.read(pipe[0], 8)
        asked.go(1, "epoll_wait", epoll, events)
        assert asked.pending(1)
        os.write(pipe[1], b"z")
        assert asked.end(1) == 1


# Remove and update


def test_poll_remove(asked: Asked, pipe: tuple[int, int]) -> None:
    asked.go(1, "poll_add", pipe[0], select.POLLIN)
    asked.go(2, "poll_remove", 1)
    assert asked.end(2) == 0
    assert asked.end(1) == CANCELED
    asked.go(3, "poll_remove", 1)
    cqe = asked.last(3)
    assert cqe.res == NOENT
    with pytest.raises(CancelNotFound):
        cqe.check()


def test_poll_remove_is_for_polls_only(asked: Asked, pipe: tuple[int, int]) -> None:
    asked.go(1, "timeout", 3600.0)
    assert asked.ask("poll_remove", 1) == NOENT
    assert asked.ask("timeout_remove", 1) == 0
    asked.go(2, "poll_add", pipe[0], select.POLLIN)
    assert asked.ask("timeout_remove", 2) == NOENT
    assert asked.end(1) == CANCELED


def test_poll_update_of_events(asked: Asked, pipe: tuple[int, int]) -> None:
    asked.go(1, "poll_add", pipe[1], select.POLLERR)
    assert asked.ask("poll_update", 1, 0, select.POLLOUT, PollFlags.UPDATE_EVENTS) == 0
    assert asked.end(1) == select.POLLOUT  # it could be written to at once
    assert asked.ask("poll_update", 1, 0, select.POLLOUT, PollFlags.UPDATE_EVENTS) == NOENT


def test_poll_update_of_user_data(asked: Asked, pipe: tuple[int, int]) -> None:
    asked.go(1, "poll_add", pipe[0], select.POLLIN)
    assert asked.ask("poll_update", 1, 7, 0, PollFlags.UPDATE_USER_DATA) == 0
    assert asked.cancel(1) == NOENT
    assert asked.cancel(7) == 0
    assert asked.end(7) == CANCELED
    assert asked.pending(1)


def test_timeout_remove(asked: Asked) -> None:
    asked.go(1, "timeout", 3600.0)
    asked.go(2, "timeout_remove", 1)
    assert asked.end(2) == 0
    assert asked.end(1) == CANCELED
    assert asked.ask("timeout_remove", 1) == NOENT


def test_timeout_update(asked: Asked) -> None:
    asked.go(1, "timeout", 3600.0)
    assert asked.ask("timeout_update", 0.001, 1) == 0
    assert asked.end(1) == TIME
    assert asked.ask("timeout_update", 0.001, 1) == NOENT


def test_link_timeout_update(asked: Asked, pipe: tuple[int, int]) -> None:
    asked.put(1, "read", pipe[0], bytearray(8), flags=SqeFlags.IO_LINK)
    asked.put(2, "link_timeout", 3600.0)
    asked.ring.submit()
    assert asked.ask("timeout_update", 0.001, 2, TimeoutFlags.LINK_UPDATE) == 0
    assert asked.end(2) == TIME
    assert asked.end(1) == CANCELED


def test_a_timeout_for_completions_ends_with_them(asked: Asked) -> None:
    asked.go(1, "timeout", 3600.0, 1)
    assert asked.ask("nop") == 0
    assert asked.end(1) == 0
    asked.go(2, "timeout_remove", 1)
    cqe = asked.last(2)
    with pytest.raises(CancelNotFound):
        cqe.check()


def test_a_removal_of_what_runs_in_a_worker(asked: Asked, fifo: Path) -> None:
    """Neither removal is for it; a cancel is, and its exception says that it came too late."""
    asked.go(1, "openat", None, fifo, os.O_RDONLY, flags=SqeFlags.ASYNC)
    until_blocked("wait_for_partner")
    assert asked.ask("poll_remove", 1) == NOENT
    assert asked.ask("timeout_remove", 1) == NOENT
    asked.go(2, "cancel64", 1)
    cqe = asked.last(2)
    with pytest.raises(CancelTooLate):
        cqe.check()
    assert asked.end(1) in INTERRUPTED
