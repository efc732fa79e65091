"""asyncio's own rules hold for our verbs in task groups: who fails, and who is cancelled by that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import iocancel.asyncio as ours

from .helpers import SHORT, Blocking, World, counting, in_flight, raised


async def raises_group(kind: type[BaseException], awaited: Any) -> None:
    """A group of one exception comes out."""
    error = await raised(awaited)
    assert isinstance(error, ExceptionGroup)
    assert [type(each) for each in error.exceptions] == [kind]


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
