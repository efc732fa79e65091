"""File objects and a socket for the standard library: what is built on them ends, and goes on."""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import os
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import iocancel
from iocancel import BufferedReader, CancelScope, RawFile, Socket, fail_after, move_on_after
from iocancel.pool import Pool

from .streams_stage import Pipe, Thread, when_waiting
from .streams_stage import engine as engine
from .streams_stage import pair as pair
from .streams_stage import pipe as pipe

Pair = tuple[socket.socket, socket.socket]
pytestmark = pytest.mark.usefixtures("engine")


# Raw files


def test_a_raw_file(pipe: Pipe) -> None:
    with RawFile(pipe.r) as file:
        assert (file.readable(), file.writable(), file.seekable(), file.isatty()) == (
            True,
            False,
            False,
            False,
        )
        assert (file.mode, file.name, file.fileno()) == ("rb", pipe.r, pipe.r)
        assert repr(file) == f"<RawFile fd={pipe.r} mode='rb'>"
        pipe.put(b"hello")
        assert file.read(2) == b"he"
        assert file.readinto(bytearray()) == 0
        with pytest.raises(io.UnsupportedOperation, match="not opened for writing"):
            file.write(b"x")
        pipe.close_write()
        assert file.readall() == b"llo"
        assert file.read(1) == b""
    assert file.closed
    for call in (file.readable, file.fileno, file.tell, lambda: file.read(1)):
        with pytest.raises(ValueError, match="closed"):
            call()
    with pytest.raises(OSError):
        os.fstat(pipe.r)


def test_arguments(pipe: Pipe) -> None:
    with pytest.raises(ValueError, match="mode takes rb, wb"):
        RawFile(pipe.r, "r")
    with pytest.raises(ValueError, match="timeout"):
        RawFile(pipe.r, timeout=-1)
    with pytest.raises(TypeError, match="an object with fileno"):
        RawFile("name")
    with RawFile(pipe.r) as file, pytest.raises(ValueError, match="buffer_size"):
        BufferedReader(file, 0)


def test_who_closes(pipe: Pipe) -> None:
    RawFile(pipe.r, closefd=False).close()
    os.fstat(pipe.r)
    made = [RawFile(pipe.r)]
    with pytest.warns(ResourceWarning, match="unclosed <RawFile fd="):
        made.clear()
    with pytest.raises(OSError):
        os.fstat(pipe.r)


def test_a_disks_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\nthree\n")
    with open(path, "r+b", buffering=0) as plain, RawFile(plain, "r+b") as file:
        assert file.name == plain.fileno()
        assert file.seekable()
        assert file.read(4) == b"one\n"
        assert file.tell() == 4
        reader = BufferedReader(file)
        assert reader.readline() == b"two\n"
        assert (reader.tell(), file.tell()) == (8, 8)
        assert reader.seek(-4, os.SEEK_CUR) == 4
        assert reader.read() == b"two\nthree\n"
        assert reader.seek(4) == 4
        file.seek(0, os.SEEK_END)
        assert file.write(b"four\n") == 5
    assert path.read_bytes() == b"one\ntwo\nthree\nfour\n"


def test_deadlines(engine: Pool, pipe: Pipe) -> None:
    with RawFile(pipe.r, timeout=0.01) as file:
        with pytest.raises(TimeoutError):
            file.read(1)
        file.timeout = None
        with move_on_after(0.01) as scope:
            file.read(1)
        assert scope.cancelled_caught
        stop = CancelScope()

        def work() -> None:
            with stop:
                io.BufferedReader(file).read1()

        thread = Thread(work)
        when_waiting(engine)
        stop.cancel()
        thread.ended()
        assert stop.cancelled_caught


@pytest.mark.parametrize("make", [io.BufferedReader, BufferedReader])
def test_a_close_ends_who_reads(engine: Pool, pipe: Pipe, make: Callable[[RawFile], Any]) -> None:
    raw = RawFile(pipe.r)
    reader = make(raw)
    thread = Thread(lambda: reader.read(10))
    when_waiting(engine)
    raw.close()
    with pytest.raises(ValueError, match="closed"):
        thread.ended()
    with pytest.raises(ValueError, match="closed"):
        reader.read(1)


def test_writing(pipe: Pipe) -> None:
    with RawFile(pipe.w, "wb", timeout=0.01, closefd=False) as raw:
        assert raw.writable()
        out = io.BufferedWriter(raw, 100)
        pickle.dump(list(range(1000)), out)
        out.flush()
        got = os.read(pipe.r, 65536)
        assert pickle.loads(got) == list(range(1000))
        # A full pipe: what could not be written is written later, once.
        os.set_blocking(pipe.r, False)
        full = 0
        with contextlib.suppress(TimeoutError):
            while True:
                full += raw.write(bytes(4096))
        out.write(b"last")
        with pytest.raises(TimeoutError):
            out.flush()
        while full:
            full -= len(os.read(pipe.r, full))
        out.close()
    assert os.read(pipe.r, 100) == b"last"
    os.close(pipe.r)


# Buffered reading


@pytest.fixture
def reader(pipe: Pipe) -> Iterator[BufferedReader]:
    with BufferedReader(RawFile(pipe.r, timeout=0)) as made:
        yield made


