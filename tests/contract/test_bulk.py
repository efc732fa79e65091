"""Many at a time: cancels of some, of a file's, of all; more than any queue holds."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Any

import pytest

from iocancel import Operation, OperationTimedOut, Verdict

from ..support import few
from .helpers import C, X, drain, need_stopping, need_verbs, outcomes, stops

MANY = few(5000)


def settle(engine: Any, verb: str, ops: list[Operation[Any]], write_end: int) -> int:
    """Bring all to their end; returns how many bytes those had that could not be stopped any more."""
    if stops(engine, verb):
        engine.wait(ops)
        return 0
    # What ran goes on, and has to get what it waits for. Which ones ran nobody knows beforehand.
    fed = 0
    while left := [op for op in ops if not op.done()]:
        os.write(write_end, b"x")
        fed += 1
        engine.reap()
        if len([op for op in left if not op.done()]) == len(left):
            engine.reap(1.0)
    return fed


@pytest.mark.parametrize("way", ["cancel", "cancel, oldest first", "cancel_fd", "cancel_all"])
@pytest.mark.parametrize("verb", ["read", "poll", "recv"])
def test_thousands(engine: Any, pipe: tuple[int, int], pair: Any, verb: str, way: str) -> None:
    need_verbs(engine, verb)
    read_end, write_end = pipe if verb != "recv" else (pair[0].fileno(), pair[1].fileno())
    second = select.POLLIN if verb == "poll" else 1
    start = getattr(engine, verb)
    ops = [start(read_end, second) for _ in range(MANY)]
    engine.submit()
    assert engine.in_flight == MANY
    asked = {
        "cancel": lambda: engine.cancel(ops[::-1]),
        "cancel, oldest first": lambda: engine.cancel(ops),
        "cancel_fd": lambda: engine.cancel_fd(read_end),
        "cancel_all": engine.cancel_all,
    }[way]()
    assert asked == MANY
    fed = settle(engine, verb, ops, write_end)
    completed = [op for op in ops if op.outcome is C]
    assert outcomes(ops) <= {C, X}
    # Every byte is either some operation's or still there.
    assert sum(len(op.result()) for op in completed) == fed - drain(read_end)
    for op in ops:
        # A cancel's success may be left untold; of those that ended by it none says otherwise.
        assert op.verdict is Verdict.CANCELLED or op.outcome is C
    if stops(engine, verb):
        assert not completed
    assert engine.in_flight == 0
    assert asked_again(engine, ops) == 0


def asked_again(engine: Any, ops: list[Operation[Any]]) -> int:
    """They have ended: nothing is left to cancel."""
    return int(engine.cancel(ops)) + int(engine.cancel_all())


def test_only_some(engine: Any, pipes: Callable[[], tuple[int, int]]) -> None:
    need_stopping(engine, "read")
    ends = [pipes() for _ in range(8)]
    ops = [engine.read(read_end, 4) for read_end, _ in ends]
    engine.submit()
    assert engine.cancel(ops[1::2]) == 4
    engine.wait(ops[1::2])
    assert outcomes(ops[1::2]) == {X}
    assert outcomes(ops[::2]) == {None}
    for _, write_end in ends:
        os.write(write_end, b"data")
    engine.wait(ops)
    assert outcomes(ops[::2]) == {C}
    assert [op.result() for op in ops[::2]] == [b"data"] * 4
    assert [drain(read_end) for read_end, _ in ends] == [0, 4] * 4


def test_one_file_of_two(engine: Any, pipes: Callable[[], tuple[int, int]]) -> None:
    need_stopping(engine, "read", "poll")
    (a, a_write), (b, b_write) = pipes(), pipes()
    on_a = [engine.read(a, 1), engine.poll(a, select.POLLIN), engine.read(a, 1)]
    on_b = [engine.read(b, 1), engine.poll(b, select.POLLIN)]
    engine.submit()
    assert engine.cancel_fd(a) == 3
    engine.wait(on_a)
    assert outcomes(on_a) == {X}
    assert outcomes(on_b) == {None}
    assert engine.cancel_fd(a) == 0
    os.write(b_write, b"x")
    assert on_b[1].wait() is C or on_b[0].outcome is C  # the poll may have been asked after the read
    engine.cancel_all()
    engine.wait(on_b)
    os.write(a_write, b"y")
    assert os.read(a, 2) == b"y"


def test_a_duplicate_is_another_file(engine: Any, pipe: tuple[int, int]) -> None:
    """By number: what goes by another one is not hit."""
    need_stopping(engine, "read")
    other = os.dup(pipe[0])
    try:
        op, same = engine.read(pipe[0], 4), engine.read(other, 4)
        engine.submit()
        assert engine.cancel_fd(pipe[0]) == 1
        assert op.wait() is X
        assert not same.done()
        os.write(pipe[1], b"data")
        assert same.wait() is C
    finally:
        os.close(other)


def test_one_deadline_for_several(engine: Any, pipes: Callable[[], tuple[int, int]]) -> None:
    """Those that have ended keep their values; only the others were ended by it."""
    need_stopping(engine, "read")
    ends = [pipes() for _ in range(3)]
    ops = [engine.read(read_end, 4) for read_end, _ in ends]
    os.write(ends[1][1], b"data")
    engine.wait(ops, 0.05)
    assert [op.outcome for op in ops] == [X, C, X]
    assert ops[1].result() == b"data"
    for op in (ops[0], ops[2]):
        assert isinstance(op.exception(), OperationTimedOut)


def test_what_ends_while_the_lead_is_given_up_is_handed_out_too(
    engine: Any, pipes: Callable[[], tuple[int, int]]
) -> None:
    """A cancel asked for within a turn makes the thread look once more: what it finds then counts as well."""
    need_stopping(engine, "read")
    ends = [pipes() for _ in range(3)]
    first, second, third = ops = [engine.read(read_end, 4) for read_end, _ in ends]

    def act(_: Operation[Any]) -> None:
        os.write(ends[1][1], b"data")
        third.cancel()

    first.add_done_callback(act)
    engine.submit()
    os.write(ends[0][1], b"data")
    ended: list[Operation[Any]] = []
    while engine.in_flight:
        ended += engine.reap(None)
    assert set(ended) == set(ops)
    assert [op.outcome for op in (first, second, third)] == [C, C, X]


def test_deadlines_by_reaping_alone(engine: Any, pipe: tuple[int, int]) -> None:
    """Nobody waits for any of them: they are ended all the same, the soonest first."""
    need_stopping(engine, "read")
    times = [0.03, 0.01, 0.02]
    ops = [engine.read(pipe[0], 4, timeout=seconds) for seconds in times]
    ended: list[Operation[Any]] = []
    while engine.in_flight:
        ended += engine.reap(None)
    assert set(ended) == set(ops)
    for op in ops:
        assert isinstance(op.exception(), OperationTimedOut)
    os.write(pipe[1], b"data")
    assert os.read(pipe[0], 8) == b"data"


def test_cancels_by_reaping_alone(engine: Any, pipe: tuple[int, int]) -> None:
    need_stopping(engine, "read")
    op = engine.read(pipe[0], 4)
    engine.submit()
    op.cancel()
    assert engine.reap(None) == [op]
    assert op.outcome is X


def test_what_has_ended_is_handed_out_once(engine: Any, pipe: tuple[int, int]) -> None:
    """`reap` brings each operation once, in whichever call it ended."""
    need_verbs(engine, "read")
    ops = [engine.read(pipe[0], 1) for _ in range(10)]
    engine.submit()
    ended: list[Operation[Any]] = []
    for n in range(10):
        os.write(pipe[1], b"x")
        while len(ended) == n:
            ended += engine.reap(1.0)
    assert len(ended) == 10
    assert set(ended) == set(ops)
    assert engine.reap() == []


def test_a_file_with_nothing_pending(engine: Any, pipe: tuple[int, int]) -> None:
    assert engine.cancel_fd(pipe[0]) == 0
    assert engine.cancel_all() == 0
    assert engine.cancel([]) == 0
    assert engine.submit() == 0
    assert engine.reap() == []
    assert engine.reap(0.01) == []


def test_of_those_that_were_not_submitted(engine: Any, pipe: tuple[int, int]) -> None:
    need_verbs(engine, "read")
    ops = [engine.read(pipe[0], 1) for _ in range(100)]
    assert engine.in_flight == 100
    assert engine.cancel(ops) == 100
    assert outcomes(ops) == {X}
    assert {op.verdict for op in ops} == {Verdict.CANCELLED}
    assert engine.in_flight == 0


def test_single_cancels_of_many(engine: Any, pipe: tuple[int, int]) -> None:
    need_stopping(engine, "read")
    ops = [engine.read(pipe[0], 1) for _ in range(few(3000))]
    engine.submit()
    assert all(op.cancel() for op in ops)
    engine.wait(ops)
    assert outcomes(ops) == {X}
    os.write(pipe[1], b"z")
    assert os.read(pipe[0], 2) == b"z"


def test_completions_that_outnumber_every_queue(engine: Any, pipe: tuple[int, int]) -> None:
    """All come, each once: the ring's own queue has 2,048 places."""
    need_verbs(engine, "poll")
    ops = [engine.poll(pipe[0], select.POLLIN) for _ in range(MANY)]
    ended: list[Operation[Any]] = []
    hooked: list[Operation[Any]] = []
    for op in ops:
        op.add_done_callback(hooked.append)
    engine.submit()
    os.write(pipe[1], b"x")
    while len(ended) < MANY:
        fresh = engine.reap(5.0)
        assert fresh, f"{len(ended)} of {MANY} came"
        ended += fresh
    assert set(ended) == set(ops)
    assert len(ended) == len(hooked) == MANY
    assert outcomes(ops) == {C}


def test_more_at_once_than_the_queue_holds(uring: str, pipe: tuple[int, int]) -> None:
    """With eight entries: they go in turn by turn, a cancel has its place all the same."""
    from .conftest import opened

    with opened(uring, entries=8) as engine:
        ops = [engine.poll(pipe[0], select.POLLIN) for _ in range(few(1000))]
        engine.submit()
        assert ops[-1].cancel()
        assert ops[-1].wait() is X
        os.write(pipe[1], b"x")
        engine.wait(ops)
        assert outcomes(ops[:-1]) == {C}


def test_another_engines(engine: Any, name: str, pipe: tuple[int, int]) -> None:
    from .conftest import opened

    need_verbs(engine, "read")
    with opened(name) as other:
        op = other.read(pipe[0], 1)
        with pytest.raises(ValueError, match="another engine"):
            engine.cancel([op])
        with pytest.raises(ValueError, match="another engine"):
            engine.wait([op])
        assert op.verdict is None
        op.cancel()
        assert op.wait() is X
