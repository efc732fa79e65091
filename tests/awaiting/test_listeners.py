"""Listener in each world: it ends, it closes, and what came late is not left behind."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import pytest

from .worlds import World


def connect(listener: Any) -> socket.socket:
    return socket.create_connection(listener.file.getsockname())


def test_connections_are_streams(world: World, listener: socket.socket) -> None:
    async def body() -> None:
        async with world.io.Listener(listener) as mine:
            for blocking in (True, False):
                listener.setblocking(blocking)
                with connect(mine) as client:
                    async with await mine.accept() as stream:
                        assert stream.address == client.getsockname()
                        await stream.send_all(b"hello")
                        assert client.recv(5) == b"hello"
                task = world.spawn(mine.accept)
                await world.in_flight()
                with pytest.raises(world.busy, match="accepting"):
                    await mine.accept()
                with connect(mine) as client:
                    async with await task.result() as stream:
                        assert stream.address == client.getsockname()
            assert repr(mine) == f"<Listener fd={listener.fileno()}>"
            assert mine.file is listener
        assert repr(mine) == "<Listener closed>"
        assert (listener.fileno(), mine.fileno()) == (-1, -1)
        with pytest.raises(world.closed, match="closed"):
            await mine.accept()

    world.run(body)


def test_closing_a_listener_ends_its_accept(world: World, listener: socket.socket) -> None:
    async def body() -> None:
        mine = world.io.Listener(listener)
        task = world.spawn(mine.accept)
        await world.in_flight()
        await mine.aclose()
        with pytest.raises(world.closed, match="closed"):
            await task.result()

    world.run(body)


def test_a_connection_that_came_late_is_closed_with_its_listener(
    world: World, listener: socket.socket
) -> None:
    async def body() -> None:
        mine = world.io.Listener(listener)
        task = world.spawn(mine.accept)
        await world.in_flight()
        with connect(mine) as client:
            task.cancel()
            if await task.ended() == "returned":
                await task.value.aclose()
            await mine.aclose()
            client.settimeout(20)
            with contextlib.suppress(ConnectionResetError):  # one that nobody had accepted
                assert client.recv(1) == b""

    world.run(body)


def test_closing_while_a_connection_comes(world: World, listener: socket.socket) -> None:
    async def body() -> None:
        mine = world.io.Listener(listener)
        task = world.spawn(mine.accept)
        await world.in_flight()
        with connect(mine) as client:
            world.turn_until_it_came()  # it is there, and its task has not gone on
            task.cancel()
            await mine.aclose()
            if await task.ended() == "returned":  # trio's, which has room for it
                await task.value.aclose()
            client.settimeout(20)
            assert client.recv(1) == b""

    world.run(body)


def test_a_connection_that_nobody_asks_for_goes_with_the_listener(
    world: World, listener: socket.socket
) -> None:
    async def body() -> None:
        mine = world.io.Listener(listener)
        task = world.spawn(mine.accept)
        await world.in_flight()
        with connect(mine):
            world.turn_until_it_came()
            task.cancel()
            if await task.ended() == "returned":
                await task.value.aclose()
            kept = [mine]
            del mine, task
            world.tasks.clear()
            with pytest.warns(ResourceWarning, match="unclosed <Listener"):
                kept.clear()

    world.run(body)
