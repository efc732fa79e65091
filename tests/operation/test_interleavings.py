"""Every order of what can happen to an operation, one after the other: enumerated, not sampled.

A step is a letter; each test says which steps there are, which may not come before which, and how many
orders that makes. What must come out of each is worked out here, by the rules of the design, from the order
alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from iocancel import CancelTooLate, Operation, OperationTimedOut, Outcome, Verdict
from iocancel.testing import Answer, Clock, ScriptedEngine, stopped_clock

from ..support import GUEST, resizable
from .helpers import ECANCELED
from .orders import ANSWERS, RESULTS, VERDICTS, orders

DEADLINE = 5.0


class One:
    """One read, and what the rules say about it. `ask` is who has asked first for its cancelling."""

    def __init__(self, result: int | bytes, answer: Answer, silent: bool, deadline: bool) -> None:
        self.engine = ScriptedEngine(silent=silent)
        self.result, self.answer = result, answer
        self.buffer = bytearray(8)
        self.called: list[Operation[Any]] = []
        self.op = self.engine.read(0, self.buffer, timeout=DEADLINE if deadline else None)
        self.engine.answer(None, answer)
        self.hooks = 0
        self.again = 0
        # What the rules say.
        self.asked = ""  # who asked first, as the engine knows it
        self.submitted = self.completed = self.over = False
        self.wanted: Verdict | None = None
        self.late = Verdict.CANCELLED  # no answer by the end of the call that sent it: it was found
        self.due = False  # the deadline has passed, and the engine has not looked

    def step(self, letter: str, clock: Clock) -> None:
        getattr(self, f"step_{letter}")(clock)
        op = self.op
        assert op.done() == self.over, "the ending is its own completion's, and nothing else's"
        assert self.engine.pinned(op) != self.over, "memory is let go of at the ending, and then at once"
        assert resizable(self.buffer) == self.over
        assert len(self.called) == (self.hooks if self.over else 0)
        assert self.engine.in_flight == (0 if self.over else 1)

    # The steps, and what the rules make of them

    def step_S(self, clock: Clock) -> None:
        """submit"""
        self.look()
        self.engine.submit()

    step_T = step_S  # a turn, later

    def step_K(self, clock: Clock) -> None:
        """The system completes it; nobody has looked."""
        if self.op in self.engine.pending:
            self.engine.complete(self.op, self.result)
            self.completed = True

    def step_C(self, clock: Clock) -> None:
        """cancel()"""
        told = self.op.cancel()
        assert told != self.over
        if not self.over:
            self.asked = self.asked or "caller"

    def step_D(self, clock: Clock) -> None:
        """The deadline passes; and so does the pause after which what was not found is asked again."""
        self.again = 1
        clock.advance(DEADLINE)
        self.due = True

    def step_H(self, clock: Clock) -> None:
        """add_done_callback"""
        self.hooks += 1
        self.op.add_done_callback(self.called.append)

    def step_A(self, clock: Clock) -> None:
        """The answer to a cancel that has none yet."""
        if self.engine.cancels:
            self.engine.answer(self.op, Answer.NOT_FOUND)
            self.late = Verdict.NOT_FOUND

    def look(self) -> None:
        """What a turn of the engine has to make of what is so."""
        if self.over:
            return
        if not self.submitted:
            if self.due and not self.asked:
                self.asked = "deadline"
            if self.asked:  # the kernel never sees it
                self.over = True
                self.wanted = Verdict.CANCELLED
                self.result = ECANCELED
                return
            self.submitted = True
        elif self.completed:
            self.over = True
            if self.due and not self.asked and RESULTS[self.result] is Outcome.CANCELLED:
                self.asked = "deadline"  # its time was over when it was seen
        elif self.due and not self.asked:
            self.asked = "deadline"

    def look_closing(self) -> None:
        """The engine's close is the last who asks."""
        if not self.over:
            self.asked = self.asked or "closing"
            if not self.submitted:
                self.result = ECANCELED

    def finish(self, clock: Clock) -> None:
        """All comes to its end."""
        engine, op = self.engine, self.op
        for letter in "STKT":
            self.step(letter, clock)
        engine.reap(0)
        self.check()
        engine.close()
        assert not engine.pending
        assert len(engine.submitted) == self.submitted, "handed over exactly once, or not at all"
        assert op.verdict is self.verdict()

    def verdict(self) -> Verdict | None:
        """As the last cancel that was sent was answered."""
        if self.wanted is not None:
            return self.wanted
        sent = self.engine.cancels
        assert len(sent) <= 1 + self.again, "without time passing, nothing is sent twice"
        if not sent:
            return None
        return VERDICTS.get(self.answer, self.late)

    def check(self) -> None:
        op = self.op
        outcome = RESULTS[self.result]
        if outcome is Outcome.CANCELLED and not self.asked:
            outcome = Outcome.FAILED  # somebody else's
        assert op.outcome is outcome
        assert op.cancelled() == (outcome is Outcome.CANCELLED)
        if isinstance(self.result, bytes):
            assert op.result() == len(self.result)
            assert self.buffer == self.result.ljust(8, b"\0")
        else:
            error = op.exception()
            assert isinstance(error, OperationTimedOut) == (
                outcome is Outcome.CANCELLED and self.asked == "deadline"
            )
            assert self.buffer == bytes(8)


