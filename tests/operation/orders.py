"""Orders of events, and what comes of them: what the tests of interleavings share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from iocancel import Outcome, Verdict
from iocancel.testing import Answer

from .helpers import ECANCELED, EINTR, EIO, RESTART

DATA = b"12345678"
RESULTS: dict[int | bytes, Outcome] = {
    DATA: Outcome.COMPLETED,
    b"123": Outcome.COMPLETED,  # in part
    EIO: Outcome.FAILED,
    ECANCELED: Outcome.CANCELLED,  # where somebody asked for it
    EINTR: Outcome.CANCELLED,
    RESTART: Outcome.CANCELLED,
}
VERDICTS = {
    Answer.CANCELS: Verdict.CANCELLED,
    Answer.FOUND: Verdict.CANCELLED,
    Answer.NOT_FOUND: Verdict.NOT_FOUND,
    Answer.TOO_LATE: Verdict.TOO_LATE,
}
ANSWERS = (Answer.FOUND, Answer.NOT_FOUND, Answer.TOO_LATE, Answer.HELD)


def orders(steps: str, *rules: str) -> Iterator[str]:
    """All orders of these letters that differ; "SK" is the rule that no K comes before the first S."""
    seen = set()
    for each in itertools.permutations(sorted(steps)):
        order = "".join(each)
        if order in seen:
            continue
        seen.add(order)
        if all(
            b not in order or (a in order and order.index(a) < order.index(b)) for a, b in map(tuple, rules)
        ):
            yield order


class File:
    """What close_fd closes."""

    def __init__(self, number: int) -> None:
        self.number, self.closed = number, 0

    def fileno(self) -> int:
        return self.number

    def close(self) -> None:
        self.closed += 1
