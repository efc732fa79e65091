"""Readers whose calls take all or nothing: what `RawFile` and `BufferedReader` have in common."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from iocancel.engines import ready
from iocancel.transfers import Have, Incoming, Use


def wanted(size: int | None) -> int:
    """How many bytes at most; None and negative numbers stand for all."""
    return sys.maxsize if size is None or size < 0 else size


class Reading:
    """What reads from an `Incoming`: a call takes nothing before its last act, so none loses anything.

    `io` has readers of its own for all of these. They gather in C, and drop that when a read raises.
    """

    _incoming: Incoming
    _size: int

    if TYPE_CHECKING:

        def _begin(self) -> Incoming:
            """Before a call: the file is open, and can be read."""
            ...

        def _patience(self) -> float | None:
            """Seconds that a read may wait."""
            ...

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read up to a newline, so many bytes, or the end.

        Raises: as `RawFile.readinto`, and then nothing was taken.
        """
        return self._one_line(wanted(size), None)

    def _one_line(self, most: int, at_end: type[Exception] | None) -> bytes:
        incoming = self._begin()

        def body(use: Use) -> bytes:
            many = self._line(use, most, 0)
            if not many and at_end is not None:
                raise at_end
            data, after = incoming.take(incoming.have, many)
            return incoming.commit(use, after, data)

        return incoming.using(body)

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """Read all lines; with a number, those until so many bytes are reached."""
        most = math.inf if hint is None or hint <= 0 else hint
        incoming = self._begin()

        def body(use: Use) -> list[bytes]:
            many = 0
            ends: list[int] = []
            while many < most and (size := self._line(use, sys.maxsize, many)):
                many += size
                ends.append(many)
            data, after = incoming.take(incoming.have, many)
            lines = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
            return incoming.commit(use, after, lines)

        return incoming.using(body)

    def __next__(self) -> bytes:
        """The next line."""
        return self._one_line(sys.maxsize, StopIteration)

    def _fill(self, use: Use, many: int, *, whole: bool) -> Have:
        """Have so many bytes there, or as many as there are before the end; not whole: at least one."""
        incoming = self._incoming
        have = incoming.have
        while have.end - have.start < (many if whole else min(many, 1)) and not have.ended:
            left = many - (have.end - have.start)
            # What is asked for in large parts needs no buffer; never more than what one call may return.
            room = max(self._size, min(left, ready.ROOM)) if whole else self._size
            have = incoming.bring(use, room, self._patience())
        return have

    def _take(self, many: int, *, whole: bool) -> bytes:
        incoming = self._begin()
        if not many:
            return b""

        def body(use: Use) -> bytes:
            data, after = incoming.take(self._fill(use, many, whole=whole), many)
            return incoming.commit(use, after, data)

        return incoming.using(body)

    def _line(self, use: Use, most: int, start: int) -> int:
        """How long the line is that starts so many bytes behind the position."""
        incoming = self._incoming
        have = incoming.have
        seen = 0
        while True:
            base = have.start + start
            limit = min(have.end, base + most)
            at = int(have.kept.find(b"\n", base + seen, limit))
            if at >= 0:
                return at + 1 - base
            seen = limit - base
            if seen >= most or have.ended:
                return seen
            have = self._fill(use, have.end - have.start + 1, whole=True)


__all__ = ["Reading", "wanted"]
