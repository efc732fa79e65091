"""facts.md 3: io_uring_register_sync_cancel, what it answers and what it waits for."""

from __future__ import annotations

import array
import os
import select
from collections.abc import Callable
from pathlib import Path

import pytest

from iocancel import CancelNotFound, CancelTimeout, FeatureUnavailable
from iocancel.uring import CancelFlags, Opcode, SetupFlags, SqeFlags, cancel_flags

from ..support import need, until_blocked
from .helpers import INTERRUPTED, Asked, need_flags, need_op

CANCELED, NOENT, BADF = -125, -2, 9
ALL, FD, ANY, FD_FIXED, USERDATA, OP = CancelFlags


@pytest.fixture(autouse=True)
def has_it(request: pytest.FixtureRequest) -> None:
    if "without" not in request.node.name:
        need(FD_FIXED in cancel_flags(), "synchronous cancels are of Linux 6.0, as is FD_FIXED")


@pytest.fixture
def polls(asked: Asked, pipe: tuple[int, int], pipes: Callable[[], tuple[int, int]]) -> Asked:
    """Polls 1, 1, 2 on a pipe, read 3 on another."""
    for user_data in (1, 1, 2):
        asked.put(user_data, "poll_add", pipe[0], select.POLLIN)
    asked.put(3, "read", pipes()[0], bytearray(8))
    asked.ring.submit()
    return asked


@pytest.fixture
def running(asked: Asked, fifo: Path) -> Asked:
    """A ring with the open of a FIFO, number 1, in a worker."""
    asked.go(1, "openat", None, fifo, os.O_RDONLY, flags=SqeFlags.ASYNC)
    until_blocked("wait_for_partner")
    return asked


def test_without_it_there_is_a_clear_exception(asked: Asked) -> None:
    if FD_FIXED in cancel_flags():
        with pytest.raises(CancelNotFound):
            asked.ring.register_sync_cancel(1)
        return
    with pytest.raises(FeatureUnavailable, match="SYNC_CANCEL needs Linux 6"):
        asked.ring.register_sync_cancel(1)


def test_one_match_is_0(polls: Asked) -> None:
    assert polls.ring.register_sync_cancel(2) == 0
    assert polls.ring.cq_ready == 1  # visible at return (3.5)
    assert polls.end(2) == CANCELED
    assert polls.pending(1, 3)
    assert polls.ring.register_sync_cancel(1) == 0
    assert polls.end(1) == CANCELED
    assert polls.pending(1, 3)


def test_all_counts(polls: Asked) -> None:
    assert polls.ring.register_sync_cancel(1, flags=ALL) == 2
    assert polls.ends(1, 2) == [CANCELED] * 2
    assert polls.ring.register_sync_cancel(1, flags=ALL) == 0
    assert polls.pending(2, 3)


def test_any_counts_everything(polls: Asked) -> None:
    assert polls.ring.register_sync_cancel(flags=ANY) == 4
    assert polls.ends(1, 2) + [polls.end(2), polls.end(3)] == [CANCELED] * 4
    assert polls.ring.register_sync_cancel(flags=ANY) == 0


def test_by_fd(polls: Asked, pipe: tuple[int, int]) -> None:
    assert polls.ring.register_sync_cancel(fd=pipe[0], flags=ALL) == 3
    assert polls.ends(1, 2) + [polls.end(2)] == [CANCELED] * 3
    with pytest.raises(CancelNotFound):
        polls.ring.register_sync_cancel(fd=pipe[0])
    assert polls.pending(3)


def test_by_fixed_fd(polls: Asked, pipe: tuple[int, int]) -> None:
    polls.ring.register_files([-1, pipe[0]])
    assert polls.ring.register_sync_cancel(fd=1, flags=FD_FIXED) == 0
    for slot in (0, 70):
        with pytest.raises(OSError) as caught:
            polls.ring.register_sync_cancel(fd=slot, flags=FD_FIXED)
        assert caught.value.errno == BADF


def test_by_opcode_and_by_two_keys(polls: Asked, pipe: tuple[int, int]) -> None:
    need_flags(OP | USERDATA)
    assert polls.ring.register_sync_cancel(opcode=Opcode.READ) == 0
    assert polls.end(3) == CANCELED
    with pytest.raises(CancelNotFound):
        polls.ring.register_sync_cancel(77, fd=pipe[0], flags=USERDATA)
    with pytest.raises(CancelNotFound):
        polls.ring.register_sync_cancel(fd=pipe[0], opcode=Opcode.READ)
    assert polls.ring.register_sync_cancel(2, fd=pipe[0], opcode=Opcode.POLL_ADD, flags=USERDATA) == 0
    assert polls.end(2) == CANCELED
    assert polls.pending(1)


