"""Runs of trio, what blocks in them, and what is to be left of it: nothing."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import trio

import iocancel.trio as world_of
from iocancel.operation.operation import IN_FLIGHT
from iocancel.trio.hub import current

from ..support import BOUND

T = TypeVar("T")
VERBS = ("read", "sleep", "open")
"""One that waits by a poll, one that is a request of its own, one that a worker has in hand."""
SHORT = 0.005
"""Seconds: a deadline that is to pass."""


def run(main: Callable[[], Awaitable[T]], **options: Any) -> T:
    """`trio.run`; nothing may be in flight at its end."""

    async def checked() -> T:
        with trio.fail_after(BOUND):
            value = await main()
        empty()
        return value

    return trio.run(checked, **options)


def empty() -> None:
    """Nothing is in flight in this run, and nobody waits."""
    hub = current()
    assert hub.engine.in_flight == 0, hub.engine._ledger.flight
    assert hub.engine.orphans == 0
    assert not hub.waking


class Blocking:
    """What blocks for ever."""

    def __init__(self, verb: str, folder: Path, pipes: Callable[[], tuple[int, int]]) -> None:
        self._verb = verb
        self.reads, self.writes = pipes()
        self.path = folder / "fifo"
        os.mkfifo(self.path)

    async def __call__(self) -> Any:
        if self._verb == "read":
            return await world_of.read(self.reads, 16)
        if self._verb == "sleep":
            return await world_of.sleep(1000.0)
        return await world_of.open(self.path)


async def in_flight(many: int = 1) -> None:
    """Let others run until as many operations are with the kernel."""
    flight = current().engine._ledger.flight
    with trio.fail_after(BOUND):
        while sum(op._state == IN_FLIGHT for op in flight.values()) < many:
            await trio.lowlevel.checkpoint()


async def raised(call: Callable[[], Awaitable[Any]]) -> BaseException | None:
    """What a call raises."""
    try:
        await call()
    except BaseException as error:  # noqa: BLE001 - looked at by the test
        return error
    return None


__all__ = ["SHORT", "VERBS", "Blocking", "empty", "in_flight", "raised", "run"]
