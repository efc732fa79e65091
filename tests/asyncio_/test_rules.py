"""asyncio's own rules about cancelling hold for our verbs: on each kind of loop and task.

The teardown finds what is left: a ledger that is not empty, an fd, a thread, memory.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import select
import signal
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import iocancel.asyncio as ours
from iocancel import OperationCancelled

from ..support import BOUND
from .helpers import SHORT, VERBS, Blocking, World, counting, in_flight, raised


@pytest.fixture(params=VERBS)
def blocks(request: pytest.FixtureRequest, tmp_path: Path, pipes: Callable[[], tuple[int, int]]) -> Blocking:
    """What blocks for ever."""
    return Blocking(request.param, tmp_path, pipes)


async def raises_group(kind: type[BaseException], awaited: Any) -> None:
    """A group of one exception comes out."""
    error = await raised(awaited)
    assert isinstance(error, ExceptionGroup)
    assert [type(each) for each in error.exceptions] == [kind]


# Timeouts


@pytest.mark.parametrize("at", [False, True], ids=["timeout", "timeout_at"])
def test_a_timeout(world: World, blocks: Blocking, at: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout_at(loop.time() + SHORT) if at else asyncio.timeout(SHORT):
                await blocks()
        assert counting() == 0
        await asyncio.sleep(0)  # no stray cancel

    world.run(main)


def test_a_timeout_that_has_passed_before_the_verb(world: World, blocks: Blocking) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(-1):
                await blocks()
        assert counting() == 0

    world.run(main)


def test_wait_for(world: World, blocks: Blocking) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(blocks(), SHORT)
        assert counting() == 0

    world.run(main)


def test_an_inner_and_an_outer_timeout_at_once(world: World, blocks: Blocking) -> None:
    """Both cancel before the ending: the outer one's TimeoutError comes, and no cancel is left over."""

    async def main() -> None:
        when = asyncio.get_running_loop().time()  # over already: both are due in the same pass
        outer, inner = asyncio.timeout_at(when), asyncio.timeout_at(when)

        async def both() -> None:
            async with outer, inner:
                await blocks()

        assert type(await raised(both())) is TimeoutError
        assert inner.expired()
        assert outer.expired()
        assert counting() == 0
        await asyncio.sleep(0)

    world.run(main)


def test_the_inner_timeout_leaves_the_outer_one_alone(world: World, blocks: Blocking) -> None:
    async def main() -> None:
        async with asyncio.timeout(1000) as outer:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(SHORT):
                    await blocks()
            assert counting() == 0
        assert not outer.expired()

    world.run(main)


def test_a_cancel_within_a_timeout_is_no_timeout(world: World, blocks: Blocking) -> None:
    async def main() -> None:
        async def within() -> None:
            async with asyncio.timeout(1000):
                await blocks()

        task = asyncio.ensure_future(within())
        await in_flight()
        task.cancel("mine")
        error = await raised(task)
        assert type(error) is asyncio.CancelledError
        assert task.cancelled()

    world.run(main)


# Cancels


def test_a_cancel_has_its_message_and_is_counted(world: World, blocks: Blocking) -> None:
    async def main() -> None:
        seen: list[Any] = []

        async def wait() -> None:
            try:
                await blocks()
            except asyncio.CancelledError as error:
                seen.extend([error.args, counting()])
                raise

        task = asyncio.ensure_future(wait())
        await in_flight()
        assert task.cancel("why")
        assert counting(task) == 1
        await raised(task)
        assert seen == [("why",), 1]
        assert task.cancelled()

    world.run(main)


def test_a_second_cancel_while_the_ending_is_awaited(world: World, blocks: Blocking) -> None:
    """One CancelledError comes, with the first one's message; both are counted."""

    async def main() -> None:
        seen: list[Any] = []

        async def wait() -> None:
            try:
                await blocks()
            except asyncio.CancelledError as error:
                seen.append(error.args)
            await asyncio.sleep(0)  # a second CancelledError would come here
            seen.append(counting())

        task = asyncio.ensure_future(wait())
        await in_flight()
        assert task.cancel("first")
        assert task.cancel("second")
        assert await raised(task) is None
        assert seen == [("first",), 2]

    world.run(main)


