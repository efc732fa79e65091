"""A socket for the standard library: what is built on it ends, and goes on."""

from __future__ import annotations

import errno
import http.client
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import iocancel
from iocancel import Socket, fail_after
from iocancel.pool import Pool

from .streams_stage import Thread
from .streams_stage import engine as engine
from .streams_stage import pair as pair

Pair = tuple[socket.socket, socket.socket]
Two = tuple[Socket, Socket]
pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture
def two(pair: Pair) -> Iterator[tuple[Socket, Socket]]:
    with Socket.adopt(pair[0]) as a, Socket.adopt(pair[1]) as b:
        yield a, b


def test_an_adopted_socket(pair: Pair) -> None:
    a, _ = pair
    number = a.fileno()
    a.settimeout(1.5)
    with Socket.adopt(a) as sock:
        assert a.fileno() == -1
        assert (sock.fileno(), sock.family, sock.type) == (number, socket.AF_UNIX, socket.SOCK_STREAM)
        assert sock.gettimeout() == sock.timeout == 1.5
        assert os.get_blocking(number)  # a timeout of ours needs no O_NONBLOCK
        sock.setblocking(False)
        assert (sock.gettimeout(), sock.getblocking()) == (0.0, False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        assert os.get_blocking(number)
        sock.setblocking(True)
        assert (sock.gettimeout(), sock.getblocking()) == (None, True)
        with pytest.raises(ValueError, match="out of range"):
            sock.settimeout(-1)
        with sock.dup() as again:
            assert type(again) is Socket


def test_each_call_of_a_socket(two: Two) -> None:
    a, b = two
    a.sendall(b"12")
    assert a.send(b"3456789abc") == 10
    assert a.sendmsg([b"d", b"e"]) == 2
    assert b.recv(1) == b"1"
    buffer = bytearray(4)
    assert (b.recv_into(buffer, 1), bytes(buffer[:1])) == (1, b"2")
    assert b.recvfrom(1)[0] == b"3"
    assert (b.recvfrom_into(buffer, 2)[0], bytes(buffer[:2])) == (2, b"45")
    assert b.recvmsg(2)[0] == b"67"
    parts = [bytearray(1), bytearray(2)]
    assert (b.recvmsg_into(parts)[0], [*map(bytes, parts)]) == (3, [b"8", b"9a"])
    assert b.recv(10, socket.MSG_PEEK) == b.recv(10) == b"bcde"
    for wrong in (lambda: b.recv(-1), lambda: b.recv_into(buffer, 5), lambda: b.recv_into(buffer, -1)):
        with pytest.raises(ValueError):
            wrong()
    for sock in two:
        sock.settimeout(0.01)
        for call in (sock.recv, sock.recvfrom, sock.recvmsg):
            with pytest.raises(TimeoutError):
                call(1)
        with pytest.raises(TimeoutError):
            sock.recv_into(buffer)


def test_datagrams() -> None:
    kind = (socket.AF_INET, socket.SOCK_DGRAM)
    with Socket(*kind) as a, Socket(*kind) as b:
        b.bind(("127.0.0.1", 0))
        assert a.sendto(b"one", b.getsockname()) == 3
        assert a.sendto(b"two", 0, b.getsockname()) == 3
        data, address = b.recvfrom(10)
        assert (data, address[1]) == (b"one", a.getsockname()[1])
        assert b.recv(10) == b"two"
        with pytest.raises(TypeError, match="sendto takes"):
            a.sendto(b"x")


def test_connections(engine: Pool) -> None:
    with Socket.adopt(socket.create_server(("127.0.0.1", 0))) as server:
        address = server.getsockname()
        with iocancel.create_connection(("127.0.0.1", address[1]), timeout=10) as client:
            assert client.gettimeout() == 10
            conn, peer = server.accept()
            with conn:
                assert type(conn) is Socket
                assert peer == client.getsockname()
                assert conn.gettimeout() is None
                client.sendall(b"x")
                assert conn.recv(1) == b"x"
        server.settimeout(0.01)
        with pytest.raises(TimeoutError):
            server.accept()
    with Socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        assert client.connect_ex(address) == errno.ECONNREFUSED
        with pytest.raises(ConnectionRefusedError):
            iocancel.create_connection(address)
        client.setblocking(False)
        assert client.connect_ex(address) in (errno.EINPROGRESS, errno.ECONNREFUSED, errno.ECONNABORTED)
        assert os.get_blocking(client.fileno())


def test_files_of_a_socket(two: Two) -> None:
    a, b = two
    with a.makefile("rwb") as one, b.makefile("rw", encoding="utf-8", newline="\n") as other:
        one.write(b"to\n")
        one.flush()
        assert other.readline() == "to\n"
        other.write("fro\n")
        other.flush()
        assert one.readline() == b"fro\n"
        assert (one.readable(), one.writable(), one.closed) == (True, True, False)
        other.write("more\n")
        other.flush()
        assert next(one) == b"more\n"
    assert one.closed
    with a.makefile("wb") as out, b.makefile("rb") as into, b.makefile("rb", 0) as raw:
        out.write(b"one\ntw")
        out.flush()
        b.settimeout(0)
        assert into.readline() == b"one\n"
        with pytest.raises(TimeoutError):
            into.readline()
        out.write(b"o\n")
        out.flush()
        assert into.readline() == b"two\n"  # unlike the standard one's, it can be read on
        out.write(b"raw")
        out.flush()
        assert raw.read(3) == b"raw"
        b.close()
        assert into.fileno() == raw.fileno() >= 0  # it is closed with its files
    assert b.fileno() == -1
    for mode, buffering in (("x", None), ("r", 0)):
        with pytest.raises(ValueError):
            a.makefile(mode, buffering)


def test_a_file_that_is_sent(two: Two, tmp_path: Path) -> None:
    a, b = two
    (tmp_path / "file").write_bytes(b"content")
    with open(tmp_path / "file", "rb") as file:
        assert a.sendfile(file) == 7
    assert b.recv(10) == b"content"


def test_http(engine: Pool) -> None:
    """http.client, unchanged, over a server that trickles and never ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def serve() -> None:
            conn, _ = server.accept()
            with conn:
                conn.recv(65536)
                conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12")
                stop.wait(60)

        thread = Thread(serve)
        conn = http.client.HTTPConnection(*server.getsockname())
        conn.sock = iocancel.create_connection(server.getsockname(), timeout=60)
        try:
            conn.request("GET", "/")
            response = conn.getresponse()
            assert response.read(2) == b"12"
            with pytest.raises(TimeoutError), fail_after(0.05):
                response.read()
        finally:
            stop.set()
            conn.close()
            thread.ended()
        response.close()
