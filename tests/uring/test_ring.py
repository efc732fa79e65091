"""The ring: its arguments, its queues, its threads."""

from __future__ import annotations

import errno
import os
import select
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from iocancel import errors
from iocancel.uring import CancelFlags, Cqe, Features, Ring, SetupFlags, SqeFlags

from ..support import BOUND


@pytest.fixture
def ring() -> Iterator[Ring]:
    with Ring(8) as ring:
        yield ring


def nop(ring: Ring, user_data: int | None = None) -> None:
    sqe = ring.get_sqe()
    sqe.prep_nop()
    if user_data is not None:
        sqe.user_data = user_data


def test_a_fresh_entry_is_a_nop(ring: Ring) -> None:
    ring.get_sqe()
    assert ring.submit() == 1
    [cqe] = ring.wait(timeout=BOUND)
    assert (cqe.res, cqe.call) == (0, "io_uring_prep_nop")


def test_what_the_user_sets_comes_back_and_what_not_is_unique(ring: Ring) -> None:
    nop(ring, 7)
    nop(ring, (1 << 64) - 1)
    nop(ring)
    nop(ring)
    assert ring.submit() == 4
    numbers = [cqe.user_data for cqe in ring.wait(4, timeout=BOUND)]
    assert numbers[:2] == [7, (1 << 64) - 1]
    assert len(set(numbers)) == 4


def test_an_entry_is_dead_after_its_submit(ring: Ring) -> None:
    sqe = ring.get_sqe()
    ring.submit()
    for use in (sqe.prep_nop, lambda: setattr(sqe, "user_data", 1), lambda: setattr(sqe, "flags", 0)):
        with pytest.raises(ValueError, match="submitted already"):
            use()
    assert "submitted" in repr(sqe)
    assert len(ring.wait(timeout=BOUND)) == 1


def test_a_full_queue_says_so_and_loses_nothing(ring: Ring) -> None:
    for number in range(8):
        nop(ring, number)
    assert ring.sq_space_left == 0
    with pytest.raises(errors.QueueFull) as caught:
        ring.get_sqe()
    assert caught.value.errno == errno.EAGAIN
    assert "submit() first" in str(caught.value)
    assert ring.submit() == 8
    assert ring.sq_space_left == 8
    assert sorted(cqe.user_data for cqe in ring.wait(8, timeout=BOUND)) == list(range(8))


def test_an_invalid_entry_ends_the_round_and_the_rest_goes_next(ring: Ring) -> None:
    sqe = ring.get_sqe()
    sqe.prep_nop()
    sqe.personality = 77  # not registered: the kernel refuses the entry itself
    nop(ring, 2)
    assert ring.submit() == 1
    [cqe] = ring.wait(timeout=BOUND)
    assert cqe.res == -errno.EINVAL
    assert ring.sq_space_left == 7
    assert ring.submit() == 1
    assert [cqe.user_data for cqe in ring.wait(timeout=BOUND)] == [2]


def test_more_completions_than_the_queue_holds_all_arrive() -> None:
    with Ring(4, cq_entries=8) as ring:
        assert ring.cq_entries == 8
        for start in range(0, 400, 4):
            for number in range(start, start + 4):
                nop(ring, number)
            assert ring.submit() == 4
        assert sorted(cqe.user_data for cqe in ring.wait(8, timeout=BOUND)) == list(range(400))
        assert ring.cq_overflow == 0
        assert ring.cq_ready == 0


def test_waiting_ends_at_its_timeout(ring: Ring) -> None:
    assert ring.wait(timeout=0) == []
    assert ring.wait(timeout=0.001) == []
    assert ring.peek() == []
    nop(ring, 1)
    ring.submit()
    assert len(ring.wait(2, timeout=0.001)) == 1  # what had come is delivered


def test_submit_and_wait(ring: Ring) -> None:
    nop(ring, 1)
    nop(ring, 2)
    assert ring.submit_and_wait(2, timeout=BOUND) == 2
    assert ring.cq_ready == 2
    assert ring.submit_and_wait(2) == 0  # they are there already
    assert ring.submit_and_wait(3, timeout=0.001) == 0
    assert [cqe.user_data for cqe in ring.peek()] == [1, 2]