def test_a_cancel_by_a_task_that_goes_on_within_a_turn(
    world: World, blocks: Blocking, pipe: tuple[int, int]
) -> None:
    """Within the hub's own callback nobody calls for a turn: it has to make another one itself."""

    async def main() -> None:
        task = asyncio.ensure_future(blocks())
        await in_flight()
        asyncio.get_running_loop().call_soon(os.write, pipe[1], b"x")
        assert await ours.read(pipe[0], 1) == b"x"
        task.cancel()
        async with asyncio.timeout(BOUND):
            await asyncio.wait([task])
        assert task.cancelled()

    world.run(main)


def test_uncancel_and_on(world: World, blocks: Blocking, pipe: tuple[int, int]) -> None:
    async def main() -> bytes:
        async def wait() -> bytes:
            task = asyncio.current_task()
            assert task is not None
            try:
                await blocks()
            except asyncio.CancelledError:
                assert task.uncancel() == 0
            return bytes(await ours.read(pipe[0], 16))

        task = asyncio.ensure_future(wait())
        await in_flight()
        task.cancel()
        await asyncio.sleep(0)
        os.write(pipe[1], b"on")
        return await task

    assert world.run(main) == b"on"


def test_a_cancel_before_the_first_step(world: World, blocks: Blocking) -> None:
    """Nothing is begun. (An eager task has made its first step by then: this one is none.)"""

    async def main() -> None:
        task = asyncio.Task(blocks())
        task.cancel()
        assert ours.engine().in_flight == 0
        assert type(await raised(task)) is asyncio.CancelledError

    world.run(main)


def test_a_task_cancels_itself_before_the_await(world: World, blocks: Blocking) -> None:
    async def main() -> None:
        async def wait() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel("self")
            await blocks()

        task = asyncio.ensure_future(wait())
        error = await raised(task)
        assert type(error) is asyncio.CancelledError
        assert error.args == ("self",)

    world.run(main)


def test_a_cancel_in_the_pass_in_which_it_was_staged(world: World, blocks: Blocking) -> None:
    """The kernel has not seen it yet: it is withdrawn."""

    async def main() -> None:
        task = asyncio.ensure_future(blocks())
        if world.kind != "eager":
            await asyncio.sleep(0)
        assert task.cancel()
        assert type(await raised(task)) is asyncio.CancelledError

    world.run(main)


def test_a_cancel_when_the_value_has_come(world: World, pipe: tuple[int, int]) -> None:
    """asyncio has the await raise; and the bytes are still in the pipe."""

    async def main() -> None:
        task = asyncio.ensure_future(ours.read(pipe[0], 16))
        await in_flight()
        os.write(pipe[1], b"kept")
        ours.engine().submit()  # the poll has come; the task has not gone on
        task.cancel()
        assert type(await raised(task)) is asyncio.CancelledError
        assert await ours.read(pipe[0], 16) == b"kept"

    world.run(main)


def test_shield(world: World, blocks: Blocking) -> None:
    """A cancel of who waits does not reach it."""

    async def main() -> None:
        inner = asyncio.ensure_future(blocks())

        async def wait() -> None:
            await asyncio.shield(inner)

        outer = asyncio.ensure_future(wait())
        await in_flight()
        outer.cancel()
        assert type(await raised(outer)) is asyncio.CancelledError
        assert not inner.done()
        assert ours.engine().in_flight == 1
        inner.cancel()
        assert type(await raised(inner)) is asyncio.CancelledError

    world.run(main)


