"""The async worlds that tests run in, and what a test needs of each: tasks, cancels, waits for what happens.

A test's body is an async function; it knows no loop:

    def test_something(world):
        async def body():
            task = world.spawn(world.io.read, fd, 10)
            await world.in_flight()
            task.cancel()
            assert await task.ended() == "cancelled"

        world.run(body)

Nothing in here lets time pass: a wait is a look at each pass of the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
import uvloop

import iocancel.asyncio
import iocancel.trio
from iocancel import open_engine
from iocancel.operation.operation import IN_FLIGHT

from ..support import BOUND, lacks_engine, leaving_nothing, need_engine, settle, until

NAMES = ("asyncio", "asyncio-debug", "uvloop", "trio")
ENGINES = ("uring", "libaio")
Body = Callable[..., Awaitable[Any]]


class Task(ABC):
    """A task that runs beside the test's body."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.done = False
        self.was_cancelled = False
        self.value: Any = None
        self.error: BaseException | None = None

    @abstractmethod
    def cancel(self) -> None:
        """Cancel it."""

    async def ended(self) -> str:
        """Wait for its end, and say how: "returned" (`value`), "raised" (`error`) or "cancelled"."""
        await self._world.until(lambda: self.done, "the task has ended")
        return self.how()

    def how(self) -> str:
        """How it has ended."""
        assert self.done
        if self.was_cancelled:
            return "cancelled"
        return "returned" if self.error is None else "raised"

    async def result(self) -> Any:
        """Wait for its end: what it has returned, or raises what it has raised; it was not cancelled."""
        await self.ended()
        assert not self.was_cancelled, "the task was cancelled"
        if self.error is not None:
            raise self.error
        return self.value


class World(ABC):
    """A kind of loop, with an engine."""

    io: Any
    """The package of ours for it."""
    Cancelled: type[BaseException]
    """What a cancelled task gets."""
    closed: tuple[type[BaseException], ...]
    """What a call on something closed raises."""
    busy: type[BaseException]
    """What the second of two calls that can't be at once raises."""

    def __init__(self, name: str, engine: str) -> None:
        self.name, self.engine_name = name, engine
        self.tasks: list[Task] = []

    @property
    def is_trio(self) -> bool:
        """Whether it is trio's."""
        return self.name == "trio"

    def run(self, body: Body) -> Any:
        """Run a test's body; at its end nothing is in flight and no task runs."""

        async def whole() -> Any:
            self.tasks = []
            value = await body()
            left = [task for task in self.tasks if not task.done]
            assert not left, f"{len(left)} tasks still run"
            assert not self.flight(), f"in flight at the end: {self.flight()}"
            return value

        try:
            return self._run(whole)
        finally:
            self.tasks = []

    @abstractmethod
    def _run(self, whole: Body) -> Any: ...

    @abstractmethod
    def spawn(self, call: Body, *args: Any, **named: Any) -> Task:
        """Have a task run `await call(*args, **named)`."""

    @abstractmethod
    async def a_pass(self) -> None:
        """Let the others run, once."""

    @property
    def engine(self) -> Any:
        """The running loop's engine."""
        return self.io.engine()

    @property
    def hub(self) -> Any:
        """The running loop's hub."""
        return importlib.import_module(f"{self.io.__name__}.hub").current()

    def turn(self) -> None:
        """Have the engine take what has come, now; the tasks that waited for it go on later, as ever."""
        hub = self.hub
        hub.turn()
        hub.soon()

    def turn_until_it_came(self) -> None:
        """The same until a task is to go on by it; it has not, when this returns."""
        hub = self.hub

        def came() -> bool:
            hub.turn()
            return bool(hub.waking)

        until(came, "what was under way came")
        hub.soon()

    def flight(self) -> list[Any]:
        """What the engine has."""
        return list(self.engine._ledger.flight.values())

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something, looking at each pass."""
        deadline = time.monotonic() + BOUND
        while not condition():
            assert time.monotonic() < deadline, f"it did not happen: {what}"
            await self.a_pass()

    async def in_flight(self, many: int = 1) -> None:
        """Wait until the kernel has that many operations."""
        await self.until(
            lambda: sum(op._state == IN_FLIGHT for op in self.flight()) >= many, f"{many} in flight"
        )

    async def passes(self, many: int = 3) -> None:
        """Let the others run for a few passes."""
        for _ in range(many):
            await self.a_pass()

    @abstractmethod
    def cancelled_from_start(self) -> contextlib.AbstractAsyncContextManager[Any]:
        """A block in which the running task is cancelled already; the block's end takes the cancel."""


