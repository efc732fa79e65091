"""What the demonstration shows: one row for each thing that was started and cancelled."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from iocancel.doctor.live import code, interrupted

__all__ = ["Row", "Scene", "Scenes", "Shown", "answered", "ended"]

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Shown:
    """What a scene saw.

    Attributes:
        answer: the cancel's answer.
        ending: how the target ended.
        right: whether both are what they must be.
    """

    answer: str
    ending: str
    right: bool


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        system: "io_uring", "libaio" or "posix_aio".
        started: what was started.
        cancelled_by: how it was cancelled.
        answer: the cancel's answer; "" where it was not tried.
        ending: how the target ended; "" where it was not tried.
        as_it_must: whether it came out as it must; None where it was not tried.
        note: why it was not tried, or what went wrong.
    """

    system: str
    started: str
    cancelled_by: str
    answer: str = ""
    ending: str = ""
    as_it_must: bool | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The row as plain JSON types."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Scene(Generic[_T]):
    """Something to be shown.

    Attributes:
        started: what is started.
        cancelled_by: how it is cancelled.
        play: does it; raises `NotHere` or `FeatureUnavailable` where it can't be done here.
    """

    started: str
    cancelled_by: str
    play: Callable[[_T], Shown]


class Scenes(Generic[_T]):
    """What is shown of one system, in its order."""

    def __init__(self) -> None:
        self._scenes: list[Scene[_T]] = []

    def add(
        self, started: str, cancelled_by: str
    ) -> Callable[[Callable[[_T], Shown]], Callable[[_T], Shown]]:
        """A decorator that adds a function; see `Scene`."""

        def take(play: Callable[[_T], Shown]) -> Callable[[_T], Shown]:
            self._scenes.append(Scene(started, cancelled_by, play))
            return play

        return take

    def __iter__(self) -> Iterator[Scene[_T]]:
        return iter(self._scenes)


_ANSWERS = {
    0: "found and cancelled",
    -errno.ENOENT: "nothing found",
    -errno.EALREADY: "it runs; interrupted, if it can be",
}


def answered(res: int) -> str:
    """The answer of an io_uring cancel, and what it means."""
    if res > 0:
        return f"{res} matched"
    return f"{code(res)}: {_ANSWERS.get(res, 'refused')}"


def ended(res: int, good: str = "it had happened") -> str:
    """The ending of a request, and what it means.

    Args:
        res: its result.
        good: what a result that is no error means.
    """
    if res >= 0:
        return f"{res}: {good}"
    if res == -errno.ECANCELED:
        return f"{code(res)}: it did not happen"
    if interrupted(res):
        return f"{code(res)}: interrupted, it did not happen"
    return f"{code(res)}: the time ran out" if res == -errno.ETIME else f"{code(res)}: it failed"
