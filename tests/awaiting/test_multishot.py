"""The multishot verbs in each world: they iterate, they end, and keep what was not taken."""

from __future__ import annotations

import os
import select
import socket
from typing import Any

import pytest

from .worlds import World

Pair = tuple[socket.socket, socket.socket]


def connect(listener: socket.socket) -> socket.socket:
    return socket.create_connection(listener.getsockname())


def test_connections_come_one_after_the_other(world: World, listener: socket.socket) -> None:
    async def body() -> None:
        async with world.io.accept_multishot(listener) as conns:
            for _ in range(3):
                with connect(listener) as client:
                    conn, address = await conns.__anext__()
                    with conn:
                        assert address == client.getsockname()
            clients = [connect(listener) for _ in range(3)]
            found = []
            async for conn, address in conns:
                found.append(address)
                conn.close()
                if len(found) == 3:
                    break
            assert found == [client.getsockname() for client in clients]
            for client in clients:
                client.close()
        assert conns.leftovers == []

    world.run(body)


def test_chunks_come_until_the_end(world: World, pair: Pair) -> None:
    async def body() -> None:
        found: list[bytes] = []

        async def take() -> None:
            async with world.io.recv_multishot(pair[0], 4, buffers=2) as chunks:
                found.extend([chunk async for chunk in chunks])

        task = world.spawn(take)
        await world.in_flight()
        pair[1].send(b"abcdefgh")
        await world.until(lambda: len(b"".join(found)) or True, "it runs")
        pair[1].send(b"ijklmnopqr")
        pair[1].close()
        await task.result()
        assert b"".join(found) == b"abcdefghijklmnopqr"
        assert all(len(chunk) <= 4 for chunk in found)

    world.run(body)


def test_a_file_gets_ready_again_and_again(world: World, pipe: tuple[int, int]) -> None:
    async def body() -> None:
        async with world.io.poll_multishot(pipe[0], select.POLLIN) as masks:
            for _ in range(3):
                task = world.spawn(masks.__anext__)
                await world.until(lambda: masks._inner._op._item_hooks, "it waits")
                os.write(pipe[1], b"x")
                assert await task.result() & select.POLLIN
                os.read(pipe[0], 1)

    world.run(body)


def test_what_was_not_taken_is_left_over(world: World, listener: socket.socket, pair: Pair) -> None:
    async def body() -> None:
        async with world.io.recv_multishot(pair[0], 4) as chunks:
            await world.in_flight()
            pair[1].send(b"abcd")
            if not world.engine.supports("recv_multishot"):
                await world.passes()  # its one receive is to end
            assert chunks.leftovers == []
        assert b"".join(chunks.leftovers) == b"abcd"
        async with world.io.accept_multishot(listener) as conns:
            await world.in_flight()
            with connect(listener) as client:
                await world.until(lambda: conns._inner._op._items or conns._inner._op.done(), "it came")
        [(conn, address)] = conns.leftovers
        with conn:
            assert address[1] == client_port(conn)
        client.close()

    def client_port(conn: socket.socket) -> Any:
        return conn.getpeername()[1]

    world.run(body)


def test_a_cancelled_task_leaves_the_block_and_drains_it(world: World, pair: Pair) -> None:
    async def body() -> None:
        seen: list[Any] = []

        async def take() -> None:
            async with world.io.recv_multishot(pair[0], 4) as chunks:
                seen.append(chunks)
                async for chunk in chunks:
                    seen.append(chunk)  # noqa: PERF401 - each when it comes

        task = world.spawn(take)
        await world.in_flight()
        pair[1].send(b"abcd")
        await world.until(lambda: len(seen) == 2, "the first is taken")
        await world.until(lambda: seen[0]._inner._op._item_hooks, "it waits")
        pair[1].send(b"efgh")
        task.cancel()
        assert await task.ended() == "cancelled"
        assert not world.flight()
        assert b"".join([*seen[1:], *seen[0].leftovers]) + rest(pair[0]) == b"abcdefgh"

    world.run(body)


def rest(sock: socket.socket) -> bytes:
    """What nobody has taken from a socket."""
    sock.setblocking(False)
    try:
        return sock.recv(100)
    except BlockingIOError:
        return b""


def test_leaving_in_a_task_that_is_cancelled(world: World, listener: socket.socket) -> None:
    async def body() -> None:
        async with world.io.accept_multishot(listener) as conns:
            await world.in_flight()
            async with world.cancelled_from_start():
                await conns.aclose()
            assert not world.flight()
            with pytest.raises(RuntimeError, match="inside"):
                await conns.__anext__()

    world.run(body)


def test_iterating_outside_raises(world: World, listener: socket.socket) -> None:
    async def body() -> None:
        conns = world.io.accept_multishot(listener)
        assert conns.leftovers == []
        assert not conns.cancel()
        with pytest.raises(RuntimeError, match="inside"):
            await conns.__anext__()
        with pytest.raises(RuntimeError, match="inside"):
            aiter(conns)
        async with conns:
            pass
        with pytest.raises(RuntimeError, match="inside"):
            await conns.__anext__()
        with pytest.raises(RuntimeError, match="another"):
            await conns.__aenter__()
        assert not conns.cancel()

    world.run(body)


def test_a_cancel_of_it_ends_the_iteration(world: World, listener: socket.socket) -> None:
    async def body() -> None:
        async with world.io.accept_multishot(listener) as conns:
            task = world.spawn(conns.__anext__)
            await world.until(lambda: conns._inner._op._item_hooks, "it waits")
            assert conns.cancel()
            with pytest.raises(StopAsyncIteration):
                await once(conns)
            assert await task.ended() == "raised"

    async def once(conns: Any) -> None:
        await conns.__anext__()

    world.run(body)


def test_it_fails(world: World, pair: Pair) -> None:
    async def body() -> None:
        async with world.io.accept_multishot(pair[0]) as conns:
            with pytest.raises(OSError, match="accept"):
                await conns.__anext__()
        with pytest.raises(ValueError, match="nbytes"):
            world.io.recv_multishot(pair[0], -1)

    world.run(body)


def test_many_waits_that_were_cancelled_leave_nothing_on_it(world: World, listener: socket.socket) -> None:
    async def body() -> None:
        async with world.io.accept_multishot(listener) as conns:
            for _ in range(50):
                task = world.spawn(conns.__anext__)
                await world.until(lambda: conns._inner._op._item_hooks, "it waits")
                task.cancel()
                assert await task.ended() == "cancelled"
                assert not conns._inner._op._item_hooks
                assert conns._inner._op._awaited is None

    world.run(body)
