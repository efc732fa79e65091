"""Sockets on the libaio engine: each verb completes, is cancelled, and fails with the true errno."""

from __future__ import annotations

import array
import errno
import os
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from iocancel import Outcome
from iocancel.engines.libaio import LibaioEngine

from ..support import fill
from .libaio_stage import drain, ended, failed, flying, gone
from .libaio_stage import engine as engine

Pipe = tuple[int, int]


def test_sockets(engine: LibaioEngine, pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    for receive in (engine.recv, engine.read):
        op = receive(left, 16)
        flying(engine, op)
        assert ended(engine.send(right, b"bytes")) == 5
        assert ended(op) == b"bytes"
    op = engine.recv(left, 16)
    flying(engine, op)
    gone(op)
    assert ended(engine.write(right, b"more")) == 4
    assert ended(engine.recv(left, 2, socket.MSG_PEEK)) == b"mo"
    assert left.recv(16) == b"more"
    many = fill(right.fileno())
    op = engine.send(right, b"x" * 10)
    flying(engine, op)
    gone(op)
    op = engine.write(right, b"x" * 10)
    flying(engine, op)
    drain(left.fileno(), many)
    assert ended(op) == 10
    assert left.gettimeout() is None


def test_all_or_what_came(engine: LibaioEngine, pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    op = engine.recv(left, 8, socket.MSG_WAITALL)
    right.send(b"1234")
    flying(engine, op)
    right.send(b"5678")
    assert ended(op) == b"12345678"
    op = engine.recv(left, 8, socket.MSG_WAITALL)
    right.send(b"123")
    flying(engine, op)
    op.cancel()
    assert ended(op) == b"123"
    data = b"z" * 2_000_000
    sending = engine.send(right, data, socket.MSG_WAITALL)
    receiving = engine.recv(left, len(data), socket.MSG_WAITALL)
    assert ended(sending) == len(data)
    assert ended(receiving) == data


def test_whoever_asks_not_to_wait(
    engine: LibaioEngine, pair: tuple[socket.socket, socket.socket], pipe: Pipe
) -> None:
    assert failed(engine.recv(pair[0], 1, socket.MSG_DONTWAIT)) == errno.EAGAIN


def test_messages(engine: LibaioEngine, pair: tuple[socket.socket, socket.socket], pipe: Pipe) -> None:
    left, right = pair
    op = engine.recvmsg(left, 16, socket.CMSG_SPACE(4))
    flying(engine, op)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [pipe[1]]))]
    assert ended(engine.sendmsg(right, [b"by", b"tes"], rights)) == 5
    data, [(level, kind, raw)], flags, _ = ended(op)
    assert (data, level, kind, flags) == (b"bytes", socket.SOL_SOCKET, socket.SCM_RIGHTS, 0)
    os.close(int.from_bytes(raw[:4], "little"))
    op = engine.recvmsg(left, 16)
    flying(engine, op)
    gone(op)
    # Fds that came and that nobody takes are closed, which the teardown sees.
    op = engine.recvmsg(left, 16, socket.CMSG_SPACE(4))
    assert ended(engine.sendmsg(right, [b"x"], rights)) == 1
    assert op.wait() is Outcome.COMPLETED
    with pytest.warns(ResourceWarning, match="never taken"):
        del op


def test_datagrams(engine: LibaioEngine) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as left, socket.socket(type=socket.SOCK_DGRAM) as right:
        left.bind(("127.0.0.1", 0))
        right.bind(("127.0.0.1", 0))
        op = engine.recvmsg(left, 16)
        flying(engine, op)
        assert ended(engine.sendmsg(right, [b"x"], address=left.getsockname())) == 1
        assert ended(op) == (b"x", [], 0, right.getsockname())
        assert ended(engine.connect(right, left.getsockname())) is None


def test_accept(engine: LibaioEngine, listener: socket.socket) -> None:
    op = engine.accept(listener)
    flying(engine, op)
    gone(op)
    op = engine.accept(listener)
    flying(engine, op)
    with socket.create_connection(listener.getsockname()) as client:
        conn, address = ended(op)
        with conn:
            assert address == client.getsockname()
            assert not conn.get_inheritable()
    # One that nobody takes is closed, and says so.
    op = engine.accept(listener)
    with socket.create_connection(listener.getsockname()) as client:
        assert op.wait() is Outcome.COMPLETED
        with pytest.warns(ResourceWarning, match="never taken"):
            del op
        assert client.recv(1) == b""
    assert listener.gettimeout() is None


def test_accepted_one_after_the_other(engine: LibaioEngine, listener: socket.socket) -> None:
    assert not engine.supports("accept_multishot")
    with engine.accept_multishot(listener) as conns:
        for _ in range(3):
            with socket.create_connection(listener.getsockname()), next(conns)[0]:
                pass
    assert conns.leftovers == []


@pytest.mark.parametrize("blocking", [True, False])
def test_connect(engine: LibaioEngine, listener: socket.socket, blocking: bool) -> None:
    with socket.socket() as sock:
        sock.setblocking(blocking)
        assert ended(engine.connect(sock, listener.getsockname())) is None
        assert sock.getpeername() == listener.getsockname()
        assert sock.getblocking() is blocking
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16) == bytes(16)
        assert failed(engine.connect(sock, listener.getsockname())) == errno.EISCONN
    closed = listener.getsockname()
    listener.close()
    with socket.socket() as sock:
        sock.setblocking(blocking)
        assert failed(engine.connect(sock, closed)) == errno.ECONNREFUSED


@pytest.fixture
def full(listener: socket.socket) -> Iterator[Callable[[], None]]:
    """A listener that takes no more: connects to it hang. Called, it goes on."""
    listener.listen(0)
    waiting = []
    while True:
        sock = socket.socket()
        sock.setblocking(False)
        waiting.append(sock)
        sock.connect_ex(listener.getsockname())
        if not select.select([], [sock], [], 0.2)[1]:
            break

    def go_on() -> None:
        listener.listen(16)
        for each in waiting:
            each.close()
        waiting.clear()

    yield go_on
    for each in waiting:
        each.close()


@pytest.mark.parametrize("blocking", [True, False])
def test_a_connect_that_hangs(
    engine: LibaioEngine, listener: socket.socket, full: Callable[[], None], blocking: bool
) -> None:
    with socket.socket() as sock:
        sock.setblocking(blocking)
        op = engine.connect(sock, listener.getsockname())
        flying(engine, op)
        gone(op)
        # It was taken back: the socket can be used again.
        assert sock.connect_ex(("127.0.0.1", 1)) in (errno.ECONNREFUSED, errno.EINPROGRESS)
    with socket.socket() as sock:
        sock.setblocking(blocking)
        op = engine.connect(sock, listener.getsockname())
        flying(engine, op)
        full()
        assert ended(op) is None
        assert sock.getpeername() == listener.getsockname()


def test_a_full_unix_backlog(engine: LibaioEngine, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(str(tmp_path / "s"))
        server.listen(0)
        first.connect(str(tmp_path / "s"))
        with socket.socket(socket.AF_UNIX) as second, socket.socket(socket.AF_UNIX) as third:
            op, other = (engine.connect(s, str(tmp_path / "s")) for s in (second, third))
            engine.submit()
            assert not op.done()
            gone(other)
            server.accept()[0].close()
            assert ended(op) is None
            server.accept()[0].close()
