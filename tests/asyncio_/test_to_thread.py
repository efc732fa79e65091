"""Worker threads that a task's cancel ends."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import iocancel
import iocancel.asyncio as ours
from iocancel import Cancelled, CancelScope, pool

from ..support import BOUND
from .helpers import SHORT, World, counting, raised


@pytest.fixture(autouse=True)
def own_pool(nothing_left_behind: None) -> Iterator[None]:
    """The threads' engines are given back with the test."""
    before, pool.current = pool.current, pool.Pool()
    yield
    pool.current.close()
    pool.current = before


class Reading:
    """A blocking read in a thread, and when it has begun.

    Args:
        fd: an empty pipe's.
        then: what the function does with the `Cancelled` that ends it; raises it again, if it is not given.
    """

    def __init__(self, fd: int, then: Callable[[Cancelled], Any] | None = None) -> None:
        self._fd, self._then = fd, then
        self._loop = asyncio.get_running_loop()
        self.begun = asyncio.Event()
        self.error: BaseException | None = None

    def __call__(self) -> Any:
        self._loop.call_soon_threadsafe(self.begun.set)
        try:
            return iocancel.read(self._fd, 16)
        except Cancelled as error:
            self.error = error
            if self._then is None:
                raise
            return self._then(error)


async def cancelled(task: asyncio.Task[Any], *message: str) -> BaseException:
    """Cancel a task; its CancelledError."""
    task.cancel(*message)
    error = await raised(task)
    assert type(error) is asyncio.CancelledError
    return error


def test_a_value_arguments_and_the_context(world: World) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    def add(a: int, *, b: int) -> tuple[int, int, bool]:
        seen = variable.get()
        variable.set(99)
        return a + b, seen, threading.current_thread() is threading.main_thread()

    async def main() -> None:
        variable.set(7)
        assert await ours.to_thread(add, 1, b=2) == (3, 7, False)
        assert variable.get() == 7

    world.run(main)


def test_an_exception(world: World) -> None:
    async def main() -> None:
        with pytest.raises(OSError, match="descriptor"):
            await ours.to_thread(iocancel.read, -1, 16)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await ours.to_thread(next, iter(()))

    world.run(main)


def test_a_timeout_ends_a_read(world: World, pipe: tuple[int, int]) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SHORT):
                await ours.to_thread(iocancel.read, pipe[0], 16)
        assert counting() == 0
        os.write(pipe[1], b"kept")
        assert await ours.to_thread(iocancel.read, pipe[0], 16) == b"kept"

    world.run(main)


def test_the_threads_end_is_awaited(world: World, pipe: tuple[int, int]) -> None:
    """The task is not done before the function is; a second cancel meanwhile changes nothing."""

    async def main() -> None:
        goes_on = threading.Event()
        seen = asyncio.Event()
        loop = asyncio.get_running_loop()
        ended: list[bool] = []

        def cleanup(error: Cancelled) -> None:
            loop.call_soon_threadsafe(seen.set)
            assert goes_on.wait(BOUND)
            ended.append(True)
            raise error

        reading = Reading(pipe[0], cleanup)
        task = asyncio.ensure_future(ours.to_thread(reading))
        await reading.begun.wait()
        task.cancel("first")
        await seen.wait()
        assert not task.done()
        task.cancel("second")
        await asyncio.sleep(0)
        assert not task.done()
        goes_on.set()
        error = await raised(task)
        assert type(error) is asyncio.CancelledError
        assert error.args == ("first",)
        assert ended == [True]
        assert not hasattr(error, "value")
        assert error.__cause__ is None

    world.run(main)


def test_a_value_in_spite_of_the_cancel(world: World, pipe: tuple[int, int]) -> None:
    async def main() -> None:
        reading = Reading(pipe[0], lambda _: "all the same")
        task = asyncio.ensure_future(ours.to_thread(reading))
        await reading.begun.wait()
        error: Any = await cancelled(task)
        assert error.value == "all the same"

    world.run(main)


