"""The pool: engines come back empty, are nobody else's, are never lost; where none is free one waits."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import iocancel
from iocancel import CancelScope, EngineUnavailable, move_on_after, pool
from iocancel.pool import IDLE, Pool

from .helpers import (
    BOUND,
    GUEST,
    SHORT,
    Thread,
    Waits,
    forked,
    until,
    warm,
    whole,
)

MANY = 4 if GUEST else 20


def full(engine_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From now on no further engine can be had."""
    tried: list[int] = []

    def refuse(into: list[Any]) -> None:
        tried.append(len(engine_pool))
        raise EngineUnavailable(errno.ENOMEM, "no memory may be locked any more")

    monkeypatch.setattr(engine_pool, "_open", refuse)
    return tried


@pytest.fixture
def busy(engine_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    """The only engine there is is in use."""
    warm()
    assert len(engine_pool) == 1
    waits = Waits()
    full(engine_pool, monkeypatch)
    yield waits
    waits.let_go()


# Borrowed and given back


def test_the_last_that_came_back_is_the_next_that_goes(engine_pool: Pool) -> None:
    class Patient:
        waiter: Any = None

        def left(self) -> float:
            return BOUND

    first: list[Any] = []
    second: list[Any] = []
    a, b = engine_pool.take(first, Patient()), engine_pool.take(second, Patient())
    assert a is not b
    assert engine_pool.idle == 0
    engine_pool.give_back(first)
    engine_pool.give_back(second)
    assert first == second == []
    assert engine_pool.idle == len(engine_pool) == 2
    assert engine_pool.take(first, Patient()) is b
    engine_pool.give_back(first)
    engine_pool.give_back(first)  # nothing is left to be given back
    whole()


def test_what_is_ready_takes_no_engine(engine_pool: Pool, pipe: tuple[int, int], pair: Any) -> None:
    engine = warm()
    calls = []
    real = engine._carrier.go

    def go(*args: Any) -> None:
        calls.append(args)
        real(*args)

    engine._carrier.go = go
    try:
        os.write(pipe[1], b"pipe")
        assert iocancel.read(pipe[0], 10) == b"pipe"
        assert iocancel.write(pipe[1], b"again") == 5
        assert iocancel.read(pipe[0], bytearray(10)) == 5
        assert iocancel.send(pair[0], b"pair") == 4
        assert iocancel.recv(pair[1], 10) == b"pair"
        assert iocancel.poll(pair[0], select.POLLOUT) == select.POLLOUT
        assert not calls
    finally:
        del engine._carrier.go


def test_no_engine_is_in_two_hands(engine_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wait notes who is in an engine; in none there are two."""
    inside: dict[int, int] = {}
    shared: list[Any] = []
    real = iocancel.waiting.Waiting._wait

    def wait(self: Any, op: Any) -> None:
        me = threading.get_ident()
        if inside.setdefault(id(op._engine), me) != me:
            shared.append(op)
        try:
            real(self, op)
        finally:
            del inside[id(op._engine)]

    monkeypatch.setattr(iocancel.waiting.Waiting, "_wait", wait)

    def run() -> int:
        read_end, write_end = os.pipe()
        total = 0
        try:
            for i in range(MANY):
                with move_on_after(0.001 * (i % 3)):
                    iocancel.read(read_end, 1)
                os.write(write_end, b"x")
                total += len(iocancel.read(read_end, 1, timeout=BOUND))
        finally:
            os.close(read_end)
            os.close(write_end)
        return total

    threads = [Thread(run) for _ in range(IDLE + 4)]
    assert [thread.join() for thread in threads] == [MANY] * len(threads)
    assert not shared
    assert engine_pool.idle == len(engine_pool) <= IDLE
    whole()


def test_no_more_than_some_are_kept(engine_pool: Pool) -> None:
    waits = [Waits() for _ in range(IDLE + 2)]
    assert len(engine_pool) == IDLE + 2
    for each in waits:
        each.let_go()
    gc.collect()
    assert engine_pool.idle == len(engine_pool) == IDLE
    whole()


@pytest.mark.parametrize("error", [SystemExit, ValueError, KeyboardInterrupt])
def test_a_thread_that_dies_takes_none_with_it(
    engine_pool: Pool, error: type[BaseException], pipe: tuple[int, int]
) -> None:
    def run() -> None:
        with move_on_after(SHORT), contextlib.ExitStack() as stack:
            stack.callback(die)
            iocancel.read(pipe[0], 1)

    def die() -> None:
        raise error

    thread = Thread(run)
    with pytest.raises(error):
        thread.join()
    del thread
    gc.collect()
    whole()
    assert iocancel.read(pipe[0], 1, timeout=BOUND) if os.write(pipe[1], b"x") else None


def test_an_exception_into_a_thread_that_waits(engine_pool: Pool, pipe: tuple[int, int]) -> None:
    """As a debugger would raise it: at the next instruction, which is after the wait."""
    import ctypes

    thread = Thread(lambda: iocancel.read(pipe[0], 1))
    thread.until_blocked()
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
    warmest = next(iter(engine_pool._all))()
    assert warmest is not None
    warmest._carrier.wake()
    with pytest.raises(SystemExit):
        thread.join()
    whole()


def test_a_forked_child_starts_its_own(engine_pool: Pool, pipe: tuple[int, int]) -> None:
    iocancel.sleep(0)
    parents = list(engine_pool._free)

    def child() -> None:
        assert pool.current is not engine_pool
        assert len(pool.current) == 0
        with pytest.raises(TimeoutError):
            iocancel.read(pipe[0], 1, timeout=SHORT)
        assert pool.current.name == engine_pool.name
        assert not set(pool.current._free) & set(parents)
        whole()

    assert forked(child) == 0
    assert list(engine_pool._free) == parents
    whole()


def test_engines_are_closed_with_the_pool(engine_pool: Pool) -> None:
    made = Pool(engine_pool.name)
    engine = warm(made)
    made.close()
    assert engine.closed
    assert made.idle == 0
    made.close()


# Where none can be had


def test_without_any_it_says_so(engine_pool: Pool, monkeypatch: pytest.MonkeyPatch, pipe: Any) -> None:
    none = Pool(engine_pool.name)
    monkeypatch.setattr(pool, "current", none)
    full(none, monkeypatch)
    with pytest.raises(EngineUnavailable):
        iocancel.read(pipe[0], 1)
    assert not none._waiting
    os.write(pipe[1], b"x")
    assert iocancel.read(pipe[0], 1) == b"x", "what is ready needs none"


def test_a_caller_waits_for_one_within_its_deadline(busy: Waits, pipe: tuple[int, int]) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="no engine"):
        iocancel.read(pipe[0], 1, timeout=SHORT)
    assert time.monotonic() >= began + SHORT
    with pytest.raises(TimeoutError):
        iocancel.read(pipe[0], 1, timeout=0)
    with move_on_after(SHORT) as inside:
        iocancel.read(pipe[0], 1)
    assert inside.cancelled_caught
    busy.let_go()
    whole()


def test_sleep_is_over_in_time_where_no_engine_is_free(busy: Waits) -> None:
    began = time.monotonic()
    iocancel.sleep(SHORT)
    assert time.monotonic() >= began + SHORT
    iocancel.sleep(0)
    busy.let_go()
    whole()


def waits_for_one() -> bool:
    return bool(pool.current._waiting)


def test_a_caller_that_waits_for_one_can_be_cancelled(busy: Waits, pipe: tuple[int, int]) -> None:
    inside = CancelScope()

    def run() -> None:
        with inside:
            iocancel.read(pipe[0], 1)
            raise AssertionError("it was to raise")

    thread = Thread(run)
    until(waits_for_one, "it waits for an engine")
    inside.cancel()
    thread.join()
    assert inside.cancelled_caught
    busy.let_go()
    whole()


def test_ctrl_c_ends_a_caller_that_waits_for_one(busy: Waits, pipe: tuple[int, int]) -> None:
    ident = threading.get_ident()

    def interrupt() -> None:
        until(waits_for_one, "it waits for an engine")
        signal.pthread_kill(ident, signal.SIGINT)

    thread = Thread(interrupt)
    with pytest.raises(KeyboardInterrupt):
        iocancel.read(pipe[0], 1, timeout=BOUND)
    thread.join()
    busy.let_go()
    whole()


def test_a_caller_gets_the_one_that_comes_back(busy: Waits, engine_pool: Pool, pipe: Any) -> None:
    os.set_blocking(pipe[0], True)
    threads = [Thread(lambda: iocancel.read(pipe[0], 1, timeout=BOUND)) for _ in range(3)]
    until(lambda: len(engine_pool._waiting) == 3, "they wait for an engine")
    busy.let_go()
    os.write(pipe[1], b"abc")
    assert sorted(thread.join() for thread in threads) == [b"a", b"b", b"c"]
    assert len(engine_pool) == 1
    whole()


def test_a_caller_gets_a_new_one_when_that_can_be_had_again(
    engine_pool: Pool, monkeypatch: pytest.MonkeyPatch, pipe: Any
) -> None:
    warm()
    waits = Waits()
    tried = full(engine_pool, monkeypatch)
    thread = Thread(lambda: iocancel.read(pipe[0], 1, timeout=BOUND))
    until(lambda: len(tried) > 1, "it tries now and then")
    monkeypatch.undo()
    thread.until_blocked()
    os.write(pipe[1], b"x")
    assert thread.join() == b"x"
    assert len(engine_pool) == 2
    waits.let_go()
    whole()
