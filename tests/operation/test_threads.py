"""Many threads in one engine: who leads, who follows, who wakes whom. Orders are forced, never slept for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from iocancel import Outcome, Verdict
from iocancel.operation import core
from iocancel.testing import Answer, ScriptedEngine, ScriptError

from ..support import BOUND, until
from .helpers import Thread, running


@contextmanager
def leader(engine: ScriptedEngine, op: Any) -> Iterator[Thread]:
    """A thread that waits for `op`, and so leads; it is in the system when the block begins."""
    thread = Thread(lambda: op.wait(None)).start()
    engine.await_waiter(BOUND)
    assert engine._lead_thread == thread._thread.ident
    yield thread
    thread.join()


def following(engine: ScriptedEngine, many: int) -> None:
    """Wait until as many threads follow: each wakes the leader, who then waits in the system again."""
    with engine._carrier.changed:
        assert engine._carrier.changed.wait_for(lambda: len(engine._followers) >= many, BOUND)


def started(engine: ScriptedEngine, *ops: Any) -> list[Thread]:
    threads = []
    for op in ops:
        threads.append(Thread(lambda op=op: op.wait(None)).start())  # type: ignore[misc]
        following(engine, len(threads))
    return threads


def test_a_follower_is_woken_by_its_ending(engine: ScriptedEngine) -> None:
    a, b = engine.read(0, 8), engine.read(1, 8)
    with leader(engine, a):
        [thread] = started(engine, b)
        engine.complete(b, b"b")
        assert thread.join() is Outcome.COMPLETED
        assert b.result() == b"b"
        assert not a.done()
        engine.complete(a, b"a")
    assert a.result() == b"a"


def test_the_lead_is_handed_over(engine: ScriptedEngine) -> None:
    ops = [engine.read(fd, 8) for fd in range(4)]
    with leader(engine, ops[0]) as first:
        threads = started(engine, *ops[1:])
        engine.complete(ops[0], b"0")
        assert first.join() is Outcome.COMPLETED
    for number in (1, 2, 3):  # each in turn leads, and leaves
        engine.await_waiter(BOUND)
        ident = engine._lead_thread
        [at] = [i for i, thread in enumerate(threads, 1) if thread._thread.ident == ident]
        assert not ops[at].done()
        engine.complete(ops[at], b"x")
        assert threads[at - 1].join() is Outcome.COMPLETED
        assert sum(op.done() for op in ops) == number + 1
    assert engine._lead is None
    assert not engine._followers


def test_what_a_follower_prepares_is_handed_over_by_the_leader(engine: ScriptedEngine) -> None:
    a = engine.read(0, 8)
    with leader(engine, a):
        b = engine.read(1, 8)
        engine.complete(b, b"there")  # as soon as it is handed over
        assert b.wait(BOUND) is Outcome.COMPLETED
        assert engine.submitted == [a, b]
        engine.complete(a)
    assert a.result() == b""


@pytest.mark.parametrize("answer", list(Answer)[:4])
def test_a_cancel_from_another_thread_is_sent_by_the_leader(engine: ScriptedEngine, answer: Answer) -> None:
    a = engine.read(0, 8)
    senders: list[int] = []
    with leader(engine, a) as thread:
        engine.answer(a, answer)
        engine.next_cancel(act=lambda: senders.append(threading.get_ident()))
        assert a.cancel()
        if answer is not Answer.CANCELS:
            with engine._carrier.changed:
                assert engine._carrier.changed.wait_for(lambda: engine.cancels, BOUND)
            if answer is Answer.FOUND:
                engine.complete(a, b"late")
    assert senders == [thread._thread.ident]
    assert thread.value is (Outcome.COMPLETED if answer is Answer.FOUND else Outcome.CANCELLED)
    # What was not found, or ran, was asked again, and that was answered CANCELS.
    assert a.verdict is Verdict.CANCELLED


def test_a_cancel_from_a_signal_handler_ends_the_wait(engine: ScriptedEngine) -> None:
    a = engine.read(0, 8)
    inside: list[BaseException] = []

    def handler(number: int, frame: object) -> None:
        for call in (engine.submit, a.wait, engine.cancel_all, lambda: engine.reap(0), engine.close):
            try:
                call()
            except RuntimeError as error:
                inside.append(error)
        assert a.cancel()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        engine.while_waiting(lambda: signal.raise_signal(signal.SIGUSR1))
        assert a.wait() is Outcome.CANCELLED
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ["inside this engine" in str(error) for error in inside] == [True] * 5
    assert engine.cancels == [a]


def test_a_callback_may_not_wait(engine: ScriptedEngine) -> None:
    a, b = engine.read(0, 8), engine.read(1, 8)
    told: list[BaseException] = []

    def call(op: Any) -> None:
        try:
            b.wait()
        except RuntimeError as error:
            told.append(error)
        b.cancel()

    a.add_done_callback(call)
    engine.complete(a)
    assert a.wait() is Outcome.COMPLETED
    [error] = told
    assert "inside this engine" in str(error)
    assert b.wait() is Outcome.CANCELLED


def test_close_while_others_wait(engine: ScriptedEngine) -> None:
    ops = [engine.read(fd, 8) for fd in range(3)]
    with leader(engine, ops[0]) as first:
        threads = started(engine, *ops[1:])
        engine.close(BOUND)
        assert engine.closed
        for thread in (first, *threads):
            assert thread.join() is Outcome.CANCELLED
    assert all(not engine.pinned(op) for op in ops)


def test_two_threads_close(engine: ScriptedEngine) -> None:
    a = engine.read(0, 8)
    engine.submit()
    engine.answer(a, Answer.FOUND)
    first = Thread(lambda: engine.close(BOUND)).start()
    engine.await_waiter(BOUND)
    engine.close(0)  # the other one is about it: this is a second call, which does nothing
    assert not a.done()
    engine.complete(a, b"x")
    first.join()
    assert a.result() == b"x"


def test_nothing_new_while_it_closes(engine: ScriptedEngine) -> None:
    a = engine.read(0, 8)
    engine.submit()
    engine.answer(a, Answer.FOUND)
    closing = Thread(lambda: engine.close(BOUND)).start()
    engine.await_waiter(BOUND)
    for call in (lambda: engine.read(1, 8), engine.submit, lambda: engine.reap(0)):
        with pytest.raises(ValueError, match="closed"):
            call()
    engine.complete(a, b"x")
    closing.join()


def test_a_follower_runs_out_of_time(engine: ScriptedEngine) -> None:
    a, b = engine.read(0, 8), engine.read(1, 8)
    with leader(engine, a):
        assert b.wait(0.0) is Outcome.CANCELLED
        with pytest.raises(TimeoutError):
            b.result()
        engine.complete(a)


def test_bulk_cancels_from_another_thread(engine: ScriptedEngine) -> None:
    a = engine.read(0, 8)
    others = [engine.read(1, 8) for _ in range(20)]
    with leader(engine, a):
        assert engine.cancel_fd(1) == 20
        engine.wait(others, BOUND)
        assert all(op.cancelled() for op in others)
        assert engine.cancels == others[::-1]
        engine.complete(a)


def test_an_interrupted_leader_hands_over(engine: ScriptedEngine) -> None:
    """KeyboardInterrupt in the leader's system call: its operation goes on, a follower leads."""
    a, b = engine.read(0, 8), engine.read(1, 8)
    with leader(engine, a) as first:
        [thread] = started(engine, b)
        engine.next_go(error=KeyboardInterrupt())
        engine._carrier.wake()
        with pytest.raises(KeyboardInterrupt):
            first.join()
        first._error = None
        engine.await_waiter(BOUND)
        assert engine._lead_thread == thread._thread.ident
        assert not a.done()
        engine.complete(a, b"a")
        engine.complete(b, b"b")
        assert thread.join() is Outcome.COMPLETED
    assert a.wait() is Outcome.COMPLETED
    assert engine.submitted == [a, b]