def test_submit_and_reap(ring: Ring, pipe: tuple[int, int]) -> None:
    nop(ring, 5)
    assert ring.submit_and_reap(1, timeout=BOUND) == [(5, 0, 0)]
    nop(ring, 6)
    assert ring.submit_and_reap(0) == [(6, 0, 0)]
    assert ring.submit_and_reap(1, timeout=0.001) == []
    buffer = bytearray(4)
    sqe = ring.get_sqe()
    sqe.prep_read(pipe[0], buffer)
    sqe.user_data = 9
    os.write(pipe[1], b"abcd")
    assert ring.submit_and_reap(1, timeout=BOUND) == [(9, 4, 0)]
    buffer.append(0)  # not pinned any more
    assert ring.in_flight == 0


def test_waiting_without_ext_arg_polls_the_ring(ring: Ring, pipe: tuple[int, int]) -> None:
    # Kernels before 5.11 have no timeout in the wait: the path is forced here.
    ring._handle.ext_arg = 0
    assert ring.wait(timeout=0.001) == []
    nop(ring, 1)
    nop(ring, 2)
    ring.submit()
    assert len(ring.wait(2, timeout=BOUND)) == 2
    sqe = ring.get_sqe()
    sqe.prep_poll_add(pipe[0], select.POLLIN)
    ring.submit()
    thread = threading.Thread(target=os.write, args=(pipe[1], b"x"))
    thread.start()
    assert len(ring.wait(1, timeout=BOUND)) == 1
    thread.join()


def test_the_rings_fd_polls_readable(ring: Ring) -> None:
    poll = select.poll()
    poll.register(ring.fileno(), select.POLLIN)
    assert poll.poll(0) == []
    nop(ring)
    ring.submit()
    assert poll.poll(0) == [(ring.fileno(), select.POLLIN)]
    ring.wait(timeout=BOUND)


def test_what_a_ring_says_of_itself(ring: Ring) -> None:
    assert ring.sq_entries == 8
    assert ring.features & Features.NODROP
    assert ring.flags == SetupFlags(0)
    assert "in_flight=0" in repr(ring)
    assert ring.probe() is ring.probe()
    assert ring.probe().supports(0)
    assert not ring.probe().supports(255)
    assert "kinds of request" in repr(ring.probe())
    assert not ring.closed


def test_closed_rings_say_so() -> None:
    ring = Ring(4)
    ring.close()
    ring.close()
    assert ring.closed
    assert repr(ring) == "<Ring closed>"
    calls: list[Any] = [
        ring.fileno,
        ring.get_sqe,
        ring.submit,
        ring.wait,
        ring.peek,
        ring.probe,
        ring.enable,
        ring.submit_and_wait,
        ring.submit_and_reap,
        ring.register_sync_cancel,
        ring.unregister_files,
        ring.__enter__,
        lambda: ring.sq_space_left,
        lambda: ring.cq_overflow,
        lambda: ring.prep_nop_many([1]),
        lambda: ring.submit_poll_add(0, 1, 1),
        lambda: ring.submit_cancel64(1, 2),
        lambda: ring.register_buf_ring(1, 1),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="closed"):
            call()


@pytest.mark.parametrize("entries", [0, -1, 32769, 1 << 40])
def test_sizes_out_of_range(entries: int) -> None:
    with pytest.raises(ValueError, match="entries takes 1 to"):
        Ring(entries)
    with pytest.raises(ValueError, match="cq_entries"):
        Ring(4, cq_entries=entries if entries != 32769 else 65537)


