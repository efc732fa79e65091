"""asyncio's own rules about cancelling hold for our verbs: on each kind of loop and task.

The teardown finds what is left: a ledger that is not empty, an fd, a thread, memory.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

import iocancel.asyncio as ours

from ..support import BOUND
from .helpers import SHORT, Blocking, World, counting, in_flight, raised

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
