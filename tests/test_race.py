"""The race suite runs, and finds what it is there to find."""

from __future__ import annotations

import errno
import gc
import io
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import iocancel
from iocancel import _lifetime, blocking, open_engine, pool, scope, waiting
from iocancel._native import ffi
from iocancel.blocking import data as data_verbs
from iocancel.errors import Cancelled, EngineUnavailable
from iocancel.operation import OTHER
from iocancel.operation.core import expiry
from iocancel.uring import limbo
from tools.race import __main__ as command
from tools.race import check, handover, lanes, rounds, threads
from tools.race.actors import Words
from tools.race.check import Failure, Resources
from tools.race.rounds import SCENARIOS, Options

OPS = 150 if os.environ.get("IOCANCEL_GUEST") else 600


@pytest.fixture(scope="module", autouse=True)
def uring() -> None:
    try:
        open_engine("uring").close()
    except EngineUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    resources = Resources.now()
    yield
    resources.check()


def options(scenario: str = "pipes", threads: int = 1, **more: Any) -> Options:
    return Options(scenario=scenario, threads=threads, ops=OPS, patience=30.0, **more)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_a_short_run(scenario: str, threads: int) -> None:
    done = sum(rounds.play(options(scenario, threads), number) for number in range(3))
    assert done > OPS


def test_requests_while_the_leader_leaves() -> None:
    assert handover.play(options("handover"), 0) >= OPS


def test_the_same_seed_plays_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, str, int, float | None]] = []
    start = rounds.Hand.start

    def noted(self: rounds.Hand, track: check.Track, op: Any, timeout: float | None) -> None:
        made.append((track.verb, str(track.actor), track.size, timeout))
        start(self, track, op, timeout)

    monkeypatch.setattr(rounds.Hand, "start", noted)
    played = []
    for seed in (1, 1, 2):
        made.clear()
        rounds.play(options("files", seed=seed), 0)
        played.append(list(made))
    assert played[0] == played[1] != played[2]


# What is wrong with the engine is told. Each sabotage does to a carrier what a bug could do.


def reported(sabotage: Callable[[Any], None], scenario: str = "pipes", threads: int = 1) -> str:
    """What is said of an engine with this wrong, in one of a few rounds."""
    asked = options(scenario, threads, sabotage=sabotage)
    asked.patience = 0.5
    for number in range(6):
        try:
            rounds.play(asked, number)
        except Failure as failure:
            # What a sabotage has kept from the engine is let go by the kernel when its ring is.
            while limbo.sweep():
                gc.collect()
            return str(failure)
    raise AssertionError("nothing was found")


def records(change: Callable[[list[Any]], list[Any]]) -> Callable[[Any], None]:
    """A carrier that reports something else than what has come."""

    def sabotage(engine: Any) -> None:
        carrier = engine._carrier
        real, forget = carrier.records, carrier.forget
        told: list[Any] = []

        def changed() -> list[Any]:
            if not told:
                told.extend(change(real()))
            return list(told)

        def forgotten(many: int) -> None:
            told.clear()
            forget(many)

        carrier.records, carrier.forget = changed, forgotten

    return sabotage


def every(nth: int, res: Callable[[int], bool] = lambda _: True) -> Callable[[Any], bool]:
    """Picks one of so many operations' endings."""
    seen = [0]

    def pick(record: Any) -> bool:
        token, result, flags = record
        if token >= OTHER or flags or not res(result):
            return False
        seen[0] += 1
        return seen[0] % nth == 0

    return pick


def test_a_completion_that_comes_twice_is_found() -> None:
    pick = every(40)
    text = reported(records(lambda found: [each for r in found for each in ([r, r] if pick(r) else [r])]))
    assert "the system reported 2 endings" in text


@pytest.mark.parametrize("threads", [1, 4])
def test_a_completion_that_is_lost_is_found(threads: int) -> None:
    pick = every(60)
    text = reported(records(lambda found: [r for r in found if not pick(r)]), threads=threads)
    assert any(words in text for words in ("not ended", "hang", "no outcome", "can't be stopped"))


def test_a_success_that_is_told_as_cancelled_is_found() -> None:
    pick = every(10, lambda res: res > 0)
    lie = records(
        lambda found: [(t, -errno.ECANCELED, f) if pick((t, r, f)) else (t, r, f) for t, r, f in found]
    )
    text = reported(lie)
    assert "missing" in text or "never written" in text or "FAILED" in text


def test_bytes_that_are_not_told_of_are_found() -> None:
    pick = every(10, lambda res: res > 8)
    text = reported(
        records(lambda found: [(t, r - 8, f) if pick((t, r, f)) else (t, r, f) for t, r, f in found])
    )
    assert any(words in text for words in ("missing", "never written", "without its completion"))


def test_another_error_is_found() -> None:
    pick = every(5, lambda res: res == -errno.ECANCELED)
    text = reported(
        records(lambda found: [(t, -errno.EIO, f) if pick((t, r, f)) else (t, r, f) for t, r, f in found])
    )
    assert "FAILED" in text


