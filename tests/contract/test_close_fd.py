"""Closing a file that operations are pending on: cancel, wait for their endings, close; in this order."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from typing import Any

import pytest

from iocancel import CancelTooLate, OperationCancelled

from ..support import until, until_blocked
from .helpers import C, F, X, need_stopping, need_verbs, outcomes, readable, stops


def gone(fd: int) -> bool:
    """Whether no file has this number."""
    try:
        os.fstat(fd)
    except OSError:
        return True
    return False


def test_what_became_of_each(engine: Any, pipes: Callable[[], tuple[int, int]]) -> None:
    need_stopping(engine, "read", "poll")
    (read_end, write_end), (other, other_write) = pipes(), pipes()
    ops = [engine.read(read_end, 4), engine.poll(read_end, select.POLLIN), engine.read(read_end, 4)]
    elsewhere = engine.read(other, 4)
    engine.submit()
    staged = engine.read(read_end, 4)
    became = engine.close_fd(read_end)
    assert became == dict.fromkeys([*ops, staged], X)
    for op in became:
        with pytest.raises(OperationCancelled):
            op.result()
    assert gone(read_end)
    assert not elsewhere.done()
    os.write(other_write, b"data")
    assert elsewhere.wait() is C
    with pytest.raises(BrokenPipeError):
        os.write(write_end, b"x")  # nothing keeps the closed end open


def test_the_number_is_used_again_at_once(engine: Any, pipes: Callable[[], tuple[int, int]]) -> None:
    """A later file by the same number is not touched, also not by a late cancel of an old operation."""
    need_stopping(engine, "read")
    read_end, write_end = pipes()
    old = [engine.read(read_end, 4) for _ in range(10)]
    engine.submit()
    assert set(engine.close_fd(read_end).values()) == {X}
    os.close(write_end)
    again, again_write = pipes()
    if again != read_end:
        os.dup2(again, read_end)
        os.close(again)
        again = read_end
    new = engine.read(again, 4)
    engine.submit()
    for op in old:
        assert not op.cancel()
    assert engine.cancel(old) == 0
    os.write(again_write, b"new!")
    assert new.wait() is C
    assert new.result() == b"new!"
    os.close(again)


def test_with_an_object(engine: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    need_stopping(engine, "recv")
    sock, peer = pair
    op = engine.recv(sock, 4)
    engine.submit()
    assert engine.close_fd(sock) == {op: X}
    assert sock.fileno() == -1
    assert peer.recv(1) == b""


def test_with_nothing_pending(engine: Any, pipe: tuple[int, int]) -> None:
    assert engine.close_fd(pipe[0]) == {}
    assert gone(pipe[0])


def test_what_had_come_is_delivered(engine: Any, pipe: tuple[int, int]) -> None:
    need_verbs(engine, "read")
    op = engine.read(pipe[0], 4)
    engine.submit()
    os.write(pipe[1], b"data")
    if not stops(engine, "read"):
        # Until a thread has taken it up it can be cancelled, and has not read.
        until(lambda: readable(pipe[0]) == 0, "a thread has read it")
    assert engine.close_fd(pipe[0], None) == {op: C}
    assert op.result() == b"data"
    assert gone(pipe[0])


def test_what_can_not_be_stopped_keeps_it_open(engine: Any, pipe: tuple[int, int]) -> None:
    need_verbs(engine, "read")
    if stops(engine, "read"):
        pytest.skip(f"{engine.name} stops a read; a disk's are tested in guests")
    op = engine.read(pipe[0], 4)
    engine.submit()
    until_blocked("pipe_")  # before a thread takes it up it can be cancelled
    with pytest.raises(CancelTooLate):
        engine.close_fd(pipe[0], 0.01)
    assert not gone(pipe[0])
    os.write(pipe[1], b"data")
    assert op.wait() is C
    assert op.result() == b"data"
    assert engine.close_fd(pipe[0]) == {}
    assert gone(pipe[0])


def test_abort_resets_the_connection(engine: Any, tcp: tuple[socket.socket, socket.socket]) -> None:
    need_stopping(engine, "recv")
    op = engine.recv(tcp[0], 1)
    engine.submit()
    assert engine.close_fd(tcp[0], abort=True) == {op: X}
    with pytest.raises(ConnectionResetError):
        tcp[1].recv(1)


def test_abort_gives_a_zero_copy_sends_memory_back(
    ring: Any, tcp: tuple[socket.socket, socket.socket]
) -> None:
    need_verbs(ring, "send_zc")
    tcp[0].setblocking(False)
    data = bytearray(1 << 20)
    op = ring.send_zc(tcp[0], data)
    assert op.wait(0.05) in (C, X)  # a part of it, as the peer takes nothing
    assert ring.close_fd(tcp[0], abort=True) in ({}, {op: op.outcome})
    assert op.memory_released.wait(10)
    data.extend(b"!")


def test_a_splice_is_on_both_its_files(engine: Any, pipes: Callable[[], tuple[int, int]]) -> None:
    need_stopping(engine, "splice")
    (a, _), (_, d) = pipes(), pipes()
    op = engine.splice(a, d, 16)
    engine.submit()
    assert engine.close_fd(a) == {op: X}
    assert gone(a)


def test_a_file_object_that_was_closed_before_its_submit(engine: Any) -> None:
    """The object is asked again: nothing is submitted, and `close_fd` of the next owner finds nothing."""
    need_verbs(engine, "read")
    read_end, write_end = os.pipe()
    with open(read_end, "rb", buffering=0) as reader:
        op = engine.read(reader, 4)
        reader.close()
    again = os.open("/dev/null", os.O_RDONLY)
    try:
        assert engine.submit() == 0
        assert op.outcome is F
        assert op.exception().errno == 9
        assert "was closed" in str(op.exception())
    finally:
        os.close(again)
        os.close(write_end)


def test_those_that_were_withdrawn_hold_nobody_up(engine: Any, pipe: tuple[int, int]) -> None:
    """A wait for one that is withdrawn in that very wait returns, also beside others that block."""
    need_stopping(engine, "read")
    ends = os.pipe()
    with open(ends[0], "rb", buffering=0) as reader:
        blocked, op = engine.read(pipe[0], 1), engine.read(reader, 4)
    assert op.wait() is F
    late = engine.read(pipe[0], 1)
    late.cancel()
    assert late.wait() is X
    assert outcomes([blocked]) == {None}
    blocked.cancel()
    assert blocked.wait() is X
    os.close(ends[1])
