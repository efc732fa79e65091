"""The worlds themselves: tasks, cancels, and that the teardown finds what is left."""

from __future__ import annotations

import socket

import pytest

from .worlds import World


def test_a_task_returns_raises_and_is_cancelled(
    world: World, pair: tuple[socket.socket, socket.socket]
) -> None:
    async def body() -> None:
        assert world.engine.name == world.engine_name
        reader = world.spawn(world.io.recv, pair[0], 10)
        await world.in_flight()
        pair[1].send(b"abc")
        assert await reader.result() == b"abc"
        reader = world.spawn(world.io.recv, pair[0], 10)
        await world.in_flight()
        reader.cancel()
        assert await reader.ended() == "cancelled"
        wrong = world.spawn(world.io.recv, -1, 10)
        assert await wrong.ended() == "raised"
        assert isinstance(wrong.error, OSError)
        async with world.cancelled_from_start():
            await world.io.recv(pair[0], 10)

    world.run(body)


def test_what_is_left_in_flight_is_found(world: World, pair: tuple[socket.socket, socket.socket]) -> None:
    async def body() -> None:
        world.engine.recv(pair[0], 10)

    with pytest.raises(AssertionError, match="in flight at the end"):
        world.run(body)


def test_a_task_that_is_left_is_found(world: World, pair: tuple[socket.socket, socket.socket]) -> None:
    async def body() -> None:
        left.append(world.spawn(world.io.recv, pair[0], 10))
        await world.in_flight()

    left: list[object] = []
    with pytest.raises(AssertionError, match="1 tasks still run"):
        world.run(body)
