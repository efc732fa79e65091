"""Every verb that can block, cancelled at every moment."""

from __future__ import annotations

import contextlib
import select
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from iocancel import CancelTooLate, OperationCancelled, Verdict
from iocancel.operation import State

from ..support import BOUND, until
from .helpers import C, X, need_verbs, stops
from .stages import STAGES, Stage

WORKERS = frozenset(["openat", "splice", "tee"])
"""What waits in a worker on io_uring; reads and connects of some files do, too, but not of these here."""


@pytest.fixture(params=list(STAGES))
def stage(request: pytest.FixtureRequest, engine: Any) -> Iterator[Stage]:
    """Something that blocks, of every verb that the engine has."""
    verb = str(request.param)
    need_verbs(engine, verb)
    with contextlib.ExitStack() as stack:
        yield STAGES[verb](engine, stack)


@pytest.fixture
def finishing(stage: Stage) -> Stage:
    """One whose end the test can bring about."""
    if not stage.finishes:
        pytest.skip(f"nobody but time ends a {stage.verb}")
    return stage


def cancelled(op: Any) -> None:
    """It was: the words for it all agree."""
    assert op.done()
    assert op.cancelled()
    assert op.outcome is X
    with pytest.raises(OperationCancelled) as raised:
        op.result()
    assert raised.value.errno == 125
    assert not isinstance(raised.value, TimeoutError)
    assert isinstance(op.exception(), OperationCancelled)


def ends(stage: Stage, op: Any) -> None:
    """The ending of one that was asked to be cancelled while it ran, by what the engine can do."""
    if stops(stage.engine, stage.verb):
        assert op.wait() is X
        verdicts = {Verdict.CANCELLED}
        if stage.verb in WORKERS:
            # TOO_LATE is no ending, and the worker was interrupted all the same; asked again meanwhile, the
            # kernel does not find it any more.
            verdicts |= {Verdict.TOO_LATE, Verdict.NOT_FOUND}
        assert op.verdict in verdicts
        cancelled(op)
        if stage.finishes:
            stage.finish()
            assert stage.untouched()
    else:
        # It goes on, and nothing of it is lost.
        stage.finish()
        assert op.wait() is C
        assert op.verdict in (Verdict.TOO_LATE, Verdict.NOT_FOUND)
        assert stage.right(op.result())


def test_it_ends_by_itself(finishing: Stage) -> None:
    op = finishing.start()
    finishing.engine.submit()
    finishing.runs()
    assert not op.done()
    assert op.outcome is None
    finishing.finish()
    assert op.wait() is C
    assert op.verdict is None
    assert op.exception() is None
    assert finishing.right(op.result())


def test_before_it_was_submitted(stage: Stage) -> None:
    op = stage.start()
    assert op.cancel()
    assert op.wait() is X
    assert op.verdict is Verdict.CANCELLED
    cancelled(op)
    if stage.finishes:
        stage.finish()
        assert stage.untouched()


def test_in_flight(stage: Stage) -> None:
    op = stage.start()
    stage.engine.submit()
    stage.runs()
    assert op.state is State.IN_FLIGHT
    assert op.cancel()
    ends(stage, op)


def test_twice(stage: Stage) -> None:
    op = stage.start()
    stage.engine.submit()
    stage.runs()
    assert op.cancel()
    assert op.cancel()
    ends(stage, op)
    assert not op.cancel()


def test_late(finishing: Stage) -> None:
    """After its ending nothing changes, and what has its place now is not hit."""
    engine = finishing.engine
    op = finishing.start()
    engine.submit()
    finishing.finish()
    assert op.wait() is C
    assert finishing.right(op.result())
    assert not op.cancel()
    assert engine.cancel([op]) == 0
    with contextlib.ExitStack() as stack:
        other = STAGES[finishing.verb](engine, stack)
        again = other.start()
        assert again.token != op.token
        assert again.token & 0xFFFFFF == op.token & 0xFFFFFF, "the very same slot"
        engine.submit()
        assert not op.cancel()
        assert engine.cancel([op]) == 0
        engine.reap()
        assert not again.done()
        assert again.verdict is None
        other.finish()
        assert again.wait() is C
        assert other.right(again.result())
    assert op.outcome is C
    assert op.verdict is None


def test_from_another_thread_while_this_one_waits(stage: Stage) -> None:
    engine = stage.engine
    op = stage.start()
    engine.submit()
    stage.runs()
    asked = threading.Event()

    def other() -> None:
        until(lambda: engine._lead_thread == me, "this thread waits")
        op.cancel()
        asked.set()
        if not stops(engine, stage.verb):
            until(lambda: op.verdict is not None, "the verdict is there")
            stage.finish()

    me = threading.get_ident()
    thread = threading.Thread(target=other)
    thread.start()
    outcome = op.wait()
    thread.join()
    assert asked.is_set()
    if stops(engine, stage.verb):
        assert outcome is X
        cancelled(op)
    else:
        assert outcome is C
        assert stage.right(op.result())


def test_from_a_signal_handler(stage: Stage, handler: Callable[[Callable[[], object]], None]) -> None:
    op = stage.start()
    stage.engine.submit()
    stage.runs()
    handler(op.cancel)
    signal.raise_signal(signal.SIGUSR1)
    ends(stage, op)


