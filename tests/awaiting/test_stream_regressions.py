"""What once went wrong with streams and listeners: completions that come at the worst moment."""

from __future__ import annotations

import os
import pty
import socket
import threading
import tty
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from iocancel.testing import hold_back

from ..support import BOUND, fill
from .test_streams import Pair, take
from .worlds import World


async def close_behind(
    world: World, stream: Any, call: Callable[[], Awaitable[Any]], bring: Callable[[], object], number: int
) -> tuple[Any, socket.socket, socket.socket]:
    """Close a stream when its call's request has brought a part, which nobody knows of yet.

    Returns:
        The call's task; a new socket that has the number that the stream had, and that one's peer.
    """
    task = world.spawn(call)
    await world.in_flight()
    [op] = world.flight()

    async def closing() -> tuple[socket.socket, socket.socket]:
        await stream.aclose()
        c, d = socket.socketpair()  # in the very step that has closed it
        d.send(b"another's")
        assert number == c.fileno()
        return c, d

    with hold_back(world.engine) as held:
        bring()
        held.wait_for(op)
        closer = world.spawn(closing)
        await world.passes()
        held.release(op)
    c, d = await closer.result()
    await world.passes()
    return task, c, d


def test_closing_while_a_part_was_sent_sends_nothing_to_the_next_file(world: World, pair: Pair) -> None:
    number, peer = pair[0].detach(), pair[1]

    async def body() -> None:
        one = world.io.Stream(number)
        sent, got = fill(number), b""

        def make_room() -> None:
            nonlocal got
            got += take(peer)

        task, c, d = await close_behind(world, one, lambda: one.send_all(bytes(1 << 20)), make_room, number)
        with c, d:
            assert take(d) == b""
            with pytest.raises(world.closed, match="closed"):
                await task.result()
            assert sent + task.error.sent == len(got + take(peer))

    world.run(body)


def test_closing_while_a_part_was_received_takes_nothing_from_the_next_file(world: World, pair: Pair) -> None:
    number, peer = pair[0].detach(), pair[1]

    async def body() -> None:
        one = world.io.Stream(number)
        task, c, d = await close_behind(
            world, one, lambda: one.receive_exactly(10), lambda: peer.send(b"abc"), number
        )
        with c, d:
            assert take(c) == b"another's"
            with pytest.raises(world.closed, match="closed"):
                await task.result()

    world.run(body)


def test_a_failure_that_came_too_late_is_told_by_the_next_call(world: World, tcp: Pair) -> None:
    async def body() -> None:
        mine = world.io.Stream(tcp[0])
        async with mine:
            task = world.spawn(mine.receive_some)
            await world.in_flight()
            [op] = world.flight()
            with hold_back(world.engine) as held:
                tcp[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
                tcp[1].close()
                held.wait_for(op)
                task.cancel()
                await world.passes()
                held.release(op)
            if await task.ended() == "cancelled":
                with pytest.raises(ConnectionResetError):
                    await mine.receive_some()
            else:
                assert isinstance(task.error.__cause__, ConnectionResetError)  # type: ignore[union-attr]

    world.run(body)


def test_each_failure_is_an_exception_of_its_own(world: World) -> None:
    async def body() -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
            gone.bind(("127.0.0.1", 0))
            sock.connect(gone.getsockname())
        raised = []
        async with world.io.Stream(sock) as stream:
            for _ in range(3):
                task = world.spawn(stream.receive_some)
                await world.in_flight()
                sock.send(b"x")
                assert await task.ended() == "raised"
                error = task.error.__cause__ if world.is_trio else task.error  # type: ignore[union-attr]
                assert isinstance(error, ConnectionRefusedError)
                raised.append(error)
        assert len(set(map(id, raised))) == 3

    world.run(body)


def test_a_datagram_that_is_waited_for_is_whole(world: World) -> None:
    async def body() -> None:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
            a, b = socket.socketpair(socket.AF_UNIX, kind)
            async with world.io.Stream(a) as mine, world.io.Stream(b.detach()) as other:
                for one, another in ((mine, other), (other, mine)):
                    task = world.spawn(one.receive_some, 65536)
                    await world.in_flight()
                    await another.send_all(bytes(20_000))
                    assert len(await task.result()) == 20_000

    world.run(body)


def test_one_number_given_twice_is_closed_once(world: World, pair: Pair) -> None:
    async def body() -> None:
        many = [socket.socketpair() for _ in range(150)]  # small numbers are the same object
        number = max(each.fileno() for two in many for each in two)
        for two in many:
            for each in two:
                if each.fileno() == number:
                    each.detach()
                else:
                    each.close()
        await world.io.Stream(number, writer=int(str(number))).aclose()

    world.run(body)


def test_a_block_that_can_not_be_entered_keeps_no_buffers(world: World) -> None:
    async def body() -> None:
        groups = getattr(getattr(world.engine._carrier, "ring", None), "_groups", {})
        with pytest.raises(TypeError):
            async with world.io.recv_multishot("no file"):
                pass
        assert not groups

    world.run(body)


def test_the_numbers_of_groups_of_buffers_come_round(world: World, pair: Pair) -> None:
    async def body() -> None:
        async with world.io.recv_multishot(pair[0]) as chunks:
            carrier = world.engine._carrier
            if hasattr(carrier, "_groups"):
                carrier._groups = 0xFFFF if carrier._groups == 0 else carrier._groups - 1
            async with world.io.recv_multishot(pair[1]) as others:
                pair[0].send(b"a")
                pair[1].send(b"b")
                assert await chunks.__anext__() == b"b"
                assert await others.__anext__() == b"a"

    world.run(body)


def test_what_was_sent_is_told_also_where_nothing_began(world: World, pair: Pair) -> None:
    async def body() -> None:
        one = world.io.Stream(pair[0])
        fill(pair[0].fileno())

        async def sending() -> None:
            try:
                await one.send_all(b"x")
            except BaseException as error:
                told.append(error.sent)  # type: ignore[attr-defined]
                raise

        told: list[int] = []
        waiting = world.spawn(sending)
        await world.in_flight()
        with pytest.raises(world.busy):
            await sending()
        assert told == [0]
        waiting.cancel()
        assert await waiting.ended() == "cancelled"
        async with world.cancelled_from_start():
            await sending()
        await one.aclose()
        with pytest.raises(world.closed):
            await sending()
        assert told == [0] * 4

    world.run(body)


def test_a_terminal_that_is_full_does_not_stop_the_loop(world: World) -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    ran = threading.Event()
    seen: list[bool] = []

    def drain() -> None:
        seen.append(ran.wait(BOUND / 4))  # it reads in any case: a loop that stands still would for ever
        left = 300_000
        while left:
            left -= len(os.read(master, 1 << 16))

    reader = threading.Thread(target=drain)

    async def body() -> None:
        stream = world.io.Stream(slave)
        task = world.spawn(stream.send_all, bytes(300_000))
        reader.start()
        await world.in_flight()
        await world.passes(100)
        ran.set()
        await task.result()
        await stream.aclose()

    world.run(body)
    reader.join()
    os.close(master)
    assert seen == [True]
