"""Ctrl-C at every instruction of the model, and wherever CPython looks for signals on io_uring: what is in
the ledger stays true, nothing is submitted twice, nothing is lost, the next call works."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from iocancel import Outcome
from iocancel.testing import BlockedPipe, ScriptedEngine, interrupt_everywhere

from ..support import BOUND, GUEST, resizable
from .helpers import Thread, real

STEP = 23 if GUEST else 1


class Stage:
    """An engine, two pipes, a buffer for each; what was called back."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.pipes = [BlockedPipe(), BlockedPipe()]
        self.buffers = [bytearray(4), bytearray(4)]
        self.ops: list[Any] = []
        self.called: list[Any] = []
        self.reaped: list[Any] = []
        self.scripted = isinstance(engine, ScriptedEngine)
        self.fed = [False, False]
        self.numbers: dict[Any, int] = {}
        self.settled = False

    def start(self, *numbers: int) -> Stage:
        for i in numbers:
            op = self.engine.read(self.pipes[i].fileno(), self.buffers[i])
            self.ops.append(op)
            self.numbers[op] = i
            op.add_done_callback(self.called.append)
        return self

    def submit(self) -> Stage:
        self.engine.submit()
        return self

    def feed(self) -> Stage:
        """What they wait for has come, and nobody has looked."""
        for op, i in self.numbers.items():
            if self.fed[i] or op.done():
                continue
            self.fed[i] = True
            if self.scripted:
                if op in self.engine.pending or op not in self.engine.submitted:
                    self.engine.complete(op, b"data")
            else:
                self.pipes[i].write(b"data")
        return self

    def close(self) -> None:
        self.engine.close(BOUND if self.settled else 0.0)
        for pipe in self.pipes:
            pipe.close()

    def settle(self) -> None:
        """The next call works: all end, each once, and nothing is kept."""
        engine = self.engine
        engine.submit()
        for op, i in self.numbers.items():
            if not op.done():
                self.fed[i] = True
                if not self.scripted:
                    if not self.pipes[i].available():
                        self.pipes[i].write(b"data")
                elif op in engine.pending:
                    engine.complete(op, b"data")
        engine.wait(self.ops, BOUND)
        engine.reap(0)
        for op, i in self.numbers.items():
            assert self.called.count(op) <= 1, "called back twice"
            if op.outcome is Outcome.COMPLETED:
                assert op.result() == 4
                assert self.buffers[i] == b"data", "the data are lost"
            else:
                assert op.cancelled()
                assert self.buffers[i] == bytes(4), "cancelled, and it happened"
                if not self.scripted and self.fed[i]:
                    assert self.pipes[i].drain() == b"data", "the data are neither here nor there"
            assert op._pins is None
            assert resizable(self.buffers[i]), "memory is kept"
        assert engine.in_flight == 0, "the ledger keeps what has ended"
        assert not engine._staged
        assert engine._lead is None
        assert not engine._followers
        self.settled = True


def submit(stage: Stage) -> None:
    stage.engine.submit()


def wait(stage: Stage) -> None:
    stage.ops[0].wait(BOUND)


def wait_all(stage: Stage) -> None:
    stage.engine.wait(stage.ops, BOUND)


def reap(stage: Stage) -> None:
    stage.reaped += stage.engine.reap(0)


def cancel(stage: Stage) -> None:
    stage.ops[0].cancel()
    stage.engine.submit()


def cancel_many(stage: Stage) -> None:
    stage.engine.cancel(stage.ops)


def cancel_all(stage: Stage) -> None:
    stage.engine.cancel_all()


def cancel_fd(stage: Stage) -> None:
    stage.engine.cancel_fd(stage.pipes[0].fileno())


def read(stage: Stage) -> None:
    op = stage.engine.read(stage.pipes[1].fileno(), stage.buffers[1])
    stage.ops.append(op)
    stage.numbers[op] = 1


def in_time(stage: Stage) -> None:
    stage.engine.wait(stage.ops, 0.0)


def adopt(stage: Stage, place: str, places: str) -> None:
    """An interrupted call made an operation that nobody has: it must not eat what others wait for."""
    stage.engine.submit()
    lost = [op for op in stage.engine._ledger.flight.values() if op not in stage.ops]
    # Behind the last look for signals, in the opcodes that hand it to the caller.
    assert not lost or (places == "opcodes" and place.endswith(("in read", "in _start")))
    stage.ops += lost
    stage.numbers.update(dict.fromkeys(lost, 1))


def prepared(stage: Stage) -> None:
    stage.start(0, 1)


def there_already(stage: Stage) -> None:
    stage.start(0, 1).feed()


def one_of_each(stage: Stage) -> None:
    stage.start(0).submit().start(1)


def flying(stage: Stage) -> None:
    stage.start(0, 1).submit()


def first(stage: Stage) -> None:
    stage.start(0).submit()


def complete(stage: Stage) -> None:
    stage.start(0, 1).submit().feed()


def none(stage: Stage) -> None:
    """Nothing is there."""


