"""Bulk cancels whose endings C has compared with what was asked for: settled without a look at each."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

import pytest

from iocancel import Operation, Outcome, Verdict
from iocancel.engines.uring import UringEngine
from iocancel.operation.core import Core
from iocancel.operation.ledger import Ledger
from iocancel.operation.operation import ENDED, FdOperation

from ..support import cut_short

FAST: CodeType = Core._settle_cancelled.__code__


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What `_settle_cancelled` has said each time that it was called."""
    said: list[bool] = []
    real = Core._settle_cancelled

    def watched(self: Core, ops: Any) -> bool:
        said.append(real(self, ops))
        return said[-1]

    monkeypatch.setattr(Core, "_settle_cancelled", watched)
    return said


def polls(engine: UringEngine, fd: int, many: int) -> list[Operation[int]]:
    ops = [engine.poll(fd, select.POLLIN) for _ in range(many)]
    engine.submit()
    return ops


def all_cancelled(engine: UringEngine, ops: list[Operation[int]]) -> None:
    assert [op.outcome for op in ops] == [Outcome.CANCELLED] * len(ops)
    assert {op.verdict for op in ops} == {Verdict.CANCELLED}
    assert engine.in_flight == 0
    assert engine._carrier.records() == []


@pytest.mark.parametrize("many", [1, 5, 1024, 2500])
def test_all_at_once(uring: UringEngine, pipe: tuple[int, int], settled: list[bool], many: int) -> None:
    ops = polls(uring, pipe[0], many)
    assert uring.cancel_all() == many
    all_cancelled(uring, ops)
    if uring._carrier._silent:  # else the cancels' own answers are among the records
        assert settled == [True] * -(-many // 1024)
    assert len(uring._ledger._free) == many, "each place is there again"


def test_one_that_somebody_waits_for(uring: UringEngine, pipe: tuple[int, int], settled: list[bool]) -> None:
    ops = polls(uring, pipe[0], 5)
    told: list[object] = []
    ops[2].add_done_callback(told.append)
    uring.cancel_all()
    all_cancelled(uring, ops)
    assert told == [ops[2]]
    assert True not in settled


def test_one_that_was_faster(uring: UringEngine, pipe: tuple[int, int], settled: list[bool]) -> None:
    ops = polls(uring, pipe[0], 5)
    read_end, write_end = os.pipe()
    try:
        ready = uring.poll(read_end, select.POLLIN)
        uring.submit()
        os.write(write_end, b"x")
        uring.cancel_all()
        uring.wait([ready])
    finally:
        os.close(read_end)
        os.close(write_end)
    assert ready.outcome is Outcome.COMPLETED
    all_cancelled(uring, ops)
    assert True not in settled


def test_one_that_reap_is_to_tell(uring: UringEngine, pipe: tuple[int, int]) -> None:
    ops = polls(uring, pipe[0], 3)
    for op in ops:
        op.cancel()
    assert set(uring.reap()) == set(ops)
    all_cancelled(uring, ops)


def interrupted(at: int, call: Callable[[], object]) -> bool:
    """Make a call with a KeyboardInterrupt at this opcode of `_settle_cancelled`; whether it got there."""
    passed = 0

    def inside(_frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal passed
        if event == "opcode":
            passed += 1
            if passed == at:
                raise KeyboardInterrupt
        return inside

    def outside(frame: FrameType, _event: str, _arg: object) -> Any:
        if frame.f_code is not FAST:
            return None
        frame.f_trace = inside  # 3.13 wants it before the other
        frame.f_trace_opcodes = True
        return inside

    return cut_short(outside, call)


def test_a_signal_at_any_opcode_loses_nothing(uring: UringEngine, pipe: tuple[int, int]) -> None:
    if not uring._carrier._silent:
        pytest.skip("this kernel's cancels all answer: nothing is settled at once (5.17)")
    at = 1
    while True:
        ops = polls(uring, pipe[0], 3)
        came = interrupted(at, uring.cancel_all)
        uring.submit()
        all_cancelled(uring, ops)
        if not came:
            break
        at += 1
    assert at > 3 * 10, "it was interrupted at each place of each of the three"
    # A place that was given back twice would do no harm, but there is none.
    assert len(set(uring._ledger._free)) == len(uring._ledger._free)


def test_one_whose_making_was_cut_short_goes_quietly() -> None:
    op: FdOperation[int] = FdOperation.__new__(FdOperation)
    op._state = ENDED  # whatever it had got to
    op.__del__()
    del op  # once more, as it is collected; an exception in here would be a warning, thus an error


def test_the_newest_of_few_after_many() -> None:
    ledger = Ledger()
    engine: Any = None
    kind: Any = None
    many: list[Operation[Any]] = [Operation(engine, kind) for _ in range(100)]
    for op in many:
        ledger.enter(op)
    for op in many[:-3]:
        ledger.leave(op._token)
    assert ledger.newest_first() == many[:-4:-1]
    for op in many[-3:]:
        ledger.leave(op._token)
    assert ledger.newest_first() == []
