"""What comes just before a cancel, 300 times; a thousand tasks at once, half of them cancelled."""

from __future__ import annotations

import functools
import os
import socket
import threading
from typing import Any

import pytest

from ...support import few
from .loops import CAME, PAIRS, STOPPED, World, same
from .moments import first_ready, settled, unseen, waking

worlds = pytest.mark.parametrize(
    "world",
    PAIRS,
    ids="-".join,
    indirect=True,
)
MOMENTS = [first_ready, unseen, settled, waking]


class Source:
    """Messages of four bytes, one a time, each another; or connections."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.sent = self.got = 0
        if kind == "accept":
            self.server = socket.create_server(("127.0.0.1", 0), backlog=512)
            self.clients: list[socket.socket] = []
        else:
            self.sock, self.peer = socket.socketpair()

    def ready(self) -> None:
        self.sent += 1
        if self.kind == "accept":
            self.clients.append(socket.create_connection(self.server.getsockname()))
        else:
            self.peer.send(self.sent.to_bytes(4, "little"))

    def call(self, api: Any) -> Any:
        return api.accept(self.server) if self.kind == "accept" else api.recv(self.sock, 4)

    def take(self) -> None:
        """By a plain call, what is there: the next one."""
        if self.kind == "accept":
            self.server.setblocking(False)
            self.right(self.server.accept())
            self.server.setblocking(True)
        else:
            self.right(self.sock.recv(4, socket.MSG_DONTWAIT))

    def right(self, value: Any) -> None:
        self.got += 1
        if self.kind == "accept":
            conn, address = value
            with conn:
                assert address == self.clients[self.got - 1].getsockname()
        else:
            assert int.from_bytes(value, "little") == self.got

    def close(self) -> None:
        for sock in (self.server, *self.clients) if self.kind == "accept" else (self.sock, self.peer):
            sock.close()


@worlds
@pytest.mark.parametrize("kind", ["recv", "accept"])
def test_what_comes_just_before_a_cancel_is_not_lost(world: World, kind: str) -> None:
    """A peer loses 300 of 300."""
    many = few(300)

    async def main(world: World) -> None:
        source = Source(kind)
        for i in range(many):
            act = MOMENTS[i % len(MOMENTS)]
            started = world.start(lambda: source.call(world.verbs))
            op = await world.waits(started)
            happened = act(world, source, op, started)
            await world.ended(started)
            assert happened()
            same(world, started, first=act is not first_ready)
            if started.ending is CAME:
                source.right(started.value)
            else:
                source.take()
        source.close()
        assert source.got == source.sent == many

    world.run(main)


@worlds
@pytest.mark.parametrize("cancel", ["before", "after", "thread"])
def test_a_thousand_at_once_half_of_them_cancelled(world: World, cancel: str) -> None:
    many = few(1000)

    async def main(world: World) -> None:
        pairs = [os.pipe() for _ in range(many)]
        tasks = [world.start(functools.partial(world.verbs.read, read_end, 10)) for read_end, _ in pairs]
        await world.until(lambda: len(world.flying()) == many, "all are in flight")

        def stop() -> None:
            for task in tasks[::2]:
                task.cancel()

        def feed() -> None:
            for i, (_, write_end) in enumerate(pairs):
                os.write(write_end, b"%d" % i)

        if cancel == "before":
            stop()
            feed()
        elif cancel == "after":
            feed()
            stop()
        else:
            post = world.poster()
            thread = threading.Thread(target=lambda: [post(task.cancel) for task in tasks[::2]])
            thread.start()
            feed()
            await world.until(lambda: not thread.is_alive(), "the thread's end")
            thread.join()
        await world.until(lambda: all(task.done for task in tasks), "all have ended")
        for i, (task, (read_end, _)) in enumerate(zip(tasks, pairs, strict=True)):
            if task.ending is STOPPED:
                assert i % 2 == 0
                assert os.read(read_end, 10) == b"%d" % i, "lost"
            else:
                assert task.ending is CAME
                assert task.value == b"%d" % i
                assert world.delivers or i % 2 or cancel == "thread", "it was to raise"
            os.set_blocking(read_end, False)
            with pytest.raises(BlockingIOError):
                os.read(read_end, 10)
        for ends in pairs:
            for end in ends:
                os.close(end)

    world.run(main)
