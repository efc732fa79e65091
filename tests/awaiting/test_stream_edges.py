"""Stream where little is left over: credit, O_NONBLOCK, what came late, files and operations of others."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from ..support import fill
from .test_streams import Pair, take
from .test_streams import streams as streams
from .worlds import World


def test_what_is_ready_does_not_keep_others_from_running(world: World, streams: Any, pair: Pair) -> None:
    async def body() -> None:
        ran: list[str] = []

        async def other_task() -> None:
            ran.append("other")

        one, other = streams()
        async with one, other:
            pair[1].send(bytes(1000))
            task = world.spawn(other_task)
            for _ in range(1000):
                assert await one.receive_some(1) == b"\0"
            assert ran
            await task.result()
            ran.clear()
            task = world.spawn(other_task)
            while not ran:
                await one.send_all(b"x")
            await task.result()

    world.run(body)


def test_files_that_do_not_block(world: World, streams: Any, pair: Pair) -> None:
    async def body() -> None:
        for each in pair:
            each.setblocking(False)
        one, other = streams()
        async with one, other:
            task = world.spawn(one.receive_exactly, 300_000)
            await world.in_flight()
            await other.send_all(bytes(300_000))
            assert await task.result() == bytes(300_000)
            await one.wait_send_all_might_not_block()
            fill(pair[0].fileno())
            task = world.spawn(one.wait_send_all_might_not_block)
            await world.in_flight()
            take(pair[1])
            await task.result()

    world.run(body)


def test_what_came_late_is_handed_out_in_parts(world: World, streams: Any, pair: Pair) -> None:
    async def body() -> None:
        one, other = streams()
        async with one, other:
            found = b""
            for _ in range(3):
                task = world.spawn(one.receive_some, 4)
                await world.in_flight()
                pair[1].send(b"abcd")
                world.turn_until_it_came()
                task.cancel()
                if await task.ended() == "returned":
                    found += task.value
                else:
                    found += await one.receive_some(1)
                    found += await one.receive_exactly(2)
                    found += await one.receive_some()
            assert found == b"abcd" * 3

    world.run(body)


def test_an_end_and_a_failure_that_came_late(world: World, streams: Any, pair: Pair, tcp: Pair) -> None:
    async def body() -> None:
        one, other = streams()
        mine = world.io.Stream(tcp[0])
        async with one, mine:
            task = world.spawn(one.receive_some)
            await world.in_flight()
            pair[1].shutdown(socket.SHUT_RDWR)
            world.turn_until_it_came()
            task.cancel()
            assert await task.ended() == ("returned" if world.is_trio else "cancelled")
            assert await one.receive_some(1) == b""
            await other.aclose()
            task = world.spawn(mine.receive_some)
            await world.in_flight()
            tcp[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
            tcp[1].close()
            world.turn_until_it_came()
            task.cancel()
            failed = await task.ended() == "raised"
            assert failed == world.is_trio
            if not failed:
                with pytest.raises(ConnectionResetError):
                    await mine.receive_some()

    world.run(body)


def test_a_file_that_somebody_else_has_closed(world: World, streams: Any, pair: Pair) -> None:
    closed: Any = world.closed if world.is_trio else OSError

    async def body() -> None:
        one, other = streams()
        pair[0].close()
        with pytest.raises(closed):
            await one.receive_some()
        with pytest.raises(closed):
            await one.send_all(b"x")
        await one.aclose()
        await other.aclose()

    world.run(body)


def test_its_operation_is_cancelled_by_somebody_else(world: World, streams: Any) -> None:
    async def body() -> None:
        one, other = streams()
        task = world.spawn(one.receive_some)
        await world.in_flight()
        for op in world.flight():
            world.hub.cancel(op)
        with pytest.raises(OSError, match="cancel"):
            await task.result()
        await one.aclose()
        await other.aclose()

    world.run(body)
