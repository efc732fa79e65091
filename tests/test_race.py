"""The race suite runs, and finds what is wrong with an engine."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Callable
from typing import Any

import pytest

from iocancel import _lifetime, open_engine
from iocancel._native import ffi
from iocancel.operation import OTHER, Operation
from iocancel.uring import limbo
from tools.race import __main__ as command
from tools.race import check, handover, rounds
from tools.race.actors import Words
from tools.race.check import Failure, Resources
from tools.race.rounds import SCENARIOS, Options

from .race_stage import OPS, options
from .race_stage import nothing_left_behind as nothing_left_behind
from .race_stage import uring as uring


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_a_short_run(scenario: str, threads: int) -> None:
    done = sum(rounds.play(options(scenario, threads), number) for number in range(3))
    assert done > OPS


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_what_is_over_exports_no_view(scenario: str) -> None:
    """Where garbage has a memoryview and its export, some Pythons crash (gh-77894)."""
    gc.collect()
    gc.disable()
    try:
        rounds.play(options(scenario, 4), 0)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert any(isinstance(each, Operation) for each in gc.garbage), "a cycle with operations"
        pins = [each for each in gc.garbage if isinstance(each, ffi.CData)]
        assert [pin for pin in map(repr, pins) if "from 'memoryview'" in pin] == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


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