def test_arguments_of_the_wrong_kind() -> None:
    with pytest.raises(TypeError, match="takes SetupFlags or int, not SqeFlags"):
        Ring(4, flags=SqeFlags.IO_LINK)
    with pytest.raises(ValueError, match="bits that SetupFlags does not know"):
        Ring(4, flags=1 << 30)
    for flag in (SetupFlags.SQE128, SetupFlags.CQE32, SetupFlags.NO_MMAP, SetupFlags.NO_SQARRAY):
        with pytest.raises(ValueError, match="not offered"):
            Ring(4, flags=flag)
    with pytest.raises(ValueError, match="cq_entries"):
        Ring(4, flags=SetupFlags.CQSIZE)
    with pytest.raises(ValueError, match="attach"):
        Ring(4, flags=SetupFlags.ATTACH_WQ)
    wrong: list[Any] = [{"entries": "4"}, {"entries": True}, {"cq_entries": 4.0}, {"attach": 3}]
    for arguments in wrong:
        with pytest.raises(TypeError):
            Ring(**{"entries": 4, **arguments})
    with pytest.raises(ValueError, match="sq_thread_idle"):
        Ring(4, sq_thread_idle=-1)


def test_waits_of_the_wrong_kind(ring: Ring) -> None:
    odd: Any
    for odd in ("1", 1.5, None):
        with pytest.raises(TypeError):
            ring.wait(odd)
    for odd in (-1, 17, 1 << 40):
        with pytest.raises(ValueError, match="n takes 0 to 16"):
            ring.wait(odd)
        with pytest.raises((ValueError, OverflowError)):
            ring.submit_cancel64(1, 2, n=odd)
    for odd in (-1, float("nan")):
        with pytest.raises(ValueError, match="timeout takes"):
            ring.wait(1, odd)
    for odd in ("1", True):
        with pytest.raises(TypeError):
            ring.wait(1, odd)
    nop(ring)
    assert ring.submit_and_wait(1, float("inf")) == 1
    assert len(ring.wait(1, 1e300)) == 1


def test_a_signal_handler_runs_while_waiting_and_its_exception_loses_nothing(
    ring: Ring, pipe: tuple[int, int]
) -> None:
    class Enough(Exception):
        pass

    def handler(*_: object) -> None:
        if not ring._reaper:  # too early: the wait has not begun
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            return
        os.write(pipe[1], b"x")
        raise Enough

    sqe = ring.get_sqe()
    sqe.prep_poll_add(pipe[0], select.POLLIN)
    sqe.user_data = 3
    ring.submit()
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(Enough):
            ring.wait(timeout=BOUND)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert [cqe.user_data for cqe in ring.wait(timeout=BOUND)] == [3]


