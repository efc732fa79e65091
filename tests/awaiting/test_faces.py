"""Streams and listeners as anyio and trio know them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
import trio
import trio.testing
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSStream

import iocancel.asyncio
import iocancel.trio

from ..support import fill, need, python
from .worlds import Trio, World, in_world

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of our own, and its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    key = path.with_name("key.pem")
    ask = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    ask += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    try:
        subprocess.run([*ask, "-keyout", key, "-out", path], check=True, capture_output=True)
    except FileNotFoundError:
        need(False, "no openssl here to make a certificate with")
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path


# anyio


def test_tls_over_two_of_them(world: World, pair: Pair, certificate: Path) -> None:
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    server.load_cert_chain(certificate)
    client.load_verify_locations(certificate)

    async def echo() -> None:
        mine = await TLSStream.wrap(world.io.Stream(pair[1]), server_side=True, ssl_context=server)
        async with mine:
            async for data in mine:
                await mine.send(data)

    async def body() -> None:
        task = world.spawn(echo)
        mine = await TLSStream.wrap(world.io.Stream(pair[0]), hostname="localhost", ssl_context=client)
        async with mine:
            await mine.send(bytes(100_000))
            found = b""
            while len(found) < 100_000:
                found += await mine.receive()
            assert found == bytes(100_000)
        await task.result()

    world.run(body)


def test_buffered_over_one_of_them(world: World, pair: Pair) -> None:
    async def body() -> None:
        async with world.io.Stream(pair[0]) as one, world.io.Stream(pair[1]) as other:
            lines = BufferedByteReceiveStream(one)
            await other.send(b"a line\nand ")
            assert await lines.receive_until(b"\n", 100) == b"a line"
            task = world.spawn(lines.receive_exactly, 7)
            await world.in_flight()
            await other.send(b"the")
            await other.send_eof()
            assert await task.result() == b"and the"
            with pytest.raises(anyio.EndOfStream):
                await lines.receive()

    world.run(body)


def test_anyio_counts_them_among_its_own(world: World, pair: Pair, listener: socket.socket) -> None:
    async def body() -> None:
        async with world.io.Stream(pair[0]) as stream, world.io.Listener(listener) as mine:
            assert isinstance(stream, anyio.abc.ByteStream)
            assert isinstance(stream, anyio.abc.ByteReceiveStream)
            assert isinstance(mine, anyio.abc.Listener)
            assert not isinstance(mine, anyio.abc.ByteStream)

    world.run(body)


def test_anyio_is_told_when_it_comes_later() -> None:
    program = """
import socket, sys, iocancel.asyncio
a, b = socket.socketpair()
one = iocancel.asyncio.Stream(a)
assert "anyio" not in sys.modules
import anyio.abc
other = iocancel.asyncio.Stream(b)
assert isinstance(one, anyio.abc.ByteStream)
for stream in one, other:
    stream._close_files()
