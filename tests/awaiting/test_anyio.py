"""Under anyio: its scopes and groups around our verbs, of whichever loop runs."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from trio._core import _thread_cache

import iocancel
import iocancel.asyncio
import iocancel.trio
from iocancel import pool

from ..support import BOUND, leaving_nothing, settle, until

anyio = pytest.importorskip("anyio")

BACKENDS = {
    "asyncio": ("asyncio", {}, iocancel.asyncio),
    "uvloop": ("asyncio", {"use_uvloop": True}, iocancel.asyncio),
    "trio": ("trio", {}, iocancel.trio),
}
SHORT = 0.005
"""Seconds: a deadline that is to pass."""


class World:
    """A backend of anyio's, and our verbs for it."""

    def __init__(self, name: str) -> None:
        self._backend, self._options, module = BACKENDS[name]
        self.ours: Any = module

    def run(self, main: Callable[[], Awaitable[Any]]) -> Any:
        async def checked() -> Any:
            with anyio.fail_after(BOUND):
                value = await main()
            assert self.ours.engine().in_flight == 0
            return value

        return anyio.run(checked, backend=self._backend, backend_options=self._options)

    async def in_flight(self, many: int = 1) -> None:
        engine = self.ours.engine()
        while engine.in_flight < many or engine._staged:
            await anyio.lowlevel.checkpoint()


@pytest.fixture(params=BACKENDS)
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    if request.param == "uvloop":
        uvloop = pytest.importorskip("uvloop")
        uvloop.new_event_loop().close()  # the first one opens what the process keeps
    monkeypatch.setattr(_thread_cache, "IDLE_TIMEOUT", 0)  # seconds that trio keeps idle threads
    before, pool.current = pool.current, pool.Pool()
    threads = set(threading.enumerate())

    def settled() -> None:
        pool.current.close()
        settle()
        until(lambda: not set(threading.enumerate()) - threads, "trio's idle threads have ended")

    with leaving_nothing(settled):
        yield World(request.param)
    pool.current = before


def test_move_on_after(world: World, pipe: tuple[int, int]) -> None:
    async def main() -> None:
        with anyio.move_on_after(SHORT) as scope:
            await world.ours.read(pipe[0], 16)
        assert scope.cancelled_caught
        os.write(pipe[1], b"kept")
        assert await world.ours.read(pipe[0], 16) == b"kept"

    world.run(main)


def test_fail_after(world: World) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError), anyio.fail_after(SHORT):
            await world.ours.sleep(1000.0)

    world.run(main)


def test_a_cancelled_scope(world: World, pipe: tuple[int, int]) -> None:
    """Level-triggered: each verb that has to wait raises."""

    async def main() -> None:
        seen = []
        with anyio.CancelScope() as scope:
            scope.cancel()
            for _ in range(3):
                try:
                    await world.ours.read(pipe[0], 16)
                except anyio.get_cancelled_exc_class():
                    seen.append(True)
            await anyio.sleep(1000)
        assert scope.cancelled_caught
        assert len(seen) == 3

    world.run(main)


def test_a_task_group(world: World, pipe: tuple[int, int]) -> None:
    async def main() -> None:
        async def fail() -> None:
            await world.in_flight(20)
            raise ValueError("child")

        async def group() -> None:
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(world.ours.read, pipe[0], 16)
                tasks.start_soon(fail)

        with pytest.raises(ExceptionGroup) as caught:
            await group()
        assert [type(each) for each in caught.value.exceptions] == [ValueError]

    world.run(main)


def test_a_group_that_is_cancelled(world: World, pair: tuple[socket.socket, socket.socket]) -> None:
    a, b = pair

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.ours.recv, a, 16)
            tasks.start_soon(world.ours.sleep, 1000.0)
            await world.in_flight(2)
            tasks.cancel_scope.cancel()
        b.send(b"kept")
        assert await world.ours.recv(a, 16) == b"kept"

    world.run(main)


def test_a_shield(world: World, pipe: tuple[int, int]) -> None:
    async def main() -> None:
        with anyio.CancelScope() as outer:
            outer.cancel()
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as tasks:
                    seen: list[bytes] = []

                    async def reading() -> None:
                        seen.append(await world.ours.read(pipe[0], 16))

                    tasks.start_soon(reading)
                    await world.in_flight()
                    os.write(pipe[1], b"x")
            assert seen == [b"x"]
            await world.ours.read(pipe[0], 16)
        assert outer.cancelled_caught

    world.run(main)


def test_a_thread(world: World, pipe: tuple[int, int]) -> None:
    """anyio.to_thread.run_sync would wait for the read for ever, or abandon it."""

    async def main() -> None:
        with anyio.move_on_after(SHORT) as scope:
            await world.ours.to_thread(iocancel.read, pipe[0], 16)
        assert scope.cancelled_caught
        os.write(pipe[1], b"kept")
        assert await world.ours.to_thread(iocancel.read, pipe[0], 16) == b"kept"

    world.run(main)
