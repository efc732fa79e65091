"""Closing an engine: it cancels, waits for every ending, and gives back what it had."""

from __future__ import annotations

import gc
import os
import select
import threading
from collections.abc import Callable
from typing import Any

import pytest

from iocancel import CancelTooLate, OperationCancelled, open_engine

from ..support import BOUND, few, python, until, until_blocked
from .helpers import C, F, X, need_stopping, need_verbs, outcomes, stops


def test_it_drains(engine: Any, pipe: tuple[int, int]) -> None:
    need_stopping(engine, "read", "poll")
    buffer = bytearray(8)
    ops = [engine.read(pipe[0], buffer), engine.poll(pipe[0], select.POLLIN)]
    engine.submit()
    ops.append(engine.read(pipe[0], 4))
    engine.close()
    assert engine.closed
    assert outcomes(ops) == {X}
    for op in ops:
        with pytest.raises(OperationCancelled):
            op.result()
        assert not op.cancel()
        assert op.wait() is X
    buffer.extend(b"x")
    os.write(pipe[1], b"data")
    assert os.read(pipe[0], 8) == b"data"
    engine.close()


def test_what_has_come_is_kept(engine: Any, pipe: tuple[int, int]) -> None:
    need_verbs(engine, "read")
    op = engine.read(pipe[0], 8)
    engine.submit()
    os.write(pipe[1], b"data")
    engine.close(BOUND)
    assert op.outcome is C
    assert op.result() == b"data"


def test_many(engine: Any, pipe: tuple[int, int]) -> None:
    need_stopping(engine, "poll")
    ops = [engine.poll(pipe[0], select.POLLIN) for _ in range(few(3000))]
    engine.submit()
    engine.close()
    assert outcomes(ops) == {X}


def test_a_block(name: str, pipe: tuple[int, int]) -> None:
    with open_engine(name) as engine:
        need_stopping(engine, "poll")
        op = engine.poll(pipe[0], select.POLLIN)
        engine.submit()
    assert op.outcome is X
    with pytest.raises(ValueError, match="closed"):
        engine.__enter__()


def test_after_it_everything_raises(name: str, pipe: tuple[int, int]) -> None:
    engine = open_engine(name)
    engine.close()
    calls: list[Callable[[], Any]] = [
        lambda: engine.read(pipe[0], 1),
        engine.submit,
        engine.reap,
        engine.cancel_all,
        lambda: engine.cancel_fd(pipe[0]),
        lambda: engine.close_fd(pipe[0]),
    ]
    if not engine.supports("read"):
        del calls[0]
    for call in calls:
        with pytest.raises(ValueError, match="closed"):
            call()
    assert engine.in_flight == 0
    assert "closed" in repr(engine)
    os.fstat(pipe[0])


def test_threads_that_wait_return(engine: Any, pipes: Callable[[], tuple[int, int]]) -> None:
    need_stopping(engine, "read")
    ops = [engine.read(pipes()[0], 4) for _ in range(4)]
    engine.submit()
    found: list[Any] = []
    threads = [threading.Thread(target=lambda op=op: found.append(op.wait())) for op in ops]
    for thread in threads:
        thread.start()
    until(lambda: len(engine._followers) == 3, "one leads, three follow")
    engine.close()
    for thread in threads:
        thread.join()
    assert found == [X] * 4


def test_at_a_collection(name: str, pipe: tuple[int, int]) -> None:
    engine = open_engine(name)
    need = engine.supports("poll")
    op = engine.poll(pipe[0], select.POLLIN) if need else None
    engine.submit()
    if op is None:
        engine.close()
        pytest.skip(f"{name} has no poll here")
    op._engine = None  # the operation holds its engine; a collection comes when nobody holds either
    with pytest.warns(ResourceWarning, match="unclosed"):  # noqa: PT031
        del engine
        gc.collect()
    assert op.outcome is X


def test_an_fd_that_comes_after_the_finalizer_of_its_operation(name: str) -> None:
    """What is collected together has its finalizers run in any order: here the engine's comes last."""
    with open_engine(name) as engine:
        need_verbs(engine, "accept")
    done = python(
        "import gc, socket, iocancel\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        f"engine = iocancel.open_engine({name!r})\n"
        "engine.itself = engine\n"
        "gc.disable()\n"
        "gc.freeze()\n"
        "op = engine.accept(listener)\n"
        "gc.collect()\n"
        "gc.unfreeze()  # behind what has been collected since: the operation\n"
        "engine.submit()\n"
        "client = socket.create_connection(listener.getsockname())\n"
        "del engine, op\n"
        "gc.collect()\n"
        "listener.close()\n"
        f"client.settimeout({BOUND})\n"
        "try: print(client.recv(1))\n"
        "except ConnectionResetError: print(b'', 'the cancel was the first')\n"
    )
    assert done.stdout.startswith("b''"), done.stderr  # not a time-out: nobody has the connection
    assert "Exception ignored" not in done.stderr


def test_what_goes_on_past_the_bound_keeps_its_memory(name: str, pipe: tuple[int, int]) -> None:
    """Of engines that can't stop a read of a pipe; a slow disk's is tested in guests."""
    engine = open_engine(name)
    try:
        need_verbs(engine, "read")
        if stops(engine, "read"):
            pytest.skip(f"{name} stops a read of a pipe; a disk's is tested in guests")
        buffer = bytearray(4)
        op = engine.read(pipe[0], buffer)
        engine.submit()
        until_blocked("pipe_")  # before a thread takes it up it can be cancelled
    except BaseException:
        engine.close()
        raise
    with pytest.warns(ResourceWarning, match="still ran"):
        engine.close(0.01)
    assert op.outcome is F
    with pytest.raises(CancelTooLate, match="still ran"):
        op.result()
    with pytest.raises(BufferError):
        buffer.extend(b"x")
    os.write(pipe[1], b"data")
    until(lambda: buffer == b"data", "it ends, into memory that is still there")
