"""Memory is the kernel's until the ending, whatever that is."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from ..support import fill
from .helpers import C, X, need_stopping, need_verbs

CANARY = b"\xa5"


def locked(buffer: bytearray) -> bool:
    """Whether it can't be resized."""
    try:
        buffer.extend(b"x")
    except BufferError:
        return True
    del buffer[-1:]
    return False


@pytest.mark.parametrize("how", ["completed", "cancelled", "withdrawn", "timed out"])
@pytest.mark.parametrize("verb", ["read", "readv", "recv"])
def test_it_can_not_be_resized_before_the_ending(engine: Any, verb: str, how: str) -> None:
    need_verbs(engine, verb) if how in ("completed", "withdrawn") else need_stopping(engine, verb)
    a, b = socket.socketpair()
    with a, b:
        buffer = bytearray(CANARY * 12)
        inside = memoryview(buffer)[4:8]
        op = getattr(engine, verb)(a, [inside] if verb == "readv" else inside)
        del inside
        assert locked(buffer), "from the call on"
        if how != "withdrawn":
            engine.submit()
            assert locked(buffer)
        if how == "completed":
            b.send(b"data")
            assert op.wait() is C
            assert buffer == CANARY * 4 + b"data" + CANARY * 4
        elif how == "timed out":
            assert op.wait(0.01) is X
        else:
            op.cancel()
            assert op.wait() is X
        assert not locked(buffer), "right after it"
        if how != "completed":
            b.send(b"data")
            assert buffer == CANARY * 12, "nothing is written to afterwards"
            assert a.recv(8) == b"data"


@pytest.mark.parametrize("verb", ["write", "writev", "send", "sendmsg"])
def test_what_is_written_can_not_be_resized_either(engine: Any, verb: str) -> None:
    need_stopping(engine, verb)
    a, b = socket.socketpair()
    with a, b:
        fill(a.fileno())
        data = bytearray(100)
        op = getattr(engine, verb)(a, [data] if verb in ("writev", "sendmsg") else data)
        engine.submit()
        assert locked(data)
        op.cancel()
        assert op.wait() is X
        assert not locked(data)


def test_an_error_gives_it_back(engine: Any) -> None:
    need_verbs(engine, "read")
    buffer = bytearray(4)
    op = engine.read(1 << 19, buffer)
    with pytest.raises(OSError, match="descriptor"):
        op.wait() and op.result()
    assert not locked(buffer)


def test_a_call_that_raises_gives_it_back(engine: Any, pipe: tuple[int, int]) -> None:
    need_verbs(engine, "read")
    buffer = bytearray(4)
    with pytest.raises(ValueError):
        engine.read(pipe[0], buffer, -2)
    with pytest.raises(ValueError):
        engine.read(pipe[0], buffer, timeout=-1)
    assert not locked(buffer)
    assert engine.in_flight == 0


def test_nothing_is_written_beside_it(engine: Any, pipe: tuple[int, int]) -> None:
    """Many at a time, of one block of memory, each with a canary behind it."""
    need_verbs(engine, "read")
    size, many = 7, 64
    memory = bytearray(CANARY * (size + 1) * many)
    view = memoryview(memory)
    ops = [engine.read(pipe[0], view[i * (size + 1) :][:size]) for i in range(many)]
    engine.submit()
    os.write(pipe[1], bytes(range(256))[: size * 20])
    engine.cancel_all()
    if any(not op.done() for op in ops):
        os.write(pipe[1], bytes(size * many))
        engine.wait(ops)
    del view
    completed = sum(op.result() for op in ops if op.outcome is C)
    left = os.read(pipe[0], 1 << 16) if completed < size * 20 else b""
    assert completed + len(left) >= size * 20
    for i, op in enumerate(ops):
        place = memory[i * (size + 1) :][: size + 1]
        assert place[-1:] == CANARY
        written = op.result() if op.outcome is C else 0
        assert place[written:] == CANARY * (size + 1 - written), "cancelled: not touched"
    assert not locked(memory)
