"""Stream and Listener: they end, they close, and they lose nothing."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import socket
import threading
import tty
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import iocancel
from iocancel import CancelScope, Listener, Stream, fail_after, move_on_after
from iocancel.pool import Pool

from .streams_stage import Pipe, Thread, when_waiting
from .streams_stage import engine as engine
from .streams_stage import pair as pair
from .streams_stage import pipe as pipe

Pair = tuple[socket.socket, socket.socket]
pytestmark = pytest.mark.usefixtures("engine")


@contextmanager
def handler(act: Any) -> Iterator[None]:
    """SIGUSR1 does something."""
    before = signal.signal(signal.SIGUSR1, lambda *_: act())
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def interrupt() -> None:
    raise KeyboardInterrupt


def signalled_when_waiting(mine: Pool) -> Thread:
    def send() -> None:
        when_waiting(mine)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    return Thread(send)


# What it does


def test_bytes_come_and_go(pair: Pair) -> None:
    a, b = pair
    with Stream(a) as one, Stream(b) as other:
        one.send_all(b"hello")
        assert other.receive_some(2) == b"he"
        assert other.receive_some() == b"llo"
        one.send_eof()
        assert other.receive_some() == b""
        other.send_all(b"back")
        assert one.receive_some(timeout=1) == b"back"
        with pytest.raises(BrokenPipeError) as caught:
            one.send_all(b"x")
        assert caught.value.sent == 0  # type: ignore[attr-defined]
        assert one.file is a
        assert repr(one) == f"<Stream fd={a.fileno()}>"
    assert repr(one) == "<Stream closed>"
    assert (a.fileno(), one.fileno()) == (-1, -1)
    assert one.closed


def test_a_pipe_is_two_files() -> None:
    there, back = os.pipe(), os.pipe()
    with Stream(there[0], writer=back[1]) as one, Stream(back[0], writer=there[1]) as other:
        one.send_all(b"to")
        assert other.receive_some() == b"to"
        other.send_all(b"fro")
        other.send_eof()
        assert one.receive_some() == b"fro"
        assert one.receive_some() == b""
        with pytest.raises(BrokenPipeError, match="after send_eof"):
            other.send_all(b"x")


def test_a_number_that_is_a_sockets(pair: Pair) -> None:
    a, b = pair
    with Stream(a.detach()) as one, Stream(b.detach()) as other:
        one.send_all(b"x")
        one.send_eof()
        assert other.receive_some() == b"x"
        assert other.receive_some() == b""


def test_what_has_no_other_end(pipe: Pipe) -> None:
    with Stream(pipe.r) as stream, pytest.raises(ValueError, match="give its other end as writer"):
        stream.send_eof()


def test_a_terminal() -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    with Stream(master) as one, Stream(slave) as other:
        with pytest.raises(TimeoutError):
            other.receive_some(timeout=0)
        one.send_all(b"typed")
        got = b""
        while len(got) < 5:  # a terminal may hand over in parts what was written at once
            got += other.receive_some(timeout=10)
        assert got == b"typed"


def test_arguments(pipe: Pipe) -> None:
    with Stream(pipe.r) as stream:
        for wrong in (0, -1):
            with pytest.raises(ValueError, match="max_bytes takes a number >= 1"):
                stream.receive_some(wrong)
        for typed in (1.0, True, "1"):
            with pytest.raises(TypeError, match="max_bytes takes an int"):
                stream.receive_some(typed)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="timeout"):
            stream.receive_some(timeout=-1)
    with pytest.raises(TypeError, match="an int or an object with fileno"):
        Stream("name")
    with pytest.raises(TypeError, match="takes a socket"):
        Listener(3)  # type: ignore[arg-type]


def test_a_large_message(pair: Pair) -> None:
    a, b = pair
    data = os.urandom(3_000_000)
    with Stream(a) as one, Stream(b) as other:
        sending = Thread(lambda: one.send_all(data))
        got = bytearray()
        while len(got) < len(data):
            got += other.receive_some()
        sending.ended()
        assert got == data


# How it ends


def test_a_timeout(pair: Pair) -> None:
    a, b = pair
    with Stream(a) as one, Stream(b) as other:
        with pytest.raises(TimeoutError):
            one.receive_some(timeout=0.01)
        with pytest.raises(TimeoutError):
            one.receive_some(timeout=0)
        other.send_all(b"x")
        assert one.receive_some(timeout=0) == b"x"


def test_how_much_was_sent(pair: Pair) -> None:
    a, b = pair
    data = os.urandom(5_000_000)
    with Stream(a) as one, Stream(b) as other:
        with pytest.raises(TimeoutError) as caught:
            one.send_all(data, timeout=0.01)
        sent: int = caught.value.sent  # type: ignore[attr-defined]
        assert 0 < sent < len(data)
        one.close()
        got = bytearray()
        while part := other.receive_some():
            got += part
        assert got == data[:sent]


def test_scopes(engine: Pool, pipe: Pipe) -> None:
    with Stream(pipe.r) as stream:
        with move_on_after(0.01) as scope:
            stream.receive_some()
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError), fail_after(0.01):
            stream.receive_some()
        outer = CancelScope()

        def work() -> None:
            with outer:
                stream.receive_some()

        thread = Thread(work)
        when_waiting(engine)
        outer.cancel()
        thread.ended()
        assert outer.cancelled_caught
        # Nothing is taken in a cancelled scope, also where there is something.
        pipe.put(b"kept")
        with CancelScope() as scope:
            scope.cancel()
            stream.receive_some()
        assert stream.receive_some() == b"kept"


def test_a_shield_holds(engine: Pool, pipe: Pipe) -> None:
    got = []
    outer = CancelScope()

    def work() -> None:
        with outer:
            with CancelScope(shield=True):
                got.append(stream.receive_some())
            stream.receive_some()

    with Stream(pipe.r) as stream:
        thread = Thread(work)
        when_waiting(engine)
        outer.cancel()
        pipe.put(b"x")
        thread.ended()
    assert got == [b"x"]
    assert outer.cancelled_caught


def test_a_handler_that_cancels(engine: Pool, pipe: Pipe) -> None:
    with Stream(pipe.r) as stream, CancelScope() as scope, handler(scope.cancel):
        thread = signalled_when_waiting(engine)
        stream.receive_some()
    thread.ended()
    assert scope.cancelled_caught


def test_a_handler_that_raises(engine: Pool, pipe: Pipe) -> None:
    with Stream(pipe.r) as stream, handler(interrupt):
        thread = signalled_when_waiting(engine)
        with pytest.raises(KeyboardInterrupt):
            stream.receive_some()
        thread.ended()
        pipe.put(b"x")
        assert stream.receive_some() == b"x"


def test_what_came_with_a_handlers_exception_is_kept(pipe: Pipe, engine: Pool) -> None:
    def late() -> None:
        pipe.put(b"late")
        interrupt()

    with Stream(pipe.r) as stream, handler(late):
        thread = signalled_when_waiting(engine)
        with pytest.raises(KeyboardInterrupt):
            stream.receive_some()
        thread.ended()
        assert stream.receive_some(2, timeout=0) == b"la"
        assert stream.receive_some(timeout=0) == b"te"


# Two at once


def test_two_that_receive(engine: Pool, pair: Pair) -> None:
    a, b = pair
    with Stream(a) as one, Stream(b) as other:
        thread = Thread(one.receive_some)
        when_waiting(engine)
        with pytest.raises(RuntimeError, match="Stream: another call is receiving already"):
            one.receive_some()
        one.send_all(b"to")  # the other direction is free
        assert other.receive_some() == b"to"
        other.send_all(b"fro")
        assert thread.ended() == b"fro"


def test_two_that_send(engine: Pool, pair: Pair) -> None:
    a, b = pair
    with Stream(a) as one, Stream(b) as other:
        data = bytes(3_000_000)
        thread = Thread(lambda: one.send_all(data))
        when_waiting(engine)
        with pytest.raises(RuntimeError, match="Stream: another call is sending already"):
            one.send_all(b"x")
        with pytest.raises(RuntimeError, match="sending already"):
            one.send_eof()
        many = 0
        while many < len(data):
            many += len(other.receive_some())
        thread.ended()


# Closing


def test_a_close_ends_who_receives(engine: Pool, pipe: Pipe) -> None:
    was = os.fstat(pipe.r)
    stream = Stream(pipe.r)
    thread = Thread(stream.receive_some)
    when_waiting(engine)
    stream.close()
    try:
        now = os.fstat(pipe.r)
    except OSError:
        now = None
    # It is closed when close() returns; another thread's import, say, may have its number by now.
    assert now is None or not os.path.samestat(now, was)
    with pytest.raises(ValueError, match="Stream: closed"):
        thread.ended()
    stream.close()
    for call in (stream.receive_some, stream.send_eof, lambda: stream.send_all(b"")):
        with pytest.raises(ValueError, match="Stream: closed"):
            call()


def test_a_close_ends_who_sends(engine: Pool, pair: Pair) -> None:
    a, _ = pair
    stream = Stream(a)
    thread = Thread(lambda: stream.send_all(bytes(5_000_000)))
    when_waiting(engine)
    stream.close()
    with pytest.raises(ValueError, match="Stream: closed") as caught:
        thread.ended()
    assert 0 < caught.value.sent < 5_000_000  # type: ignore[attr-defined]


def test_a_close_in_a_scope_that_is_cancelled_too(engine: Pool, pipe: Pipe) -> None:
    stream, scope = Stream(pipe.r), CancelScope()

    def work() -> None:
        with scope:
            stream.receive_some()

    thread = Thread(work)
    when_waiting(engine)
    scope.cancel()
    stream.close()
    thread.ended()
    assert scope.cancelled_caught


def test_a_close_by_a_handler(engine: Pool, pipe: Pipe) -> None:
    stream = Stream(pipe.r)
    with handler(stream.close):
        thread = signalled_when_waiting(engine)
        with pytest.raises(ValueError, match="Stream: closed"):
            stream.receive_some()
        thread.ended()
    with pytest.raises(OSError):
        os.fstat(pipe.r)


def test_a_stream_that_nobody_closes(pipe: Pipe) -> None:
    made = [Stream(pipe.r)]
    with pytest.warns(ResourceWarning, match="unclosed <Stream fd="):
        made.clear()
    with pytest.raises(OSError):
        os.fstat(pipe.r)


def test_a_forked_child(engine: Pool, pipe: Pipe) -> None:
    """The call that waits is the parent's; the child can receive, and close its own copy."""
    stream = Stream(pipe.r)
    thread = Thread(stream.receive_some)
    when_waiting(engine)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: this process has threads
        child = os.fork()
    if not child:
        code = 1
        try:
            with contextlib.suppress(TimeoutError):
                stream.receive_some(timeout=0)
                os._exit(2)
            stream.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    pipe.put(b"the parent's")
    assert thread.ended() == b"the parent's"
    stream.close()


