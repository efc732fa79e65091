"""The order of time, for what comes from several buffers."""

from __future__ import annotations

import operator
from bisect import bisect_left, bisect_right

from iocancel.trace.pages import Record

_TIME = operator.itemgetter(0)


class Order:
    """Brings what comes from several buffers, each in order, into one order.

    Attributes:
        held (list[Record]): what is not handed out yet. Append to it, then `take`.
        late (int): how many were handed out after a younger one.
    """

    def __init__(self) -> None:
        self.held: list[Record] = []
        self.late = 0
        self._told = 0  # the time of the latest that was handed out

    def take(self, until: int | None) -> list[Record]:
        """Those up to a time, in order; None: all."""
        held = self.held
        held.sort(key=_TIME)  # it merges runs that are sorted already
        cut = len(held) if until is None else bisect_right(held, until, key=_TIME)
        records = held[:cut]
        del held[:cut]
        if records:
            self.late += bisect_left(records, self._told, key=_TIME)
            self._told = max(self._told, records[-1][0])
        return records
