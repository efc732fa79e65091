"""facts.md 2.3: what a cancel's own entry may hold, as far as the API can say it; and its completion."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable

import pytest

from iocancel import CancelNotFound
from iocancel.uring import CancelFlags, Features, Opcode, SetupFlags, SqeFlags

from ..support import need
from .helpers import Asked, need_flags

CANCELED, NOENT, INVAL, OPNOTSUPP = -125, -2, -22, -95


@pytest.fixture
def poll(asked: Asked, pipe: tuple[int, int]) -> Asked:
    """A ring with poll 1 in flight."""
    asked.go(1, "poll_add", pipe[0], select.POLLIN)
    return asked


def need_skip(asked: Asked) -> None:
    need(Features.CQE_SKIP in asked.ring.features, "CQE_SKIP_SUCCESS is of Linux 5.17")


def test_an_unregistered_personality_is_invalid(poll: Asked) -> None:
    poll.put(2, "cancel64", 1).personality = 77
    poll.ring.submit()
    assert poll.end(2) == INVAL
    assert poll.pending(1)


def test_a_registered_personality_is_taken(poll: Asked) -> None:
    number = poll.ring.register_personality()
    poll.put(2, "cancel64", 1).personality = number
    poll.ring.submit()
    assert poll.end(2) == 0
    assert poll.end(1) == CANCELED


def test_buffer_select_is_refused(poll: Asked) -> None:
    poll.go(2, "cancel64", 1, flags=SqeFlags.BUFFER_SELECT)
    assert poll.end(2) in (OPNOTSUPP, INVAL)  # 5.10: -EINVAL
    assert poll.pending(1)


def test_fixed_file_without_fd_is_ignored(poll: Asked) -> None:
    poll.go(2, "cancel64", 1, flags=SqeFlags.FIXED_FILE)
    res = poll.end(2)
    if res == INVAL:  # facts 2.6: of kernels before the cancel flags
        assert not Features.CQE_SKIP & poll.ring.features
        assert poll.pending(1)
        return
    assert res == 0
    assert poll.end(1) == CANCELED


def test_iopoll_rings_take_no_cancel(open_ring: Callable[..., Asked]) -> None:
    asked = open_ring(8, SetupFlags.IOPOLL)
    asked.go(2, "cancel64", 1)
    assert asked.end(2) == INVAL


def test_an_opcode_that_is_none(poll: Asked) -> None:
    need_flags(CancelFlags.OP)
    # 6.18 truncates it and looks for it; 7.2 refuses what is no opcode.
    assert poll.cancel(0, CancelFlags.OP, opcode=200) in (NOENT, INVAL)
    assert poll.pending(1)
    assert poll.cancel(0, CancelFlags.OP, opcode=Opcode.POLL_ADD) == 0


@pytest.mark.parametrize("opcode", [-1, 256, 1 << 40])
def test_opcodes_beyond_a_byte_are_refused(asked: Asked, opcode: int) -> None:
    with pytest.raises(ValueError, match="opcode takes 0 to 255"):
        asked.put(1, "cancel64", 1, CancelFlags.OP, opcode=opcode)


def test_skip_success_drops_the_cancels_own_completion(poll: Asked) -> None:
    need_skip(poll)
    poll.go(2, "cancel64", 1, flags=SqeFlags.CQE_SKIP_SUCCESS)
    assert poll.end(1) == CANCELED
    assert poll.pending(2)


def test_skip_success_does_not_drop_a_failure(poll: Asked) -> None:
    need_skip(poll)
    poll.go(2, "cancel64", 77, flags=SqeFlags.CQE_SKIP_SUCCESS)
    cqe = poll.last(2)
    assert cqe.res == NOENT
    assert poll.pending(1)


def test_skip_success_drops_a_count_too_and_0_of_all(poll: Asked) -> None:
    need_skip(poll)
    need_flags(CancelFlags.ALL)
    poll.go(2, "cancel64", 77, CancelFlags.ALL, flags=SqeFlags.CQE_SKIP_SUCCESS)
    poll.go(2, "cancel64", 1, CancelFlags.ALL, flags=SqeFlags.CQE_SKIP_SUCCESS)
    assert poll.end(1) == CANCELED
    assert poll.pending(2)


def test_a_cancelled_target_with_skip_success_has_its_completion(asked: Asked, pipe: tuple[int, int]) -> None:
    """-ECANCELED is no success."""
    need_skip(asked)
    asked.go(1, "poll_add", pipe[0], select.POLLIN, flags=SqeFlags.CQE_SKIP_SUCCESS)
    assert asked.cancel(1) == 0
    assert asked.end(1) == CANCELED
    asked.go(2, "poll_add", pipe[0], select.POLLIN, flags=SqeFlags.CQE_SKIP_SUCCESS)
    os.write(pipe[1], b"x")
    assert asked.pending(2)


def test_drain_on_a_ring_that_has_used_skip_success(asked: Asked) -> None:
    need_skip(asked)
    asked.go(1, "cancel64", 77, flags=SqeFlags.IO_DRAIN)
    assert asked.end(1) == NOENT
    asked.go(2, "nop", flags=SqeFlags.CQE_SKIP_SUCCESS)
    assert asked.pending(2)
    asked.go(3, "cancel64", 77, flags=SqeFlags.IO_DRAIN)
    assert asked.end(3) == OPNOTSUPP


def test_check_raises_by_the_call(asked: Asked) -> None:
    sqe = asked.put(1, "cancel64", 77)
    asked.ring.submit()
    cqe = asked.last(1)
    assert cqe.call == "io_uring_prep_cancel64"
    with pytest.raises(CancelNotFound) as caught:
        cqe.check()
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(ValueError, match="submitted already"):
        sqe.prep_nop()
