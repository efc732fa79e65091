"""Stream in each world: it ends, it closes, and it loses nothing."""

from __future__ import annotations

import contextlib
import os
import pty
import socket
import tty
from collections.abc import Callable
from typing import Any

import pytest

from ..support import few, fill, resizable
from .worlds import World

Pair = tuple[socket.socket, socket.socket]


def take(sock: socket.socket) -> bytes:
    """All that a socket has, without waiting."""
    sock.setblocking(False)
    found = b""
    with contextlib.suppress(BlockingIOError):
        while data := sock.recv(1 << 20):
            found += data
    return found


@pytest.fixture
def streams(world: World, pair: Pair) -> Callable[[], tuple[Any, Any]]:
    """Makes two streams that are connected."""

    def make() -> tuple[Any, Any]:
        a, b = pair
        return world.io.Stream(a), world.io.Stream(b)

    return make


# What they do


def test_bytes_come_and_go(world: World, streams: Any, pair: Pair) -> None:
    async def body() -> None:
        one, other = streams()
        async with one, other:
            await one.send_all(b"hello")
            assert await other.receive_some(2) == b"he"
            assert await other.receive_some() == b"llo"
            task = world.spawn(other.receive_some, 3)
            await world.in_flight()
            await one.send_all(bytearray(b"later"))
            assert await task.result() == b"lat"
            assert await other.receive_exactly(2) == b"er"
            await one.send_eof()
            await one.send_eof()
            assert await other.receive_some() == b""
            assert await other.receive_some() == b""
            await other.send_all(memoryview(b"back"))
            assert await one.receive_some() == b"back"
            with pytest.raises(world.closed):
                await one.send_all(b"x")
            assert one.file is pair[0]
            assert repr(one) == f"<Stream fd={pair[0].fileno()}>"
        assert repr(one) == "<Stream closed>"
        assert (pair[0].fileno(), one.fileno()) == (-1, -1)
        assert one.closed

    world.run(body)


def test_numbers_that_are_none(world: World, streams: Any) -> None:
    async def body() -> None:
        one, other = streams()
        async with one, other:
            for wrong, error in ((0, ValueError), (-1, ValueError), (True, TypeError), ("1", TypeError)):
                with pytest.raises(error, match="max_bytes"):
                    await one.receive_some(wrong)
            with pytest.raises(ValueError, match="many"):
                await one.receive_exactly(-1)
            assert await one.receive_exactly(0) == b""
        with pytest.raises(TypeError, match="fileno"):
            world.io.Stream("file")
        with pytest.raises(TypeError, match="socket"):
            world.io.Listener(3)

    world.run(body)


def test_a_pipe_is_two_files(world: World) -> None:
    there, back = os.pipe(), os.pipe()

    async def body() -> None:
        one = world.io.Stream(there[0], writer=back[1])
        other = world.io.Stream(back[0], writer=there[1])
        async with one, other:
            task = world.spawn(other.receive_some)
            await world.in_flight()
            await one.send_all(b"to")
            assert await task.result() == b"to"
            await other.send_all(b"fro")
            assert await one.receive_some() == b"fro"
            await one.send_eof()
            assert await other.receive_some() == b""
        single = os.pipe()
        async with world.io.Stream(single[0]) as stream:
            with pytest.raises(ValueError, match="writer"):
                await stream.send_eof()
        os.close(single[1])

    world.run(body)


def test_a_terminal(world: World) -> None:
    async def body() -> None:
        master, slave = pty.openpty()
        tty.setraw(slave)
        async with world.io.Stream(slave) as stream, world.io.Stream(master) as keys:
            await keys.send_all(b"abc")
            assert await stream.receive_exactly(3) == b"abc"
            await stream.send_all(b"def")
            assert await keys.receive_exactly(3) == b"def"

    world.run(body)


def test_more_than_there_is_room_for(world: World, streams: Any) -> None:
    data = os.urandom(1 << 20)

    async def body() -> None:
        one, other = streams()
        async with one, other:
            task = world.spawn(one.send_all, data)
            assert await other.receive_exactly(len(data)) == data
            await task.result()
            buffer = bytearray(data)
            task = world.spawn(one.send_all, buffer)
            await world.in_flight()
            found = b""
            while len(found) < len(data):
                found += await other.receive_some()
            assert found == data
            await task.result()
            assert resizable(buffer)

    world.run(body)


def test_the_end_comes_before_all_that_was_wanted(world: World, streams: Any) -> None:
    async def body() -> None:
        one, other = streams()
        async with one, other:
            task = world.spawn(other.receive_exactly, 10)
            await world.in_flight()
            await one.send_all(b"abc")
            await world.passes()
            await one.send_eof()
            with pytest.raises(EOFError, match="3 of 10"):
                await task.result()
            with pytest.raises(EOFError, match="3 of 4"):
                await other.receive_exactly(4)
            assert await other.receive_some(2) == b"ab"
            assert await other.receive_exactly(1) == b"c"
            assert await other.receive_some() == b""

    world.run(body)