def test_cancels_that_are_not_sent_are_found() -> None:
    def sabotage(engine: Any) -> None:
        engine._carrier.cancel = lambda ops: None

    text = reported(sabotage)
    assert any(words in text for words in ("not ended", "hang", "no outcome"))


@pytest.mark.parametrize(("beyond", "words"), [(0, "its buffer was changed"), (1, "canary")])
def test_memory_that_is_written_to_after_the_ending_is_found(beyond: int, words: str) -> None:
    def sabotage(engine: Any) -> None:
        carrier = engine._carrier
        prepare, forget = carrier.prepare, carrier.forget
        given: list[tuple[Any, Any]] = []

        def prepared(op: Any, *args: Any) -> None:
            prepare(op, *args)
            if op.name == "read" and not isinstance(op._pins, tuple) and len(given) < 20:
                given.append((op, op._pins))  # with a deadline there is a tuple of them

        def forgotten(many: int) -> None:
            forget(many)
            if len(given) >= 20 and all(op.done() for op, _ in given):
                pin = given[0][1]
                place = ffi.cast("uint8_t *", pin) + (len(pin) - 1 + beyond)
                place[0] ^= 0xFF

        carrier.prepare, carrier.forget = prepared, forgotten

    assert words in reported(sabotage)


def test_a_slot_that_is_free_twice_is_found() -> None:
    engine = open_engine("uring")
    with engine:
        op = engine.timeout(0)
        op.wait()
        engine._ledger._free *= 2
        with pytest.raises(Failure, match="of them twice"):
            check.quiescent(engine)


def test_deadlines_that_are_kept_are_found() -> None:
    with open_engine("uring") as engine:
        later = 1e12
        engine._deadlines += [(later, engine.timeout(0).token) for _ in range(100)]
        engine.cancel_all()
        check.quiescent(engine)  # they go with their operations
        engine._expire = lambda: None
        engine._deadlines += [(later, engine.timeout(0).token) for _ in range(100)]
        engine.cancel_all()
        with pytest.raises(Failure, match="deadlines are kept"):
            check.quiescent(engine)


def test_an_fd_that_is_left_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_FD_SWEEP", 0.0)
    before = Resources.now()
    fd = os.eventfd(0)
    with pytest.raises(Failure, match="eventfd"):
        before.check()
    os.close(fd)
    before.check()
    assert before.kept == _lifetime.kept()


def test_memory_that_grows_is_found() -> None:
    totals = command.Totals(memory=[i << 20 for i in range(0, 400, 10)])
    with pytest.raises(Failure, match="memory grew"):
        command.check_growth(totals)
    command.check_growth(command.Totals(memory=[50 << 20] * 40))


@pytest.mark.parametrize(
    ("came", "text"),
    [
        ([(0, 2), (0, 2), (1, 2)], "twice"),
        ([(0, 2)], "missing"),
        ([(1, 2), (0, 2)], "out of order"),
        ([(0, 2), (1, 2), (5, 1)], "never written"),
    ],
)
def test_what_went_in_is_what_came_out(came: list[tuple[int, int]], text: str) -> None:
    words = Words()
    payloads = [words.payload(2) for _ in range(6)]
    for number, data in payloads[:2]:
        words.written(number, len(data))
    for number, many in came:
        words.received(payloads[number][1][: many * 8])
    with pytest.raises(Failure, match=text):
        words.check("it", ordered=True)


def test_words_in_one_piece_are_in_order() -> None:
    words = Words()
    _, data = words.payload(3)
    with pytest.raises(Failure, match="out of order"):
        words.received(data[:8] + data[16:])
    with pytest.raises(Failure, match="whole number"):
        words.received(data[:9])
    with pytest.raises(Failure, match="no whole message"):
        words.received(data[8:], whole=True)


# Many threads with blocking verbs, and scopes


def has(engine: str) -> None:
    try:
        open_engine(engine).close()
    except EngineUnavailable as error:
        pytest.skip(str(error))


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


def now_and_then(nth: int) -> Callable[[], bool]:
    """True once in so many times."""
    counted = itertools.count(1)
    return lambda: next(counted) % nth == 0


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


# The command


def test_the_command_says_what_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--seed",
        "5",
        "--ops",
        "300",
        "--round-ops",
        "150",
        "--scenario",
        "timers",
        "--engine",
        "uring",
    ]
    assert command.main(arguments) == 0
    said = capsys.readouterr().out
    assert "seed 5" in said
    assert "every one accounted for" in said


def test_the_command_says_how_to_play_a_failure_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(asked: Options, number: int) -> int:
        raise Failure(f"round {number} went wrong")

    monkeypatch.setattr(rounds, "play", fails)
    arguments = ["--seed", "7", "--scenario", "pipes", "--engine", "uring", "--threads", "2"]
    assert command.main(arguments) == 1
    said = capsys.readouterr().out
    assert "round 0 went wrong" in said
    assert "./dev race --seed 7 --engine uring --scenario pipes --threads 2 --round 0" in said
    assert "not the same schedule" in said
