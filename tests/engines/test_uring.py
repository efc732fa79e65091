"""What only the engine on io_uring has: its ring, its entries, link timeouts, the places for cancels."""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
import sys
import textwrap
import threading
import warnings
from typing import Any

import pytest

from iocancel import (
    EngineUnavailable,
    FeatureUnavailable,
    OperationTimedOut,
    Outcome,
    QueueFull,
    Verdict,
    operation,
)
from iocancel._native import ffi, lib
from iocancel.engines.uring import UringEngine
from iocancel.engines.uring import ring as ring_module
from iocancel.engines.uring.carrier import UringBatch
from iocancel.engines.uring.ring import EngineRing, open_ring
from iocancel.uring import limbo

from ..support import BOUND, few, need, need_uring, until


def test_the_models_bits_are_the_kernels() -> None:
    assert operation.MORE == lib.IORING_CQE_F_MORE
    assert operation.NOTIF == lib.IORING_CQE_F_NOTIF
    # Above any token, below the numbers that rings give by themselves.
    assert operation.ANSWER > operation.OTHER > (1 << 61) - 1
    assert operation.ANSWER | operation.OTHER < 1 << 63


def test_a_smaller_ring_where_memory_may_not_be_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def refuse(self: Any, entries: int) -> None:
        tried.append(entries)
        self._state = "new"
        raise EngineUnavailable(errno.ENOMEM, "no more locked memory")

    monkeypatch.setattr(ring_module.EngineRing, "__init__", refuse)
    with pytest.raises(EngineUnavailable, match="locked memory"):
        open_ring(None)
    assert tried == [1024, 256, 64, 8]
    tried.clear()
    with pytest.raises(EngineUnavailable):
        open_ring(512)
    assert tried == [512], "a size that was asked for is not changed"


def test_other_refusals_are_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def refuse(self: Any, entries: int) -> None:
        tried.append(entries)
        self._state = "new"
        raise EngineUnavailable(errno.EPERM, "forbidden")

    monkeypatch.setattr(ring_module.EngineRing, "__init__", refuse)
    with pytest.raises(EngineUnavailable, match="forbidden"):
        open_ring(None)
    assert tried == [1024]


def test_a_batch_counts_operations_and_c_counts_entries() -> None:
    class Op:
        def __init__(self, entries: int) -> None:
            self._entry = bytes(64 * entries)

    plain: Any = [Op(1), Op(1), Op(1)]
    batch = UringBatch(plain, ffi.new("unsigned *"))
    batch.moved[0] = 2
    assert batch.taken() == 2
    linked: Any = [Op(1), Op(2), Op(1)]
    batch = UringBatch(linked, ffi.new("unsigned *"))
    for moved, taken in [(0, 0), (1, 1), (3, 2), (4, 3)]:
        batch.moved[0] = moved
        assert batch.taken() == taken


def test_a_link_timeout_ends_what_nobody_waits_for(uring: UringEngine, pipe: tuple[int, int]) -> None:
    read = uring.read(pipe[0], 8, timeout=0.3)  # an emulated machine takes a while to submit
    uring.submit()
    # Nobody is in the engine: the ring's own fd tells that a completion has come, by the kernel's timer.
    poll = select.poll()
    poll.register(uring.fileno(), select.POLLIN)
    assert poll.poll(20_000)
    uring.reap()
    assert read.outcome is Outcome.CANCELLED
    with pytest.raises(OperationTimedOut):
        read.result()
    # Nobody has asked, but for the engine itself, when it saw that the time was over.
    assert read.verdict in (None, Verdict.NOT_FOUND)


def test_what_is_done_in_time_cancels_its_link_timeout(uring: UringEngine, pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"now")
    read = uring.read(pipe[0], 8, timeout=3600)
    assert read.wait() is Outcome.COMPLETED
    assert read.result() == b"now"


def test_many_with_deadlines_in_one_submit(pipe: tuple[int, int]) -> None:
    """More entries than the queue holds, two for each: no pair is torn apart."""
    with UringEngine(8) as engine:
        reads = [engine.read(pipe[0], 1, timeout=0.02 + i / 10_000) for i in range(100)]
        engine.wait(reads)
        assert {op.outcome for op in reads} == {Outcome.CANCELLED}
        assert {type(op.exception()) for op in reads} == {OperationTimedOut}


@pytest.mark.parametrize("many", [9, 1025, 5000])
def test_more_than_the_queues_hold(many: int, pipe: tuple[int, int]) -> None:
    """A cancel finds room, and completions that outnumber the queue all arrive (facts 4.3)."""
    with UringEngine(8) as engine:
        polls = [engine.poll(pipe[0], select.POLLIN) for _ in range(many)]
        engine.submit()
        assert engine.cancel_all() == many
        engine.wait(polls)
        assert {op.outcome for op in polls} == {Outcome.CANCELLED}
        assert {op.verdict for op in polls} == {Verdict.CANCELLED}


