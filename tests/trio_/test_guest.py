"""trio as a guest of asyncio: our trio verbs inside, our asyncio verbs in the host, in one thread."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
import trio

import iocancel.asyncio
import iocancel.trio as ours
from iocancel.trio.hub import current

from ..support import BOUND
from .helpers import in_flight, raised

T = TypeVar("T")


def run_as_guest(
    main: Callable[[], Awaitable[T]], host: Callable[[asyncio.Future[Any]], Awaitable[Any]]
) -> T:
    """Run trio in asyncio.

    Args:
        main: trio's main task.
        host: asyncio's; it is given the future of the guest's end.
    """

    async def begin() -> T:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Any] = loop.create_future()
        trio.lowlevel.start_guest_run(
            main,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            run_sync_soon_not_threadsafe=loop.call_soon,
            done_callback=ended.set_result,
        )
        async with asyncio.timeout(BOUND):
            await host(ended)
            outcome = await ended
        value: T = outcome.unwrap()
        return value

    return asyncio.run(begin())


def test_reads_on_both_sides(pipes: Callable[[], tuple[int, int]]) -> None:
    """Each wakes the other one: neither loop sleeps while the other's operations end."""
    to_guest, to_host = pipes(), pipes()

    async def main() -> list[bytes]:
        seen = []
        for _ in range(20):
            seen.append(await ours.read(to_guest[0], 16))
            await ours.write(to_host[1], b"answer")
        assert current().engine.in_flight == 0
        return seen

    async def host(ended: asyncio.Future[Any]) -> None:
        for _ in range(20):
            await iocancel.asyncio.write(to_guest[1], b"question")
            assert await iocancel.asyncio.read(to_host[0], 16) == b"answer"
        assert iocancel.asyncio.engine().in_flight == 0

    assert run_as_guest(main, host) == [b"question"] * 20


def test_cancels_on_both_sides(pipes: Callable[[], tuple[int, int]]) -> None:
    guests, hosts = pipes(), pipes()

    async def main() -> bool:
        with trio.move_on_after(0.01) as scope:
            await ours.read(guests[0], 16)
        with trio.CancelScope() as second:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.sleep, 1000.0)
                await in_flight()
                second.cancel()
        return scope.cancelled_caught and second.cancelled_caught

    async def host(ended: asyncio.Future[Any]) -> None:
        task = asyncio.ensure_future(iocancel.asyncio.read(hosts[0], 16))
        await ended
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert iocancel.asyncio.engine().in_flight == 0

    assert run_as_guest(main, host)


def test_the_guest_waits_and_the_host_cancels_it(pipe: tuple[int, int]) -> None:
    scopes: list[trio.CancelScope] = []
    errors: list[BaseException | None] = []

    async def main() -> bool:
        with trio.CancelScope() as scope:
            scopes.append(scope)
            error = await raised(lambda: ours.read(pipe[0], 16))
            errors.append(error)
            assert error is not None
            raise error
        return scope.cancelled_caught

    async def host(ended: asyncio.Future[Any]) -> None:
        while not scopes:
            await asyncio.sleep(0)
        scopes[0].cancel()

    assert run_as_guest(main, host)
    assert isinstance(errors[0], trio.Cancelled)


def test_threads_of_both(pipes: Callable[[], tuple[int, int]]) -> None:
    guests, hosts = pipes(), pipes()

    async def main() -> bytes:
        with trio.move_on_after(0.01) as scope:
            await ours.to_thread(iocancel.read, guests[0], 16)
        assert scope.cancelled_caught
        os.write(guests[1], b"x")
        return await ours.to_thread(iocancel.read, guests[0], 16)

    async def host(ended: asyncio.Future[Any]) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await iocancel.asyncio.to_thread(iocancel.read, hosts[0], 16)

    before, iocancel.pool.current = iocancel.pool.current, iocancel.pool.Pool()
    try:
        assert run_as_guest(main, host) == b"x"
    finally:
        iocancel.pool.current.close()
        iocancel.pool.current = before
