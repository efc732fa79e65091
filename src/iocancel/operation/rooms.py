"""Memory of our own that operations read to: what comes is copied out of it, and it is used again."""

from __future__ import annotations

from typing import Any


class Room:
    """Memory of our own to read to; what comes is copied out of it, and it is used again."""

    __slots__ = ("buffer", "pin", "where")

    def __init__(self, many: int) -> None:
        self.buffer = bytearray(many)
        self.pin: Any = None
        """What a carrier has made of it, its export, and below its address: both stay the same."""
        self.where = 0


spare: dict[int, list[Room]] = {}  # by size: such as no operation has
_LONGEST = 1 << 16  # bytes: what is longer is made anew
_SIZES = 64  # so many sizes are kept
_KEPT = 1 << 18  # bytes of each


def give_back(found: Room) -> None:
    """Have a room used again. Once, and behind the last use of it."""
    many = len(found.buffer)
    try:
        free = spare[many]
    except KeyError:
        if many > _LONGEST or len(spare) >= _SIZES:
            return
        free = spare.setdefault(many, [])
    if many * len(free) < _KEPT:
        free.append(found)


__all__ = ["Room", "give_back", "spare"]
