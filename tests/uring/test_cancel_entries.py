"""The requests that cancel: what they refuse before submitting, and how their answers become exceptions."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from typing import Any

import pytest

from iocancel import errors, uring
from iocancel.uring import CancelFlags, Cqe, Opcode, Ring, SqeFlags

from ..support import BOUND


@pytest.fixture
def ring() -> Iterator[Ring]:
    with Ring(32) as ring:
        yield ring


def poll(ring: Ring, fd: int, *, user_data: int | None = None, data: Any = None) -> None:
    sqe = ring.get_sqe()
    sqe.prep_poll_add(fd, select.POLLIN)
    if user_data is not None:
        sqe.user_data = user_data
    sqe.data = data


def run(ring: Ring, n: int) -> list[Cqe]:
    ring.submit()
    cqes = ring.wait(n, BOUND)
    assert len(cqes) == n
    return cqes


def test_combinations_that_no_entry_takes_are_refused_before_submitting(ring: Ring) -> None:
    sqe: Any = ring.get_sqe()
    refused: list[Any] = [
        lambda: sqe.prep_cancel_fd(0, CancelFlags.ANY),
        lambda: sqe.prep_cancel64(1, CancelFlags.ANY | CancelFlags.OP, opcode=1),
        lambda: sqe.prep_cancel64(1, CancelFlags.FD),
        lambda: sqe.prep_cancel(object(), CancelFlags.FD),
        lambda: sqe.prep_cancel64(1, CancelFlags.OP),
        lambda: sqe.prep_cancel_fd(0, CancelFlags.USERDATA),
        lambda: sqe.prep_cancel64(1, opcode=256),
        lambda: sqe.prep_cancel64(1, 64),
    ]
    for call in refused:
        with pytest.raises(ValueError):
            call()
    wrong: list[Any] = [
        lambda: sqe.prep_cancel64(1, SqeFlags.IO_DRAIN),
        lambda: sqe.prep_cancel_fd(0, SqeFlags.IO_DRAIN),
        lambda: sqe.prep_cancel64("x"),
        lambda: sqe.prep_cancel64(True),
        lambda: sqe.prep_cancel64(1, opcode="READ"),
        lambda: sqe.prep_cancel_fd(0, user_data="x"),
        lambda: sqe.prep_cancel_fd(1.5),
        lambda: sqe.prep_cancel_fd(object()),
    ]
    for call in wrong:
        with pytest.raises(TypeError):
            call()
    for call in (lambda: sqe.prep_cancel64(1 << 64), lambda: sqe.prep_cancel_fd(0, user_data=-1)):
        with pytest.raises(OverflowError):
            call()
    assert sqe.opcode == Opcode.NOP  # nothing of it stuck
    assert run(ring, 1)[0].res == 0


def test_cancel_by_object(ring: Ring, pipe: tuple[int, int]) -> None:
    first, second = ["equal"], ["equal"]  # equal, but not the same object
    poll(ring, pipe[0], data=first)
    poll(ring, pipe[0], data=second)
    ring.submit()
    sqe = ring.get_sqe()
    sqe.prep_cancel(second)
    sqe.data = "the cancel"
    by_data = {id(cqe.data): cqe for cqe in run(ring, 2)}
    assert by_data[id(second)].res == -errno.ECANCELED
    assert by_data[id("the cancel")].check() == 0
    with pytest.raises(errors.OperationCancelled):
        by_data[id(second)].check()
    sqe = ring.get_sqe()
    sqe.prep_cancel(second)  # it has ended
    [cqe] = run(ring, 1)
    with pytest.raises(errors.CancelNotFound):
        cqe.check()
    sqe = ring.get_sqe()
    sqe.prep_cancel(first)
    assert {cqe.res for cqe in run(ring, 2)} == {0, -errno.ECANCELED}


def test_cancel_by_object_in_the_same_round(ring: Ring, pipe: tuple[int, int]) -> None:
    mark = object()
    poll(ring, pipe[0], data=mark)
    sqe = ring.get_sqe()
    sqe.prep_cancel(mark)
    assert sorted(cqe.res for cqe in run(ring, 2)) == [-errno.ECANCELED, 0]


def test_requests_with_one_object_are_cancelled_together(ring: Ring, pipe: tuple[int, int]) -> None:
    if not uring.cancel_flags() & CancelFlags.ALL:
        pytest.skip("IORING_ASYNC_CANCEL_ALL needs Linux 5.19")
    mark = object()
    for _ in range(3):
        poll(ring, pipe[0], data=mark)
    poll(ring, pipe[0], user_data=1)
    ring.submit()
    sqe = ring.get_sqe()
    sqe.prep_cancel(mark, CancelFlags.ALL)
    sqe.user_data = 2
    cqes = run(ring, 4)
    assert [cqe.res for cqe in cqes if cqe.user_data == 2] == [3]
    assert [cqe.data for cqe in cqes if cqe.user_data != 2] == [mark] * 3
    sqe = ring.get_sqe()
    sqe.prep_cancel64(1)
    run(ring, 2)
    assert ring.in_flight == 0


def test_file_objects_are_taken_and_kept(ring: Ring) -> None:
    if not uring.cancel_flags() & CancelFlags.FD:
        pytest.skip("IORING_ASYNC_CANCEL_FD needs Linux 5.19")
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as reader, os.fdopen(write_end, "wb"):
        poll(ring, read_end, user_data=1)
        ring.submit()
        sqe = ring.get_sqe()
        sqe.prep_cancel_fd(reader)
        assert sorted(cqe.res for cqe in run(ring, 2)) == [-errno.ECANCELED, 0]


def test_refused_flags_become_feature_unavailable_where_the_kernel_lacks_them(
    ring: Ring, pipe: tuple[int, int]
) -> None:
    works = uring.cancel_flags()
    for flag in CancelFlags:
        sqe = ring.get_sqe()
        try:
            if flag & (CancelFlags.FD | CancelFlags.FD_FIXED):
                sqe.prep_cancel_fd(pipe[0], flag)
            else:
                sqe.prep_cancel64(1, flag, opcode=Opcode.READ if flag is CancelFlags.OP else None)
        except errors.FeatureUnavailable as refused:
            if works & flag or "IORING_ASYNC_CANCEL" not in refused.feature:
                raise
            sqe.prep_nop()
            run(ring, 1)
            continue
        [cqe] = run(ring, 1)
        if works & flag or (flag is CancelFlags.USERDATA and cqe.res == -errno.ENOENT):
            # (Debian's 6.1 acts on USERDATA by itself, but beside FD cancels by the fd alone.)
            assert cqe.res in (0, -errno.ENOENT, -errno.EBADF)
        else:
            assert cqe.res == -errno.EINVAL
            with pytest.raises(errors.FeatureUnavailable, match="needs Linux"):
                cqe.check()


def test_the_answers_become_exceptions() -> None:
    call = "io_uring_prep_cancel64"
    for res, kind in ((-errno.ENOENT, errors.CancelNotFound), (-errno.EALREADY, errors.CancelTooLate)):
        with pytest.raises(kind) as caught:
            Cqe(1, res, 0, None, call).check()
        assert caught.value.errno == -res
        assert type(caught.value) is kind
    with pytest.raises(OSError) as plain:
        Cqe(1, -errno.ENOENT, 0).check()  # nobody knows of what
    assert type(plain.value) is OSError
    with pytest.raises(FileNotFoundError):
        Cqe(1, -errno.ENOENT, 0, None, "io_uring_prep_openat").check()
    with pytest.raises(OSError) as ran_out:
        Cqe(1, -errno.ETIME, 0, None, "io_uring_prep_timeout").check()
    assert ran_out.value.errno == errno.ETIME
    with pytest.raises(InterruptedError):
        Cqe(1, -512, 0, None, "io_uring_prep_openat").check()


def test_what_a_completion_says_of_itself() -> None:
    cqe = Cqe(1, 4, (5 << 16) | 1 | 2, "data", "io_uring_prep_recv")
    assert cqe.more
    assert not cqe.notification
    assert cqe.buffer_id == 5
    assert cqe == Cqe(1, 4, (5 << 16) | 1 | 2, "data", "io_uring_prep_recv")
    assert cqe != Cqe(1, 4, 0)
    assert cqe != 1
    assert len({cqe, Cqe(1, 4, (5 << 16) | 1 | 2, "data", "io_uring_prep_recv")}) == 1
    assert repr(cqe) == "<Cqe prep_recv user_data=1 res=4 BUFFER|MORE buffer_id=5>"
    assert "-ECANCELED" in repr(Cqe(1, -errno.ECANCELED, 0))
    assert Cqe(1, 0, 0).buffer_id is None
