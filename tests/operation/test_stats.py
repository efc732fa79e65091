"""What an engine counts: every operation once, whatever ends it, whoever looks meanwhile."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import iocancel
from iocancel import Outcome, Verdict, open_engine, pool
from iocancel.operation import Latency, Stats, counting, stats
from iocancel.pool import Pool
from iocancel.testing import Answer, BlockedPipe, ScriptedEngine, interrupt_everywhere

from ..support import BOUND, few
from .helpers import ECANCELED, Thread, real, running

COMPLETED, FAILED, CANCELLED = Outcome.COMPLETED, Outcome.FAILED, Outcome.CANCELLED
AGAIN = [Answer.NOT_FOUND] * 100  # however often the engine asks again, on a machine that is slow


def counted(engine: Any) -> tuple[tuple[int, ...], tuple[int, ...], int, int]:
    """Outcomes, verdicts, asked, how many latencies."""
    found = engine.stats()
    return (
        tuple(found.outcomes[each] for each in Outcome),
        tuple(found.verdicts[each] for each in Verdict),
        found.asked,
        found.latency.count,
    )


def scripted(**options: Any) -> Any:
    return counting(ScriptedEngine)(**options)


@pytest.fixture
def engine() -> Iterator[Any]:
    with scripted() as made:
        yield made
    made.stats()
    assert not made._tally._asks
    assert not made._tally._endings


# Latencies


def test_a_percentile_is_the_end_of_its_bucket() -> None:
    buckets = [0] * 65
    buckets[10], buckets[11], buckets[20] = 50, 49, 1
    found = Latency(tuple(buckets))
    assert found.count == 100
    assert [found.percentile(p) for p in (1, 50, 51, 99, 99.5, 100)] == [
        *(1023, 1023),
        *(2047, 2047),
        *(1048575, 1048575),
    ]
    assert Latency().percentile(50) is None
    for p in (0, -1, 100.1, float("nan")):
        with pytest.raises(ValueError, match="p takes"):
            found.percentile(p)


def test_latencies_go_to_their_buckets(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [10**15]
    monkeypatch.setattr("iocancel.operation.stats.time.monotonic_ns", lambda: clock[0])
    for nanoseconds in (0, 1, 1023, 1024, 1 << 70):
        op = engine.read(0, 1)
        op.cancel()
        clock[0] += nanoseconds
        op.wait()
    found = engine.stats().latency.buckets
    assert {i: many for i, many in enumerate(found) if many} == {0: 1, 1: 1, 10: 1, 11: 1, 64: 1}


def test_a_latency_is_from_the_first_asking_to_the_outcome(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [10**15]
    monkeypatch.setattr("iocancel.operation.stats.time.monotonic_ns", lambda: clock[0])
    op = engine.send_zc(0, b"data")
    engine.submit()
    engine.answer(op, *[Answer.FOUND] * 2)
    op.cancel()
    clock[0] += 100
    engine.cancel([op])
    clock[0] += 100
    engine.complete(op, 4, more=True)
    engine.reap(0)
    clock[0] += 1000
    engine.complete(op, 0, notif=True)
    engine.reap(0)
    found = engine.stats().latency
    assert found.count == 1
    assert found.percentile(100) == 255  # 200


# What is counted


def test_who_does_not_count_says_how() -> None:
    with ScriptedEngine() as engine, pytest.raises(RuntimeError, match=r"stats=True.*IOCANCEL_STATS=1"):
        engine.stats()


def test_each_outcome_and_verdict(engine: Any) -> None:
    assert engine.stats() == Stats(
        "scripted", dict.fromkeys(Outcome, 0), dict.fromkeys(Verdict, 0), 0, 0, Latency()
    )
    done, failed, found, missed, late, left = [engine.read(i, 1) for i in range(6)]
    engine.submit()
    engine.complete(done, b"x")
    engine.complete(failed, -errno.EIO)
    engine.answer(missed, *AGAIN)
    engine.answer(late, *[Answer.TOO_LATE] * len(AGAIN))
    engine.cancel([found, missed, late])
    engine.complete(missed, b"x")
    engine.complete(late, -errno.EINTR)
    engine.reap(0)
    assert counted(engine) == ((2, 1, 2), (1, 1, 1), 3, 3)
    assert engine.stats().in_flight == 1
    assert engine.stats().ended == 5
    left.cancel()
    assert counted(engine) == ((2, 1, 2), (1, 1, 1), 4, 3)
    left.cancel()
    engine.cancel([left])
    assert counted(engine) == ((2, 1, 3), (2, 1, 1), 4, 4)


def test_what_the_kernel_never_saw(engine: Any) -> None:
    class File:
        number = 5

        def fileno(self) -> int:
            return self.number

    file = File()
    withdrawn, gone = engine.read(0, 1), engine.read(file, 1)
    withdrawn.cancel()
    file.number = 6
    engine.submit()
    assert (withdrawn.outcome, gone.outcome) == (CANCELLED, FAILED)
    assert counted(engine) == ((0, 1, 1), (1, 0, 0), 1, 1)


def test_a_verb_that_raises_is_no_operation(engine: Any) -> None:
    with pytest.raises(TypeError):
        engine.read(0, "many")
    assert counted(engine) == ((0, 0, 0), (0, 0, 0), 0, 0)


def test_deadlines(engine: Any) -> None:
    assert engine.read(0, 1).wait(0) is CANCELLED
    op = engine.read(0, 1, timeout=0.0)
    engine.reap(0)
    assert op.cancelled()
    assert counted(engine) == ((0, 0, 2), (2, 0, 0), 2, 2)


def test_an_answer_behind_the_ending_and_behind_the_sums(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    op = engine.read(0, 1)
    engine.submit()
    engine.answer(op, Answer.HELD)
    op.cancel()
    engine.submit()
    assert op.verdict is Verdict.CANCELLED
    engine.complete(op, b"x")
    assert op.wait() is COMPLETED
    assert counted(engine) == ((1, 0, 0), (1, 0, 0), 1, 1)  # as the operation itself says
    assert not engine._tally._endings
    engine.answer(op, Answer.NOT_FOUND)
    engine.reap(0)
    assert [op.verdict] == [Verdict.NOT_FOUND]
    assert counted(engine) == ((1, 0, 0), (0, 1, 0), 1, 1)
    assert counted(engine) == ((1, 0, 0), (0, 1, 0), 1, 1)


def test_zero_copy_counts_at_its_result(engine: Any) -> None:
    op, kept = engine.send_zc(0, b"data"), engine.send_zc(1, b"data")
    engine.submit()
    for each in (op, kept):
        engine.complete(each, 4, more=True)
    engine.reap(0)
    assert counted(engine)[0] == (2, 0, 0)
    assert engine.stats().in_flight == 2
    engine.complete(op, 0, notif=True)
    engine.reap(0)
    assert counted(engine)[0] == (2, 0, 0)
    engine.complete(kept, 0, notif=True)
    engine.close()
    assert counted(engine)[0] == (2, 0, 0)


def test_multishot_is_one_operation(engine: Any) -> None:
    with engine.poll_multishot(0, 1) as events:
        op = events._op
        for _ in range(3):
            engine.complete(op, 1, more=True)
        assert [next(events), next(events), next(events)] == [1, 1, 1]
        assert counted(engine) == ((0, 0, 0), (0, 0, 0), 0, 0)
    assert counted(engine) == ((0, 0, 1), (1, 0, 0), 1, 1)


def test_closing_counts_all() -> None:
    engine = scripted()
    ops = [engine.read(0, 1) for _ in range(3)]
    engine.submit()
    ops.append(engine.read(0, 1))
    engine.close()
    assert counted(engine) == ((0, 0, 4), (4, 0, 0), 4, 4)


def test_what_still_runs_at_the_closing_has_failed() -> None:
    engine = scripted()
    op = engine.read(0, 1)
    engine.submit()
    engine.answer(op, Answer.TOO_LATE)
    engine.answer(None, Answer.TOO_LATE)
    with pytest.warns(ResourceWarning, match="still ran"):
        engine.close(0.0)
    assert op.outcome is FAILED
    assert counted(engine) == ((0, 1, 0), (0, 0, 1), 1, 1)
    engine.complete(op, ECANCELED)


def test_in_an_event_loop_s_turns(engine: Any) -> None:
    op, other = engine.read(0, 1), engine.read(0, 1)
    engine.tick()
    op.cancel()
    engine.complete(other, b"x")
    assert set(engine.tick()) == {op, other}
    assert counted(engine) == ((1, 0, 1), (1, 0, 0), 1, 1)


# Sums


@pytest.mark.parametrize("room", [0, 1, 7, 10_000])
def test_sums_are_the_same_however_often_they_are_made(
    engine: Any, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(stats, "_ROOM", room)
    engine._tally._room = room
    for i in range(50):
        ops = [engine.read(j, 1) for j in range(4)]
        engine.submit()
        engine.complete(ops[0], b"x")
        engine.answer(ops[2], *AGAIN)
        engine.cancel(ops[1:])
        engine.complete(ops[2], b"x")
        engine.reap(0)
        if not i % 10:
            assert counted(engine) == (
                (2 * i + 2, 0, 2 * i + 2),
                (2 * i + 2, i + 1, 0),
                3 * i + 3,
                3 * i + 3,
            )
    assert counted(engine) == ((100, 0, 100), (100, 50, 0), 150, 150)
    assert len(engine._tally._endings) + len(engine._tally._asks) == 0


def test_it_keeps_no_operation(engine: Any) -> None:
    import weakref

    op = engine.read(0, 1)
    op.cancel()
    op.wait()
    gone = weakref.ref(op)
    del op
    assert gone() is None


@pytest.mark.parametrize("room", [0, 10_000])
@pytest.mark.parametrize("places", ["signals", "opcodes"])
def test_ctrl_c_anywhere_counts_each_once(room: int, places: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "_ROOM", room)

    class Stage:
        def __init__(self) -> None:
            self.engine = scripted()
            self.engine._tally._room = room
            self.ops = [self.engine.read(i, 1) for i in range(4)]
            self.engine.submit()
            self.engine.answer(self.ops[1], Answer.NOT_FOUND)

    def run(stage: Stage) -> None:
        engine, ops = stage.engine, stage.ops
        if ops[0] in engine.pending:
            engine.complete(ops[0], b"x")
        engine.cancel(ops[1:3])
        if ops[1] in engine.pending:
            engine.complete(ops[1], b"x")
        engine.reap(0)
        engine.stats()

    def check(stage: Stage, _place: str) -> None:
        engine, ops = stage.engine, stage.ops
        for op in ops:
            if op in engine.pending:
                engine.complete(op, b"x")
        engine.wait(ops, BOUND)
        by_outcome = tuple(sum(op.outcome is each for op in ops) for each in Outcome)
        by_verdict = tuple(sum(op.verdict is each for op in ops) for each in Verdict)
        outcomes, verdicts, asked, latencies = counted(engine)
        assert outcomes == by_outcome
        assert verdicts == by_verdict
        assert latencies == asked <= 2
        engine.close()
        assert counted(engine)[0] == by_outcome

    swept = interrupt_everywhere(Stage, run, check, modules=["iocancel.operation"], places=places)
    assert swept.places > 50


def test_threads_count_each_once_while_others_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "_ROOM", 5)
    engine = real("uring")
    engine.close()
    many, rounds = 4, few(200)
    over = threading.Event()
    seen: list[int] = []

    with open_engine("uring", stats=True) as engine:

        def work() -> None:
            for i in range(rounds):
                with BlockedPipe() as pipe:
                    op = engine.read(pipe.fileno(), 1)
                    if i % 2:
                        op.cancel()
                    else:
                        pipe.write(b"x")
                    op.wait(BOUND)

        def look() -> None:
            while not over.is_set():
                seen.append(engine.stats().ended)

        looking = Thread(look).start()
        try:
            with running(*[work] * many):
                pass
        finally:
            over.set()
            looking.join()
        assert counted(engine)[0] == (many * rounds // 2, 0, many * rounds // 2)
        assert seen == sorted(seen)
        assert engine.stats().latency.count == engine.stats().asked == many * rounds // 2


# How it is switched on


@pytest.mark.parametrize("name", ["uring", "libaio", "posix_aio", "auto"])
def test_it_is_asked_for_at_the_opening(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IOCANCEL_STATS", raising=False)
    if name != "auto":
        real(name).close()
    with open_engine(name, stats=True) as engine, BlockedPipe() as pipe:
        assert engine.stats().ended == 0  # what "auto" has tried it with does not count
        op = engine.read(pipe.fileno(), 1)
        op.cancel()
        op.wait()
        assert counted(engine) == ((0, 0, 1), (1, 0, 0), 1, 1)
        assert engine.stats().engine == engine.name
    with open_engine(name) as engine, pytest.raises(RuntimeError, match="does not count"):
        engine.stats()


@pytest.mark.parametrize(("value", "counts"), [("1", True), ("0", False), ("", False)])
def test_or_by_the_environment(value: str, counts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOCANCEL_STATS", value)
    with open_engine() as engine:
        if counts:
            assert engine.stats().ended == 0
        else:
            with pytest.raises(RuntimeError, match="does not count"):
                engine.stats()
    with open_engine(stats=False) as engine, pytest.raises(RuntimeError, match="does not count"):
        engine.stats()


def test_engines_that_blocking_calls_borrow_count_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOCANCEL_STATS", "1")
    borrowed = Pool()
    monkeypatch.setattr(pool, "current", borrowed)
    with BlockedPipe() as pipe, pytest.raises(TimeoutError):
        iocancel.read(pipe.fileno(), 1, timeout=0.0)
    [engine] = borrowed._free
    assert counted(engine)[0][2] == 1
    borrowed.close()


def test_what_is_stopped_at_once_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    real("uring").close()
    with open_engine("uring", stats=True) as engine, BlockedPipe() as pipe:
        op = engine.read(pipe.fileno(), 1)
        engine.submit()
        assert engine._stop(op)
        assert op.wait() is CANCELLED
        assert counted(engine)[2:] == (1, 1)


def test_an_event_loop_counts_what_it_uses_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real("uring").close()
    monkeypatch.setenv("IOCANCEL_STATS", "1")
    code = """
import asyncio, os
import iocancel.asyncio
from iocancel.asyncio import hub
from iocancel.awaiting.hub import open_for_loop
engines = []
def opened(name=None, real=open_for_loop):
    engines.append(real(name))
    return engines[-1]
hub._hub.open_for_loop = opened
async def main():
    read_end, write_end = os.pipe()
    for _ in range(3):
        task = asyncio.ensure_future(iocancel.asyncio.poll(read_end, 1))
        await asyncio.sleep(0.0)
        os.write(write_end, b"x")
        await task
        os.read(read_end, 1)
    task = asyncio.ensure_future(iocancel.asyncio.poll(read_end, 1))
    await asyncio.sleep(0.0)
    await asyncio.sleep(0.0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    [engine] = engines
    stats = engine.stats()
    print(*stats.outcomes.values(), *stats.verdicts.values(), stats.asked, stats.latency.count)
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=BOUND, check=False
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["3", "0", "1", "1", "0", "0", "1", "1"]