CASES = [
    (prepared, submit),
    (there_already, submit),
    (there_already, wait),
    (there_already, wait_all),
    (complete, wait),
    (complete, reap),
    (prepared, cancel),
    (flying, cancel),
    (complete, cancel),
    (one_of_each, cancel_many),
    (one_of_each, cancel_all),
    (flying, cancel_all),
    (complete, cancel_all),
    (one_of_each, cancel_fd),
    (flying, in_time),
    (none, read),
    (first, read),
]


def names(case: Callable[..., None]) -> str:
    return case.__name__


def sweep(open_one: Callable[[], Any], before: Any, run: Any, places: Any) -> int:
    def prepare() -> Stage:
        stage = Stage(open_one())
        before(stage)
        return stage

    def check(stage: Stage, place: str) -> None:
        try:
            if run is read:
                adopt(stage, place, places)
            elif run is reap:
                stage.reaped += stage.engine.reap(0)
            stage.settle()
            assert len(set(stage.reaped)) == len(stage.reaped), "told twice"
        finally:
            stage.close()

    swept = interrupt_everywhere(
        prepare, run, check, modules=["iocancel.operation"], places=places, step=STEP
    )
    assert swept.places > (100 if places == "opcodes" else 5)
    return swept.places


@pytest.mark.parametrize(("before", "run"), CASES, ids=names)
def test_an_interrupt_at_any_instruction_leaves_the_ledger_true(before: Any, run: Any) -> None:
    sweep(lambda: ScriptedEngine(limit=BOUND), before, run, "opcodes")


@pytest.fixture
def uring() -> Callable[[], Any]:
    real("uring").close()
    return lambda: real("uring")


@pytest.mark.parametrize(("before", "run"), CASES, ids=names)
def test_an_interrupt_leaves_the_ledger_true_on_io_uring(
    before: Any, run: Any, uring: Callable[[], Any]
) -> None:
    sweep(uring, before, run, "signals")


def closing(open_one: Callable[[], Any], places: Any) -> int:
    def prepare() -> Stage:
        stage = Stage(open_one())
        one_of_each(stage)
        return stage

    def check(stage: Stage, place: str) -> None:
        engine = stage.engine
        stage.settled = True  # closing is what settles it
        stage.close()
        assert engine.closed
        assert engine._state == "closed"
        assert engine.in_flight == 0
        for op in stage.ops:
            assert op.done()
            assert stage.called.count(op) <= 1
            if stage.scripted:
                assert engine._carrier.closed, "the system was not given back"
                assert op not in engine.pending or op._pins is not None, "the kernel's memory was let go of"
            else:
                assert engine._carrier.ring.closed, "the ring was not given back"
        assert not engine._followers

    return interrupt_everywhere(
        prepare,
        lambda stage: stage.engine.close(BOUND),
        check,
        modules=["iocancel.operation"],
        places=places,
        step=STEP,
    ).places


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what an interrupted close abandons says so
def test_an_interrupted_close_is_a_close_or_is_begun_again() -> None:
    assert closing(lambda: ScriptedEngine(limit=BOUND), "opcodes") > 100


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_interrupted_close_of_io_uring_is_a_close_or_is_begun_again(uring: Callable[[], Any]) -> None:
    assert closing(uring, "signals") > 10


def closing_a_file(open_one: Callable[[], Any], places: Any) -> int:
    def prepare() -> Stage:
        stage = Stage(open_one())
        one_of_each(stage)
        return stage

    def run(stage: Stage) -> None:
        stage.engine.close_fd(stage.pipes[0].fileno())

    def check(stage: Stage, place: str) -> None:
        try:
            stage.settle()
            assert not place or stage.ops[0].done()
            try:
                os.fstat(stage.pipes[0].fileno())
            except OSError:
                stage.pipes[0].disown()
            else:
                assert place
                assert stage.engine.close_fd(stage.pipes[0].disown()) == {}
        finally:
            stage.close()

    return interrupt_everywhere(
        prepare, run, check, modules=["iocancel.operation"], places=places, step=STEP
    ).places


def test_an_interrupted_close_fd_can_be_called_again() -> None:
    assert closing_a_file(lambda: ScriptedEngine(limit=BOUND), "opcodes") > 100


def test_an_interrupted_close_fd_can_be_called_again_on_io_uring(uring: Callable[[], Any]) -> None:
    assert closing_a_file(uring, "signals") > 10


def test_another_thread_goes_on_where_an_interrupted_leader_did_not_leave() -> None:
    """The interrupt comes at the very entry of what gives up the lead."""

    def prepare() -> Stage:
        stage = Stage(ScriptedEngine(limit=BOUND))
        return stage.start(0, 1).feed()

    def check(stage: Stage, place: str) -> None:
        thread = Thread(lambda: stage.engine.wait(stage.ops, BOUND)).start()
        thread.join()
        assert all(op.result() == 4 for op in stage.ops)
        stage.settle()
        stage.close()

    interrupt_everywhere(
        prepare, submit, check, modules=["iocancel.operation.leading"], places="opcodes", step=STEP
    )