def test_completions_that_outnumber_the_queue_by_themselves(pipe: tuple[int, int]) -> None:
    with UringEngine(8) as engine:
        polls = [engine.poll(pipe[0], select.POLLIN) for _ in range(3000)]
        engine.submit()
        os.write(pipe[1], b"!")
        engine.wait(polls)
        assert [op.result() for op in polls] == [select.POLLIN] * 3000


def test_what_this_kernel_lacks_says_so(uring: UringEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        @staticmethod
        def supports(_opcode: int) -> bool:
            return False

    carrier = uring._carrier
    carrier._opcodes = Nothing()  # type: ignore[assignment]
    carrier._fill_table()
    assert not uring.supports("waitid")
    assert uring.reach("waitid") is None
    with pytest.raises(FeatureUnavailable, match=r"IORING_OP_WAITID.*6\.7"):
        uring.waitid(os.P_ALL, 0)
    assert uring.in_flight == 0


def test_a_kernel_that_cannot_be_silent_answers_each_cancel(
    uring: UringEngine, pipe: tuple[int, int]
) -> None:
    """Before 5.17 each cancel's success is a completion, too."""
    uring._carrier._silent = 0
    polls = [uring.poll(pipe[0], select.POLLIN) for _ in range(2000)]
    uring.submit()
    uring.cancel_all()
    uring.wait(polls)
    assert {(op.outcome, op.verdict) for op in polls} == {(Outcome.CANCELLED, Verdict.CANCELLED)}


def test_a_kernel_that_refuses_for_ever_is_an_error(uring: UringEngine) -> None:
    for _ in range(1000):
        uring._carrier._refused(-errno.EAGAIN)
    with pytest.raises(QueueFull):
        uring._carrier._refused(-errno.EAGAIN)


def test_the_engine_is_readable_when_something_has_come(uring: UringEngine, pipe: tuple[int, int]) -> None:
    read = uring.read(pipe[0], 8)
    uring.submit()
    poll = select.poll()
    poll.register(uring.fileno(), select.POLLIN)
    assert not poll.poll(0)
    os.write(pipe[1], b"here")
    assert poll.poll(20_000)
    assert uring.reap() == [read]
    assert read.result() == b"here"


def test_zero_copy_is_done_twice(uring: UringEngine) -> None:
    need(uring.supports("send_zc"), "SEND_ZC needs Linux 6.0")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()) as client:
            server, _ = listener.accept()
            with server:
                data = bytearray(b"x" * 100)
                send = uring.send_zc(client, data)
                assert send.wait() is Outcome.COMPLETED
                assert send.result() == 100
                assert server.recv(200) == b"x" * 100
                assert send.memory_released.wait(20)
                data.extend(b"mine again")


def test_zero_copy_memory_is_kept_until_the_peer_has_read(uring: UringEngine) -> None:
    """A partial send's notification comes only with the peer's end, or a reset (facts 10.2)."""
    need(uring.supports("send_zc"), "SEND_ZC needs Linux 6.0")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        with server:
            data = bytearray(32 << 20)
            send = uring.send_zc(client, data)
            uring.submit()
            outcomes = uring.close_fd(client, abort=True)
            # What was sent by then is told, and counts; nothing at all was a cancel.
            assert set(outcomes.values()) <= {Outcome.COMPLETED, Outcome.CANCELLED}
            assert send.done()
            assert send.memory_released.wait(20), "the reset releases it"
            data.extend(b"mine again")


def test_other_threads_work_is_done_by_the_leader(uring: UringEngine, pipes: Any) -> None:
    """A follower's request goes out by the leader, whom an eventfd wakes."""
    first, second = pipes(), pipes()
    long = uring.read(first[0], 1)
    leader = threading.Thread(target=long.wait)
    leader.start()
    until(lambda: uring._lead_thread == leader.ident, "it leads")
    for _ in range(few(200)):
        read = uring.read(second[0], 1)
        os.write(second[1], b"x")
        assert read.wait() is Outcome.COMPLETED
        assert uring._lead_thread == leader.ident
    long.cancel()
    leader.join()
    assert long.cancelled()


def test_the_memory_of_a_closed_engine(pipe: tuple[int, int]) -> None:
    """Whatever ends an engine, nothing is written afterwards: the bytes are still in the pipe."""
    buffer = bytearray(8)
    engine = UringEngine()
    read = engine.read(pipe[0], buffer)
    engine.submit()
    engine.close()
    os.write(pipe[1], b"later")
    assert read.outcome is Outcome.CANCELLED
    assert buffer == bytes(8)
    assert os.read(pipe[0], 8) == b"later"
    buffer.extend(b"free")