def signals(engine: Any, called: threading.Event) -> threading.Thread:
    """Signal this thread when it waits, until the handler was called.

    A signal that comes just before the thread enters the kernel does not end the wait that follows: Python
    runs handlers between bytecodes only. So it is with every call of Python that blocks.
    """
    me = threading.get_ident()

    def other() -> None:
        until(lambda: engine._lead_thread == me, "this thread waits")
        while not called.wait(0.01):
            signal.pthread_kill(me, signal.SIGUSR1)

    thread = threading.Thread(target=other)
    thread.start()
    return thread


def test_a_signal_handler_ends_a_wait(stage: Stage, handler: Callable[[Callable[[], object]], None]) -> None:
    """The handler runs within the wait, on top of the engine's own frames."""
    engine = stage.engine
    op = stage.start()
    engine.submit()
    stage.runs()

    called = threading.Event()

    def act() -> None:
        if not called.is_set():
            called.set()
            op.cancel()
            if not stops(engine, stage.verb):
                stage.finish()

    handler(act)
    thread = signals(engine, called)
    outcome = op.wait()
    thread.join()
    assert outcome is (X if stops(engine, stage.verb) else C)


def test_an_exception_from_a_signal_handler_leaves_it_in_flight(
    finishing: Stage, handler: Callable[[Callable[[], object]], None]
) -> None:
    """The wait is over, the operation is not; nothing of it is lost."""
    engine = finishing.engine
    op = finishing.start()
    engine.submit()

    called = threading.Event()

    def interrupt() -> None:
        if not called.is_set():
            called.set()
            raise KeyboardInterrupt

    handler(interrupt)
    thread = signals(engine, called)
    with pytest.raises(KeyboardInterrupt):
        op.wait()
    thread.join()
    assert not op.done()
    assert engine.in_flight == 1
    finishing.finish()
    assert op.wait() is C
    assert finishing.right(op.result())


def test_the_end_comes_before_the_cancel_is_sent(finishing: Stage) -> None:
    """A success that is there is delivered: nothing that happened is lost."""
    if finishing.verb == "connect":
        pytest.skip("its end comes with the next SYN, a second later")
    # Their ends take their time in a worker, or come by a signal.
    unseen = finishing.verb in {*WORKERS, "waitid", "futex_wait"}
    if unseen and finishing.engine.name != "uring":
        pytest.skip("only a ring tells of what nobody has reaped")
    op = finishing.start()
    finishing.engine.submit()
    finishing.runs()
    finishing.finish()
    if unseen:
        poll = select.poll()
        poll.register(finishing.engine.fileno(), select.POLLIN)
        assert poll.poll(BOUND * 1000), "it has ended"
    assert op.cancel()
    assert op.wait() is C
    assert finishing.right(op.result())


def test_the_deadline_of_a_wait(stage: Stage) -> None:
    op = stage.start()
    if stops(stage.engine, stage.verb):
        assert op.wait(0.01) is X
        timed_out(op)
        if stage.finishes:
            stage.finish()
            assert stage.untouched()
    else:
        stage.engine.submit()
        stage.runs()
        with pytest.raises(CancelTooLate):
            op.wait(0.01)
        assert not op.done()
        stage.finish()
        assert op.wait() is C
        assert stage.right(op.result())


def timed_out(op: Any) -> None:
    """A deadline has ended it, and its exception is both."""
    with pytest.raises(OperationCancelled) as raised:
        op.result()
    assert isinstance(raised.value, TimeoutError)
    assert raised.value.errno == 125
    assert op.outcome is X


def test_its_own_deadline(stage: Stage) -> None:
    if stage.verb == "timeout":
        pytest.skip("it is one")
    if not stops(stage.engine, stage.verb):
        # The clock counts from the call on: only one that runs before it is over shows something.
        op = stage.start(timeout=0.5)
        stage.engine.submit()
        stage.runs()
        until(lambda: stage.engine.reap() or op.verdict is not None, "the deadline was seen")
        stage.finish()
        assert op.wait() is C
        assert stage.right(op.result())
        return
    op = stage.start(timeout=0.01)
    assert op.wait() is X
    timed_out(op)
    if stage.finishes:
        stage.finish()
        assert stage.untouched()


def test_a_deadline_that_did_not_end_it(finishing: Stage) -> None:
    if finishing.verb == "connect":
        pytest.skip("its end comes with the next SYN, a second later")
    op = finishing.start(timeout=BOUND)
    finishing.engine.submit()
    finishing.runs()
    finishing.finish()
    assert op.wait(BOUND) is C
    assert finishing.right(op.result())


def test_a_cancel_before_its_deadline_is_no_timeout(stage: Stage) -> None:
    if stage.verb == "timeout":
        pytest.skip("it has no deadline of its own")
    op = stage.start(timeout=BOUND)
    stage.engine.submit()
    stage.runs()
    assert op.cancel()
    if stops(stage.engine, stage.verb):
        assert op.wait(BOUND) is X
        cancelled(op)
    else:
        stage.finish()
        assert op.wait(BOUND) is C
        assert stage.right(op.result())
