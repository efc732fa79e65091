"""trio's own rules about cancelling hold for our verbs.

The teardown finds what is left: a ledger that is not empty, an fd, a thread, memory.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import iocancel.trio as ours
from iocancel.trio.hub import current

from ..support import fill, open_fds
from .helpers import SHORT, Blocking, in_flight, raised, run

# Checkpoints

CALLS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "read": lambda s: ours.read(s.full, 1),
    "read much": lambda s: ours.read(s.full, 1 << 20),
    "read into": lambda s: ours.read(s.full, bytearray(1)),
    "read disk": lambda s: ours.read(s.disk, 1, 0),
    "readv": lambda s: ours.readv(s.full, [bytearray(1)]),
    "write": lambda s: ours.write(s.empty, b"x"),
    "write disk": lambda s: ours.write(s.disk, b"x", 0),
    "write_all": lambda s: ours.write_all(s.empty, b"x"),
    "writev": lambda s: ours.writev(s.empty, [b"x"]),
    "fsync": lambda s: ours.fsync(s.disk),
    "splice": lambda s: ours.splice(s.full, s.disk, 1),
    "tee": lambda s: ours.tee(s.full, s.empty, 1),
    "recv": lambda s: ours.recv(s.a, 1),
    "recv much": lambda s: ours.recv(s.a, 1 << 20),
    "recv_into": lambda s: ours.recv_into(s.a, bytearray(1)),
    "recvmsg": lambda s: ours.recvmsg(s.a, 1),
    "send": lambda s: ours.send(s.a, b"x"),
    "sendall": lambda s: ours.sendall(s.a, b"x"),
    "sendmsg": lambda s: ours.sendmsg(s.a, [b"x"]),
    "accept": lambda s: s.accept(),
    "connect": lambda s: s.connect(),
    "poll": lambda s: ours.poll(s.full, select.POLLIN),
    "sleep": lambda s: ours.sleep(0),
    "sleep_until": lambda s: ours.sleep_until(0),
    "waitid": lambda s: ours.waitid(os.P_PID, s.child, os.WEXITED | os.WNOWAIT),
    "open": lambda s: s.open(),
    "close_fd": lambda s: s.close_one(),
    "result": lambda s: ours.result(ours.engine().timeout(0)),
}


class Stage:
    """Where each verb has something to do at once."""

    def __init__(self, pipes: Callable[[], tuple[int, int]], folder: Path, server: socket.socket) -> None:
        self.full, writes = pipes()
        os.write(writes, bytes(8))
        _, self.empty = pipes()
        self.path = folder / "file"
        self.path.write_bytes(b"bytes")
        self.disk = os.open(self.path, os.O_RDWR)
        self.a, self.b = socket.socketpair()
        self.b.send(bytes(8))
        self.server = server
        self.clients = [socket.create_connection(server.getsockname())]
        self.child = os.posix_spawn("/bin/true", ["true"], os.environ)
        os.waitid(os.P_PID, self.child, os.WEXITED | os.WNOWAIT)

    async def accept(self) -> None:
        conn, _ = await ours.accept(self.server)
        conn.close()

    async def connect(self) -> None:
        with socket.socket() as sock:
            await ours.connect(sock, self.server.getsockname())

    async def open(self) -> None:
        os.close(await ours.open(self.path))

    async def close_one(self) -> None:
        number = os.dup(self.full)
        try:
            await ours.close_fd(number)
        except trio.Cancelled:
            os.close(number)  # it is open yet
            raise

    def close(self) -> None:
        os.waitpid(self.child, 0)
        os.close(self.disk)
        for each in (self.a, self.b, *self.clients):
            each.close()


@pytest.mark.parametrize("name", CALLS)
def test_each_verb_is_a_checkpoint(
    name: str, pipes: Callable[[], tuple[int, int]], tmp_path: Path, listener: socket.socket
) -> None:
    stage = Stage(pipes, tmp_path, listener)

    async def main() -> None:
        with trio.testing.assert_checkpoints():
            await CALLS[name](stage)

    try:
        run(main)
    finally:
        stage.close()


@pytest.mark.parametrize("name", CALLS)
def test_a_cancelled_scope_raises_before_anything_is_done(
    name: str, pipes: Callable[[], tuple[int, int]], tmp_path: Path, listener: socket.socket
) -> None:
    stage = Stage(pipes, tmp_path, listener)
    numbers: list[int] = []

    async def main() -> None:
        current()
        numbers.append(len(open_fds()))
        with trio.CancelScope() as scope:
            scope.cancel()
            await CALLS[name](stage)
        assert scope.cancelled_caught
        assert current().engine.in_flight == 0

    try:
        run(main)
        assert os.read(stage.full, 16) == bytes(8)
        assert stage.path.read_bytes() == b"bytes"
        assert stage.a.recv(16, socket.MSG_DONTWAIT) == bytes(8)
        stage.b.setblocking(False)
        with pytest.raises(BlockingIOError):
            stage.b.recv(1)
        stage.server.settimeout(5)
        stage.server.accept()[0].close()
    finally:
        stage.close()


def test_the_waiting_ways_are_checkpoints(
    pipe: tuple[int, int], pair: tuple[socket.socket, socket.socket], blocks: Blocking
) -> None:
    """Cancelled while they wait; and what they wait for comes."""
    a = pair[0]
    fill(a.fileno())

    async def main() -> None:
        for call in (
            blocks,
            lambda: ours.read(pipe[0], 1),
            lambda: ours.read(pipe[0], 1 << 20),
            lambda: ours.readv(pipe[0], [bytearray(1)]),
            lambda: ours.poll(pipe[0], select.POLLIN),
            lambda: ours.send(a, b"x"),
            lambda: ours.recvmsg(a, 1),
        ):
            with trio.move_on_after(0.001) as scope, trio.testing.assert_checkpoints():
                await call()
            assert scope.cancelled_caught

    run(main)


# Scopes


def test_move_on_and_fail(blocks: Blocking) -> None:
    async def main() -> None:
        with trio.move_on_after(SHORT) as scope:
            await blocks()
        assert scope.cancelled_caught
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(SHORT):
                await blocks()

    run(main)


def test_nested_scopes(blocks: Blocking) -> None:
    """Of two that are cancelled at once the outer one catches."""

    async def main() -> None:
        with trio.CancelScope() as outer:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def both() -> None:
                    await in_flight()
                    inner.cancel()
                    outer.cancel()

                with trio.CancelScope() as inner:
                    await blocks()
        assert outer.cancelled_caught
        assert not inner.cancelled_caught

    run(main)


def test_a_cancel_within_a_shield_waits(blocks: Blocking, pipe: tuple[int, int]) -> None:
    async def main() -> None:
        with trio.CancelScope() as outer:
            outer.cancel()
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    seen: list[bytes] = []

                    @nursery.start_soon
                    async def reading() -> None:
                        seen.append(await ours.read(pipe[0], 16))

                    await in_flight()
                    os.write(pipe[1], b"kept")
            assert seen == [b"kept"]
            await blocks()
        assert outer.cancelled_caught

    run(main)


def test_a_shield_that_is_put_down(blocks: Blocking) -> None:
    async def main() -> None:
        with trio.CancelScope() as outer:
            outer.cancel()
            with trio.CancelScope(shield=True) as shield:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(blocks)
                    await in_flight()
                    shield.shield = False
        assert outer.cancelled_caught

    run(main)


def test_a_nursery(blocks: Blocking) -> None:
    """A child's failure ends its siblings' waits."""

    async def main() -> None:
        async def fail() -> None:
            await in_flight(20)
            raise ValueError("child")

        async def group() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(blocks)
                nursery.start_soon(fail)

        error = await raised(group)
        assert isinstance(error, ExceptionGroup)
        assert [type(each) for each in error.exceptions] == [ValueError]

    run(main)
