"""facts.md 2.5: cancels and links, link timeouts, IO_DRAIN; and targets inside of these (2.4)."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from iocancel import CancelNotFound
from iocancel.uring import CancelFlags, Features, SqeFlags

from ..support import blocked_in, until
from .helpers import INTERRUPTED, RUNS, Asked, need_flags

CANCELED, NOENT, ALREADY, TIME = -125, -2, -114, -62
LINK, HARDLINK, DRAIN = SqeFlags.IO_LINK, SqeFlags.IO_HARDLINK, SqeFlags.IO_DRAIN


def test_followers_of_a_cancelled_head_are_cancelled(asked: Asked, pipe: tuple[int, int]) -> None:
    asked.put(1, "read", pipe[0], bytearray(8), flags=LINK)
    asked.put(2, "nop", flags=LINK)
    asked.put(3, "nop")
    asked.ring.submit()
    assert asked.pending(1, 2, 3)
    assert asked.cancel(1) == 0
    assert [asked.end(n) for n in (1, 2, 3)] == [CANCELED] * 3


def test_the_follower_of_a_hard_link_runs(asked: Asked, pipe: tuple[int, int]) -> None:
    asked.put(1, "read", pipe[0], bytearray(8), flags=HARDLINK)
    asked.put(2, "nop")
    asked.ring.submit()
    assert asked.cancel(1) == 0
    assert asked.end(1) == CANCELED
    assert asked.end(2) == 0


@pytest.mark.parametrize("link", [LINK, HARDLINK])
def test_a_member_that_has_not_started_is_not_found(
    asked: Asked, pipe: tuple[int, int], link: SqeFlags
) -> None:
    asked.put(1, "read", pipe[0], bytearray(8), flags=link)
    asked.put(2, "poll_add", pipe[0], select.POLLIN)
    asked.ring.submit()
    assert asked.cancel(2) == NOENT
    assert asked.pending(1, 2)
    assert asked.cancel(1) == 0
    assert asked.end(1) == CANCELED
    if link == LINK:
        assert asked.end(2) == CANCELED
    else:  # it runs now, and so is found
        assert asked.cancel(2) == 0
        assert asked.end(2) == CANCELED


def test_head_and_link_timeout_are_both_cancelled(asked: Asked, pipe: tuple[int, int]) -> None:
    asked.put(1, "read", pipe[0], bytearray(8), flags=LINK)
    asked.put(2, "link_timeout", 3600.0)
    asked.ring.submit()
    assert asked.cancel(1) == 0
    assert asked.end(1) == CANCELED
    assert asked.end(2) == CANCELED


def test_a_link_timeout_itself_is_not_found(asked: Asked, pipe: tuple[int, int]) -> None:
    asked.put(1, "read", pipe[0], bytearray(8), flags=LINK)
    asked.put(2, "link_timeout", 3600.0)
    asked.ring.submit()
    assert asked.cancel(2) == NOENT
    assert asked.ask("timeout_remove", 2) in (NOENT, ALREADY)
    assert asked.pending(1, 2)


def test_a_link_timeout_fires(asked: Asked, pipe: tuple[int, int]) -> None:
    asked.put(1, "read", pipe[0], bytearray(8), flags=LINK)
    asked.put(2, "link_timeout", 0.001)
    asked.ring.submit()
    assert asked.end(2) == TIME
    assert asked.end(1) == CANCELED


def test_a_link_timeout_of_what_ended_before_is_cancelled(asked: Asked, pipe: tuple[int, int]) -> None:
    asked.put(1, "read", pipe[0], bytearray(8), flags=LINK)
    asked.put(2, "link_timeout", 3600.0)
    asked.ring.submit()
    os.write(pipe[1], b"x")
    assert asked.end(1) == 1
    assert asked.end(2) == CANCELED


def test_a_link_timeout_does_not_fire_while_its_head_runs_in_a_worker(asked: Asked, fifo: Path) -> None:
    """Its clock starts only when the head's first attempt returns, and that is the blocking one."""
    asked.put(1, "openat", None, fifo, os.O_RDONLY, flags=LINK | SqeFlags.ASYNC)
    asked.put(2, "link_timeout", 0.001)
    asked.ring.submit()
    until(lambda: blocked_in("wait_for_partner", "S") or not asked.pending(1, 2), "the open blocks")
    # Not a wait for time: a later timer's end says that an armed earlier one would have ended, too.
    asked.go(3, "timeout", 0.2)
    assert asked.end(3) == TIME
    if Features.CQE_SKIP not in asked.ring.features and not asked.pending(1, 2):
        # 5.15's io_uring, in Debian's 5.10, arms it before: it fires, and can but interrupt.
        assert asked.end(2) in (TIME, ALREADY)
        assert asked.end(1) in (*INTERRUPTED, CANCELED)
        return
    assert asked.pending(1, 2)
    assert asked.cancel(1) in RUNS
    assert asked.end(1) in INTERRUPTED
    assert asked.end(2) == CANCELED


