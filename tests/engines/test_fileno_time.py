"""Engines in an event loop: timeouts and alarms, quiet while nothing happens, waits in between."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from iocancel import OperationTimedOut, Outcome, Verdict
from iocancel.testing import Answer, ScriptedEngine

from ..contract.conftest import name as name
from ..contract.conftest import nothing_left_behind as nothing_left_behind
from ..contract.helpers import need_stopping, need_verbs
from ..support import BOUND
from .fileno_stage import Loop, cut_records, end_read
from .fileno_stage import engine as engine
from .fileno_stage import loop as loop
from .fileno_stage import looping as looping

# Time


def test_a_timeout_operation(engine: Any, loop: Loop) -> None:
    need_verbs(engine, "timeout")
    before = time.monotonic()
    op = engine.timeout(0.02)
    engine.submit()
    loop.run(op)
    assert time.monotonic() >= before + 0.02
    assert op.outcome is Outcome.COMPLETED
    loop.rest()


def test_a_cancelled_timeout_leaves_no_alarm(engine: Any, loop: Loop) -> None:
    op = engine.timeout(3600.0)
    engine.submit()
    loop.rest()
    op.cancel()
    loop.run(op)
    assert op.cancelled()
    loop.rest()  # which asks for the alarm


def test_a_deadline(engine: Any, loop: Loop, pipe: tuple[int, int]) -> None:
    """Of an operation: where the system keeps none, the alarm tells the loop."""
    need_stopping(engine, "read")
    op = engine.read(pipe[0], 10, timeout=0.02)
    engine.submit()
    loop.run(op)
    assert op.cancelled()
    with pytest.raises(OperationTimedOut):
        op.result()
    loop.rest()


def test_the_earliest_deadline_is_the_alarm(
    engine: Any, loop: Loop, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    need_stopping(engine, "read")
    before = time.monotonic()
    looks = engine.name == "posix_aio"  # at what runs, before that
    ops = [engine.read(pipe[0], 1, timeout=seconds) for seconds in (3600.0, 2700.0)]
    engine.submit()
    engine.reap(0)
    assert before + 2700.0 * (not looks) <= engine.alarm() <= time.monotonic() + 2700.0
    ops.append(engine.read(pipe[0], 1, timeout=1800.0))  # no turn has seen it
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_staged", type(engine._staged)())
        assert before + 1800.0 * (not looks) <= engine.alarm() <= time.monotonic() + 1800.0
    engine.submit()
    os.write(pipe[1], b"abc")
    loop.run(*ops)
    assert engine.alarm() is None, "nothing has a deadline any more"
    loop.rest()


def test_what_is_prepared_is_due(engine: Any, loop: Loop, pipe: tuple[int, int]) -> None:
    loop.rest()
    op = engine.read(pipe[0], 1)
    os.write(pipe[1], b"a")
    loop.run(op)  # submits by the alarm
    assert op.result() == b"a"
    assert loop.alarmed
    loop.rest()


def test_what_the_system_does_not_take_is_due() -> None:
    with ScriptedEngine() as engine:
        loop = Loop(engine)
        with loop.epoll:
            ops = [engine.read(3, 10) for _ in range(3)]
            for op in ops:
                engine.complete(op, b"x")
            engine.next_go(taken=1)
            engine.submit()
            assert ops[0].done()
            assert not ops[1].done()
            loop.run(*ops)


def test_a_cancel_is_asked_again_by_alarm() -> None:
    """What was not found, and has not ended, is asked again: nothing but the alarm says when."""
    with ScriptedEngine() as engine:
        engine.fileno()
        op = engine.read(3, 10)
        engine.submit()
        engine.answer(op, Answer.TOO_LATE)  # then CANCELS
        op.cancel()
        engine.submit()
        assert op.verdict is Verdict.TOO_LATE
        when = engine.alarm()
        assert when is not None
        while time.monotonic() < when:
            os.sched_yield()
        engine.reap(0)
        assert op.cancelled()
        assert engine.alarm() is None


# No spin


def test_it_is_quiet_while_something_is_in_flight(engine: Any, loop: Loop, pipe: tuple[int, int]) -> None:
    op = engine.read(pipe[0], 10)
    engine.submit()
    loop.rest()
    assert not loop.epoll.poll(0)
    engine.reap(0)
    engine.submit()
    assert not loop.epoll.poll(0)
    if engine.name != "posix_aio":
        assert engine.alarm() is None
    os.write(pipe[1], b"a")
    loop.run(op)
    loop.rest()


def test_an_engine_that_nobody_watches_rings_nothing(
    engine: Any, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not asked for costs nothing: no cancel of this thread wakes anybody."""
    op = engine.read(pipe[0], 10)
    engine.submit()
    woken = []
    monkeypatch.setattr(engine._carrier, "wake", lambda: woken.append(1))
    op.cancel()
    monkeypatch.undo()
    assert not woken
    end_read(engine, op, pipe[1])
    op.wait()


