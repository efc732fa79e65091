"""Every order of what can happen to two operations on one file, and one on another."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from iocancel import Operation, Outcome, Verdict
from iocancel.testing import Answer, ScriptedEngine, stopped_clock

from ..support import GUEST, resizable
from .helpers import ECANCELED, EIO
from .orders import ANSWERS, DATA, RESULTS, VERDICTS, File, orders


class Pair:
    """Two reads of one file, and one of another, which nothing here touches."""

    def __init__(self, results: Sequence[int | bytes], answer: Answer) -> None:
        self.engine = ScriptedEngine()
        self.results = list(results)
        self.buffers = [bytearray(8) for _ in range(3)]
        self.file = File(1 << 20)
        self.ops = [
            self.engine.read(fd, buffer)
            for fd, buffer in zip([self.file.number] * 2 + [0], self.buffers, strict=True)
        ]
        self.answer = answer
        self.engine.answer(None, answer)
        self.called: list[Operation[Any]] = []
        for op in self.ops:
            op.add_done_callback(self.called.append)
        self.submitted = [False] * 3
        self.asked, self.sent = [False] * 3, [False] * 3
        self.completed, self.over = [False] * 3, [False] * 3
        self.cancels: list[Operation[Any]] = []
        self.order: list[int] = []

    def step(self, letter: str) -> None:
        engine = self.engine
        if letter in "ST":
            self.look()
            engine.submit()
        elif letter in "KL":
            i = "KL".index(letter)
            if self.submitted[i] and not self.completed[i]:
                engine.complete(self.ops[i], self.results[i])
                self.completed[i] = True
        elif letter == "C":
            assert self.ops[0].cancel() != self.over[0]
            self.ask(*[] if self.over[0] else [0])
        elif letter == "F":
            live = [i for i in (0, 1) if not self.over[i]]
            self.ask(*reversed(live))
            if live:
                self.look()
            assert engine.cancel_fd(self.file) == len(live)
        elif letter == "G":
            self.close_file()
        for i, op in enumerate(self.ops):
            assert op.done() == self.over[i]
            assert engine.pinned(op) != self.over[i]
            assert self.called.count(op) == self.over[i]
        assert engine.in_flight == self.over.count(False)

    def close_file(self) -> None:
        live = [i for i in (0, 1) if not self.over[i]]
        self.ask(*reversed(live))
        if live:
            self.look()
        stuck = [i for i in live if not self.over[i]]
        if stuck:
            with pytest.raises(OSError, match="can't be stopped"):
                self.engine.close_fd(self.file)
            assert self.file.closed == 0, "closed under what still runs"
            return
        before = self.file.closed
        became = self.engine.close_fd(self.file)
        assert became == {self.ops[i]: self.ops[i].outcome for i in live}
        assert self.file.closed == before + 1

    def ask(self, *which: int) -> None:
        """Those of one call are sent the newest first; those of an earlier call before."""
        for i in which:
            self.order += [] if self.asked[i] else [i]
            self.asked[i] = True

    def look(self) -> None:
        """A turn: what has come; then cancels; then what is to be handed over."""
        for i in range(3):
            self.over[i] |= self.completed[i]
        for i in self.order:
            if not self.over[i] and not self.submitted[i]:
                self.over[i], self.results[i] = True, ECANCELED
            elif not self.over[i] and not self.sent[i]:
                self.sent[i] = True
                self.cancels.append(self.ops[i])
                if self.answer is Answer.CANCELS:
                    self.completed[i] = self.over[i] = True
                    self.results[i] = ECANCELED
        for i in range(3):
            self.submitted[i] |= not self.over[i]

    def finish(self) -> None:
        for letter in "SKLT":
            self.step(letter)
        self.engine.complete(self.ops[2], DATA)
        self.engine.reap(0)
        for i, op in enumerate(self.ops):
            outcome = RESULTS[(*self.results, DATA)[i]]
            if outcome is Outcome.CANCELLED and not self.asked[i]:
                outcome = Outcome.FAILED
            assert op.outcome is outcome
            assert resizable(self.buffers[i])
            sent = self.engine.cancels.count(op)
            assert sent >= self.sent[i]
            if self.sent[i]:
                assert op.verdict is VERDICTS[self.answer]
            elif not self.submitted[i]:
                assert op.verdict is Verdict.CANCELLED, "withdrawn: that counts as found"
            else:
                assert op.verdict is None
        assert self.ops[2].verdict is None
        assert [
            op for i, op in enumerate(self.engine.cancels) if op not in self.engine.cancels[:i]
        ] == self.cancels
        assert sorted(self.called, key=id) == sorted(self.ops, key=id)
        assert len(self.engine.submitted) == len(set(self.engine.submitted)) == self.submitted.count(True)
        self.engine.close()


def run_pair(order: str, results: Sequence[int | bytes], answer: Answer) -> None:
    with stopped_clock():
        pair = Pair(results, answer)
        try:
            for letter in order:
                pair.step(letter)
            pair.finish()
        finally:
            if not pair.engine.closed:
                pair.engine.answer(None, Answer.CANCELS)
                pair.engine.close(0.0)


PAIRS = {
    # S submit, T a further turn, K and L completions, C cancel of the first, F cancel_fd, G close_fd
    "SKLF": 288,
    "SKLTF": 1080,
    "SKLTCF": 6480,
    "SKLG": 216,
    "SKLCG": 1080,
    "SKLFG": 1080,
}


@pytest.mark.parametrize("steps", PAIRS)
def test_two_operations_on_one_file(steps: str) -> None:
    some: tuple[int | bytes, ...] = (DATA, EIO, ECANCELED)
    many = 0
    # Found, and no end to it: there close_fd waits for ever.
    answers = [a for a in (Answer.CANCELS, *ANSWERS[:3]) if "G" not in steps or a is not Answer.FOUND]
    for order in orders(steps, "SK", "SL", "ST"):
        for results in itertools.product(some, some):
            for answer in answers:
                many += 1
                if GUEST and many % 29:
                    continue
                try:
                    run_pair(order, results, answer)
                except BaseException as error:
                    error.add_note(f"{order, results, answer}")
                    raise
    assert many == PAIRS[steps]
