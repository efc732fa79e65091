"""Four worlds whose tasks wait for operations, behind one face: asyncio, its debug mode, uvloop, trio.

A test is an `async def main(world)`; it starts tasks of its own and looks at how each ended:

- CAME: its call returned. On trio the next checkpoint behind it was made, too, and has raised where the task
  was cancelled: `raised_next`.
- STOPPED: the loop's cancellation came out of it.
- FAILED: another exception did.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest

from iocancel.operation.operation import IN_FLIGHT

from ...support import BOUND, open_fds

CAME, STOPPED, FAILED = "came", "stopped", "failed"
WORLDS = ("asyncio", "debug", "uvloop", "trio")
PAIRS = [(world, "uring") for world in WORLDS] + [("asyncio", "libaio"), ("trio", "libaio")]
"""Worlds and engines. Loops of one kind take an engine in the same way."""
_PACKAGE = {"asyncio": "asyncio", "debug": "asyncio"}
Call = Callable[[], Awaitable[Any]]


class Started(ABC):
    """A task of a test's."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.came = False
        self.value: Any = None
        self.error: BaseException | None = None
        """What came out of the call, also a cancellation."""
        self.raised_next = False

    @abstractmethod
    def cancel(self) -> None:
        """Cancel it, from within the loop's thread."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether it is over."""

    @property
    @abstractmethod
    def stopped(self) -> bool:
        """Whether a cancellation came out of it."""

    @property
    def ending(self) -> str:
        """How it ended."""
        assert self.done, "it goes on"
        if self.came:
            return CAME
        if self.stopped:
            return STOPPED
        assert self.error is not None, "it ended with nothing"
        return FAILED

    @property
    def op(self) -> Any:
        """The operation that its cancellation tells of."""
        return getattr(self.error, "operation", None)


