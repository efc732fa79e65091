"""Each verb that fails says why, with the kernel's errno; files that are closed while a verb waits."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from array import array
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from iocancel import FeatureUnavailable, OperationCancelled

from ...blocking.case import WORD, Case, drain
from ...blocking.cases import CASES
from .conftest import Row
from .loops import FAILED, PAIRS, World

worlds = pytest.mark.parametrize(
    "world",
    PAIRS,
    ids="-".join,
    indirect=True,
)


class Files:
    """What the calls below fail on."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path) -> None:
        self.read_end, self.write_end = os.pipe()
        self.full_end, self.no_reader = os.pipe()
        os.close(self.full_end)
        for fd in (self.read_end, self.write_end, self.no_reader):
            stack.callback(os.close, fd)
        self.sock, peer = socket.socketpair()
        peer.close()
        self.alone = stack.enter_context(socket.socket())
        stack.enter_context(self.sock)
        self.folder = folder
        self.closed = os.dup(self.read_end)
        os.close(self.closed)
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.nobody = server.getsockname()


E, W = errno, WORD
FAILURES: dict[str, tuple[int, Callable[[Any, Files], Awaitable[Any]]]] = {
    "read": (E.EBADF, lambda api, f: api.read(f.write_end, 10)),
    "read_closed": (E.EBADF, lambda api, f: api.read(f.closed, 10)),
    "read_folder": (E.EISDIR, lambda api, f: _with_folder(api, f, lambda fd: api.read(fd, 10))),
    "readv": (E.EBADF, lambda api, f: api.readv(f.write_end, [bytearray(10)])),
    "write": (E.EBADF, lambda api, f: api.write(f.read_end, W)),
    "write_broken": (E.EPIPE, lambda api, f: api.write(f.no_reader, W)),
    "write_all": (E.EPIPE, lambda api, f: api.write_all(f.no_reader, W)),
    "writev": (E.EPIPE, lambda api, f: api.writev(f.no_reader, [W])),
    "recv": (E.ENOTSOCK, lambda api, f: api.recv(f.read_end, 10)),
    "recv_unconnected": (E.ENOTCONN, lambda api, f: api.recv(f.alone, 10)),
    "recv_into": (E.ENOTSOCK, lambda api, f: api.recv_into(f.read_end, bytearray(10))),
    "send": (E.EPIPE, lambda api, f: api.send(f.sock, W)),
    "sendall": (E.EPIPE, lambda api, f: api.sendall(f.sock, W)),
    "recvmsg": (E.ENOTSOCK, lambda api, f: api.recvmsg(f.read_end, 10)),
    "sendmsg": (E.EPIPE, lambda api, f: api.sendmsg(f.sock, [W])),
    "accept": (E.EINVAL, lambda api, f: api.accept(f.alone)),
    "accept_pipe": (E.ENOTSOCK, lambda api, f: api.accept(f.read_end)),
    "connect": (E.ECONNREFUSED, lambda api, f: api.connect(f.alone, f.nobody)),
    "connect_pipe": (E.ENOTSOCK, lambda api, f: api.connect(f.read_end, bytes(16))),
    "poll": (E.EBADF, lambda api, f: api.poll(f.closed, 1)),
    "open": (E.ENOENT, lambda api, f: api.open(f.folder / "not there")),
    "splice": (E.EBADF, lambda api, f: api.splice(f.closed, f.write_end, 10)),
    "tee": (E.EBADF, lambda api, f: api.tee(f.closed, f.write_end, 10)),
    "waitid": (E.ECHILD, lambda api, f: api.waitid(os.P_PID, os.getpid())),
    "futex_wait": (E.EAGAIN, lambda api, f: api.futex_wait(array("I", [1]), 2)),
    "fsync": (E.EINVAL, lambda api, f: api.fsync(f.read_end)),
    "close_fd": (E.EBADF, lambda api, f: api.close_fd(f.closed)),
}


