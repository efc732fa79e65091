"""The bulk forms and the hot paths: many requests in one call, one request without an object."""

from __future__ import annotations

import errno
import os
import select
import signal
import threading
from array import array
from typing import Any

import pytest

from iocancel import errors
from iocancel.uring import CancelFlags, Features, Ring, SetupFlags, SqeFlags

from ..support import BOUND


@pytest.mark.parametrize("numbers", [range(10), [3, 3, 3], array("Q", [1, 2]), iter([5])])
def test_many_nops(ring: Ring, numbers: Any) -> None:
    expected = sorted(numbers := list(numbers) if not isinstance(numbers, array | range) else numbers)
    assert ring.prep_nop_many(numbers) == len(expected)
    assert ring.sq_space_left == 64 - len(expected)
    records = ring.submit_and_reap(len(expected), BOUND)
    assert sorted(user_data for user_data, _, _ in records) == expected
    assert ring.prep_nop_many([]) == 0


def test_many_polls_and_many_cancels(ring: Ring, pipe: tuple[int, int]) -> None:
    assert ring.prep_poll_add_many([pipe[0]] * 20, select.POLLIN, range(20)) == 20
    assert ring.submit() == 20
    skip = SqeFlags.CQE_SKIP_SUCCESS if ring.features & Features.CQE_SKIP else SqeFlags(0)
    assert ring.prep_cancel64_many(range(19, -1, -1), 99, sqe_flags=skip) == 20
    records = ring.submit_and_reap(20 if skip else 40, BOUND)
    cancelled = [user_data for user_data, res, _ in records if res == -errno.ECANCELED]
    assert sorted(cancelled) == list(range(20))
    # Each cancel with a number of its own; nothing is there any more.
    assert ring.prep_cancel64_many([1, 2], [50, 51]) == 2
    assert sorted(ring.submit_and_reap(2, BOUND)) == [(50, -errno.ENOENT, 0), (51, -errno.ENOENT, 0)]


def test_what_was_prepared_goes_first(ring: Ring) -> None:
    sqe = ring.get_sqe()
    sqe.user_data = 1
    ring.prep_nop_many([2])
    ring.submit_poll_add(ring.fileno(), select.POLLIN, 3)  # ready at once: completions are there
    order = [user_data for user_data, _, _ in ring.submit_and_reap(3, BOUND)]
    assert order[:2] == [1, 2]
    sqe = ring.get_sqe()
    sqe.user_data = 4
    assert [r[:2] for r in ring.submit_cancel64(77, 5, n=2)] == [(4, 0), (5, -errno.ENOENT)]


def test_all_or_none(ring: Ring) -> None:
    with pytest.raises(errors.QueueFull, match="65 entries do not fit"):
        ring.prep_nop_many(range(65))
    assert ring.sq_space_left == 64
    ring.prep_nop_many(range(60))
    with pytest.raises(errors.QueueFull):
        ring.prep_nop_many(range(5))
    assert ring.submit() == 60
    assert len(ring.submit_and_reap(60, BOUND)) == 60


def test_columns_of_the_wrong_kind(ring: Ring) -> None:
    with pytest.raises(ValueError, match="one length"):
        ring.prep_poll_add_many([0], 1, [1, 2])
    with pytest.raises(OverflowError, match="user_data"):
        ring.prep_nop_many([1 << 64])
    with pytest.raises(OverflowError, match="fds"):
        ring.prep_poll_add_many([1 << 40], 1, [1])
    with pytest.raises(OverflowError):
        ring.prep_poll_add_many([0], 1 << 40, [1])
    wrong: Any
    for wrong in (["x"], [None], 3.5, object()):
        with pytest.raises(TypeError):
            ring.prep_nop_many(wrong)
    with pytest.raises(TypeError, match="takes CancelFlags"):
        ring.prep_cancel64_many([1], 2, SqeFlags.IO_LINK)
    with pytest.raises(ValueError, match="ALL and USERDATA"):
        ring.prep_cancel64_many([1], 2, CancelFlags.FD)
    with pytest.raises(ValueError, match="ALL and USERDATA"):
        ring.submit_cancel64(1, 2, CancelFlags.ANY)
    for wrong in (-1, 1 << 64):
        with pytest.raises(OverflowError):
            ring.submit_poll_add(0, 1, wrong)
        with pytest.raises(OverflowError):
            ring.submit_cancel64(wrong, 1)
        with pytest.raises(OverflowError):
            ring.prep_cancel64_many([1], wrong)
    for wrong in ("x", None, 1.5):
        with pytest.raises(TypeError):
            ring.submit_poll_add(wrong, 1, 1)
        with pytest.raises(TypeError):
            ring.submit_cancel64(wrong, 1)
    assert ring.peek() == []