def test_a_handler_that_returns_lets_the_wait_go_on(ring: Ring, pipe: tuple[int, int]) -> None:
    sqe = ring.get_sqe()
    sqe.prep_poll_add(pipe[0], select.POLLIN)
    ring.submit()
    before = signal.signal(signal.SIGALRM, lambda *_: os.write(pipe[1], b"x"))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert len(ring.wait(timeout=BOUND)) == 1
        assert ring.wait(timeout=0.01) == []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def in_thread(call: Any) -> BaseException | None:
    """Runs `call` in a thread of its own; what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(BOUND)
    assert not thread.is_alive()
    return raised[0] if raised else None


def test_one_thread_reaps_at_a_time_and_others_submit_meanwhile(ring: Ring) -> None:
    got: list[Cqe] = []
    entered = threading.Event()

    def reap() -> None:
        entered.set()
        got.extend(ring.wait(2, timeout=BOUND))

    thread = threading.Thread(target=reap)
    thread.start()
    entered.wait(BOUND)
    while not ring._reaper:  # the event came just before the wait
        pass
    with pytest.raises(RuntimeError, match="one at a time"):
        ring.peek()
    with pytest.raises(RuntimeError, match="one at a time"):
        ring.submit_cancel64(1, 2)
    nop(ring, 1)
    nop(ring, 2)
    ring.submit()
    thread.join(BOUND)
    assert [cqe.user_data for cqe in got] == [1, 2]


def test_a_single_issuers_ring_is_its_threads() -> None:
    try:
        ring = Ring(4, flags=SetupFlags.SINGLE_ISSUER)
    except errors.FeatureUnavailable as error:
        pytest.skip(str(error))
    with ring:
        for call in (ring.get_sqe, ring.submit, ring.peek, ring.register_sync_cancel, ring.close):
            raised = in_thread(call)
            assert isinstance(raised, errors.WrongThread)
            assert raised.errno == errno.EEXIST
        nop(ring)
        assert ring.submit_and_wait(1, timeout=BOUND) == 1


def test_a_disabled_ring_is_whose_thread_enables_it() -> None:
    try:
        ring = Ring(4, flags=SetupFlags.SINGLE_ISSUER | SetupFlags.R_DISABLED)
    except errors.FeatureUnavailable as error:
        pytest.skip(str(error))
    with ring:
        nop(ring, 1)
        with pytest.raises(OSError) as caught:
            ring.submit()
        assert caught.value.errno == errno.EBADFD
        ring.enable()
        assert ring.submit_and_reap(1, BOUND) == [(1, 0, 0)]


def test_rings_can_share_workers() -> None:
    with Ring(4) as first, Ring(4, attach=first) as second:
        nop(second, 1)
        assert second.submit_and_reap(1, BOUND) == [(1, 0, 0)]


@pytest.mark.parametrize(
    "flags",
    [
        SetupFlags.SQPOLL,
        SetupFlags.COOP_TASKRUN,
        SetupFlags.COOP_TASKRUN | SetupFlags.TASKRUN_FLAG,
        SetupFlags.SINGLE_ISSUER | SetupFlags.DEFER_TASKRUN,
        SetupFlags.SUBMIT_ALL,
        SetupFlags.CLAMP,
    ],
)
def test_cancelling_on_every_kind_of_ring(flags: SetupFlags, pipe: tuple[int, int]) -> None:
    try:
        ring = Ring(8, flags=flags, sq_thread_idle=10)
    except errors.FeatureUnavailable as error:
        pytest.skip(str(error))
    with ring:
        for turn in range(5):
            buffer = bytearray(4)
            sqe = ring.get_sqe()
            sqe.prep_read(pipe[0], buffer)
            sqe.user_data = 1 + turn
            assert ring.submit() == 1
            sqe = ring.get_sqe()
            sqe.prep_cancel64(1 + turn)
            sqe.user_data = 100
            assert ring.submit_and_wait(2, timeout=BOUND) == 1
            results = {cqe.user_data: cqe.res for cqe in ring.wait(2, timeout=BOUND)}
            assert results == {100: 0, 1 + turn: -errno.ECANCELED}
            buffer.append(0)


def test_get_sqe_on_a_ring_whose_thread_submits() -> None:
    with Ring(4, flags=SetupFlags.SQPOLL, sq_thread_idle=1000) as ring:
        done: list[int] = []
        for number in range(200):
            while True:
                try:
                    nop(ring, number)
                    break
                except errors.QueueFull:
                    assert ring.submit() >= 0
            ring.submit()
            done += [user_data for user_data, _, _ in ring.submit_and_reap(0)]
        while len(done) < 200:
            records = ring.submit_and_reap(1, BOUND)
            assert records
            done += [user_data for user_data, _, _ in records]
        assert sorted(done) == list(range(200))


def test_flags_of_the_wrong_kind_in_entries(ring: Ring) -> None:
    sqe = ring.get_sqe()
    for attribute in ("flags", "user_data", "personality", "buf_group"):
        for odd in ("1", None, 1.5):
            with pytest.raises(TypeError):
                setattr(sqe, attribute, odd)
    with pytest.raises(TypeError, match="takes SqeFlags or int, not CancelFlags"):
        sqe.flags = CancelFlags.FD
    for attribute in ("user_data", "personality", "buf_group"):
        for huge in (-1, 1 << 64, 1 << 200):
            with pytest.raises(OverflowError):
                setattr(sqe, attribute, huge)
    sqe.flags = SqeFlags.ASYNC
    assert sqe.flags is SqeFlags.ASYNC
    sqe.personality, sqe.buf_group = 0, 3
    assert (sqe.personality, sqe.buf_group, sqe.opcode) == (0, 3, 0)
    sqe.buf_group = 0
    ring.submit_and_wait(1, BOUND)
    ring.peek()