# Listeners


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener(socket.create_server(("127.0.0.1", 0))) as made:
        yield made


def dial(listener: Listener) -> socket.socket:
    return socket.create_connection(listener.file.getsockname())


@pytest.mark.parametrize("blocking", [True, False])
def test_connections_are_streams(listener: Listener, blocking: bool) -> None:
    listener.file.setblocking(blocking)
    with dial(listener) as client, listener.accept() as stream:
        assert stream.address == client.getsockname()
        client.sendall(b"hello")
        assert stream.receive_some() == b"hello"
    with pytest.raises(TimeoutError):
        listener.accept(timeout=0.01)
    assert repr(listener) == f"<Listener fd={listener.fileno()}>"


@pytest.mark.parametrize("blocking", [True, False])
def test_a_connection_that_came_late_is_kept(engine: Pool, listener: Listener, blocking: bool) -> None:
    listener.file.setblocking(blocking)
    clients = []

    def late() -> None:
        clients.append(dial(listener))
        interrupt()

    with handler(late):
        thread = signalled_when_waiting(engine)
        with pytest.raises(KeyboardInterrupt):
            listener.accept()
        thread.ended()
    with clients[0] as client, listener.accept(timeout=10) as stream:
        assert stream.address == client.getsockname()


def test_what_is_kept_is_closed_with_it(listener: Listener) -> None:
    side = listener._side
    with dial(listener) as client:
        accepting: Any = listener.accept
        with listener.accept() as first:
            assert first.address == client.getsockname()
        with dial(listener) as second:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(side, "commit", lambda *_: interrupt())
                with pytest.raises(KeyboardInterrupt):
                    accepting()
            assert len(side.have.kept) == 1
            listener.close()
            assert second.recv(1) == b""
    with pytest.raises(ValueError, match="Listener: closed"):
        listener.accept()


def test_a_close_ends_who_accepts(engine: Pool, listener: Listener) -> None:
    thread = Thread(listener.accept)
    when_waiting(engine)
    listener.close()
    with pytest.raises(ValueError, match="Listener: closed"):
        thread.ended()
    assert listener.fileno() == -1


def test_they_are_iocancels() -> None:
    assert iocancel.Stream is Stream
    assert iocancel.Listener is Listener