def test_one_poll_and_its_cancel(ring: Ring, pipe: tuple[int, int]) -> None:
    for turn in range(10):
        assert ring.submit_poll_add(pipe[0], select.POLLIN, turn) == 1
        assert sorted(ring.submit_cancel64(turn, 100, n=2)) == [
            (turn, -errno.ECANCELED, 0),
            (100, 0, 0),
        ]
    assert ring.submit_cancel64(5, 5) == [(5, -errno.ENOENT, 0)]
    assert ring.submit_cancel64(5, 6, n=1) == [(6, -errno.ENOENT, 0)]
    assert ring.submit_poll_add(-1, select.POLLIN, 9) == 1
    assert ring.submit_and_reap(1, BOUND) == [(9, -errno.EBADF, 0)]
    ring.submit_poll_add(pipe[0], select.POLLIN, 1)
    ring.submit_poll_add(pipe[0], select.POLLIN, 1)
    if ring.features & Features.CQE_SKIP:  # as old as the flag
        records = ring.submit_cancel64(1, 2, CancelFlags.ALL, n=3)
        assert (2, 2, 0) in records or (2, -errno.EINVAL, 0) in records


def test_completions_between_hot_calls_are_neither_lost_nor_repeated(
    ring: Ring, pipe: tuple[int, int]
) -> None:
    os.write(pipe[1], b"x")
    seen: list[int] = []
    for turn in range(50):
        ring.submit_poll_add(pipe[0], select.POLLIN, 2 * turn)  # ends at once
        way = turn % 5
        if way == 0:
            seen += [r[0] for r in ring.submit_cancel64(10_000, 2 * turn + 1, n=2)]
        elif way == 1:
            seen += [r[0] for r in ring.submit_cancel64(10_000, 2 * turn + 1)]
        elif way == 2:
            seen += [cqe.user_data for cqe in ring.wait(1, BOUND)]
            seen += [r[0] for r in ring.submit_cancel64(10_000, 2 * turn + 1, n=1)]
        elif way == 3:
            seen += [r[0] for r in ring.submit_and_reap(1, BOUND)]
            seen.append(2 * turn + 1)
        else:
            assert ring.cq_ready >= 1
            seen += [cqe.user_data for cqe in ring.peek()]
            seen.append(2 * turn + 1)
    assert sorted(seen) == list(range(100))


def test_a_signal_in_a_hot_call_loses_nothing(ring: Ring, pipe: tuple[int, int]) -> None:
    class Enough(Exception):
        pass

    def handler(*_: object) -> None:
        if not ring._reaper:  # too early: the call has not begun
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            return
        raise Enough

    before = signal.signal(signal.SIGALRM, handler)
    try:
        ring.submit_poll_add(pipe[0], select.POLLIN, 1)
        ring.submit_cancel64(1, 2, n=2)  # leaves a token behind
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(Enough):
            ring.submit_cancel64(3, 4, n=2)  # only its own completion comes
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ring.submit_cancel64(3, 5, n=2) == [(4, -errno.ENOENT, 0), (5, -errno.ENOENT, 0)]
    assert ring.peek() == []


def test_bulk_calls_of_other_threads_rings() -> None:
    try:
        ring = Ring(8, flags=SetupFlags.SINGLE_ISSUER)
    except errors.FeatureUnavailable as error:
        pytest.skip(str(error))
    raised: list[BaseException] = []

    def run() -> None:
        for call in (
            lambda: ring.prep_nop_many([1]),
            lambda: ring.submit_poll_add(0, 1, 1),
            lambda: ring.submit_cancel64(0, 1),
        ):
            try:
                call()
            except errors.WrongThread as error:
                raised.append(error)

    with ring:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join(BOUND)
        assert len(raised) == 3
        assert ring.submit_cancel64(0, 1) == [(1, -errno.ENOENT, 0)]


def test_thousands_of_numbers_are_counted(ring: Ring, pipe: tuple[int, int]) -> None:
    # The table of numbers grows, shrinks and closes its gaps; whatever the order, each is found once.
    waiting: list[int] = []
    step = 0x9E3779B97F4A7C15
    numbers = [(i * step) & ((1 << 64) - 1) for i in range(1500)]
    for start in range(0, 1500, 50):
        part = numbers[start : start + 50]
        ring.prep_poll_add_many([pipe[0]] * 50, select.POLLIN, part)
        ring.submit()
        waiting += part
    for start in range(0, 1500, 50):
        targets = waiting[start::30][:50]
        ring.prep_cancel64_many(targets, 7)
        ring.submit_and_reap(0)
    ring.peek()
    buffer = bytearray(1)
    sqe = ring.get_sqe()
    sqe.prep_read(pipe[0], buffer)
    sqe.user_data = 7  # the cancels' number: all of them have come
    sqe.flags = SqeFlags.ASYNC
    os.write(pipe[1], b"x")
    ring.submit()
    while (7, 1, 0) not in ring.submit_and_reap(1, BOUND):
        pass
    buffer.append(0)