async def _with_folder(api: Any, files: Files, call: Callable[[int], Awaitable[Any]]) -> Any:
    fd = os.open(files.folder, os.O_RDONLY)
    try:
        return await call(fd)
    finally:
        os.close(fd)


@worlds
@pytest.mark.parametrize("name", FAILURES)
def test_it_fails(world: World, name: str, tmp_path: Path) -> None:
    number, call = FAILURES[name]

    async def main(world: World) -> None:
        with contextlib.ExitStack() as stack:
            files = Files(stack, tmp_path)
            started = world.start(lambda: call(world.verbs, files))
            assert await world.ended(started) is FAILED, f"{started.value!r}"
            if isinstance(started.error, FeatureUnavailable):
                assert not world.engine.supports({"open": "openat"}.get(name, name))
                return
            assert isinstance(started.error, OSError)
            assert started.error.errno == number, f"{started.error!r}"
            assert os.strerror(number) in str(started.error)

    world.run(main)


@worlds
def test_a_peer_that_resets(world: World, tcp: tuple[socket.socket, socket.socket]) -> None:
    sock, peer = tcp

    async def main(world: World) -> None:
        started = world.start(lambda: world.verbs.recv(sock, 10))
        await world.waits(started)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" + bytes(4))
        peer.close()
        assert await world.ended(started) is FAILED
        assert isinstance(started.error, ConnectionResetError)

    world.run(main)


CLOSABLE = [
    name
    for name in CASES
    if name not in ("open", "waitid", "futex_wait", "sleep", "connect", "splice", "tee")
]


@pytest.mark.parametrize(
    "row",
    [(*pair, name) for pair in PAIRS for name in CLOSABLE],
    ids="-".join,
    indirect=True,
)
def test_closed_by_close_fd(row: Row) -> None:
    """What waits ends with OperationCancelled, the number is free, and its next file is left alone."""

    async def main(world: World, case: Any) -> None:
        number, copy = case.fd, case.own(os.dup(case.fd))
        started = world.start(case.call)
        await world.waits(started)
        await world.verbs.close_fd(number)
        fresh, alone = other(case)
        os.dup2(fresh, number)
        try:
            assert await world.ended(started) is FAILED, f"{started.value!r}"
            assert isinstance(started.error, OperationCancelled), f"{started.error!r}"
            case.fd = copy  # the same file
            case.ready()
            for _ in range(3):
                await world.one_pass()
            assert alone(), "the next file of this number was touched"
        finally:
            os.close(number)

    row.run(main)


def other(case: Case) -> tuple[int, Callable[[], bool]]:
    return case.other()


class Closable:
    """A file object whose number can become another file's."""

    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        return self.number


@pytest.mark.parametrize(
    "row",
    [(*pair, name) for pair in PAIRS for name in ("read", "recv", "accept")],
    ids="-".join,
    indirect=True,
)
@pytest.mark.parametrize("number", [True, False], ids=["another_number", "no_number"])
def test_closed_behind_its_back(row: Row, number: bool) -> None:
    """A file object that was closed: EBADF when something comes, and neither file is touched."""

    async def main(world: World, case: Any) -> None:
        file = Closable(case.fd)
        call = {"read": world.verbs.read, "recv": world.verbs.recv}.get(case.name)
        started = world.start(lambda: call(file, 100) if call else world.verbs.accept(file))
        await world.waits(started)
        copy = case.own(os.dup(case.fd))
        fresh, alone = other(case)
        os.dup2(fresh, case.fd)  # the number is another file's
        file.number = copy if number else -1
        case.ready()
        assert await world.ended(started) is FAILED, f"{started.value!r}"
        assert isinstance(started.error, OSError)
        assert started.error.errno == errno.EBADF
        assert alone(), "another file was touched"
        if case.name != "accept":
            assert drain(copy) == WORD
        os.close(case.fd)

    row.run(main)
