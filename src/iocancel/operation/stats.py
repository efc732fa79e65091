"""What an engine has done, in numbers: outcomes, verdicts, and how long cancels took.

An engine that does not count does not pay for it: one that counts is of a class of its own (`counting`), with
a ledger and a queue of cancels of its own kinds.

- Its ledger marks each operation, when it is named, as one whose ending is more than a number: so the engine
  settles it by itself, in `Core._one`, and comes to `_call_back`, which notes the ending.
- Its queue of cancels notes when an operation first enters it: all that asks for a cancel comes by there,
  but for what is stopped at once (`Cancelling._stop`).

Each is a store under the operation's token, which no other operation has: a signal's exception may have any
of it done twice, and it counts once. Sums are made of it by `Tally._fold`, without a lock: signal handlers
may ask for numbers, too.
"""

from __future__ import annotations

import errno
import functools
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from iocancel.operation.ledger import Ledger
from iocancel.operation.model import ANSWER, Outcome, Verdict
from iocancel.operation.operation import _VERDICTS, NOT_FOUND, RELEASING, SENT, TOO_LATE, Operation

if TYPE_CHECKING:
    from iocancel.operation.verbs import Verbs

BUCKETS = 65  # of 0 to 2**64 - 1 nanoseconds
_ROOM = 4096  # endings that are noted one by one before they are summed up


@dataclass(frozen=True)
class Latency:
    """How long something took, in buckets that each reach to a power of two."""

    buckets: tuple[int, ...] = (0,) * BUCKETS
    """buckets[i]: how many took from 2**(i - 1) to 2**i - 1 nanoseconds; buckets[0] those that took 0."""

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.buckets)

    def percentile(self, p: float) -> int | None:
        """What `p` percent did not exceed.

        Args:
            p: above 0, up to 100; 50 is the median, 100 the longest.

        Returns:
            Nanoseconds: the upper end of the bucket where it lies, so less than twice the true number. None
            where there are none.

        Raises:
            ValueError: p is out of range.
        """
        if not 0 < p <= 100:
            raise ValueError(f"p takes a percentage above 0, up to 100, not {p}")
        wanted = self.count * p / 100
        seen = 0
        for i, many in enumerate(self.buckets):
            seen += many
            if many and seen >= wanted:
                return (1 << i) - 1
        return None


@dataclass(frozen=True)
class Stats:
    """What an engine has done since it was opened: see `Verbs.stats`."""

    engine: str
    """Which system: "uring", "libaio", "posix_aio"."""
    outcomes: dict[Outcome, int]
    """How many operations have ended so; each is counted once, what was withdrawn or abandoned, too."""
    verdicts: dict[Verdict, int]
    """Of those, how many had this as the kernel's last answer to a cancel; the others had none."""
    asked: int
    """Of how many operations a cancel was asked, those that have not ended among them."""
    in_flight: int
    """How many operations have not ended."""
    latency: Latency = field(default_factory=Latency)
    """From when the engine was first asked for a cancel to when it knew of the operation's ending."""

    @property
    def ended(self) -> int:
        """How many operations have ended."""
        return sum(self.outcomes.values())


class _Ending(NamedTuple):
    outcome: Outcome
    cancel: int  # where its cancel was
    sent: int  # by which sending
    nanoseconds: int  # since it was asked for; -1: it was not


class _Sums(NamedTuple):
    outcomes: tuple[int, ...] = (0,) * len(Outcome)
    verdicts: tuple[int, ...] = (0,) * len(Verdict)
    asked: int = 0
    latency: tuple[int, ...] = (0,) * BUCKETS
    # Of what is summed up here, and may not have been taken out of its dict yet.
    endings: frozenset[int] = frozenset()
    answers: frozenset[int] = frozenset()


_NOTHING = _Sums()
_OUTCOMES, _RULINGS = list(Outcome), list(Verdict)