@pytest.mark.parametrize("taken", [0, 1, 2, None])
def test_what_a_failed_call_took_is_not_handed_over_again(engine: ScriptedEngine, taken: int | None) -> None:
    ops = [engine.read(fd, 8) for fd in range(2)]
    engine.next_go(taken=taken, error=OSError(12, "no memory"))
    with pytest.raises(OSError, match="no memory"):
        engine.submit()
    assert engine.submitted == ops[: 2 if taken is None else taken]
    engine.submit()
    assert engine.submitted == ops
    for op in ops:
        engine.complete(op, b"x")
    engine.wait(ops, BOUND)


def test_a_thread_that_comes_while_the_leader_leaves(engine: ScriptedEngine) -> None:
    """It prepares, and finds the lead taken, in the leader's last system call; the leader must see to it."""
    a = engine.read(0, 8)
    late: list[Any] = []

    def come() -> None:
        def other() -> None:
            late.append(engine.read(1, 8))
            engine.submit()

        Thread(other).start().join()
        engine.complete(a, b"a")

    engine.while_waiting(come)
    assert a.wait() is Outcome.COMPLETED
    assert engine.submitted == [a, *late], "left where it was prepared"
    engine.complete(late[0], b"b")
    assert late[0].wait() is Outcome.COMPLETED