# Waits in between


def test_after_a_wait_the_file_is_right(
    engine: Any, loop: Loop, pipes: Callable[[], tuple[int, int]]
) -> None:
    (mine, put_mine), (other, put_other) = pipes(), pipes()
    for _ in range(3):
        left = engine.read(other, 10)
        waited = engine.read(mine, 10)
        engine.submit()
        thread = threading.Thread(target=lambda: os.write(put_mine, b"a"))
        thread.start()
        assert waited.wait() is Outcome.COMPLETED
        thread.join()
        loop.rest()
        assert not left.done()
        # A cancel by another thread is heard, though the wait had the wake-up for itself.
        thread = threading.Thread(target=left.cancel)
        thread.start()
        thread.join()
        assert loop.epoll.poll(BOUND), "the cancel is not heard of"
        while left.verdict is None and not left.done():
            assert loop.once()
        end_read(engine, left, put_other)
        loop.run(left)
        loop.rest()


def test_after_a_wait_that_a_wake_up_has_ended(
    engine: Any, loop: Loop, pipes: Callable[[], tuple[int, int]]
) -> None:
    """The wait's own wake-up fires as it ends: it is polled again all the same."""
    need_stopping(engine, "read")
    (mine, _), (other, put) = pipes(), pipes()
    left, waited = engine.read(other, 10), engine.read(mine, 10)
    engine.submit()
    thread = threading.Thread(target=waited.cancel)
    thread.start()
    assert waited.wait() is Outcome.CANCELLED
    thread.join()
    loop.rest()
    os.write(put, b"b")
    assert loop.epoll.poll(BOUND)
    loop.run(left)
    engine._carrier.wake()
    assert loop.epoll.poll(BOUND), "nobody polls the wake-up any more"
    loop.rest()


def test_what_ended_while_the_engine_waited_is_not_lost(
    engine: Any, loop: Loop, pipes: Callable[[], tuple[int, int]]
) -> None:
    (mine, put_mine), (other, put_other) = pipes(), pipes()
    left, waited = engine.read(other, 10), engine.read(mine, 10)
    engine.submit()
    os.write(put_other, b"b")
    os.write(put_mine, b"a")
    waited.wait()
    loop.run(left)
    assert left.result() == b"b"
    loop.rest()


def test_a_turn_that_is_cut_short_rings(
    engine: Any, loop: Loop, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that were taken from the kernel and not dealt with make nothing readable by themselves."""
    op = engine.read(pipe[0], 10)
    engine.submit()
    loop.rest()
    os.write(pipe[1], b"a")
    cut_records(engine, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        loop.run(op)
    assert not op.done()
    assert loop.epoll.poll(BOUND), "what was taken waits, and nobody is told"
    loop.run(op)
    assert op.result() == b"a"
    loop.rest()