class AsyncioTask(Task):
    """One of asyncio's."""

    def start(self, call: Callable[[], Awaitable[Any]]) -> None:
        """Begin."""
        self.task = asyncio.get_running_loop().create_task(self._main(call))

    async def _main(self, call: Callable[[], Awaitable[Any]]) -> None:
        try:
            self.value = await call()
        except asyncio.CancelledError:
            self.was_cancelled = True
        except Exception as error:  # noqa: BLE001 - for `result`
            self.error = error
        finally:
            self.done = True

    def cancel(self) -> None:
        """See Task."""
        self.task.cancel()


class Asyncio(World):
    """asyncio's own loop, or uvloop."""

    io = iocancel.asyncio
    Cancelled = asyncio.CancelledError
    closed = (ValueError,)
    busy = RuntimeError

    def _run(self, whole: Body) -> Any:
        factory = uvloop.new_event_loop if self.name == "uvloop" else None
        with asyncio.Runner(debug=self.name == "asyncio-debug", loop_factory=factory) as runner:
            return runner.run(self._bound(whole))

    @staticmethod
    async def _bound(whole: Body) -> Any:
        async with asyncio.timeout(2 * BOUND):
            return await whole()

    def spawn(self, call: Body, *args: Any, **named: Any) -> Task:
        """See World."""
        task = AsyncioTask(self)
        self.tasks.append(task)
        task.start(functools.partial(call, *args, **named))
        return task

    async def a_pass(self) -> None:
        """See World."""
        await asyncio.sleep(0)

    @contextlib.asynccontextmanager
    async def cancelled_from_start(self) -> Any:
        """See World."""
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            yield
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            task.uncancel()
        else:
            raise AssertionError("the cancel was lost")


class TrioTask(Task):
    """One of trio's, in a scope of its own."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.scope = trio.CancelScope()

    async def main(self, call: Callable[[], Awaitable[Any]]) -> None:
        """What it does."""
        try:
            with self.scope:
                self.value = await call()
            self.was_cancelled = self.scope.cancelled_caught
        except Exception as error:  # noqa: BLE001 - for `result`
            self.error = error
        finally:
            self.done = True

    def cancel(self) -> None:
        """See Task."""
        self.scope.cancel()


class Trio(World):
    """trio."""

    io = iocancel.trio
    Cancelled = trio.Cancelled
    closed = (trio.ClosedResourceError,)
    busy = trio.BusyResourceError
    _nursery: trio.Nursery

    def _run(self, whole: Body) -> Any:
        return trio.run(self._main, whole)

    async def _main(self, whole: Body) -> Any:
        error: BaseException | None = None
        value = None
        with trio.fail_after(2 * BOUND):
            async with trio.open_nursery() as self._nursery:
                try:
                    value = await whole()
                except Exception as raised:  # noqa: BLE001 - raised as it is, not as one of a group
                    error = raised
                    self._nursery.cancel_scope.cancel()
        if error is not None:
            raise error
        return value

    def spawn(self, call: Body, *args: Any, **named: Any) -> Task:
        """See World."""
        task = TrioTask(self)
        self.tasks.append(task)
        self._nursery.start_soon(task.main, functools.partial(call, *args, **named))
        return task

    async def a_pass(self) -> None:
        """See World."""
        await trio.lowlevel.cancel_shielded_checkpoint()

    @contextlib.asynccontextmanager
    async def cancelled_from_start(self) -> Any:
        """See World."""
        with trio.CancelScope() as scope:
            scope.cancel()
            yield
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught, "the cancel was lost"


def world_of(name: str, engine: str) -> World:
    """A world by its names."""
    return Trio(name, engine) if name == "trio" else Asyncio(name, engine)


@functools.cache
def lacking(engine: str) -> str:
    """Why an engine can't be had here, or not in a loop; empty where it can."""
    if reason := lacks_engine(engine):
        return reason
    with open_engine(engine) as opened:
        return "" if hasattr(opened, "fileno") else f"{engine} has no file that a loop could watch"


@functools.cache
def warm() -> None:
    """What is imported or made once in a process is there before the fds are counted."""
    for name in ("asyncio", "uvloop", "trio"):
        world = world_of(name, "uring")

        async def body(world: World = world) -> None:
            await world.a_pass()

        world._run(body)


@contextlib.contextmanager
def in_world(name: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world of an engine; at the end it has left no fd, no thread and no memory behind."""
    need_engine(engine, lacking(engine))
    monkeypatch.setenv("IOCANCEL_ENGINE", engine)
    warm()
    with leaving_nothing(settle):
        yield world_of(name, engine)


__all__ = [
    "ENGINES",
    "NAMES",
    "Asyncio",
    "Task",
    "Trio",
    "World",
    "in_world",
    "lacking",
    "settle",
    "world_of",
]
