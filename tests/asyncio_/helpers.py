"""Loops of each kind, what blocks in them, and what is to be left of it: nothing."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import iocancel.asyncio as world_of
from iocancel.asyncio.hub import current
from iocancel.operation.operation import IN_FLIGHT

from ..support import BOUND

T = TypeVar("T")
LOOPS = (
    "asyncio",
    "debug",
    # From 3.14 on asyncio itself, where it has its C part, does not see that a task in Python is running.
    *(("pure",) if sys.version_info < (3, 14) else ()),
    *(("eager",) if sys.version_info >= (3, 12) else ()),
    "uvloop",
)
VERBS = ("read", "sleep", "open")
"""One that waits by a poll, one that is a request of its own, one that a worker has in hand."""
SHORT = 0.005
"""Seconds: a deadline that is to pass."""


def lacking(kind: str) -> str:
    """Why there is no loop of a kind here; empty where there is."""
    if kind == "uvloop" and importlib.util.find_spec("uvloop") is None:
        return "uvloop is not installed"
    return ""


class World:
    """Loops of one kind.

    Args:
        kind: "asyncio"; "debug", the same in debug mode; "pure", with tasks written in Python; "eager", with
            tasks that begin at once (3.12); "uvloop".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def loop(self) -> asyncio.AbstractEventLoop:
        """A new one; whoever asks for it closes it."""
        if self.kind == "uvloop":
            import uvloop

            loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
            return loop
        loop = asyncio.new_event_loop()
        if self.kind == "debug":
            loop.set_debug(True)
            loop.slow_callback_duration = 10 * BOUND
        elif self.kind == "pure":
            made: Any = asyncio.tasks
            loop.set_task_factory(lambda loop, coro, **more: made._PyTask(coro, loop=loop, **more))
        elif self.kind == "eager":
            eager: Any = asyncio
            loop.set_task_factory(eager.eager_task_factory)
        return loop

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine function as `asyncio.run` does; nothing may be in flight at its end."""
        problems: list[dict[str, Any]] = []

        async def checked() -> T:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
            value = await asyncio.wait_for(main(), BOUND)
            empty()
            return value

        with asyncio.Runner(loop_factory=self.loop) as runner:
            value = runner.run(checked())
        assert not problems
        return value


def empty() -> None:
    """Nothing is in flight in the running loop, and nobody waits."""
    hub = current()
    assert hub.engine.in_flight == 0, hub.engine._ledger.flight
    assert hub.engine.orphans == 0
    assert len(hub.waking) <= 1, hub.waking  # the one that this very step is


class Blocking:
    """What blocks for ever, and whether it did something all the same."""

    def __init__(self, verb: str, folder: Path, pipes: Callable[[], tuple[int, int]]) -> None:
        self._verb = verb
        self.reads, self.writes = pipes()
        self.path = folder / "fifo"
        os.mkfifo(self.path)

    def __call__(self) -> Coroutine[Any, Any, Any]:
        if self._verb == "read":
            return world_of.read(self.reads, 16)
        if self._verb == "sleep":
            return world_of.sleep(1000.0)
        return world_of.open(self.path)


async def in_flight(many: int = 1) -> None:
    """Let the loop turn until as many operations are with the kernel."""
    flight = current().engine._ledger.flight
    async with asyncio.timeout(BOUND):
        while sum(op._state == IN_FLIGHT for op in flight.values()) < many:
            await asyncio.sleep(0)


async def raised(awaited: Any) -> BaseException | None:
    """What an await raises."""
    try:
        await awaited
    except BaseException as error:  # noqa: BLE001 - looked at by the test
        return error
    return None


def counting(task: asyncio.Task[Any] | None = None) -> int:
    """How many cancels of a task are not taken back."""
    task = task or asyncio.current_task()
    assert task is not None
    return task.cancelling()


__all__ = [
    "LOOPS",
    "SHORT",
    "VERBS",
    "Blocking",
    "World",
    "counting",
    "empty",
    "in_flight",
    "lacking",
    "raised",
]