def test_an_exception_that_comes_with_the_cancel(world: World, pipe: tuple[int, int]) -> None:
    def fail(_: Cancelled) -> None:
        raise ValueError("while cleaning up")

    async def main() -> None:
        reading = Reading(pipe[0], fail)
        task = asyncio.ensure_future(ours.to_thread(reading))
        await reading.begun.wait()
        error = await cancelled(task)
        assert isinstance(error.__cause__, ValueError)

    world.run(main)


def test_a_cancel_when_the_thread_has_just_ended(world: World) -> None:
    """The value is there, and the await has to raise all the same."""

    async def main() -> None:
        def tell() -> str:
            loop.call_soon_threadsafe(begun.set)
            assert goes_on.wait(BOUND)
            return "value"

        loop, begun, goes_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
        executor = concurrent.futures.ThreadPoolExecutor(1)
        loop.set_default_executor(executor)
        task = asyncio.ensure_future(ours.to_thread(tell))
        await begun.wait()
        goes_on.set()
        # The loop stands still until the thread is done with it.
        concurrent.futures.wait([executor.submit(int)], BOUND)
        error: Any = await cancelled(task)
        assert error.value == "value"

    world.run(main)


def test_groups_and_nested_scopes(world: World, pipe: tuple[int, int]) -> None:
    def nested(error: Cancelled) -> None:
        with CancelScope(), CancelScope(shield=True):
            pass
        raise BaseExceptionGroup("both", [error, ValueError("other")])

    def only(error: Cancelled) -> None:
        raise BaseExceptionGroup("one", [BaseExceptionGroup("in one", [error])])

    async def main() -> None:
        for then in (nested, only):
            reading = Reading(pipe[0], then)
            task = asyncio.ensure_future(ours.to_thread(reading))
            await reading.begun.wait()
            error = await cancelled(task)
            if then is nested:
                assert isinstance(error.__cause__, ExceptionGroup)
                assert [type(each) for each in error.__cause__.exceptions] == [ValueError]
            else:
                assert error.__cause__ is None

    world.run(main)


def test_its_own_scopes_are_its_own(world: World, pipe: tuple[int, int]) -> None:
    def within() -> str:
        with iocancel.move_on_after(0) as scope:
            iocancel.read(pipe[0], 16)
        assert scope.cancelled_caught
        return "on"

    async def main() -> None:
        assert await ours.to_thread(within) == "on"

    world.run(main)


def test_a_stray_cancelled_does_not_come_out(world: World, pipe: tuple[int, int]) -> None:
    stray = Cancelled("from elsewhere")

    def own() -> None:
        scope = iocancel.current_scope()
        assert scope is not None
        scope.cancel()
        iocancel.read(pipe[0], 16)

    def by_hand() -> None:
        raise stray

    def in_a_group() -> None:
        raise BaseExceptionGroup("group", [stray, ValueError()])

    async def main() -> None:
        error = await raised(ours.to_thread(by_hand))
        assert type(error) is RuntimeError
        assert error.__cause__ is stray
        error = await raised(ours.to_thread(in_a_group))
        assert type(error) is RuntimeError
        assert isinstance(error.__cause__, BaseExceptionGroup)
        error = await raised(ours.to_thread(own))
        assert type(error) is RuntimeError
        assert "its own" in str(error) or "has cancelled the scope" in str(error)

    world.run(main)


def test_a_scope_that_is_left_open_inside(world: World) -> None:
    async def main() -> None:
        error = await raised(ours.to_thread(lambda: CancelScope().__enter__() and None))
        assert error is None or type(error) is RuntimeError
        assert await ours.to_thread(iocancel.current_scope) is not None
        executor = asyncio.get_running_loop().run_in_executor(None, iocancel.current_scope)
        assert await executor is None

    world.run(main)


