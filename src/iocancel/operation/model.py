"""The life of an operation as one table: its states, what can happen to it, and the words for its end.

Nothing in here knows a kernel interface. Two things are told apart that C programs mix up: how the
*operation* ended (`Outcome`, decided by its own last completion and nothing else) and what the kernel
answered to the request to *cancel* it (`Verdict`, which decides nothing).
"""

from __future__ import annotations

from enum import Enum, IntEnum, StrEnum


class Outcome(Enum):
    """How an operation ended."""

    COMPLETED = "completed"
    """It did what was asked, or a part of it that its value names."""
    FAILED = "failed"
    """The kernel reported an error that no cancel of ours explains."""
    CANCELLED = "cancelled"
    """It did not happen, since somebody (a caller, a deadline, the engine's close) asked for that."""


class Verdict(Enum):
    """What the kernel answered to a cancel. It never settles the operation: see `Outcome`."""

    CANCELLED = "cancelled"
    """Found, and being cancelled."""
    NOT_FOUND = "not found"
    """Not there: it has ended, or it is where a cancel does not look (direct I/O that the disk has)."""
    TOO_LATE = "too late"
    """Found, but running: it will end by itself, perhaps interrupted."""


class Reach(StrEnum):
    """How far an operation can be cancelled."""

    TOTAL = "total"
    """A cancelled one did not happen."""
    PARTIAL = "partial"
    """It may have happened in part; its value says how much."""
    NONE = "none"
    """Once it runs, it runs to its end."""


class State(IntEnum):
    """Where an operation is."""

    PREPARED = 0
    """Not yet given to the kernel."""
    IN_FLIGHT = 1
    """The kernel has it, and its memory."""
    RELEASING = 2
    """Its result is there, its memory is still the kernel's (a zero-copy send)."""
    ENDED = 3
    """Over: nothing will come for it any more."""


class Event(IntEnum):
    """What can happen to an operation."""

    SUBMIT = 0
    """It is handed to the kernel."""
    UNTAKEN = 1
    """The kernel did not take it after all, or gave it back undone; it is prepared again."""
    WITHDRAW = 2
    """It ends without the kernel ever having seen it: cancelled before, or its file is gone."""
    MORE = 3
    """A result of a multishot operation; more will come."""
    RESULT = 4
    """The result of an operation that keeps its memory a while longer."""
    LAST = 5
    """Its last completion."""
    ABANDON = 6
    """Its engine was closed and could not wait any longer; its memory is kept."""


_NO = -1
_P, _F, _R, _E = State.PREPARED, State.IN_FLIGHT, State.RELEASING, State.ENDED

NEXT: tuple[tuple[int, ...], ...] = tuple(
    tuple(int(to) for to in row)
    for row in (
        # SUBMIT UNTAKEN WITHDRAW MORE RESULT LAST ABANDON
        (_F, _NO, _E, _NO, _NO, _NO, _E),  # PREPARED
        (_NO, _P, _NO, _F, _R, _E, _E),  # IN_FLIGHT
        (_NO, _NO, _NO, _NO, _NO, _E, _E),  # RELEASING
        (_NO, _NO, _NO, _NO, _NO, _NO, _NO),  # ENDED
    )
)
"""NEXT[state][event]: the state that follows, -1 where the event can't happen. Plain ints, for hot paths."""


def following(state: int, event: int) -> State:
    """The state after `event`.

    Raises:
        RuntimeError: when the event can't happen in this state. That is a bug in an engine.
    """
    after = NEXT[state][event]
    if after < 0:
        raise RuntimeError(f"an operation that is {State(state).name} can't have {Event(event).name}")
    return State(after)


# What a carrier says beside a result, with the kernel's bits (a test compares them with the compiler's).
MORE = 2
"""More completions will come."""
NOTIF = 8
"""This one only says that the memory is released."""

# The tags in a token's upper bits.
ANSWER = 1 << 62
"""A record with this bit is the answer to the cancel of the operation with the token below it."""
OTHER = 1 << 61
"""A record with this bit is the carrier's own affair (a link timeout, its wake-up poll)."""
