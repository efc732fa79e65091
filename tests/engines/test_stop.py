"""`Carrier.stop`: any thread may stop what is in flight, where the system lets it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import iocancel
from iocancel import pool
from iocancel.errors import Cancelled, EngineUnavailable
from iocancel.operation import Outcome
from iocancel.operation.operation import IN_FLIGHT
from iocancel.scope import local


@pytest.fixture
def engine() -> Iterator[Any]:
    try:
        engine = iocancel.open_engine("uring")
    except EngineUnavailable as error:
        pytest.skip(str(error))
    with engine:
        if not engine._carrier._stops:
            pytest.skip("no synchronous cancels before Linux 6.0")
        yield engine


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def elsewhere(call: Any) -> Any:
    """What a call returns in another thread."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]


def test_what_is_in_flight_is_stopped(engine: Any, pipe: tuple[int, int]) -> None:
    op, other = engine.read(pipe[0], 8), engine.read(pipe[0], 8)
    engine.submit()
    assert elsewhere(lambda: engine._carrier.stop(op)) is True
    engine.reap(None)
    assert op.outcome is Outcome.CANCELLED
    assert not other.done()
    other.cancel()
    other.wait()


def test_what_is_not_submitted_is_not_found(engine: Any, pipe: tuple[int, int]) -> None:
    op = engine.read(pipe[0], 8)
    assert engine._carrier.stop(op) is False
    op.cancel()
    assert op.wait() is Outcome.CANCELLED


def test_what_has_ended_is_not_found_and_keeps_its_value(engine: Any, pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"value")
    op = engine.read(pipe[0], 8)
    op.wait()
    assert engine._carrier.stop(op) is False
    assert op.outcome is Outcome.COMPLETED
    assert op.result() == b"value"


def test_what_a_worker_executes_can_be_asked_for_besides(engine: Any, tmp_path: Any) -> None:
    os.mkfifo(tmp_path / "fifo")
    op = engine.openat(str(tmp_path / "fifo"), os.O_RDONLY)
    engine.submit()
    engine._carrier.stop(op)  # whatever it says: the worker may not have begun
    op.cancel()
    assert op.wait() is Outcome.CANCELLED


@pytest.mark.usefixtures("engine")
def test_a_scope_that_is_cancelled_stops_the_call_itself(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    lent = pool.Pool("uring")
    monkeypatch.setattr(pool, "current", lent)
    stopped: list[bool] = []
    waits = threading.Event()
    calls: list[Any] = []

    def watched(real: Any) -> Any:
        def stop(op: Any) -> bool:
            stopped.append(real(op))
            return stopped[-1]

        return stop

    def run() -> None:
        with iocancel.CancelScope() as scope:
            calls.append((local.here, scope))
            waits.set()
            try:
                iocancel.read(pipe[0], 8)
            except Cancelled:
                calls.append("raised")
                raise

    thread = threading.Thread(target=run)
    thread.start()
    waits.wait()
    here, scope = calls[0]
    while not (here.calls and here.calls[0]._op is not None and here.calls[0]._op._state == IN_FLIGHT):
        time.sleep(0)
    carrier = here.calls[0]._op._engine._carrier
    carrier.stop = watched(carrier.stop)
    try:
        scope.cancel()
        thread.join()
    finally:
        del carrier.stop
        lent.close()
    assert calls[1] == "raised"
    assert len(stopped) == 1  # True; or False where it was on its way into the kernel, and was asked
