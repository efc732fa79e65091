"""Results that beat the cancel, and results that nobody asks for."""

from __future__ import annotations

import gc
import os
import select
import socket
import warnings
from array import array
from pathlib import Path
from typing import Any

import pytest

from iocancel.operation import State

from ..support import BOUND, until, until_blocked
from .helpers import C, X, need_stopping, need_verbs, readable, stops


def unclaimed(engine: Any, op: Any, *, asked: bool) -> None:
    """Have it end with a result that nobody takes, perhaps in spite of a cancel."""
    if asked:
        assert op.cancel()
    assert op.wait() is C
    assert op.state is State.ENDED


def test_bytes_that_beat_the_cancel(engine: Any, pipe: tuple[int, int]) -> None:
    need_verbs(engine, "read")
    for way in range(3):
        op = engine.read(pipe[0], 16)
        engine.submit()
        os.write(pipe[1], b"data")
        if not stops(engine, "read"):
            # Until a thread has taken it up it can be cancelled, and has not read.
            until(lambda: readable(pipe[0]) == 0, "a thread has read it")
        (op.cancel, lambda op=op: engine.cancel([op]), lambda: engine.cancel_fd(pipe[0]))[way]()
        assert op.wait() is C
        assert op.result() == b"data"
        assert readable(pipe[0]) == 0


def test_the_cancel_beats_the_bytes(engine: Any, pipe: tuple[int, int]) -> None:
    need_stopping(engine, "read")
    for way in range(3):
        op = engine.read(pipe[0], 16)
        engine.submit()
        (op.cancel, lambda op=op: engine.cancel([op]), lambda: engine.cancel_fd(pipe[0]))[way]()
        engine.submit()
        os.write(pipe[1], b"data")
        assert op.wait() is X
        assert os.read(pipe[0], 16) == b"data"


@pytest.mark.parametrize("asked", [False, True])
def test_an_accepted_connection_that_nobody_takes(engine: Any, listener: socket.socket, asked: bool) -> None:
    need_verbs(engine, "accept")
    op = engine.accept(listener)
    engine.submit()
    with socket.create_connection(listener.getsockname()) as client:
        unclaimed(engine, op, asked=asked)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            del op
            gc.collect()
        assert [each.category for each in said] == ([] if asked else [ResourceWarning])
        client.settimeout(BOUND)
        assert client.recv(1) == b"", "it was closed"


def test_a_deadline_keeps_nothing_alive(engine: Any, listener: socket.socket) -> None:
    """One that has ended is the caller's alone, although its time is not over."""
    need_verbs(engine, "accept")
    op = engine.accept(listener, timeout=3600)
    engine.submit()
    with socket.create_connection(listener.getsockname()) as client:
        unclaimed(engine, op, asked=False)
        with pytest.warns(ResourceWarning, match="never taken"):
            del op
        client.settimeout(BOUND)
        assert client.recv(1) == b"", "it was closed"


def test_an_accepted_connection_that_beat_the_cancel(engine: Any, listener: socket.socket) -> None:
    need_verbs(engine, "accept")
    op = engine.accept(listener)
    engine.submit()
    with socket.create_connection(listener.getsockname()) as client:
        op.cancel()
        assert op.wait() is C
        conn, address = op.result()
        del op
        gc.collect()
        with conn:
            assert address == client.getsockname()
            conn.send(b"hello")
            assert client.recv(8) == b"hello"


def test_an_opened_file_that_nobody_takes(engine: Any, tmp_path: Path) -> None:
    """That it is closed is what the teardown looks at."""
    need_verbs(engine, "openat")
    op = engine.openat(tmp_path, os.O_RDONLY)
    engine.submit()
    unclaimed(engine, op, asked=False)
    with pytest.warns(ResourceWarning, match="never taken"):
        del op


def test_an_opened_file_that_beat_the_cancel(ring: Any, tmp_path: Path) -> None:
    """Nobody is warned: it was to be thrown away."""
    os.mkfifo(tmp_path / "fifo")
    op = ring.openat(tmp_path / "fifo", os.O_RDONLY)
    ring.submit()
    until_blocked("wait_for_partner")
    other = os.open(tmp_path / "fifo", os.O_RDWR)
    poll = select.poll()
    poll.register(ring.fileno(), select.POLLIN)
    assert poll.poll(BOUND * 1000)
    unclaimed(ring, op, asked=True)
    del op
    os.close(other)


