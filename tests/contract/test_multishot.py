"""What brings one value after another, cancelled and drained when its block is left.

An engine without the kernel's own form does one operation after the other, and nobody sees the difference.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from typing import Any

import pytest

from ..support import BOUND, few, until
from .helpers import need_stopping


def test_connection_after_connection(engine: Any, listener: socket.socket) -> None:
    need_stopping(engine, "accept")
    with contextlib.ExitStack() as stack:
        conns = stack.enter_context(engine.accept_multishot(listener))
        for _ in range(5):
            client = stack.enter_context(socket.create_connection(listener.getsockname()))
            conn, address = next(iter(conns))
            with conn:
                assert address == client.getsockname()
        assert conns.ready() == []
    assert conns.leftovers == []
    assert engine.in_flight == 0


def test_connections_that_were_not_taken(engine: Any, listener: socket.socket) -> None:
    """They are in `leftovers`, or still in the listener's queue: none is lost."""
    need_stopping(engine, "accept")
    with contextlib.ExitStack() as stack:
        with engine.accept_multishot(listener) as conns:
            clients = {
                stack.enter_context(socket.create_connection(listener.getsockname())).getsockname()
                for _ in range(5)
            }
            for conn, address in conns:
                conn.close()
                clients.remove(address)
                break
        for conn, address in conns.leftovers:
            conn.close()
            clients.remove(address)
        for _ in range(len(clients)):
            conn, address = listener.accept()
            conn.close()
            clients.remove(address)
        assert not clients
    assert engine.in_flight == 0


def test_chunk_after_chunk(engine: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    need_stopping(engine, "recv")
    a, b = pair
    with engine.recv_multishot(a, 16) as chunks:
        for i in range(20):
            b.send(b"chunk %02d" % i)
            assert next(iter(chunks)) == b"chunk %02d" % i
        b.close()
        assert list(chunks) == []
        assert list(chunks) == []
    assert chunks.leftovers == []


def test_few_buffers_and_much_data(engine: Any, tcp: tuple[socket.socket, socket.socket]) -> None:
    """Buffers are given back, and the request is made anew when the kernel had filled them all."""
    need_stopping(engine, "recv")
    a, b = tcp
    data = bytes(range(256)) * few(2000)

    def send() -> None:
        b.sendall(data)
        b.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    with engine.recv_multishot(a, 1000, buffers=2) as chunks:
        sender.start()
        got = b"".join(chunks)
    sender.join()
    assert got == data
    assert chunks.leftovers == []


def test_bytes_that_were_not_taken(engine: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    """Taken, left over, or still in the socket: in order, and none is lost."""
    need_stopping(engine, "recv")
    a, b = pair
    with engine.recv_multishot(a, 4, buffers=8) as chunks:
        b.send(b"0123456789abcdef")
        got = next(iter(chunks))
    rest = b"".join(chunks.leftovers)
    a.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        rest += a.recv(64)
    assert got + rest == b"0123456789abcdef"


def test_buffers_are_free_for_the_next(engine: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    need_stopping(engine, "recv")
    a, b = pair
    for i in range(50):
        with engine.recv_multishot(a, 64, buffers=1) as chunks:
            b.send(b"%d" % i)
            assert next(iter(chunks)) == b"%d" % i


def test_readiness_after_readiness(engine: Any, pipe: tuple[int, int]) -> None:
    need_stopping(engine, "poll")
    with engine.poll_multishot(pipe[0], select.POLLIN) as masks:
        for _ in range(5):
            os.write(pipe[1], b"x")
            assert next(iter(masks)) & select.POLLIN
            while masks.ready():  # one that was told twice, as it may be
                pass
            assert os.read(pipe[0], 16) == b"x"
    assert engine.in_flight == 0


def test_only_inside_of_its_block(engine: Any, pipe: tuple[int, int]) -> None:
    need_stopping(engine, "poll")
    masks = engine.poll_multishot(pipe[0], select.POLLIN)
    with pytest.raises(RuntimeError, match="inside of the block"):
        iter(masks)
    with masks:
        found = iter(masks)
        with pytest.raises(RuntimeError, match="entered already"), masks:
            pass
    with pytest.raises(RuntimeError, match="it was left"):
        next(found)
    masks.close()
    assert engine.in_flight == 0


@pytest.mark.parametrize("verb", ["accept_multishot", "recv_multishot", "poll_multishot"])
def test_a_cancel_from_another_thread_ends_the_iteration(engine: Any, verb: str) -> None:
    need_stopping(engine, verb.removesuffix("_multishot"))
    a, b = socket.socketpair()
    with a, b, socket.create_server(("127.0.0.1", 0)) as server:
        block = {
            "accept_multishot": lambda: engine.accept_multishot(server),
            "recv_multishot": lambda: engine.recv_multishot(a),
            "poll_multishot": lambda: engine.poll_multishot(a, select.POLLIN),
        }[verb]()
        me = threading.get_ident()

        def other() -> None:
            until(lambda: engine._lead_thread == me, "this thread waits")
            assert block.cancel()

        thread = threading.Thread(target=other)
        with block:
            thread.start()
            assert list(block) == []
        thread.join()
    assert engine.in_flight == 0


def test_an_exception_leaves_nothing_behind(engine: Any, pair: Any) -> None:
    need_stopping(engine, "recv")
    a, b = pair
    b.send(b"data")

    def leave() -> None:
        with engine.recv_multishot(a) as chunks:
            for _ in chunks:
                raise LookupError

    with pytest.raises(LookupError):
        leave()
    assert engine.in_flight == 0


def test_it_fails_as_its_verb_does(engine: Any, pipe: tuple[int, int]) -> None:
    need_stopping(engine, "recv")
    with engine.recv_multishot(pipe[0]) as chunks, pytest.raises(OSError, match="recv") as raised:
        next(iter(chunks))
    assert raised.value.errno == 88  # ENOTSOCK
    assert engine.in_flight == 0


def test_left_by_close_fd(engine: Any, pair: Any) -> None:
    need_stopping(engine, "recv")
    with engine.recv_multishot(pair[0]) as chunks:
        engine.close_fd(pair[0], BOUND)
        assert list(chunks) == []
    assert engine.in_flight == 0
