"""What `iocancel.testing` promises to those who test with it."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from typing import Any

import pytest

import iocancel
from iocancel import FeatureUnavailable, Outcome, Reach, Verdict
from iocancel.operation import VERBS, Engine, core
from iocancel.operation.carrier import Repeating
from iocancel.testing import (
    Answer,
    BlockedPipe,
    Canary,
    CanaryDied,
    Deadlock,
    Interruption,
    ScriptedEngine,
    ScriptError,
    Tripwire,
    hold_back,
    interrupt_everywhere,
    stopped_clock,
)

from ..support import BOUND
from .helpers import EIO, Thread, real

# The scripted engine


def test_it_is_an_engine_with_a_carrier(engine: ScriptedEngine) -> None:
    assert isinstance(engine, Engine)
    carrier: Repeating = engine._carrier  # mypy compares them
    assert engine.name == carrier.name == "scripted"
    assert all(engine.supports(verb) for verb in VERBS)
    assert engine.reach("read") is Reach.TOTAL


def test_verbs_and_reaches_are_chosen() -> None:
    with ScriptedEngine(verbs=["read"], reaches={"read": Reach.NONE}) as engine:
        assert engine.read(0, 1).reach is Reach.NONE
        assert engine.reach("write") is None
        with pytest.raises(FeatureUnavailable, match="write: this scripted engine"):
            engine.write(1, b"x")
        assert engine.in_flight == 1
    with pytest.raises(ValueError, match="no such verbs: fly"):
        ScriptedEngine(verbs=["fly"])


def test_each_kind_of_buffer_is_filled_and_lent(engine: ScriptedEngine) -> None:
    into, parts = bytearray(4), [bytearray(2), bytearray(4)]
    ops = [engine.read(0, into), engine.readv(0, parts), engine.recv(0, 9), engine.recvmsg(0, 9)]
    for op in ops:
        engine.complete(op, b"abcd")
    with pytest.raises(BufferError):
        into.append(0)
    engine.wait(ops)
    assert [op.result() for op in ops] == [4, 4, b"abcd", (b"abcd", [], 0, None)]
    assert [bytes(each) for each in (into, *parts)] == [b"abcd", b"ab", b"cd\0\0"]
    with pytest.raises(TypeError):
        engine.read(0, b"constant")
    data = bytearray(b"out")
    op = engine.sendmsg(0, [data])
    with pytest.raises(BufferError):
        data.append(0)
    engine.complete(op, 3)
    assert op.wait() is Outcome.COMPLETED
    data.append(0)


def test_what_no_kernel_does_is_refused(engine: ScriptedEngine) -> None:
    op = engine.read(0, 2)
    engine.submit()
    small = engine.read(0, 2)
    engine.submit()
    with pytest.raises(ScriptError, match="do not fit"):
        engine.complete(small, b"abc")
    with pytest.raises(ScriptError, match="another engine's"), ScriptedEngine() as other:
        other.complete(op)
    engine.complete(op, b"ab")
    with pytest.raises(ScriptError, match="completed before"):
        engine.complete(op, b"ab")
    write = engine.write(0, b"x")
    engine.submit()
    with pytest.raises(ScriptError, match="no memory"):
        engine.complete(write, b"x")
    engine.wait([op])
    with pytest.raises(ScriptError, match="never handed over"):
        engine._carrier.cancel([engine.read(0, 1)])
    with pytest.raises(ScriptError, match="1025 cancels"):
        engine._carrier.cancel([op] * 1025)
    with pytest.raises(ScriptError, match="second time"):
        engine._carrier.batch([op])
    engine.close(0)  # what was refused has not ended, and never will


def test_memory_that_was_let_go_of_too_early_is_found(engine: ScriptedEngine) -> None:
    op = engine.read(0, 2)
    engine.submit()
    op._pins = None  # the bug
    with pytest.raises(ScriptError, match="let go of before its ending"):
        engine.complete(op, b"ab")
    engine.close(0)  # it has not ended, and never will


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (Answer.CANCELS, Verdict.CANCELLED),
        (Answer.FOUND, Verdict.CANCELLED),
        (Answer.NOT_FOUND, Verdict.NOT_FOUND),
        (Answer.TOO_LATE, Verdict.TOO_LATE),
        (Answer.HELD, Verdict.CANCELLED),
    ],
)
@pytest.mark.parametrize("silent", [True, False])
def test_answers(answer: Answer, verdict: Verdict, silent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "_FIRST_PAUSE", 60.0)  # else it is asked again, and the answer is another one
    with ScriptedEngine(silent=silent) as engine:
        op = engine.read(0, 1)
        engine.submit()
        engine.answer(op, answer)
        op.cancel()
        assert op.verdict is None
        engine.submit()
        assert op.verdict is verdict
        assert op.done() == (answer is Answer.CANCELS)
        if answer is Answer.HELD:
            engine.answer(op, Answer.TOO_LATE)
            engine.submit()
            assert op.verdict is Verdict.TOO_LATE
        if not op.done():
            engine.complete(op, b"x")
    assert op.done()


def test_one_answer_for_all(engine: ScriptedEngine) -> None:
    engine.answer(None, Answer.FOUND)
    op = engine.read(0, 1)
    engine.submit()
    op.cancel()
    engine.submit()
    assert not op.done()
    engine.complete(op, EIO)
    assert op.wait() is Outcome.FAILED
    with pytest.raises(OSError, match="read") as caught:
        op.result()
    assert caught.value.errno == errno.EIO
    with pytest.raises(ValueError, match="one answer"):
        engine.answer(None)


def test_a_wait_for_nothing_raises(engine: ScriptedEngine) -> None:
    op = engine.read(0, 1)
    with pytest.raises(Deadlock, match="nothing will come"):
        op.wait()
    engine.complete(op, b"x")
    assert op.wait() is Outcome.COMPLETED


def test_a_wait_for_nothing_is_limited_where_others_could_wake_it() -> None:
    with ScriptedEngine(limit=0.05) as engine:
        op, gate = engine.read(0, 1), threading.Event()
        other = Thread(lambda: gate.wait(BOUND)).start()
        try:
            with pytest.raises(Deadlock, match=r"nothing came for 0\.05 s"):
                op.wait()
        finally:
            gate.set()
            other.join()


def test_nobody_waits(engine: ScriptedEngine) -> None:
    with pytest.raises(Deadlock, match="no thread has come"):
        engine.await_waiter(0.0)


def test_time_stands_still_until_somebody_waits(engine: ScriptedEngine) -> None:
    with stopped_clock() as clock:
        op = engine.read(0, 1, timeout=3600.0)
        engine.submit()
        clock.advance(3599.0)
        engine.submit()
        assert not engine.cancels
        assert op.wait() is Outcome.CANCELLED
        with pytest.raises(TimeoutError):
            op.result()
        with pytest.raises(ValueError, match=">= 0"):
            clock.advance(-1)
    assert sys.modules["iocancel.operation.core"].time is time


def test_values_that_come_one_by_one(engine: ScriptedEngine) -> None:
    with engine.recv_multishot(0, 16) as chunks:
        [op] = engine.pending
        engine.complete(op, b"one", more=True)
        engine.complete(op, b"two", more=True)
        assert [next(chunks), next(chunks)] == [b"one", b"two"]
        engine.complete(op, b"three", more=True)
    assert chunks.leftovers == [b"three"]
    with engine.poll_multishot(0, 1) as masks:
        [op] = engine.pending
        engine.complete(op, 1, more=True)
        engine.complete(op, EIO)
        assert next(masks) == 1
        with pytest.raises(OSError, match="poll"):
            next(masks)


def test_a_zero_copy_send_has_two_events(engine: ScriptedEngine) -> None:
    op = engine.send_zc(0, b"data")
    engine.complete(op, 4, more=True)
    assert op.wait() is Outcome.COMPLETED
    assert not op.memory_released
    assert engine.pinned(op)
    engine.complete(op, 0, notif=True)
    assert op.memory_released.wait(BOUND)
    assert op.result() == 4
    assert not engine.pinned(op)


# Pipes and canaries


def test_a_blocked_pipe() -> None:
    with BlockedPipe() as pipe:
        assert pipe.available() == 0
        assert pipe.write(b"abc") == 3
        assert pipe.drain() == b"abc"
        assert pipe.drain() == b""
        full = pipe.fill()
        assert full >= 4096
        assert pipe.available() == full
        assert len(pipe.drain()) == full
        assert os.get_blocking(pipe.write_end)
        pipe.close_write()
        assert os.read(pipe.fileno(), 1) == b""
        pipe.close_write()
        fd = pipe.disown()
        assert pipe.fileno() == -1
        os.close(fd)


@pytest.mark.parametrize("at", [-8, -1, 4, 11])
def test_a_canary_dies_of_what_is_written_beside_its_buffer(at: int) -> None:
    canary = Canary(4, guard=8)
    canary.buffer[:] = b"fine"
    canary.check()
    canary._whole[8 + at] ^= 1
    with pytest.raises(CanaryDied, match=f"first at {at} of 4") as caught:
        canary.check()
    assert caught.value.offsets == [at]


def test_a_canary_dies_of_what_comes_after_the_ending() -> None:
    canary = Canary(4)
    assert canary.untouched()
    canary.buffer[:2] = b"ok"
    assert not canary.untouched()
    canary.seal()
    assert bytes(canary)[:2] == b"ok"
    canary.check()
    canary.buffer[3] ^= 0xFF
    with pytest.raises(CanaryDied, match="after the ending: first at 3"):
        canary.check()


# Late completions


def test_a_completion_between_two_lines() -> None:
    with real("uring") as engine, BlockedPipe() as pipe, hold_back(engine) as held:
        op = engine.read(pipe, 1)
        pipe.write(b"x")
        held.wait_for(op, BOUND)
        assert op in held
        assert not op.done()
        op.cancel()
        engine.submit()
        assert op.verdict is Verdict.NOT_FOUND
        assert not op.done()
        with pytest.raises(Deadlock, match="held back"):
            op.wait()
        assert held.release(op) == 1
        assert op.wait() is Outcome.COMPLETED
        assert op.result() == b"x"


def test_what_is_held_back_comes_at_the_end_of_the_block() -> None:
    with real("uring") as engine, BlockedPipe() as one, BlockedPipe() as two:
        with hold_back(engine, lambda op: op.fd == one.fileno()) as held:
            a, b = engine.read(one, 1), engine.read(two, 1)
            one.write(b"1")
            two.write(b"2")
            held.wait_for(a, BOUND)
            assert b.wait(BOUND) is Outcome.COMPLETED
            assert len(held) == 1
            assert not a.done()
        assert a.done()
        assert a.result() == b"1"
        assert type(engine._carrier).__name__ == "UringCarrier"


def test_an_answer_that_comes_late() -> None:
    with real("uring") as engine, BlockedPipe() as pipe, hold_back(engine, answers=True) as held:
        op = engine.read(pipe, 1)
        pipe.write(b"x")
        held.wait_for(op, BOUND)
        op.cancel()
        engine.submit()
        before = op.verdict
        assert before is Verdict.CANCELLED, "nothing has said that it failed"
        held.release()
        engine.submit()
        assert op.verdict is Verdict.NOT_FOUND
        assert op.result() == b"x"


# Interrupts


def victim(found: list[int]) -> None:
    for i in range(3):
        found.append(len(str(i)))  # noqa: PERF401 - a jump backward, and calls of C


def test_each_place_is_interrupted_once() -> None:
    for places in ("signals", "opcodes"):
        runs: list[tuple[list[int], str]] = []
        sweep = interrupt_everywhere(
            list,
            victim,
            lambda found, place, runs=runs: runs.append((found, place)),  # type: ignore[misc]
            modules=[sys.modules[__name__]],
            places=places,
        )
        assert [place for _, place in runs] == ["", *sweep.where, ""]
        assert sweep.places == len(sweep.where) == len(runs) - 2
        assert all("test_testing.py" in place and "in victim" in place for place in sweep.where)
        assert runs[-1][0] == [1, 1, 1]
        assert {len(found) for found, _ in runs} == {0, 1, 2, 3}
        assert sweep.places > (30 if places == "opcodes" else 8)


def test_steps_skip_places() -> None:
    every = interrupt_everywhere(list, victim, lambda *_: None, modules=[__name__], places="opcodes")
    some = interrupt_everywhere(list, victim, lambda *_: None, modules=[__name__], places="opcodes", step=7)
    assert some.where == every.where[::7]
    assert some.places == every.places
    with pytest.raises(ValueError, match="step"):
        interrupt_everywhere(list, victim, lambda *_: None, step=0)


def test_it_works_in_any_thread() -> None:
    def run() -> int:
        return interrupt_everywhere(list, victim, lambda *_: None, modules=[__name__]).places

    assert Thread(run).start().join() == run()


def test_an_error_names_the_place() -> None:
    def check(found: list[int], place: str) -> None:
        assert not place

    with pytest.raises(AssertionError) as caught:
        interrupt_everywhere(list, victim, check, modules=[__name__])
    assert "the 0th place, entry: test_testing.py" in caught.value.__notes__[0]


def test_other_modules_have_no_places() -> None:
    with pytest.raises(ValueError, match="no place"):
        interrupt_everywhere(list, victim, lambda *_: None, modules=[iocancel])
    with pytest.raises(ValueError, match="signals"):
        Tripwire(0, [iocancel], places="everywhere")  # type: ignore[arg-type]


def test_a_tripwire_by_itself() -> None:
    found: list[Any] = []
    with Tripwire(5, [__name__], act=lambda: found.append("here")) as wire:
        victim(found)
    assert "here" in found
    assert wire.place
    with pytest.raises(Interruption), Tripwire(0, [__name__]):
        victim(found)
    assert issubclass(Interruption, KeyboardInterrupt)