def test_each_way_of_reading(pipe: Pipe, reader: BufferedReader) -> None:
    pipe.put(b"0123456789one\ntwo\nthree\nfour\nfive")
    assert reader.peek()[:3] == b"012"
    assert reader.read(2) == b"01"
    assert reader.read1(2) == b"23"
    assert reader.read(0) == reader.read1(0) == b""
    buffer = bytearray(3)
    assert (reader.readinto(buffer), bytes(buffer)) == (3, b"456")
    assert (reader.readinto1(buffer), bytes(buffer)) == (3, b"789")
    assert reader.readline(2) == b"on"
    assert reader.readline() == b"e\n"
    assert next(reader) == b"two\n"
    assert reader.readlines(3) == [b"three\n"]
    pipe.close_write()
    assert list(reader) == [b"four\n", b"five"]
    assert reader.read() == reader.readline() == reader.read1() == reader.peek() == b""
    assert reader.readlines() == []
    assert (reader.fileno(), reader.name, reader.mode) == (pipe.r, pipe.r, "rb")
    assert (reader.readable(), reader.seekable(), reader.isatty()) == (True, False, False)
    assert repr(reader).startswith("<BufferedReader of <RawFile")


CALLS: list[Callable[[Any], object]] = [
    lambda file: file.read(7),
    lambda file: file.read(),
    lambda file: file.readline(),
    lambda file: file.readlines(),
    lambda file: file.readinto(bytearray(7)),
]
LINES = b"th\nree"


@pytest.mark.parametrize("call", CALLS, ids=["read", "read-all", "readline", "readlines", "readinto"])
def test_nothing_is_taken_by_what_raises(pipe: Pipe, reader: BufferedReader, call: Any) -> None:
    for part in (b"o", b"n", b"e"):
        pipe.put(part)
        with pytest.raises(TimeoutError):
            call(reader)
        with CancelScope() as scope:
            scope.cancel()
            call(reader)
    pipe.close_write()
    assert reader.read() == b"one"


@pytest.mark.parametrize("call", [CALLS[0], CALLS[2], CALLS[4]], ids=["read", "readline", "readinto"])
def test_the_standard_one_drops_what_it_had_taken(pipe: Pipe, call: Any) -> None:
    """So that we learn of it when CPython does no longer: the docstrings say so."""
    with io.BufferedReader(RawFile(pipe.r, timeout=0)) as file:
        pipe.put(b"one")
        with pytest.raises(TimeoutError):
            call(file)
        pipe.close_write()
        assert file.read() != b"one"


def test_the_standard_one_keeps_all_where_it_reads_all(pipe: Pipe) -> None:
    """It asks the raw file for all of it."""
    with io.BufferedReader(RawFile(pipe.r, timeout=0)) as file:
        pipe.put(b"one")
        with pytest.raises(TimeoutError):
            file.read()
        pipe.close_write()
        assert file.read() == b"one"


@pytest.mark.parametrize("name", ["read1", "peek", "readinto1"])
def test_the_standard_one_is_safe_there(pipe: Pipe, name: str) -> None:
    with io.BufferedReader(RawFile(pipe.r, timeout=0)) as file:
        argument: Any = bytearray(7) if name == "readinto1" else 7
        with pytest.raises(TimeoutError):
            getattr(file, name)(argument)
        pipe.put(b"one")
        pipe.close_write()
        assert file.read() == b"one"


def test_the_standard_text_file_drops_the_part_of_a_line(pipe: Pipe, reader: BufferedReader) -> None:
    with io.TextIOWrapper(reader, encoding="utf-8") as file:
        pipe.put(b"one\ntw")
        assert file.readline() == "one\n"
        with pytest.raises(TimeoutError):
            file.readline()
        pipe.put(b"o\n")
        assert file.readline() != "two\n"


def test_pickles(pipe: Pipe, reader: BufferedReader) -> None:
    pipe.put(pickle.dumps({"a": 1}) + pickle.dumps([2])[:-1])
    assert pickle.load(reader) == {"a": 1}
    with pytest.raises(TimeoutError):
        pickle.load(reader)


def test_one_reader_at_a_time(engine: Pool, pipe: Pipe, reader: BufferedReader) -> None:
    reader.raw.timeout = None
    thread = Thread(lambda: reader.read(3))
    when_waiting(engine)
    with pytest.raises(RuntimeError, match="another call is receiving already"):
        reader.read(1)
    pipe.put(b"one")
    assert thread.ended() == b"one"


def test_detached(pipe: Pipe) -> None:
    reader = BufferedReader(RawFile(pipe.r))
    pipe.put(b"onetwo")
    assert reader.read(3) == b"one"
    with reader.detach() as raw:
        assert raw.read(3) == b"two"  # what was read ahead is the raw file's
    with pytest.raises(ValueError, match="detached"):
        reader.read(1)


def test_another_raw_file(pipe: Pipe) -> None:
    os.set_blocking(pipe.r, False)
    with BufferedReader(open(pipe.r, "rb", buffering=0)) as reader:
        pipe.put(b"one")
        for _ in range(2):
            with pytest.raises(BlockingIOError):
                reader.readline()
        pipe.put(b"\n")
        assert reader.readline() == b"one\n"


def test_a_disks_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\n")
    with BufferedReader(open(path, "rb", buffering=0)) as reader:
        assert reader.readline() == b"one\n"
        assert reader.tell() == 4
        assert reader.seek(-4, os.SEEK_CUR) == 0
        assert reader.read() == b"one\ntwo\n"
    with pytest.raises(OSError, match="not readable"), open(path, "ab", buffering=0) as writer:
        BufferedReader(writer)


def test_a_lot(pipe: Pipe, reader: BufferedReader) -> None:
    reader.raw.timeout = None
    data = os.urandom(2_000_000)

    def write() -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(pipe.w, view) :]
        pipe.close_write()

    thread = Thread(write)
    assert reader.read(1_000_000) + b"".join(reader) == data
    thread.ended()


# Sockets


@pytest.fixture
def two(pair: Pair) -> Iterator[tuple[Socket, Socket]]:
    with Socket.adopt(pair[0]) as a, Socket.adopt(pair[1]) as b:
        yield a, b


Two = tuple[Socket, Socket]


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