def test_what_was_queued_never_runs(world: World) -> None:
    ran: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(1))
        goes_on, begun = threading.Event(), asyncio.Event()

        def first() -> str:
            loop.call_soon_threadsafe(begun.set)
            assert goes_on.wait(BOUND)
            return "first"

        one = asyncio.ensure_future(ours.to_thread(first))
        await begun.wait()
        two = asyncio.ensure_future(ours.to_thread(ran.append, "second"))
        await asyncio.sleep(0)
        error = await cancelled(two)  # while the first one has the only thread
        assert not hasattr(error, "value")
        goes_on.set()
        assert await one == "first"
        await ours.to_thread(ran.append, "third")

    world.run(main)
    assert ran == ["third"]


def test_a_function_that_begins_in_a_cancelled_scope(world: World, pipe: tuple[int, int]) -> None:
    async def main() -> None:
        async def wait() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await ours.to_thread(iocancel.read, pipe[0], 16)

        assert type(await raised(asyncio.ensure_future(wait()))) is asyncio.CancelledError

    world.run(main)


def test_a_group(world: World, pipe: tuple[int, int]) -> None:
    async def main() -> None:
        readings = [Reading(pipe[0]) for _ in range(4)]

        async def fail() -> None:
            for each in readings:
                await each.begun.wait()
            raise ValueError("sibling")

        async def grouped() -> None:
            async with asyncio.TaskGroup() as group:
                for each in readings:
                    group.create_task(ours.to_thread(each))
                group.create_task(fail())

        error = await raised(grouped())
        assert isinstance(error, ExceptionGroup)
        assert [type(each) for each in error.exceptions] == [ValueError]
        assert all(isinstance(each.error, Cancelled) for each in readings)

    world.run(main)


def test_abandoned(world: World, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The await ends at once; the scope is cancelled all the same; an error is told as any thread's."""
    told: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_value))

    async def main() -> None:
        goes_on = threading.Event()

        def cleanup(_: Cancelled) -> None:
            assert goes_on.wait(BOUND)
            raise ValueError("too late")

        reading = Reading(pipe[0], cleanup)
        task = asyncio.ensure_future(ours.to_thread(reading, abandon_on_cancel=True))
        await reading.begun.wait()
        error = await cancelled(task)
        assert reading.error is None or not goes_on.is_set()
        assert not hasattr(error, "value")
        goes_on.set()

    world.run(main)  # waits for the executor's threads at its end
    assert [type(each) for each in told] == [ValueError]


def test_abandoned_and_the_loop_is_closed(world: World, pipe: tuple[int, int], caplog: Any) -> None:
    goes_on = threading.Event()

    async def main() -> None:
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def stubborn() -> None:
            loop.call_soon_threadsafe(begun.set)
            assert goes_on.wait(BOUND)

        task = asyncio.ensure_future(ours.to_thread(stubborn, abandon_on_cancel=True))
        await begun.wait()
        await cancelled(task)

    loop = world.loop()
    executor = concurrent.futures.ThreadPoolExecutor(1)
    loop.set_default_executor(executor)
    try:
        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
    goes_on.set()
    executor.shutdown()
    assert not caplog.records


def test_a_coroutine_that_is_dropped_ends_its_thread(world: World, pipe: tuple[int, int]) -> None:
    """A loop that is closed with it still waiting: the thread's read ends with the coroutine."""

    async def held() -> None:
        reading = Reading(pipe[0])
        coroutine = ours.to_thread(reading)
        future = coroutine.send(None)  # by hand: no task holds it
        assert future is not None
        await reading.begun.wait()
        coroutine.close()

    world.run(held)  # it waits for the executor's threads at its end


def test_nothing_is_kept(world: World, pipe: tuple[int, int]) -> None:
    """Neither the arguments nor the exception are held when the await is over."""

    class Thing:
        pass

    def fail(thing: Thing) -> None:
        raise ValueError("fail")

    async def main() -> None:
        thing = Thing()
        seen = weakref.ref(thing)
        await raised(ours.to_thread(fail, thing))
        await ours.to_thread(id, thing)
        del thing
        gc.collect()
        await ours.to_thread(int)  # the executor's thread holds its last work until the next one
        assert seen() is None

    world.run(main)