class Tally:
    """What is counted of one engine."""

    def __init__(self, engine: Counting) -> None:
        self._engine = engine
        self._asks: dict[int, int] = {}  # token -> when, in nanoseconds; until its ending is summed up
        self._endings: dict[int, _Ending] = {}
        self._answers: dict[int, int] = {}  # answers that came after the ending
        self._sums = _NOTHING
        self._room = _ROOM

    # Notes, from any thread and in signal handlers

    def asked(self, ops: Iterable[Operation[Any]]) -> None:
        """Cancels of these are asked for; the first time counts."""
        now = time.monotonic_ns()
        asks = self._asks
        for op in ops:
            if op._state < RELEASING:
                asks.setdefault(op._token, now)

    def ended(self, op: Operation[Any]) -> None:
        """The outcome of one is known; the first time counts."""
        token, outcome = op._token, op.outcome
        if token in self._endings or outcome is None:
            return
        if token not in self._engine._ledger.flight:  # its engine was closed, and it was counted as abandoned
            return
        since = self._asks.get(token)
        took = -1 if since is None else max(0, time.monotonic_ns() - since)
        self._endings[token] = _Ending(outcome, op._cancel, op._sent, took)
        if len(self._endings) > self._room:
            self._fold()
            self._room = len(self._endings) * 2 + _ROOM

    def answered(self, token: int, cancel: int) -> None:
        """A cancel has failed, of an operation whose outcome may be known by now."""
        if token in self._endings or token not in self._engine._ledger.flight:
            self._answers[token] = cancel

    # Sums

    def reset(self) -> None:
        """Forget all that has ended, before anybody else has the engine."""
        self._fold()
        self._sums = _Sums(endings=self._sums.endings, answers=self._sums.answers)

    def _fold(self) -> _Sums:
        """Sum up what is complete, and return the sums with all of the rest."""
        while True:
            old = self._sums
            # What was summed up goes first, and before any other sums can be stored: see `endings`.
            for token in old.endings:
                self._asks.pop(token, None)
                self._endings.pop(token, None)
            for token in old.answers:
                self._answers.pop(token, None)
            # Each copy is made in one step. What has left is looked for first: its ending was noted before.
            asks = dict(self._asks)
            flight, known = self._engine._ledger.flight, self._engine._answered
            gone = {token for token in asks if token not in flight}
            endings, answers = dict(self._endings), dict(self._answers)
            whole = {
                token: ending
                for token, ending in endings.items()
                # One that has not left may be dealt with again, and its answer may still be under way.
                if token not in flight and not (ending.cancel == SENT and ending.sent > known)
            }
            rest = {token: ending for token, ending in endings.items() if token not in whole}
            late = {token: cancel for token, cancel in answers.items() if token not in rest}
            sums = _add(old, whole, late)
            new = sums._replace(endings=frozenset(whole), answers=frozenset(late))
            for token in gone - endings.keys():  # asked for just as it ended, or its call has raised
                self._asks.pop(token, None)
            # No call between the look and the store: of two that sum up the same one begins again.
            if self._sums is old:
                self._sums = new
                break
        for token in whole:  # their places are wanted; the next one looks again
            self._asks.pop(token, None)
            self._endings.pop(token, None)
        waiting = {token: when for token, when in asks.items() if token in flight and token not in endings}
        sums = _add(sums, rest, {token: answers[token] for token in rest if token in answers}, known)
        return sums._replace(asked=sums.asked + len(waiting))

    def stats(self) -> Stats:
        """All of it."""
        engine = self._engine
        sums = self._fold()
        return Stats(
            engine.name,
            dict(zip(_OUTCOMES, sums.outcomes, strict=True)),
            dict(zip(_RULINGS, sums.verdicts, strict=True)),
            sums.asked,
            engine.in_flight,
            Latency(sums.latency),
        )


def _add(
    sums: _Sums,
    endings: dict[int, _Ending],
    answers: dict[int, int],
    known: int | None = None,
) -> _Sums:
    """The sums with these endings, and these answers: to them, or to others that are in the sums.

    Args:
        known: the last sending whose answers have come; None where all have.
    """
    outcomes, verdicts, latency = list(sums.outcomes), list(sums.verdicts), list(sums.latency)
    for token, ending in endings.items():
        outcomes[_OUTCOMES.index(ending.outcome)] += 1
        cancel = answers.get(token, ending.cancel)
        verdict = _VERDICTS.get(cancel)
        open_yet = cancel == SENT and known is not None and ending.sent > known
        if verdict is not None and not open_yet:
            verdicts[_RULINGS.index(verdict)] += 1
        if ending.nanoseconds >= 0:
            latency[min(ending.nanoseconds.bit_length(), BUCKETS - 1)] += 1
    for token, cancel in answers.items():
        if token not in endings:  # it was summed up as found, since its failure had not come
            verdicts[_RULINGS.index(Verdict.CANCELLED)] -= 1
            verdicts[_RULINGS.index(_VERDICTS[cancel])] += 1
    asked = sums.asked + sum(1 for ending in endings.values() if ending.nanoseconds >= 0)
    return _Sums(tuple(outcomes), tuple(verdicts), asked, tuple(latency))


class _Asked(deque[Any]):
    """The queue of cancels: single operations, and lists of them."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self._tally = tally

    def append(self, item: Any) -> None:
        """Note when, before anybody can send it."""
        self._tally.asked(item if item.__class__ is list else (item,))
        super().append(item)


class _Marking(Ledger):
    """See the module."""

    __slots__ = ()

    def name(self, op: Operation[Any]) -> int:
        """See Ledger."""
        op._special = True
        return super().name(op)


if TYPE_CHECKING:
    from iocancel.operation.verbs import Verbs as _Engine
else:
    _Engine = object


class Counting(_Engine):
    """What an engine's class has in front when it counts."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # All in one attribute: objects with more than 30 are slow. Nothing has been prepared yet.
        self._tally = Tally(self)
        self._asked = _Asked(self._tally)
        self._ledger = _Marking()

    def stats(self) -> Stats:
        """See Verbs."""
        return self._tally.stats()

    def reset(self) -> None:
        """Begin to count from here: before anything is in flight."""
        self._tally.reset()

    def _call_back(self, op: Operation[Any]) -> None:
        self._tally.ended(op)
        super()._call_back(op)

    def _abandon(self, op: Operation[Any]) -> None:
        super()._abandon(op)
        self._tally.ended(op)

    def _stop(self, op: Operation[Any]) -> bool:
        self._tally.asked((op,))
        return super()._stop(op)

    def _answer(self, token: int, res: int) -> None:
        if token & ANSWER and res < 0:
            self._tally.answered(token & ~ANSWER, TOO_LATE if res == -errno.EALREADY else NOT_FOUND)
        super()._answer(token, res)


@functools.cache
def counting(engine: type[Verbs]) -> type[Verbs]:
    """The class of engines that are as these, and count.

    Args:
        engine: an engine's class.
    """
    return cast("type[Verbs]", type(engine.__name__, (Counting, engine), {"__module__": engine.__module__}))


__all__ = ["Counting", "Latency", "Stats", "counting"]
