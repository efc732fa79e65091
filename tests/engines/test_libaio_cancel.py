"""Cancels of the libaio engine, in every order; many operations, many threads, interruptions, the end."""

from __future__ import annotations

import errno
import os
import random
import select
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import iocancel
from iocancel import EngineUnavailable, OperationCancelled, Outcome, Verdict, errors, open_engine
from iocancel.engines.libaio import LibaioEngine, contexts
from iocancel.errors import OperationTimedOut

from ..support import BOUND, GUEST, few
from .libaio_stage import engine as engine
from .libaio_stage import flying, interrupted

Pipe = tuple[int, int]


@pytest.mark.parametrize("bulk", [False, True])
def test_before_it_was_submitted(engine: LibaioEngine, pipe: Pipe, bulk: bool) -> None:
    os.write(pipe[1], b"bytes")
    op = engine.read(pipe[0], 16)
    assert engine.cancel([op]) if bulk else op.cancel()
    assert op.wait() is Outcome.CANCELLED
    assert op.verdict is Verdict.CANCELLED
    with pytest.raises(OperationCancelled):
        op.result()
    assert os.read(pipe[0], 16) == b"bytes"


def test_after_its_end(engine: LibaioEngine, pipe: Pipe) -> None:
    os.write(pipe[1], b"bytes")
    op = engine.read(pipe[0], 16)
    assert op.wait() is Outcome.COMPLETED
    assert not op.cancel()
    assert op.result() == b"bytes"
    assert op.verdict is None


def test_the_cancel_is_first(engine: LibaioEngine, pipe: Pipe) -> None:
    op = engine.read(pipe[0], 16)
    flying(engine, op)
    assert engine.cancel([op, op]) == 1
    os.write(pipe[1], b"bytes")
    assert op.wait(BOUND) is Outcome.CANCELLED
    assert op.verdict is Verdict.CANCELLED
    assert os.read(pipe[0], 16) == b"bytes"


def test_the_bytes_are_first(engine: LibaioEngine, pipe: Pipe) -> None:
    """The poll has fired: the kernel finds nothing to cancel any more, and the bytes are not lost."""
    op = engine.read(pipe[0], 16)
    flying(engine, op)
    os.write(pipe[1], b"bytes")
    assert op.cancel()
    assert op.wait(BOUND) is Outcome.COMPLETED
    assert op.verdict is Verdict.NOT_FOUND
    assert op.result() == b"bytes"


def test_somebody_else_was_faster(engine: LibaioEngine, pipe: Pipe) -> None:
    """The poll has fired, and what was there is gone: it is polled again, and can be cancelled."""
    op = engine.read(pipe[0], 16)
    flying(engine, op)
    for _ in range(40):  # now and then there is a pause (when nothing is in the kernel)
        os.write(pipe[1], b"x")
        assert os.read(pipe[0], 1) == b"x"
        engine.reap()
        assert not op.done()
    op.cancel()
    assert op.wait(BOUND) is Outcome.CANCELLED
    op = engine.read(pipe[0], 16)
    flying(engine, op)
    os.write(pipe[1], b"x")
    assert os.read(pipe[0], 1) == b"x"
    engine.reap()
    os.write(pipe[1], b"bytes")
    assert op.wait(BOUND) is Outcome.COMPLETED
    assert op.result() == b"bytes"