def test_gather_with_exceptions_returned(world: World, blocks: Blocking, pipe: tuple[int, int]) -> None:
    async def main() -> None:
        waits = [asyncio.ensure_future(blocks()), asyncio.ensure_future(ours.read(pipe[0], 16))]
        both = asyncio.gather(*waits, ours.read(-1, 1), return_exceptions=True)
        await in_flight(2)
        waits[0].cancel()
        os.write(pipe[1], b"x")
        first, second, third = await both
        assert type(first) is asyncio.CancelledError
        assert second == b"x"
        assert isinstance(third, OSError)

    world.run(main)


def test_a_cancelled_gather(world: World, blocks: Blocking, pipe: tuple[int, int]) -> None:
    """asyncio has it raise when the first of its tasks has ended."""

    async def main() -> None:
        tasks = [asyncio.ensure_future(blocks()), asyncio.ensure_future(ours.read(pipe[0], 16))]
        both = asyncio.gather(*tasks)
        await in_flight(2)
        both.cancel()
        assert type(await raised(both)) is asyncio.CancelledError
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)

    world.run(main)


# Task groups


async def same_count(group: Callable[[Callable[[], Any]], Any], blocks: Callable[[], Any]) -> None:
    """What a task's count of cancels is behind a group does not depend on whose waits were in it.

    (Python 3.11 and 3.12 leave one there where a group's child fails while the group is being left.)
    """

    async def counted(wait: Callable[[], Any]) -> int:
        await group(wait)
        await asyncio.sleep(0)
        return counting()

    expected = await raised_or(asyncio.ensure_future(counted(asyncios_own)))
    assert await raised_or(asyncio.ensure_future(counted(blocks))) == expected


async def asyncios_own() -> None:
    """Blocks for ever."""
    await asyncio.get_running_loop().create_future()


async def turns() -> None:
    """Let all others come to where they wait."""
    for _ in range(5):
        await asyncio.sleep(0)


async def raised_or(awaited: Any) -> Any:
    try:
        return await awaited
    except BaseException as error:  # noqa: BLE001 - compared
        return type(error)


def test_a_siblings_failure_cancels_ours(world: World, blocks: Blocking) -> None:
    async def main() -> None:
        async def group(wait: Callable[[], Any]) -> None:
            async def fail() -> None:
                await turns() if wait is asyncios_own else await in_flight(3)
                raise ValueError("sibling")

            async def grouped() -> None:
                async with asyncio.TaskGroup() as group:
                    for _ in range(3):
                        group.create_task(wait())
                    group.create_task(fail())

            await raises_group(ValueError, grouped())

        await same_count(group, blocks)

    world.run(main)


def test_our_failure_cancels_a_sibling(world: World, blocks: Blocking) -> None:
    async def main() -> None:
        async def group(wait: Callable[[], Any]) -> None:
            async def fail() -> None:
                await turns() if wait is asyncios_own else await in_flight()
                await ours.read(-1, 1)

            async def grouped() -> None:
                async with asyncio.TaskGroup() as group:
                    group.create_task(wait())
                    group.create_task(fail())

            await raises_group(OSError, grouped())

        await same_count(group, blocks)

    world.run(main)


def test_a_body_that_waits_is_cancelled_by_its_group(world: World, blocks: Blocking) -> None:
    """The group cancels its parent, and takes that back."""

    async def main() -> None:
        async def group(wait: Callable[[], Any]) -> None:
            async def fail() -> None:
                await turns() if wait is asyncios_own else await in_flight()
                raise ValueError("child")

            async def grouped() -> None:
                async with asyncio.TaskGroup() as group:
                    group.create_task(fail())
                    await wait()

            await raises_group(ValueError, grouped())
            assert counting() == 0

        await same_count(group, blocks)

    world.run(main)


def test_a_timeout_around_a_group(world: World, blocks: Blocking) -> None:
    async def main() -> None:
        async def grouped() -> None:
            async with asyncio.timeout(SHORT), asyncio.TaskGroup() as group:
                for _ in range(20):
                    group.create_task(blocks())

        assert type(await raised(grouped())) is TimeoutError
        assert counting() == 0

    world.run(main)


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