def unheard(fd: int, buffer: Any) -> tuple[UringEngine, Any]:
    """An engine that does not hear of its completions, and a read in flight."""
    engine = UringEngine()
    op = engine.read(fd, buffer)
    engine.submit()
    engine._carrier.records = list  # type: ignore[method-assign]
    engine._settle_cancelled = lambda ops: not ops  # type: ignore[method-assign]
    return engine, op


def test_what_was_left_pins_nothing_that_the_kernel_has_let_go_of(pipe: tuple[int, int]) -> None:
    """Its engine has not seen its end. As garbage such a view would crash some Pythons (gh-77894)."""
    view = memoryview(bytearray(8))
    engine, op = unheard(pipe[0], view)
    with pytest.warns(ResourceWarning, match="1 operations still ran"):
        engine.close(0.05)
    until(lambda: limbo.sweep() == 0, "the kernel has let go")
    view.release()  # a BufferError while it is exported
    assert op.outcome is Outcome.FAILED


@pytest.mark.parametrize("where", ["the wait for the kernel", "the end"])
def test_a_closing_that_was_cut_short_lets_go_in_the_end(where: str, pipe: tuple[int, int]) -> None:
    view = memoryview(bytearray(8))
    engine, op = unheard(pipe[0], view)

    def cut_short(*_: Any) -> None:
        patched.undo()
        raise KeyboardInterrupt

    patched = pytest.MonkeyPatch()
    if where == "the end":
        patched.setattr(engine, "_let_go", cut_short)
    else:
        patched.setattr(limbo, "wait", cut_short)
    with pytest.raises(KeyboardInterrupt):
        engine.close(0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it is said once, by whichever comes so far
        engine.close(0.05)
    until(lambda: limbo.sweep() == 0, "the kernel has let go")
    view.release()
    assert op.outcome is Outcome.FAILED


def test_what_was_left_keeps_its_memory_while_a_thread_is_stuck(pipe: tuple[int, int]) -> None:
    """What that thread's call moves by itself the ring does not know of."""
    view = memoryview(bytearray(8))
    engine = UringEngine()
    op = engine.read(pipe[0], view)
    engine.submit()
    go = engine._carrier.go
    inside, over = threading.Event(), threading.Event()

    def stuck(batch: Any, wait: bool, timeout: float | None) -> None:
        inside.set()
        over.wait(BOUND)
        with pytest.raises(ValueError, match="closed"):
            go(batch, wait, timeout)

    engine._carrier.go = stuck  # type: ignore[method-assign]
    thread = threading.Thread(target=engine.submit)
    thread.start()
    assert inside.wait(BOUND)
    engine.close(0.05)
    assert op.outcome is Outcome.FAILED
    with pytest.raises(BufferError):
        view.release()
    over.set()
    thread.join()
    view.release()


def test_a_forked_child_has_its_memory_to_itself(pipe: tuple[int, int]) -> None:
    view = memoryview(bytearray(8))
    with UringEngine() as engine:
        op = engine.read(pipe[0], view)
        engine.submit()
        child = os.fork()
        if not child:
            try:
                view.release()
            except BaseException:  # noqa: BLE001 - a child that goes on would run the other tests, too
                os._exit(1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with pytest.raises(BufferError):
            view.release()
    assert op.outcome is Outcome.CANCELLED
    view.release()


@pytest.mark.parametrize("how", ["forgotten", "older ring", "collected", "exit"])
def test_unclosed(how: str) -> None:
    """A ResourceWarning, an exit status of 0, and no crash; also where the ring's finalizer is the first."""
    need_uring()
    program = f"""
        import gc, os, sys
        from iocancel.engines.uring import UringEngine, carrier
        read_end, write_end = os.pipe()
        if {how!r} == "older ring":  # of what was not collected yet the oldest is the first
            gc.disable()
            ring = carrier.open_ring(None)
            carrier.open_ring = lambda *_: ring
        engine = UringEngine()
        ops = [engine.read(read_end, 4096) for _ in range(100)]
        engine.submit()
        if {how!r} in ("forgotten", "older ring"):
            engine.itself = engine
            carrier.open_ring = ring = None
            del engine, ops
            gc.collect()
            os.write(write_end, b"x" * 4096)
            assert len(os.read(read_end, 9999)) == 4096
        elif {how!r} == "collected":
            import builtins
            builtins.cycle = [engine, ops]
            builtins.cycle.append(builtins.cycle)
            del engine, ops
        else:
            sys.exit(0)
    """
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "ResourceWarning: unclosed <uring engine" in done.stderr
    assert "unclosed <Ring" not in done.stderr
    assert "Traceback" not in done.stderr


def test_the_rings_entries_are_powers_of_two() -> None:
    with EngineRing(5) as ring:
        assert ring.sq_entries == 8
