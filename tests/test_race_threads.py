"""The race suite's threads run, with blocking verbs and scopes, and what is wrong with those is found."""

from __future__ import annotations

import io
from typing import Any

import pytest

import iocancel
from iocancel import blocking, pool, scope, waiting
from iocancel.blocking import data as data_verbs
from iocancel.errors import Cancelled
from iocancel.operation.core import expiry
from tools.race import lanes, threads
from tools.race.check import Failure

from .race_stage import OPS, has, now_and_then, options
from .race_stage import nothing_left_behind as nothing_left_behind
from .race_stage import uring as uring


@pytest.mark.parametrize("many", [1, 32])
@pytest.mark.parametrize("engine", threads.ENGINES)
def test_a_short_run_of_threads(engine: str, many: int) -> None:
    has(engine)
    was = pool.current
    done = sum(threads.play(options("threads", many, engine=engine), number) for number in range(3))
    assert done > OPS
    assert pool.current is was


def test_threads_do_not_play_where_nothing_waits() -> None:
    assert threads.play(options("threads", 4, engine="posix_aio"), 0) == 0


def test_a_thread_draws_its_plan_from_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def noted(self: threads.Worker, name: str, *args: Any, **more: Any) -> None:  # nothing is waited for
        made.append((name, len(self.stack), self.left))

    monkeypatch.setattr(threads.Worker, "verb", noted)
    monkeypatch.setattr(threads.Worker, "rest", lambda self: noted(self, "sleep"))
    monkeypatch.setattr(threads.Game, "live", lambda self, rng: None)  # who is there is a matter of time
    played = []
    for seed in (1, 1, 2):
        made.clear()
        threads.play(options("threads", 1, seed=seed), 0)
        played.append(list(made))
    assert played[0] == played[1] != played[2]


def told_of_threads(engine: str = "uring", many: int = 8) -> str:
    """What is said of blocking verbs that something is wrong with, in one of a few rounds."""
    has(engine)
    asked = options("threads", many, engine=engine)
    asked.ops, asked.patience = 600, 3.0
    for number in range(10):
        try:
            threads.play(asked, number)
        except Failure as failure:
            return str(failure)
    raise AssertionError("nothing was found")


@pytest.mark.parametrize("engine", threads.ENGINES)
def test_a_byte_that_a_wait_loses_is_found(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, lies = waiting.Waiting.value_on, now_and_then(5)

    def loses(*args: Any) -> Any:
        value = real(*args)
        return value[:-1] if isinstance(value, bytes) and len(value) > 1 and lies() else value

    monkeypatch.setattr(waiting.Waiting, "value_on", loses)
    said = told_of_threads(engine)
    assert "different from byte" in said or "no whole number of words" in said


def test_a_buffer_that_is_dropped_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    # Python's own drops what it has when a read of many bytes is cut short.
    monkeypatch.setattr(iocancel, "BufferedReader", io.BufferedReader)
    assert "Reader" in told_of_threads()


def test_a_byte_that_comes_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real, lies = waiting.Waiting.value_on, now_and_then(5)

    def doubles(*args: Any) -> Any:
        value = real(*args)
        return value + value[-8:] if isinstance(value, bytes) and len(value) >= 8 and lies() else value

    monkeypatch.setattr(waiting.Waiting, "value_on", doubles)
    said = told_of_threads()
    assert "different from byte" in said or "twice" in said or "came behind" in said


def test_a_byte_that_a_try_loses_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real, lies = data_verbs._read, now_and_then(10)

    def loses(*args: Any) -> int:
        many: int = real(*args)
        return many - 1 if many > 1 and lies() else many

    monkeypatch.setattr(data_verbs, "_read", loses)
    said = told_of_threads()
    assert "different from byte" in said or "no whole number of words" in said


def test_a_buffer_that_is_written_to_after_the_cancel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoils(file: Any, buffer: bytearray, *args: Any, **more: Any) -> int:
        try:
            return read(file, buffer, *args, **more)  # type: ignore[no-any-return]
        except (TimeoutError, Cancelled):
            if isinstance(buffer, bytearray):
                buffer[0] ^= 0xFF
            raise

    read = blocking.read
    monkeypatch.setattr(blocking, "read", spoils)
    assert "has written to its buffer" in told_of_threads()


def test_a_connection_that_is_dropped_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real, lies = blocking.accept, now_and_then(5)

    def drops(*args: Any, **more: Any) -> Any:
        pair = real(*args, **more)
        if lies():
            pair[0].close()
            return real(*args, **more)
        return pair

    monkeypatch.setattr(blocking, "accept", drops)
    said = told_of_threads()
    assert "were lost" in said or "was closed, not accepted" in said


def test_a_cancel_that_is_swallowed_at_the_beginning_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real, lies = scope.Here.check, now_and_then(5)
    monkeypatch.setattr(scope.Here, "check", lambda here: None if lies() else real(here))
    said = told_of_threads()
    assert "cancelled before it" in said or "went on in a cancelled scope" in said


def test_a_cancel_that_nobody_is_told_of_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real, tells = waiting.Waiting.look, now_and_then(20)
    monkeypatch.setattr(waiting.Waiting, "look", lambda call: real(call) if tells() else None)
    said = told_of_threads()
    assert "threads hang" in said or "s later" in said


def test_a_cancel_that_nobody_asked_for_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real, lies = scope.CancelScope._reached, now_and_then(200)
    monkeypatch.setattr(scope.CancelScope, "_reached", lambda self: lies() or real(self))
    said = told_of_threads()
    assert "no scope is cancelled" in said or "left the outermost scope" in said or "nobody" in said


def test_a_cancel_that_an_inner_scope_catches_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scope.CancelScope, "_catches", scope.CancelScope._reached)
    assert "caught Cancelled, " in told_of_threads(many=3)


def test_a_timeout_that_is_too_early_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = expiry
    monkeypatch.setattr(waiting, "expiry", lambda timeout: real(timeout / 2))
    assert "TimeoutError before its time" in told_of_threads()


def test_an_engine_that_is_not_given_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    real, lies = pool.Pool.give_back, now_and_then(20)

    def keeps(self: pool.Pool, held: list[Any]) -> None:
        if held and not held[-1].in_flight and not kept and lies():
            kept.append(held.pop())
        real(self, held)

    monkeypatch.setattr(pool.Pool, "give_back", keeps)
    asked = options("threads", 8)
    asked.patience = 0.5
    with pytest.raises(Failure, match=r"engines .* are back"):
        threads.play(asked, 0)
    kept[0].close()


def test_an_account_knows_order_and_cuts() -> None:
    account = lanes.Account("it", ordered=True)
    data = account.payload(3)
    account.written(data, 20)
    account.received(data[:7])
    account.received(data[7:20])
    account.check()
    account.received(b"x")
    with pytest.raises(Failure, match="20 bytes went in, 21 came out, different from byte 20 on"):
        account.check()
    free = lanes.Account("it", ordered=False)
    data = free.payload(2)
    with pytest.raises(Failure, match="cut at 9 bytes"):
        free.written(data, 9)
    with pytest.raises(Failure, match="-1 bytes of 16"):
        free.written(data, -1)
    with pytest.raises(Failure, match="no whole number"):
        free.received(data[:9])
    free.written(data, 16)
    free.received(data[8:])
    with pytest.raises(Failure, match="missing"):
        free.check()
    free.received(data[:8])
    free.check()
    free.received(data[:8])
    with pytest.raises(Failure, match="twice"):
        free.check()