def run_one(order: str, result: int | bytes, answer: Answer, silent: bool) -> None:
    with stopped_clock() as clock:
        one = One(result, answer, silent, deadline="D" in order)
        try:
            for letter in order:
                one.step(letter, clock)
            one.finish(clock)
        finally:
            if not one.engine.closed:
                one.engine.answer(None, Answer.CANCELS)
                one.engine.close(0.0)


def cases(*alphabets: str) -> Iterator[tuple[str, int | bytes, Answer, bool]]:
    for steps in alphabets:
        rules = ["SK", "ST"] + (["CA"] if "A" in steps else [])
        for order in orders(steps, *rules):
            for result in RESULTS:
                answers = (Answer.HELD,) if "A" in steps else ANSWERS[:3]
                for answer in answers if set(steps) & set("CD") else ANSWERS[:1]:
                    for silent in (True, False) if answer is Answer.FOUND else (True,):
                        yield order, result, answer, silent


COUNTS = {
    # steps: S submit, T a further turn, K completion, C cancel, A its late answer, D deadline, H callback
    ("SKTH",): 96,
    ("SKTCH",): 960,
    ("SKTTC",): 360,
    ("SKTCCH",): 2880,
    ("SKTTCC",): 1080,
    ("SKTDH", "SKTTD"): 1320,
    ("SKTCDH", "SKTTCD"): 7920,
    ("SKTCAH", "SKTTCA"): 990,
    ("SKTCCA",): 480,
}


@pytest.mark.parametrize("alphabets", COUNTS, ids="+".join)
def test_one_operation(alphabets: tuple[str, ...]) -> None:
    many = 0
    for case in cases(*alphabets):
        many += 1
        if GUEST and many % 29:
            continue
        try:
            run_one(*case)
        except BaseException as error:
            error.add_note(f"{case}")
            raise
    assert many == COUNTS[alphabets]


# Closing the engine at any moment.


def complete(engine: ScriptedEngine, op: Operation[Any], result: int | bytes) -> None:
    if op in engine.pending:
        engine.complete(op, result)


def close_one(order: str, result: int | bytes, answer: Answer, comes: bool) -> None:
    """`comes`: whether the completion comes while the closing drains, where it has not come before."""
    with stopped_clock() as clock:
        one = One(result, answer, silent=True, deadline=False)
        engine, op = one.engine, one.op
        before, after = order.split("X")
        for letter in before:
            one.step(letter, clock)
        if one.submitted and not one.completed and comes:
            engine.while_waiting(lambda: complete(engine, op, result))
        one.look_closing()
        lost = one.submitted and not one.completed and not comes and answer is not Answer.CANCELS
        if lost:
            with pytest.warns(ResourceWarning, match="still ran when"):
                engine.close()
        else:
            engine.close()
        assert op.done()
        assert engine.in_flight == 0
        assert one.called == [op] * one.hooks
        if lost:
            assert op.outcome is Outcome.FAILED
            with pytest.raises(OSError, match="its memory is kept"):
                op.result()
            assert engine.pinned(op), "the kernel may still write there"
            assert not resizable(one.buffer)
        else:
            if one.submitted and not one.completed and answer is Answer.CANCELS:
                one.result = ECANCELED
            one.check()
            assert not engine.pinned(op)
            assert resizable(one.buffer)
        for letter in after:
            if letter == "C":
                assert op.cancel() is False
            elif letter == "H":
                one.step_H(clock)
            elif letter == "S":
                with pytest.raises(ValueError, match="closed"):
                    engine.submit()
        assert one.called == [op] * one.hooks
        assert len(engine.submitted) == one.submitted
        engine.close()


