"""Whether a thread is still inside a function, as what only that function's frame refers to tells."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import CodeType, FrameType

LEADERS: set[CodeType] = set()
"""The functions that lead; each has its lead as `mine`."""


class _Nobody:
    def __init__(self) -> None:
        self._lead, self._closing = object(), object()


def _references(holder: Any, name: str) -> int:
    thing = getattr(holder, name)
    return sys.getrefcount(thing)


def in_a_frame(holder: Any, name: str, ours: int = 0) -> bool:
    """Whether a thread's frame still has what `holder` has by this name, which was made there for it alone.

    So is one in an exception's traceback, until that is let go of. Frames of other threads can't be looked
    at: CPython 3.11 makes an object for each, which may start a collection, and meanwhile the thread leaves
    its frame (seen: `f_back` was a bool).

    Args:
        holder: an object.
        name: an attribute of it, and of `_Nobody`.
        ours: how many of the caller's variables have it.
    """
    # One of its own for each look: another thread, or a traceback, may have one that is shared.
    return _references(holder, name) - ours > _references(_Nobody(), name)


def leads_here(mine: object) -> bool:
    """Whether this thread is inside a function that leads with `mine`."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code in LEADERS and frame.f_locals.get("mine") is mine:
            return True
        frame = frame.f_back
    return False