@pytest.mark.parametrize("there", [True, False])
def test_accepted_and_yet_it_had_fired(
    engine: LibaioEngine, pipe: Pipe, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """By the source this pair of answers is possible (facts 1.4), so it must not be polled again for ever."""
    op = engine.read(pipe[0], 16)
    flying(engine, op)
    monkeypatch.setattr(contexts.Contexts, "cancel", lambda *_: [-errno.EINPROGRESS])
    assert engine.cancel([op]) == 1
    assert engine.cancel([op]) == 1
    os.write(pipe[1], b"x")
    if not there:
        assert os.read(pipe[0], 1) == b"x"
    assert op.wait(BOUND) is (Outcome.COMPLETED if there else Outcome.CANCELLED)
    assert op.verdict is Verdict.CANCELLED


def test_a_connection_that_nobody_hears_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the closing between the accept and its settling: the connection is there to be claimed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        engine = LibaioEngine()
        op = engine.accept(server)
        flying(engine, op)

        def interrupt(_until: object) -> None:
            engine._carrier.go(None, True, BOUND)
            raise KeyboardInterrupt

        monkeypatch.setattr(engine, "_drain", interrupt)
        with socket.create_connection(server.getsockname()) as client:
            with pytest.raises(KeyboardInterrupt):
                engine.close()
            assert op.outcome is Outcome.COMPLETED
            conn, _ = op.result()
            conn.close()
            assert client.recv(1) == b""


def test_racing(engine: LibaioEngine, pipe: Pipe) -> None:
    """A cancelled read leaves the byte, a completed one has it; there is nothing in between."""
    start, stop = threading.Barrier(2), False

    def write() -> None:
        while True:
            start.wait()
            if stop:
                return
            os.write(pipe[1], b"x")

    writer = threading.Thread(target=write)
    writer.start()
    seen: dict[tuple[Any, Any], int] = {}
    for _ in range(few(2000)):
        op = engine.read(pipe[0], 16)
        flying(engine, op)
        start.wait()
        op.cancel()
        outcome = op.wait(BOUND)
        seen[outcome, op.verdict] = seen.get((outcome, op.verdict), 0) + 1
        if outcome is Outcome.CANCELLED:
            assert os.read(pipe[0], 16) == b"x"
        else:
            assert op.result() == b"x"
    stop = True
    start.wait()
    writer.join()
    # After a poll that has fired, and whose byte was still there, the byte was taken: also where the kernel
    # found the poll between its being woken and its event, which then has both, the cancel and the bits.
    assert set(seen) <= {
        (Outcome.CANCELLED, Verdict.CANCELLED),
        (Outcome.COMPLETED, Verdict.CANCELLED),
        (Outcome.COMPLETED, Verdict.NOT_FOUND),
        (Outcome.COMPLETED, None),  # it ended in the turn that would have sent the cancel
    }


def test_deadlines(engine: LibaioEngine, pipe: Pipe) -> None:
    own, waited = engine.read(pipe[0], 16, timeout=0.01), engine.read(pipe[0], 16)
    assert own.wait() is Outcome.CANCELLED
    assert waited.wait(0.01) is Outcome.CANCELLED
    for op in (own, waited):
        with pytest.raises(OperationTimedOut):
            op.result()
    op = engine.read(pipe[0], 16, timeout=BOUND)
    os.write(pipe[1], b"bytes")
    assert op.wait() is Outcome.COMPLETED


def test_close_fd(engine: LibaioEngine) -> None:
    left, right = socket.socketpair()
    ops: list[Any] = [engine.recv(left, 16) for _ in range(3)]
    ops.append(engine.poll(left, select.POLLIN))
    engine.submit()
    late = engine.send(left, b"x")
    assert engine.close_fd(left) == dict.fromkeys([*ops, late], Outcome.CANCELLED)
    assert left.fileno() == -1
    assert right.recv(1) == b""
    right.close()


def test_more_than_one_context_holds(pipes: Callable[[], Pipe]) -> None:
    (read_end, _), (last, write_end) = pipes(), pipes()
    many = 300 if GUEST else 3000
    with LibaioEngine(1) as engine:
        ops = [engine.read(read_end, 16) for _ in range(many)]
        op = engine.read(last, 16)
        assert engine.submit() == many + 1
        assert all(each._entry.iocb.in_flight for each in ops)
        # What ends in a further context wakes whoever waits in the first.
        assert op._entry.kernel is not engine._carrier._contexts.first
        thread = threading.Thread(target=os.write, args=(write_end, b"bytes"))
        thread.start()
        assert op.wait(BOUND) is Outcome.COMPLETED
        thread.join()
        assert engine.cancel_all() == many
        engine.wait(ops, BOUND)
        assert {each.outcome for each in ops} == {Outcome.CANCELLED}
        assert {each.verdict for each in ops} == {Verdict.CANCELLED}


def test_no_further_context(pipes: Callable[[], Pipe], monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations that find no room wait for it, and can be cancelled meanwhile."""
    (read_end, write_end), (other, _) = pipes(), pipes()
    with LibaioEngine(4) as engine:

        def refuse(nr: int) -> Any:
            raise errors.engine_unavailable(errno.EAGAIN, "io_setup")

        monkeypatch.setattr(contexts, "EngineKernel", refuse)
        first = [engine.read(read_end, 1) for _ in range(4)]
        held = [engine.read(other, 1) for _ in range(100)]
        engine.submit()
        assert len(engine._carrier._want) == 100
        assert engine.cancel(held[50:]) == 50
        assert {op.outcome for op in held[50:]} == {Outcome.CANCELLED}
        os.write(write_end, b"1234")
        engine.wait(first, BOUND)
        assert sorted(op.result() for op in first) == [b"1", b"2", b"3", b"4"]
        engine.submit()
        assert len(engine._carrier._want) == 47  # the fourth place is the wake-up's
        engine.cancel_all()
        engine.wait(held, BOUND)
        assert {op.outcome for op in held} == {Outcome.CANCELLED}


def test_no_context_at_all(fake: Callable[..., None]) -> None:
    fake(ioc_laio_setup=lambda *_: -errno.EAGAIN)
    with pytest.raises(EngineUnavailable, match="aio-max-nr") as caught:
        LibaioEngine()
    assert caught.value.errno == errno.EAGAIN
    assert "sysctl" in caught.value.remedy
    with pytest.raises(ValueError, match="nr_events"):
        LibaioEngine(0)


def test_the_kernel_is_short_of_memory(
    engine: LibaioEngine, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """io_submit's EAGAIN is not the operation's: it is submitted again."""
    real, refused = contexts.Contexts.push, 0

    def push(self: Any, kernel: Any, iocbs: Any) -> int:
        nonlocal refused
        if refused < 3 and iocbs[0].data is not None:
            refused += 1
            return -errno.EAGAIN
        return real(self, kernel, iocbs)

    monkeypatch.setattr(contexts.Contexts, "push", push)
    monkeypatch.setattr(contexts.Contexts, "room", lambda self: (self.first, 8))
    op = engine.read(pipe[0], 16)
    engine.reap(0.05)
    assert refused == 3
    os.write(pipe[1], b"bytes")
    assert op.wait(BOUND) is Outcome.COMPLETED


def test_another_thread_wakes_the_leader(engine: LibaioEngine, pipes: Callable[[], Pipe]) -> None:
    (r1, _), (r2, w2) = pipes(), pipes()
    first = engine.read(r1, 16)
    leader = threading.Thread(target=first.wait)
    leader.start()
    second = engine.read(r2, 16)
    os.write(w2, b"second")
    assert second.wait(BOUND) is Outcome.COMPLETED
    third = engine.read(r2, 16)
    engine.submit()
    engine.cancel([third])
    assert third.wait(BOUND) is Outcome.CANCELLED
    first.cancel()
    leader.join(BOUND)
    assert not leader.is_alive()
    assert first.outcome is Outcome.CANCELLED


def test_many_threads(engine: LibaioEngine, pipes: Callable[[], Pipe]) -> None:
    ends, wrong = [pipes() for _ in range(4)], []

    def work(ends: Pipe, seed: int) -> None:
        rng = random.Random(seed)
        for n in range(few(300)):
            op = engine.read(ends[0], 16)
            act = rng.randrange(3)
            data = b"%d" % n
            if act == 0:
                op.cancel()
                good = op.wait(BOUND) is Outcome.CANCELLED
            else:
                if act == 1:
                    engine.submit()
                os.write(ends[1], data)
                good = op.wait(BOUND) is Outcome.COMPLETED and op.result() == data
            if not good:
                wrong.append((seed, n, act, op))

    threads = [threading.Thread(target=work, args=(each, seed)) for seed, each in enumerate(ends)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_close_sends_everybody_home(pipe: Pipe) -> None:
    engine, outcomes = LibaioEngine(), []
    ops = [engine.read(pipe[0], 16) for _ in range(2)]
    threads = [threading.Thread(target=lambda op=op: outcomes.append(op.wait())) for op in ops]
    for thread in threads:
        thread.start()
    engine.close()
    for thread in threads:
        thread.join(BOUND)
        assert not thread.is_alive()
    assert outcomes == [Outcome.CANCELLED] * 2
    engine.close()
    with pytest.raises(ValueError, match="closed"):
        engine.read(pipe[0], 1)


@pytest.mark.skipif(GUEST, reason="some hundred interruptions: the same in any kernel")
@pytest.mark.parametrize("how", ["data", "cancel", "disk"])
def test_a_keyboard_interrupt_anywhere(pipe: Pipe, how: str, tmp_path: Path) -> None:
    """Wherever a signal's exception can come: one ending each, no byte lost."""
    path = tmp_path / "file"
    path.write_bytes(b"bytes")
    disk = os.open(path, os.O_RDONLY)
    step = 0
    with LibaioEngine() as engine:
        while True:
            ops: list[Any] = []

            def scenario(ops: list[Any] = ops) -> None:
                op = engine.read(pipe[0], 16) if how != "disk" else engine.read(disk, 16, 0)
                ops.append(op)
                if how == "disk":
                    engine.wait([op])
                    return
                engine.submit()
                if how == "cancel":
                    op.cancel()
                else:
                    os.write(pipe[1], b"bytes")
                op.wait()

            more = interrupted(step, scenario)
            step += 1
            engine.cancel_all()
            for op in ops:
                op.wait(BOUND)
                if op.outcome is Outcome.COMPLETED:
                    assert op.result() == b"bytes"
                else:
                    assert op.outcome is Outcome.CANCELLED, op.exception()
            if how == "data" and select.select([pipe[0]], [], [], 0)[0]:
                assert not ops or ops[0].cancelled()
                assert os.read(pipe[0], 16) == b"bytes"
            carrier = engine._carrier
            for op in engine._ledger.newest_first():  # one whose call was cut short: nobody has it
                op.cancel()
            engine.reap()
            assert not engine.in_flight, step
            assert not carrier._jobs, step
            assert not carrier._want, step
            if not more:
                break
    os.close(disk)
    assert step > 100


def test_the_best_engine_that_works(monkeypatch: pytest.MonkeyPatch, pipe: Pipe) -> None:
    with open_engine("libaio", nr_events=8) as engine:
        assert engine.name == "libaio"
        assert isinstance(engine, iocancel.Engine)
        assert repr(engine).startswith("<libaio engine")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Replace native functions of the contexts, for what no kernel here would answer."""
    from iocancel._native import lib
    from iocancel.libaio import kernel

    from ..libaio.conftest import Fake

    def replace(**functions: object) -> None:
        monkeypatch.setattr(kernel, "lib", Fake(lib, **functions))

    return replace  # type: ignore[return-value]