def test_one_operation_and_the_closing_of_its_engine() -> None:
    many = 0
    for order in orders("SKCHX", "SK"):
        for result in RESULTS:
            for answer in (Answer.CANCELS, *ANSWERS[:3]):
                for comes in (True, False):
                    many += 1
                    if GUEST and many % 29:
                        continue
                    try:
                        close_one(order, result, answer, comes)
                    except BaseException as error:
                        error.add_note(f"{order, result, answer, comes}")
                        raise
    assert many == 60 * len(RESULTS) * 4 * 2 == 2880


# Asked again


@pytest.mark.parametrize("answer", [Answer.NOT_FOUND, Answer.TOO_LATE])
@pytest.mark.parametrize("times", [1, 2, 5])
def test_what_was_not_found_is_asked_again_until_it_ends(answer: Answer, times: int) -> None:
    with stopped_clock() as clock, ScriptedEngine() as engine:
        op = engine.read(0, 8)
        engine.submit()
        engine.answer(op, *[answer] * times)
        op.cancel()
        for sent in range(1, times + 1):
            engine.submit()
            assert engine.cancels == [op] * sent
            engine.submit()
            assert engine.cancels == [op] * sent, "asked again without a pause"
            assert op.verdict is VERDICTS[answer]
            assert not op.done()
            clock.advance(0.1)
        engine.submit()
        assert op.cancelled()
        assert op.verdict is Verdict.CANCELLED
        clock.advance(10.0)
        engine.submit()
        assert len(engine.cancels) == times + 1, "what has ended is not asked for"


def test_a_waiting_thread_asks_again_by_itself() -> None:
    with stopped_clock() as clock, ScriptedEngine() as engine:
        op = engine.read(0, 8)
        engine.submit()
        engine.answer(op, *[Answer.NOT_FOUND] * 10)
        op.cancel()
        before = clock.monotonic()
        assert op.wait() is Outcome.CANCELLED
        assert len(engine.cancels) == 11
        # 1 ms, doubled up to 0.1 s: it neither spins nor sleeps for long
        assert 0.1 < clock.monotonic() - before < 1.0


@pytest.mark.parametrize("answer", [answer for answer in Answer if answer is not Answer.CANCELS])
def test_a_deadline_is_a_bound_whatever_the_answer(answer: Answer) -> None:
    with stopped_clock() as clock, ScriptedEngine(patience=2.0) as engine:
        op = engine.read(0, 8)
        engine.submit()
        engine.answer(op, *[answer] * 500)
        before = clock.monotonic()
        with pytest.raises(CancelTooLate, match="can't be stopped"):
            op.wait(1.0)
        took = clock.monotonic() - before
        # The deadline, the patience; and where the answer was no "can't", some seconds more.
        assert 3.0 <= took <= (4.2 if answer in (Answer.NOT_FOUND, Answer.TOO_LATE) else 9.2), took
        assert not op.done()
        engine.complete(op, b"late")
        assert op.wait() is Outcome.COMPLETED
        assert op.result() == b"late"


def test_a_success_that_beats_the_cancel_is_delivered() -> None:
    with ScriptedEngine() as engine:
        op = engine.read(0, 8)
        engine.submit()
        with engine.hold():
            engine.complete(op, b"data")
            op.cancel()
            engine.submit()
            assert not op.done()
        assert op.wait() is Outcome.COMPLETED
        assert op.result() == b"data"
        assert op.verdict is Verdict.NOT_FOUND
