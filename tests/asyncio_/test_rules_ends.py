"""asyncio's own rules hold where somebody else ends what a task waits for, and at Ctrl-C."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import select
import signal
import weakref
from typing import Any

import pytest

import iocancel.asyncio as ours
from iocancel import OperationCancelled

from .helpers import SHORT, Blocking, World, in_flight, raised

# Others who end it


def test_two_tasks_wait_for_one_operation(world: World) -> None:
    """A cancel of one of them ends it for both; the other one learns of it as of a failure."""

    async def main() -> None:
        op = ours.engine().timeout(1000.0)
        first, second = (asyncio.ensure_future(ours.result(op)) for _ in range(2))
        await in_flight()
        first.cancel()
        assert type(await raised(first)) is asyncio.CancelledError
        assert isinstance(await raised(second), OperationCancelled)

    world.run(main)


def test_a_file_that_is_closed_while_others_begin_again(world: World, pipe: tuple[int, int]) -> None:
    """Who tries again the moment that it was cancelled gets its ending, too."""

    async def main() -> None:
        errors: list[BaseException | None] = []

        async def stubborn() -> None:
            errors.append(await raised(ours.poll(number, 1)))
            errors.append(await raised(ours.poll(number, 1)))

        number = os.dup(pipe[0])
        task = asyncio.ensure_future(stubborn())
        await in_flight()
        await ours.close_fd(number)
        await task
        assert isinstance(errors[0], OperationCancelled)
        assert isinstance(errors[1], OSError)

    world.run(main)


@pytest.mark.parametrize("how", ["one", "many", "fd", "all"])
def test_a_cancel_by_the_engine(world: World, pipe: tuple[int, int], how: str) -> None:
    """What code of the loop's own thread cancels by the engine ends for the tasks that wait."""

    async def main() -> None:
        engine = ours.engine()
        op = engine.poll(pipe[0], 1)
        task = asyncio.ensure_future(ours.result(op))
        await in_flight()
        if how == "one":
            op.cancel()
        elif how == "many":
            engine.cancel([op])
        elif how == "fd":
            engine.cancel_fd(pipe[0])
        else:
            engine.cancel_all()
        assert isinstance(await raised(task), OperationCancelled)

    world.run(main)


def test_a_cancel_by_the_engine_that_comes_too_late(world: World, pipe: tuple[int, int]) -> None:
    """The next wait on the file is not taken for one that was cancelled, or whose cancel was sent already."""

    async def main() -> None:
        seen: list[int] = []

        async def twice() -> None:
            seen.append(await ours.poll(number, select.POLLIN))
            os.read(number, 16)
            await ours.poll(number, select.POLLIN)

        number = os.dup(pipe[0])
        task = asyncio.ensure_future(twice())
        await in_flight()
        os.write(pipe[1], b"x")  # the kernel has completed it when this returns
        ours.engine().cancel_fd(number)
        while not seen:
            await asyncio.sleep(0)
        assert seen == [select.POLLIN]
        await in_flight()
        await ours.close_fd(number)
        assert isinstance(await raised(task), OperationCancelled)

    world.run(main)


def test_a_tasks_context(world: World, pipe: tuple[int, int]) -> None:
    """A task goes on in its own context; the loop's hub keeps none of it."""
    variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")

    class Thing:
        pass

    async def main() -> None:
        async def first() -> weakref.ref[Thing]:
            thing = Thing()
            variable.set(thing)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(SHORT):
                    await ours.read(pipe[0], 1)
            assert variable.get() is thing
            return weakref.ref(thing)

        seen = await asyncio.create_task(first(), context=contextvars.Context())
        await asyncio.sleep(0)
        gc.collect()
        assert seen() is None

    world.run(main)


# Ctrl-C


def test_ctrl_c(world: World, blocks: Blocking) -> None:
    """asyncio.run's: it cancels the main task, whose verb ends; then KeyboardInterrupt comes out of it."""
    seen: list[type[BaseException]] = []

    async def main() -> None:
        async def interrupt() -> None:
            await in_flight()
            os.kill(os.getpid(), signal.SIGINT)

        task = asyncio.ensure_future(interrupt())
        try:
            await blocks()
        except BaseException as error:
            seen.append(type(error))
            assert ours.engine().in_flight == 0
            raise
        finally:
            await task

    async def direct() -> None:  # no wait_for: the main task is the one that waits
        await main()

    with asyncio.Runner(loop_factory=world.loop) as runner, pytest.raises(KeyboardInterrupt):
        runner.run(direct())
    assert seen == [asyncio.CancelledError]