"""
    done = python(program, "-W", "error")
    assert (done.returncode, done.stderr) == (0, "")


def test_anyios_words(world: World, pair: Pair, tcp: Pair) -> None:
    async def body() -> None:
        one, other = world.io.Stream(pair[0]), world.io.Stream(pair[1])
        assert one.extra(anyio.abc.SocketAttribute.raw_socket) is pair[0]
        assert one.extra(anyio.abc.SocketAttribute.family) == socket.AF_UNIX
        assert one.extra(anyio.abc.SocketAttribute.remote_port, None) is None
        with pytest.raises(anyio.TypedAttributeLookupError):
            one.extra(anyio.abc.SocketAttribute.local_port)
        task = world.spawn(one.receive)
        await world.in_flight()
        with pytest.raises(anyio.BusyResourceError):
            await one.receive()
        await other.aclose()
        with pytest.raises(anyio.EndOfStream):
            await task.result()
        with pytest.raises(anyio.BrokenResourceError):
            await one.send(b"x")
        await one.aclose()
        for call in (one.receive, lambda: one.send(b"x")):
            with pytest.raises(anyio.ClosedResourceError):
                await call()
        async with world.io.Stream(tcp[0]) as mine:
            assert mine.extra(anyio.abc.SocketAttribute.local_port) == tcp[0].getsockname()[1]
            assert mine.extra(anyio.abc.SocketAttribute.remote_address) == tcp[1].getsockname()
            assert mine.extra(anyio.abc.SocketAttribute.local_address) == tcp[0].getsockname()
            assert mine.extra(anyio.abc.SocketAttribute.remote_port) == tcp[1].getsockname()[1]

    world.run(body)


def test_a_number_has_no_attributes(world: World, pipe: tuple[int, int]) -> None:
    async def body() -> None:
        import os

        async with world.io.Stream(os.dup(pipe[0])) as stream:
            assert stream.extra_attributes == {}

    world.run(body)


def test_serving(world: World, listener: socket.socket) -> None:
    async def echo(stream: Any) -> None:
        async with stream:
            async for data in stream:
                await stream.send_all(data.upper())

    async def body() -> None:
        mine = world.io.Listener(listener)
        server = world.spawn(mine.serve, echo)
        for _ in range(2):
            with socket.create_connection(listener.getsockname()) as client:
                async with world.io.Stream(client) as stream:
                    await stream.send_all(b"hello")
                    assert await stream.receive_exactly(5) == b"HELLO"
        await world.until(lambda: len(world.flight()) == 1, "both have ended")
        server.cancel()
        assert await server.ended() == "cancelled"
        await mine.aclose()

    world.run(body)


# trio


@pytest.fixture(params=["uring", "libaio"])
def in_trio(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trio]:
    """trio, with each engine."""
    with in_world("trio", request.param, monkeypatch) as made:
        assert isinstance(made, Trio)
        yield made


Two = tuple[iocancel.trio.Stream, iocancel.trio.Stream]


def maker(make: Callable[[], Pair]) -> Callable[[], Awaitable[Two]]:
    async def streams() -> Two:
        one, other = make()
        return iocancel.trio.Stream(one), iocancel.trio.Stream(other)

    return streams


def clogged() -> Pair:
    a, b = socket.socketpair()
    for each in (a, b):
        fill(each.fileno())
    return a, b


def connected() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as server:
        a = socket.create_connection(server.getsockname())
        b, _ = server.accept()
    return a, b


@pytest.mark.parametrize("make", [socket.socketpair, connected], ids=["unix", "tcp"])
def test_trios_check_of_streams(in_trio: Trio, make: Callable[[], Pair]) -> None:
    async def body() -> None:
        mine = maker(make)
        blocked = maker(clogged) if make is socket.socketpair else None
        await trio.testing.check_one_way_stream(mine, blocked)
        await trio.testing.check_two_way_stream(mine, blocked)
        await trio.testing.check_half_closeable_stream(mine, blocked)

    in_trio.run(body)


def test_trios_check_of_pipes(in_trio: Trio) -> None:
    import os

    async def make() -> tuple[Any, Any]:
        read_end, write_end = os.pipe()
        return iocancel.trio.Stream(write_end), iocancel.trio.Stream(read_end)

    async def full() -> tuple[Any, Any]:
        write, read = await make()
        fill(write.fileno())
        return write, read

    async def body() -> None:
        await trio.testing.check_one_way_stream(make, full)

    in_trio.run(body)


def test_trio_serves_listeners(in_trio: Trio) -> None:
    async def echo(stream: Any) -> None:
        async for data in stream:
            await stream.send_all(data)

    async def body() -> None:
        servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        async with trio.open_nursery() as nursery:
            found = await nursery.start(
                trio.serve_listeners, echo, [iocancel.trio.Listener(each) for each in servers]
            )
            assert all(isinstance(each, trio.abc.Listener) for each in found)
            for each in servers:
                async with await trio.open_tcp_stream(*each.getsockname()[:2]) as stream:
                    await stream.send_all(b"hello")
                    assert await stream.receive_some() == b"hello"
            nursery.cancel_scope.cancel()

    in_trio.run(body)


# asyncio


def test_a_timeout_around_a_call(world: World, pair: Pair) -> None:
    if world.is_trio:
        pytest.skip("asyncio's own timeouts")

    async def body() -> None:
        async with world.io.Stream(pair[0]) as stream:
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        await stream.receive_some()
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(stream.receive_exactly(1), 0.001)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await iocancel.asyncio.sleep(0)
            pair[1].send(b"abc")
            assert await stream.receive_exactly(3) == b"abc"

    world.run(body)