class World(ABC):
    """A loop to be run once."""

    name = ""
    delivers = False
    """A success that was first is returned to a cancelled task."""

    def __init__(self) -> None:
        self.verbs: Any = None
        self._fds: dict[str, str] = {}
        self._threads: set[threading.Thread] = set()

    # What differs

    @abstractmethod
    def go(self, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run a function in a new loop, and close that."""

    @abstractmethod
    def start(self, call: Call) -> Started:
        """Start a task; it makes its first step when others wait."""

    @abstractmethod
    async def one_pass(self) -> None:
        """Let all others have a step."""

    @abstractmethod
    async def within(self, seconds: float, call: Call) -> tuple[bool, Any]:
        """Make a call with a deadline; whether that has ended it, and the value."""

    @abstractmethod
    async def shielded(self, call: Call, behind: Callable[[], object]) -> Started:
        """Start a task that makes a call behind a shield; then `behind` is called, and it is cancelled."""

    @abstractmethod
    def poster(self) -> Callable[[Callable[[], object]], None]:
        """What has something called in the loop's thread, by another thread."""

    # What is the same

    def run(self, main: Callable[[World], Coroutine[Any, Any, Any]]) -> Any:
        """Run a test; at its end nothing is in flight, and no fd and no thread is left."""

        async def whole() -> Any:
            self.engine  # noqa: B018 - opened before the fds are counted
            with self.leaving_nothing():
                value = await main(self)
                await self.until(lambda: not self.engine.in_flight, "nothing is in flight")
            self.idle()
            return value

        return self.go(whole)

    @contextlib.contextmanager
    def leaving_nothing(self) -> Iterator[None]:
        """Looks for fds and threads that were not there before."""
        fds, threads = open_fds(), set(threading.enumerate())
        yield
        if open_fds() != fds:
            gc.collect()  # an open that came too late is closed with its exception, which is in cycles
        left = {number: to for number, to in open_fds().items() if fds.get(number) != to}
        assert not left, f"fds left open: {left}"
        assert not set(threading.enumerate()) - threads, "a thread was left running"

    def idle(self) -> None:
        """Nothing is left in the engine."""
        engine = self.engine
        assert not engine._ledger.flight, f"left: {list(engine._ledger.flight.values())}"
        assert engine.orphans == 0
        assert not engine._staged
        assert not engine._asked
        assert engine._batch is None
        assert engine._lead is None

    @property
    def engine(self) -> Any:
        """The loop's."""
        return self.verbs.engine()

    def flying(self) -> list[Any]:
        """The operations that tasks wait for and that the system has."""
        flight = self.engine._ledger.flight
        return [op for op in list(flight.values()) if op._awaited is not None and op._state == IN_FLIGHT]

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Go on with the loop until something is so."""
        deadline = time.monotonic() + BOUND
        while not condition():
            assert time.monotonic() < deadline, f"it did not happen: {what}"
            await self.one_pass()

    async def waits(self, started: Started) -> Any:
        """Go on until a task's operation is in flight: the only one; returns it."""
        await self.until(lambda: started.done or self.flying(), "its operation is in flight")
        assert not started.done, f"it was to wait: {started.ending}, {started.value!r}, {started.error!r}"
        (op,) = self.flying()
        return op

    async def ended(self, started: Started) -> str:
        """Go on until a task has ended; how it did."""
        await self.until(lambda: started.done, "the task's end")
        return started.ending


class InAsyncio(Started):
    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            self.value = await self.call()
            self.came = True
        except BaseException as error:
            self.error = error
            if isinstance(error, asyncio.CancelledError):
                raise

    def cancel(self) -> None:
        self.task.cancel()

    @property
    def done(self) -> bool:
        return self.task.done()

    @property
    def stopped(self) -> bool:
        return self.task.cancelled()


class Asyncio(World):
    """asyncio, with its own loop."""

    name = "asyncio"
    debug = False

    def __init__(self) -> None:
        super().__init__()
        import iocancel.asyncio

        self.verbs = iocancel.asyncio

    def new_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    def go(self, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        with asyncio.Runner(debug=self.debug, loop_factory=self.new_loop) as runner:
            return runner.run(main())

    def start(self, call: Call) -> Started:
        return InAsyncio(call)

    async def one_pass(self) -> None:
        await asyncio.sleep(0)

    async def within(self, seconds: float, call: Call) -> tuple[bool, Any]:
        value: Any = None
        try:
            async with asyncio.timeout(seconds):
                value = await call()
        except TimeoutError:
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            return True, None
        return False, value

    async def shielded(self, call: Call, behind: Callable[[], object]) -> Started:
        inner = self.start(call)
        assert isinstance(inner, InAsyncio)
        outer = self.start(lambda: asyncio.shield(inner.task))
        await self.waits(inner)
        outer.cancel()
        assert await self.ended(outer) is STOPPED
        assert not inner.done
        behind()
        return inner

    def poster(self) -> Callable[[Callable[[], object]], None]:
        loop = asyncio.get_running_loop()
        return lambda act: (loop.call_soon_threadsafe(act), None)[1]


class Debug(Asyncio):
    """asyncio in debug mode."""

    name = "debug"
    debug = True


class Uvloop(Asyncio):
    """asyncio on uvloop."""

    name = "uvloop"

    def new_loop(self) -> asyncio.AbstractEventLoop:
        import uvloop

        made: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        return made


def world_of(name: str) -> World:
    """A world; skips where it can't be had."""
    package = _PACKAGE.get(name, name)
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"no {package} here")
    if name == "trio":
        from .nursery import Trio

        return Trio()
    return {"asyncio": Asyncio, "debug": Debug, "uvloop": Uvloop}[name]()


def same(world: World, started: Started, *, first: bool) -> None:
    """A cancelled task has ended as its world has it.

    Args:
        world: where it ran.
        started: the task.
        first: its operation had succeeded before the cancel came.
    """
    ending = started.ending
    if not world.delivers:
        assert ending is STOPPED, f"{ending}: {started.value!r} {started.error!r}"
    elif first:
        assert ending is CAME, f"{ending}: {started.error!r}"
    else:
        assert ending in (CAME, STOPPED)
    if world.delivers and ending is CAME:
        assert started.raised_next, "the next checkpoint was to raise"


__all__ = ["CAME", "FAILED", "PAIRS", "STOPPED", "WORLDS", "Started", "World", "same", "world_of"]