@pytest.mark.parametrize("asked", [False, True])
def test_fds_in_a_message_that_nobody_takes(
    engine: Any, pair: tuple[socket.socket, socket.socket], pipe: tuple[int, int], asked: bool
) -> None:
    need_verbs(engine, "recvmsg")
    op = engine.recvmsg(pair[0], 16, socket.CMSG_SPACE(4))
    engine.submit()
    socket.send_fds(pair[1], [b"here"], [pipe[1]])
    unclaimed(engine, op, asked=asked)
    os.close(pipe[1])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        del op
        gc.collect()
    assert [each.category for each in said] == ([] if asked else [ResourceWarning])
    os.set_blocking(pipe[0], False)
    assert os.read(pipe[0], 1) == b"", "no copy of the write end is open"


def test_fds_in_a_message_that_is_taken(
    engine: Any, pair: tuple[socket.socket, socket.socket], pipe: tuple[int, int]
) -> None:
    need_verbs(engine, "recvmsg")
    op = engine.recvmsg(pair[0], 16, socket.CMSG_SPACE(4))
    engine.submit()
    socket.send_fds(pair[1], [b"here"], [pipe[1]])
    op.cancel()
    assert op.wait() is C
    _, [(_, _, raw)], _, _ = op.result()
    del op
    gc.collect()
    [fd] = array("i", raw)
    os.write(fd, b"x")
    os.close(fd)
    assert os.read(pipe[0], 1) == b"x"


def test_a_message_without_fds_that_nobody_takes(
    engine: Any, pair: tuple[socket.socket, socket.socket]
) -> None:
    """There is nothing to close, hence nothing to warn of."""
    need_verbs(engine, "recvmsg")
    op = engine.recvmsg(pair[0], 16, socket.CMSG_SPACE(4))
    engine.submit()
    pair[1].send(b"data")
    unclaimed(engine, op, asked=False)
    del op
    gc.collect()


def test_an_exception_in_a_callback_harms_nobody(
    engine: Any, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    need_verbs(engine, "read")
    reported: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", reported.append)
    called: list[Any] = []

    def wrong(op: Any) -> None:
        called.append(op)
        raise LookupError

    op = engine.read(pipe[0], 1)
    op.add_done_callback(wrong)
    op.add_done_callback(called.append)
    os.write(pipe[1], b"x")
    assert op.wait() is C
    assert called == [op, op]
    assert [each.exc_type for each in reported] == [LookupError]
    op.add_done_callback(called.append)
    assert len(called) == 3, "at once, as it has ended"


def test_a_callback_is_told_what_is_so(engine: Any, pipe: tuple[int, int]) -> None:
    need_verbs(engine, "read")
    told: list[Any] = []
    op = engine.read(pipe[0], 1)
    op.add_done_callback(lambda each: told.append((each.outcome, each.result())))
    os.write(pipe[1], b"x")
    op.wait()
    assert told == [(C, b"x")]


def test_not_ended_yet(engine: Any, pipe: tuple[int, int]) -> None:
    need_verbs(engine, "read")
    op = engine.read(pipe[0], 1)
    for ask in (op.result, op.exception):
        with pytest.raises(RuntimeError, match="not ended"):
            ask()
    assert not op.done()
    assert not op.cancelled()
    op.cancel()
    assert op.wait() is X


def test_collected_while_in_flight(engine: Any, pipe: tuple[int, int]) -> None:
    """The ledger owns what is in flight: its memory stays."""
    need_verbs(engine, "read")
    buffer = bytearray(4)
    engine.read(pipe[0], buffer)
    engine.submit()
    gc.collect()
    with pytest.raises(BufferError):
        buffer.extend(b"x")
    os.write(pipe[1], b"data")
    while not engine.reap(1.0):
        pass
    assert buffer == b"data"
    buffer.extend(b"x")
