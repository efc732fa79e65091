"""What comes just before a cancel, just after it, or between a completion and the task's step is not lost.

Each order is forced, 300 times, for each thing that consumes in the kernel.
"""

from __future__ import annotations

import abc
import contextlib
import os
import select
import socket
from collections.abc import Callable
from typing import Any

import pytest

from ..support import few
from .worlds import Task, World

ORDERS: dict[str, Callable[[World, Task, Callable[[], None]], None]] = {}


def order(call: Callable[[World, Task, Callable[[], None]], None]) -> None:
    ORDERS[call.__name__] = call


@order
def comes_first(world: World, task: Task, come: Callable[[], None]) -> None:
    come()
    task.cancel()


@order
def cancel_first(world: World, task: Task, come: Callable[[], None]) -> None:
    task.cancel()
    come()


@order
def between_the_completion_and_the_step(world: World, task: Task, come: Callable[[], None]) -> None:
    come()
    world.turn_until_it_came()
    task.cancel()


@order
def the_cancel_is_sent_and_it_comes(world: World, task: Task, come: Callable[[], None]) -> None:
    task.cancel()
    world.turn()
    come()


class Case(abc.ABC):
    """Something that brings one thing after the other."""

    def __init__(self, world: World, stack: contextlib.AsyncExitStack) -> None:
        self.world, self.stack = world, stack

    @abc.abstractmethod
    async def begin(self) -> None:
        """Make it."""

    @abc.abstractmethod
    async def take(self) -> Any:
        """Wait for the next thing."""

    async def waits(self) -> None:
        """Wait until `take` does."""
        await self.world.in_flight()

    @abc.abstractmethod
    def come(self) -> None:
        """Have the next thing come."""

    @abc.abstractmethod
    def came_late(self) -> bool:
        """Whether it came all the same to the task that was cancelled, and is kept."""

    @abc.abstractmethod
    async def right(self, found: Any) -> bool:
        """Whether it is that one."""


class Received(Case):
    number = 0

    async def begin(self) -> None:
        left, self.peer = socket.socketpair()
        self.stack.enter_context(self.peer)
        self.stream = await self.stack.enter_async_context(self.world.io.Stream(left))

    async def take(self) -> Any:
        return await self.stream.receive_some(2)

    def came_late(self) -> bool:
        op = self.stream._reading
        return bool(self.stream._kept) or (op is not None and op._res > 0)

    def come(self) -> None:
        self.number += 1
        self.peer.send(self.number.to_bytes(2, "big"))

    async def right(self, found: Any) -> bool:
        return bool(found == self.number.to_bytes(2, "big"))


class FromAPipe(Received):
    async def begin(self) -> None:
        left, self.write_end = os.pipe()
        self.stack.callback(os.close, self.write_end)
        self.stream = await self.stack.enter_async_context(self.world.io.Stream(left))

    def come(self) -> None:
        self.number += 1
        os.write(self.write_end, self.number.to_bytes(2, "big"))


class Exactly(Received):
    async def take(self) -> Any:
        return await self.stream.receive_exactly(2)


class Accepted(Case):
    async def begin(self) -> None:
        server = socket.create_server(("127.0.0.1", 0))
        self.listener = await self.stack.enter_async_context(self.world.io.Listener(server))
        self.client: Any = None

    async def take(self) -> Any:
        return await self.listener.accept()

    def came_late(self) -> bool:
        op = self.listener._op
        return op is not None and op._res >= 0

    def come(self) -> None:
        self.client = socket.create_connection(self.listener.file.getsockname())

    async def right(self, found: Any) -> bool:
        async with found:
            with self.client as client:
                return bool(found.address == client.getsockname())


class Many(Case):
    async def take(self) -> Any:
        return await self.many.__anext__()

    many: Any

    def came_late(self) -> bool:
        op = self.many._inner._op
        return bool(op._items) or op._res > 0

    async def waits(self) -> None:
        await self.world.until(lambda: self.many._inner._op._item_hooks, "it waits")


class ManyAccepted(Many):
    async def begin(self) -> None:
        self.server = self.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.many = await self.stack.enter_async_context(self.world.io.accept_multishot(self.server))
        self.client: Any = None

    def come(self) -> None:
        self.client = socket.create_connection(self.server.getsockname())

    async def right(self, found: Any) -> bool:
        conn, address = found
        with conn, self.client as client:
            return bool(address == client.getsockname())


class ManyReceived(Many, Received):
    async def begin(self) -> None:
        left, self.peer = map(self.stack.enter_context, socket.socketpair())
        self.many = await self.stack.enter_async_context(self.world.io.recv_multishot(left, 64))

    come, right = Received.come, Received.right


class ManyPolled(Many):
    async def begin(self) -> None:
        self.ends = os.pipe()
        for end in self.ends:
            self.stack.callback(os.close, end)
        mask = select.POLLIN
        self.many = await self.stack.enter_async_context(self.world.io.poll_multishot(self.ends[0], mask))

    def come(self) -> None:
        os.write(self.ends[1], b"x")

    async def right(self, found: Any) -> bool:
        return bool(found & select.POLLIN) and os.read(self.ends[0], 10) == b"x"


CASES = [Received, FromAPipe, Exactly, Accepted, ManyAccepted, ManyReceived, ManyPolled]


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("forced", ORDERS.values(), ids=ORDERS)
def test_nothing_is_lost(
    world: World, kind: type[Case], forced: Callable[[World, Task, Callable[[], None]], None]
) -> None:
    many = few(300)
    found: list[bool] = []
    cancelled = late = 0

    async def body() -> None:
        nonlocal cancelled, late
        async with contextlib.AsyncExitStack() as stack:
            case = kind(world, stack)
            await case.begin()
            for _ in range(many):
                task = world.spawn(case.take)
                await case.waits()
                forced(world, task, case.come)
                how = await task.ended()
                if how == "cancelled":
                    cancelled += 1
                    late += case.came_late()
                assert how == "cancelled" or world.is_trio, "the cancel was lost"
                value = await (task.result() if how == "returned" else case.take())
                found.append(await case.right(value))

    world.run(body)
    assert found == [True] * many
    if not world.is_trio:
        assert cancelled == many
        if forced is between_the_completion_and_the_step:  # each of them was taken for a task that is gone
            assert late == many