def test_fd_and_any_is_taken_here(polls: Asked, pipes: Callable[[], tuple[int, int]]) -> None:
    assert polls.ring.register_sync_cancel(fd=pipes()[0], flags=ANY) == 4


def test_op_and_any_is_taken_here(polls: Asked) -> None:
    need_flags(OP)
    assert polls.ring.register_sync_cancel(flags=ANY, opcode=Opcode.RECV) == 4


def test_nothing_is_enoent(polls: Asked) -> None:
    with pytest.raises(CancelNotFound) as caught:
        polls.ring.register_sync_cancel(77)
    assert caught.value.errno == -NOENT
    assert polls.ring.register_sync_cancel(77, flags=ALL) == 0
    assert polls.pending(1, 2, 3)


def test_a_bad_fd_is_ebadf(polls: Asked) -> None:
    closed = os.dup(0)
    os.close(closed)
    with pytest.raises(OSError) as caught:
        polls.ring.register_sync_cancel(fd=closed)
    assert caught.value.errno == BADF


@pytest.mark.parametrize("flags", [64, 1 << 31])
def test_unknown_flags_are_refused(asked: Asked, flags: int) -> None:
    with pytest.raises(ValueError, match="does not know"):
        asked.ring.register_sync_cancel(1, flags=flags)


def test_a_futex_is_cancelled(asked: Asked) -> None:
    need_op(asked.ring, Opcode.FUTEX_WAIT)
    word = array.array("I", [0])
    asked.go(1, "futex_wait", word, 0)
    assert asked.ring.register_sync_cancel(1) in (0, 1)  # the entry's answer is 1 (facts 2.4)
    assert asked.end(1) == CANCELED


def test_it_works_on_a_disabled_ring(open_ring: Callable[..., Asked]) -> None:
    asked = open_ring(8, SetupFlags.R_DISABLED)
    with pytest.raises(CancelNotFound):
        asked.ring.register_sync_cancel(1)
    assert asked.ring.register_sync_cancel(flags=ANY) == 0
    asked.ring.enable()
    assert asked.ask("nop") == 0


def test_iopoll_rings_answer_not_found(open_ring: Callable[..., Asked]) -> None:
    asked = open_ring(8, SetupFlags.IOPOLL)
    with pytest.raises(CancelNotFound):
        asked.ring.register_sync_cancel(1)


def test_it_waits_for_what_runs(running: Asked) -> None:
    try:
        assert running.ring.register_sync_cancel(1) == 0
    except CancelNotFound:  # 1 of 2,000: it had ended when it was looked for again (facts 3.5)
        pass
    assert running.ring.cq_ready == 1
    assert running.end(1) in INTERRUPTED


def test_a_timeout_of_0_is_over_at_once(asked: Asked, fifo: Path) -> None:
    for _ in range(20):
        asked.go(1, "openat", None, fifo, os.O_RDONLY, flags=SqeFlags.ASYNC)
        until_blocked("wait_for_partner")
        answer: object
        try:
            answer = asked.ring.register_sync_cancel(1, timeout=0)
        except (CancelTimeout, CancelNotFound) as error:
            answer = error
        assert asked.end(1) in INTERRUPTED  # interrupted all the same (3.3)
        if isinstance(answer, CancelTimeout):
            assert isinstance(answer, TimeoutError)
            return
        # It had ended before the second look (0), or was not found (3.5: 1 of 2,000, more under load).
        assert answer == 0 or isinstance(answer, CancelNotFound)
    pytest.fail("it never ran out of time")


@pytest.mark.parametrize("flags", [ALL, ANY])
def test_all_and_any_never_wait(running: Asked, flags: CancelFlags) -> None:
    assert running.ring.register_sync_cancel(1, flags=flags, timeout=0) in (0, 1)  # 1 on 6.1 (facts 2.6)
    assert running.end(1) in INTERRUPTED


def test_a_timeout_does_not_matter_for_what_is_armed(polls: Asked) -> None:
    assert polls.ring.register_sync_cancel(2, timeout=0) == 0
    assert polls.end(2) == CANCELED