def test_a_cancel_that_finds_nothing_severs_its_own_link(asked: Asked) -> None:
    asked.put(1, "cancel64", 77, flags=LINK)
    asked.put(2, "nop")
    asked.ring.submit()
    assert asked.end(1) == NOENT
    assert asked.end(2) == CANCELED


def test_a_cancel_that_finds_something_keeps_its_own_link(asked: Asked, pipe: tuple[int, int]) -> None:
    asked.go(5, "poll_add", pipe[0], select.POLLIN)
    asked.put(1, "cancel64", 5, flags=LINK)
    asked.put(2, "nop")
    asked.ring.submit()
    assert asked.end(1) == 0
    assert asked.end(2) == 0
    assert asked.end(5) == CANCELED


@pytest.mark.parametrize("flags", [CancelFlags.ALL, CancelFlags.ANY])
def test_0_of_all_keeps_the_link_too(asked: Asked, flags: CancelFlags) -> None:
    need_flags(flags)
    sqe = asked.put(1, "cancel64", 77, flags)
    sqe.flags = LINK
    asked.put(2, "nop")
    asked.ring.submit()
    assert asked.end(1) == 0
    assert asked.end(2) == 0


def test_a_cancel_linked_behind_its_target_waits_for_it(asked: Asked, pipe: tuple[int, int]) -> None:
    asked.put(1, "read", pipe[0], bytearray(1), flags=LINK)  # a short read would sever the link
    asked.put(2, "cancel64", 1)
    asked.ring.submit()
    assert asked.pending(1, 2)
    os.write(pipe[1], b"x")
    assert asked.end(1) == 1
    assert asked.end(2) == NOENT


def drained(asked: Asked, pipe: tuple[int, int]) -> None:
    """Poll 1 in flight, NOP 2 deferred behind it by IO_DRAIN, cancel 3 of the poll behind that."""
    asked.go(1, "poll_add", pipe[0], select.POLLIN)
    asked.go(2, "nop", flags=DRAIN)
    asked.go(3, "cancel64", 1)
    # A NOP would be deferred, too: that nothing comes is seen by a look, and by the next event.
    asked.told += asked.ring.peek()
    assert not asked.told


def test_a_cancel_behind_a_deferred_request_is_deferred(asked: Asked, pipe: tuple[int, int]) -> None:
    drained(asked, pipe)
    os.write(pipe[1], b"x")
    assert asked.end(1) == select.POLLIN  # and so the cancel did not reach it
    assert asked.end(2) == 0
    assert asked.end(3) == NOENT


def test_only_a_synchronous_cancel_breaks_it(asked: Asked, pipe: tuple[int, int]) -> None:
    need_flags(CancelFlags.FD_FIXED)  # of the same kernel, 6.0, as synchronous cancels
    drained(asked, pipe)
    with pytest.raises(CancelNotFound):
        asked.ring.register_sync_cancel(2)  # what is deferred is not found either
    assert asked.ring.register_sync_cancel(1) == 0
    assert asked.end(1) == CANCELED
    assert asked.end(2) == 0
    assert asked.end(3) == NOENT


def test_a_draining_cancel_waits_for_its_target(asked: Asked, pipe: tuple[int, int]) -> None:
    asked.go(1, "poll_add", pipe[0], select.POLLIN)
    asked.go(2, "cancel64", 1, flags=DRAIN)
    asked.told += asked.ring.peek()
    assert not asked.told
    os.write(pipe[1], b"x")
    assert asked.end(1) == select.POLLIN
    assert asked.end(2) == NOENT