def test_many_threads_many_operations(engine: ScriptedEngine) -> None:
    """Eight threads, each with its own: all are ended by one that only completes what it sees."""
    total, per = 8, 20

    def work() -> list[Any]:
        done = []
        for i in range(per):
            op = engine.read(i, 8)
            if i % 3 == 0:
                op.cancel()
            assert op.wait(None) in (Outcome.COMPLETED, Outcome.CANCELLED)
            done.append(op)
        return done

    changed = engine._carrier.changed
    stop: list[bool] = []

    def feed() -> None:
        while not stop:
            for op in engine.pending:
                try:
                    engine.complete(op, b"x")
                except ScriptError:  # a cancel was faster
                    assert op in engine.cancels
            with changed:  # whoever comes to wait in the system says so
                assert changed.wait_for(lambda: stop or engine.pending, BOUND)

    feeder = Thread(feed).start()
    try:
        with running(*[work] * total) as threads:
            pass
    finally:
        with changed:
            stop.append(True)
            changed.notify_all()
        feeder.join()
    ops = [op for thread in threads for op in thread.value]
    assert len(set(ops)) == total * per
    assert len(set(engine.submitted)) == len(engine.submitted)
    assert engine.in_flight == 0


def test_a_callback_runs_once_whoever_learns_of_the_ending(engine: ScriptedEngine) -> None:
    ops = [engine.read(fd, 8) for fd in range(3)]
    called: list[Any] = []
    for op in ops:
        op.add_done_callback(called.append)
    with leader(engine, ops[0]):
        threads = started(engine, *ops[1:])
        for op in reversed(ops):
            engine.complete(op, b"x")
        for thread in threads:
            thread.join()
    assert sorted(called, key=id) == sorted(ops, key=id)


def test_a_lead_that_no_frame_has_is_given_up(engine: ScriptedEngine) -> None:
    """What raised into the leader from outside has kept it from giving up the lead; others find out."""
    led, over = threading.Event(), threading.Event()

    def lead() -> None:
        mine = engine._lead = object()
        engine._lead_thread = threading.get_ident()
        led.set()
        over.wait(BOUND)
        assert engine._lead is mine, "it was taken from a frame that has it"

    thread = Thread(lead).start()
    assert led.wait(BOUND)
    assert engine._is_led()
    over.set()
    thread.join()
    assert engine._lead is not None
    assert not engine._is_led()
    assert engine._lead is None
    engine.submit()


def test_one_that_waits_for_a_closer_who_has_gone_returns(engine: ScriptedEngine) -> None:
    held, over = threading.Event(), threading.Event()

    def close() -> None:
        mine = engine._closing = object()
        engine._closer, engine._state = threading.get_ident(), core.CLOSING
        held.set()
        over.wait(BOUND)
        assert engine._closing is mine

    closer = Thread(close).start()
    assert held.wait(BOUND)
    engine.close(0.01)
    assert engine._state is core.CLOSING, "its closer is at it"
    waiting = Thread(engine.close).start()
    until(lambda: bool(engine._followers), "it waits")
    over.set()
    closer.join()
    waiting.join()
    engine._closer = threading.get_ident()
    engine.close()
    assert engine.closed


def test_a_closer_that_comes_to_its_end_just_after_the_look(engine: ScriptedEngine) -> None:
    """Who waits for it has found it closing, and then the mark that it leaves: nothing is closed twice."""
    closed: list[bool] = []
    close, wait = engine._carrier.close, engine._await_closed

    def counted(timeout: float | None, left: Any) -> bool:
        closed.append(True)
        return close(timeout, left)

    def late(until: float | None) -> object:
        engine._await_closed = wait  # type: ignore[method-assign]
        Thread(engine.close).start().join()
        return engine._closing

    engine._carrier.close = counted  # type: ignore[method-assign]
    engine._await_closed = late  # type: ignore[method-assign]
    engine._closing, engine._state = object(), core.CLOSING
    engine.close()
    assert engine.closed
    assert closed == [True]