def test_what_the_peer_breaks(world: World, streams: Any, tcp: Pair) -> None:
    broken: Any = OSError
    if world.is_trio:
        import trio

        broken = trio.BrokenResourceError

    async def body() -> None:
        one, other = streams()
        await other.aclose()
        with pytest.raises(broken) as caught:
            await one.send_all(b"x")
        assert caught.value.sent == 0
        await one.aclose()
        mine = world.io.Stream(tcp[0])
        task = world.spawn(mine.receive_some)
        await world.in_flight()
        tcp[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        tcp[1].close()
        with pytest.raises(broken) as caught:
            await task.result()
        error = caught.value.__cause__ if world.is_trio else caught.value
        assert isinstance(error, ConnectionResetError)
        await mine.aclose()

    world.run(body)


# One at a time, and the end


def test_a_second_call_at_once_is_refused(world: World, streams: Any, pair: Pair) -> None:
    async def body() -> None:
        one, other = streams()
        async with one, other:
            fill(pair[0].fileno())
            reader, writer = world.spawn(one.receive_some), world.spawn(one.send_all, b"x")
            await world.in_flight(2)
            for call in (one.receive_some, lambda: one.receive_exactly(1)):
                with pytest.raises(world.busy, match="receiving"):
                    await call()
            for call in (lambda: one.send_all(b"y"), one.send_eof, one.wait_send_all_might_not_block):
                with pytest.raises(world.busy, match="sending"):
                    await call()
            reader.cancel()
            writer.cancel()
            assert (await reader.ended(), await writer.ended()) == ("cancelled", "cancelled")

    world.run(body)


def test_closing_ends_the_calls_that_wait(world: World, streams: Any, pair: Pair) -> None:
    async def body() -> None:
        one, other = streams()
        fill(pair[0].fileno())
        reader, writer = world.spawn(one.receive_some), world.spawn(one.send_all, b"x")
        await world.in_flight(2)
        await one.aclose()
        assert pair[0].fileno() == -1
        for task in (reader, writer):
            with pytest.raises(world.closed, match="closed"):
                await task.result()
        assert writer.error.sent == 0  # type: ignore[union-attr]
        await one.aclose()
        for call in (
            one.receive_some,
            one.send_eof,
            lambda: one.receive_exactly(1),
            lambda: one.send_all(b""),
        ):
            with pytest.raises(world.closed, match="closed"):
                await call()
        await other.aclose()

    world.run(body)


def test_two_tasks_close(world: World, streams: Any, pair: Pair) -> None:
    async def body() -> None:
        one, other = streams()
        reader = world.spawn(one.receive_some)
        await world.in_flight()
        closers = [world.spawn(one.aclose) for _ in range(2)]
        for each in closers:
            await each.result()
        assert await reader.ended() == "raised"
        assert pair[0].fileno() == -1
        await other.aclose()

    world.run(body)


def test_a_cancelled_task_closes_all_the_same(world: World, streams: Any, pair: Pair) -> None:
    async def body() -> None:
        one, other = streams()
        reader = world.spawn(one.receive_some)
        await world.in_flight()
        async with world.cancelled_from_start():
            await one.aclose()
        assert pair[0].fileno() == -1
        assert await reader.ended() == "raised"
        async with world.cancelled_from_start():
            await other.aclose()
        assert pair[1].fileno() == -1

    world.run(body)


def test_what_is_never_closed_is_closed_by_the_collector(world: World, streams: Any, pair: Pair) -> None:
    async def body() -> None:
        one, other = streams()
        kept = [one]
        del one
        with pytest.warns(ResourceWarning, match="unclosed <Stream"):
            kept.clear()
        assert pair[0].fileno() == -1
        await other.aclose()

    world.run(body)


def test_a_dropped_task_takes_nothing_with_it(world: World, streams: Any, pair: Pair) -> None:
    if world.is_trio:
        pytest.skip("trio drops no tasks")

    async def body() -> None:
        one, other = streams()
        async with one, other:
            for sends in (True, False):
                coro = one.receive_some()
                coro.send(None)
                await world.in_flight()
                if sends:
                    await other.send_all(b"late")
                coro.close()  # as of a task that is collected
                if not sends:
                    await other.send_all(b"late")
                assert await one.receive_some() == b"late"
            fill(pair[0].fileno())
            data = bytearray(1000)
            coro = one.send_all(data)
            coro.send(None)
            await world.in_flight()
            coro.close()
            await world.until(lambda: not world.flight(), "it has ended")
            assert resizable(data)
            take(pair[1])

    world.run(body)


def test_a_cancelled_send_says_how_much_went_out(world: World, streams: Any, pair: Pair) -> None:
    async def body() -> None:
        one, other = streams()
        async with one, other:
            for again in range(few(20)):
                data = bytearray(os.urandom(1 << 20))
                sent: list[int] = []

                async def send(data: bytearray = data, sent: list[int] = sent) -> None:
                    try:
                        await one.send_all(data)
                    except BaseException as error:
                        sent.append(error.sent)  # type: ignore[attr-defined]
                        raise

                task = world.spawn(send)
                await world.in_flight()
                found = await other.receive_some()
                if again % 2:
                    await world.passes()
                task.cancel()
                assert await task.ended() == "cancelled"
                found += take(pair[1])
                assert found == data[: sent[0]]
                assert resizable(data)

    world.run(body)


def test_an_old_loops_stream_goes_on_in_a_new_one(world: World, pair: Pair) -> None:
    made: list[Any] = []

    async def first() -> None:
        made.append(world.io.Stream(pair[0]))
        task = world.spawn(made[0].receive_some)
        await world.in_flight()
        task.cancel()
        assert await task.ended() == "cancelled"

    async def second() -> None:
        pair[1].send(b"abc")
        async with made[0] as stream:
            assert await stream.receive_some() == b"abc"

    world.run(first)
    world.run(second)
