"""The engine on POSIX AIO: what a cancel stops, what not, and that nobody is stranded."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from iocancel import CancelTooLate, OperationCancelled, OperationTimedOut, Outcome, Verdict
from iocancel.engines.posix_aio import PosixAioEngine, lines

from ..support import BOUND, few, until
from .posix_aio_stage import GLIBC, ends, engine, nothing_left_behind, only_glibc, own_number, runs, sibling

__all__ = ["ends", "engine", "nothing_left_behind"]

Ends = Callable[[], tuple[int, int]]


@only_glibc
def test_what_runs_goes_on(engine: PosixAioEngine, ends: Ends) -> None:
    read_end, write_end = ends()
    op = engine.read(read_end, 8)
    engine.submit()
    runs(op)
    assert op.cancel()
    engine.submit()
    assert op.verdict is Verdict.TOO_LATE
    assert not op.done()
    before = time.monotonic()
    with pytest.raises(CancelTooLate, match="can't be stopped"):
        op.wait(0.0)
    assert time.monotonic() - before < BOUND / 2, "right at its deadline"
    os.write(write_end, b"late")
    assert op.wait() is Outcome.COMPLETED
    assert op.result() == b"late"


@only_glibc
@pytest.mark.parametrize("how", ["cancel", "cancel_fd", "cancel_all"])
def test_what_waits_behind_it_is_stopped(engine: PosixAioEngine, ends: Ends, how: str) -> None:
    read_end, write_end = ends()
    ops = [engine.read(read_end, 1) for _ in range(5)]
    engine.submit()
    runs(ops[0])
    asked = {
        "cancel": lambda: engine.cancel(ops),
        "cancel_fd": lambda: engine.cancel_fd(read_end),
        "cancel_all": engine.cancel_all,
    }[how]()
    assert asked == 5
    assert [op.verdict for op in ops] == [Verdict.TOO_LATE] + [Verdict.CANCELLED] * 4
    assert all(op.cancelled() for op in ops[1:])
    with pytest.raises(OperationCancelled):
        ops[1].result()
    os.write(write_end, b"ab")
    assert ops[0].wait() is Outcome.COMPLETED
    assert os.read(read_end, 8) == b"b"  # nobody else has read


@pytest.mark.parametrize("cancelled", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)])
def test_nobody_is_stranded(engine: PosixAioEngine, ends: Ends, cancelled: tuple[int, ...]) -> None:
    """Whichever of a file's operations are cancelled (facts 6.6): the others get their data, in order."""
    read_end, write_end = ends()
    ops = [engine.read(read_end, 1) for _ in range(4)]
    engine.submit()
    for i in cancelled:  # the first of all may run by now, or not yet
        ops[i].cancel()
    engine.submit()
    data = b"abcd"
    os.write(write_end, data)
    engine.wait(ops)
    came = [op.result() for op in ops if not op.cancelled()]
    assert b"".join(came) == data[: len(came)]
    assert len(came) >= 4 - len(cancelled)
    assert {op.outcome for i, op in enumerate(ops) if i not in cancelled} == {Outcome.COMPLETED}


def test_a_deadline(engine: PosixAioEngine, ends: Ends) -> None:
    """What waits in line ends by it."""
    read_end, write_end = ends()
    first, second = engine.read(read_end, 1), engine.read(read_end, 1, timeout=0.0)
    third = engine.read(read_end, 1)
    engine.submit()
    assert third.wait(0.0) is Outcome.CANCELLED
    assert second.wait() is Outcome.CANCELLED
    for op in (second, third):
        with pytest.raises(OperationTimedOut):
            op.result()
    os.write(write_end, b"x")
    assert first.wait() is Outcome.COMPLETED


def test_before_it_is_submitted(engine: PosixAioEngine, ends: Ends) -> None:
    op = engine.read(ends()[0], 1)
    op.cancel()
    assert op.wait() is Outcome.CANCELLED
    assert op.verdict is Verdict.CANCELLED


def test_what_has_ended_is_not_found(engine: PosixAioEngine, ends: Ends) -> None:
    read_end, write_end = ends()
    op = engine.read(read_end, 1)
    engine.submit()
    os.write(write_end, b"x")
    until(lambda: op._entry.state() == 0, "the end of it")
    engine.cancel([op])
    assert op.outcome is Outcome.COMPLETED
    assert op.verdict is Verdict.NOT_FOUND
    assert not op.cancel()


def test_close_fd(engine: PosixAioEngine, ends: Ends) -> None:
    read_end, _ = ends()
    ops = [engine.read(read_end, 1) for _ in range(3)]
    [first, *others] = ops
    # None was submitted, so all can be stopped.
    assert engine.close_fd(read_end) == dict.fromkeys([*reversed(others), first], Outcome.CANCELLED)
    with pytest.raises(OSError):
        os.fstat(read_end)


@only_glibc
def test_close_fd_of_what_runs(engine: PosixAioEngine, ends: Ends) -> None:
    read_end, write_end = ends()
    op = engine.read(read_end, 1)
    engine.submit()
    runs(op)
    with pytest.raises(CancelTooLate):
        engine.close_fd(read_end, timeout=0.0)
    os.fstat(read_end)  # it was not closed
    os.write(write_end, b"x")
    assert engine.close_fd(read_end) == {op: Outcome.COMPLETED}


def test_many(engine: PosixAioEngine, ends: Ends) -> None:
    read_end, write_end = ends()
    ops = [engine.read(read_end, 1) for _ in range(few(3000))]
    engine.submit()
    runs(ops[0])
    assert engine.cancel_all() == len(ops)
    assert all(op.cancelled() for op in ops[1:])
    if not ops[0].done():
        assert len(own_line(ops[0]).queue) < 200  # what was cancelled is not kept behind what runs
        os.write(write_end, b"x")
        assert ops[0].wait() is Outcome.COMPLETED


def own_line(op: Any) -> lines.Line:
    line: lines.Line = op._entry.line
    return line


def test_those_in_between_are_not_kept(engine: PosixAioEngine, ends: Ends) -> None:
    """One that lives is always behind those that were cancelled."""
    read_end, write_end = ends()
    first = last = engine.read(read_end, 1)
    for _ in range(500):
        fresh = engine.read(read_end, 1)
        engine.submit()
        if last is not first:
            engine.cancel([last])
            assert last.cancelled()
        last = fresh
    assert len(own_line(first).queue) < 200
    os.write(write_end, b"xy")
    engine.wait([first, last])
    assert (first.result(), last.result()) == (b"x", b"y")


def test_from_another_thread(engine: PosixAioEngine, ends: Ends) -> None:
    """A cancel wakes the thread that waits in poll(2), which sends it."""
    read_end, write_end = ends()
    first, second = engine.read(read_end, 1), engine.read(read_end, 1)
    engine.submit()
    listening = engine._carrier._listen
    waits = threading.Event()

    def listen(seconds: float | None) -> None:
        if seconds != 0.0:
            waits.set()
        listening(seconds)

    engine._carrier._listen = listen  # type: ignore[method-assign]

    def other() -> None:
        waits.wait(BOUND)
        second.cancel()

    thread = threading.Thread(target=other)
    thread.start()
    assert second.wait() is Outcome.CANCELLED
    thread.join()
    os.write(write_end, b"x")
    assert first.wait() is Outcome.COMPLETED


def test_in_a_signal_handler(engine: PosixAioEngine, ends: Ends) -> None:
    read_end, write_end = ends()
    first, second = engine.read(read_end, 1), engine.read(read_end, 1)
    before = signal.signal(signal.SIGALRM, lambda *_: second.cancel())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert second.wait() is Outcome.CANCELLED
    finally:
        signal.signal(signal.SIGALRM, before)
    os.write(write_end, b"x")
    assert first.wait() is Outcome.COMPLETED


def test_notifications_that_do_not_come(engine: PosixAioEngine, ends: Ends) -> None:
    """glibc says nothing where it can't start the thread that would notify: the wait ends all the same."""
    read_end, write_end = ends()
    engine._carrier._sigevent = None
    ops = [engine.read(read_end, 1) for _ in range(3)]
    engine.submit()
    os.write(write_end, b"abc")
    engine.wait(ops)
    assert [op.result() for op in ops] == [b"a", b"b", b"c"]
    assert engine._carrier._heard == 0
    engine._carrier._started = 0  # nothing to wait for at the close


def test_notifications_that_do_not_come_for_want_of_threads() -> None:
    """Really so: the limit comes when the operations' own thread is there already.

    musl has one for each operation, which notifies, too: the second is refused, and its byte stays.
    """
    done = sibling(
        """
import os, resource
import iocancel.engines.posix_aio
from iocancel import open_engine
if os.getuid() == 0:
    os.setgroups([]), os.setgid(54323), os.setuid(54323)
r, w = os.pipe()
with open_engine("posix_aio") as engine:
    ops = [engine.read(r, 1) for _ in range(2)]
    engine.submit()
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    os.write(w, b"xy")
    engine.wait(ops)
    print([op.exception() or op.result() for op in ops], engine._carrier._heard)
"""
    )
    assert done.returncode == 0, done.stderr
    if GLIBC:
        assert done.stdout == "[b'x', b'y'] 0\n"
    else:
        assert done.stdout.startswith("[b'x', QueueFull(11, ")
        assert done.stdout.endswith("] 1\n")


def test_bytes_in_are_bytes_out(engine: PosixAioEngine, ends: Ends) -> None:
    """Cancels at random among writes at random: what was not received is still in the pipe."""
    read_end, write_end = ends()
    chance = random.Random(5)
    sent = received = 0
    ops: list[Any] = []
    for _ in range(few(600)):
        ops.append(engine.read(read_end, 3))
        if chance.random() < 0.6:
            sent += os.write(write_end, bytes(chance.randint(1, 3)))
        if chance.random() < 0.4:
            chance.choice(ops).cancel()
        engine.submit()
    engine.cancel_all()
    os.close(write_end)
    engine.wait(ops)
    received = sum(len(op.result()) for op in ops if not op.cancelled())
    while rest := os.read(read_end, 4096):
        received += len(rest)
    assert received == sent


def test_threads_that_wait_for_their_own(engine: PosixAioEngine) -> None:
    pairs = [socket.socketpair() for _ in range(4)]
    failed: list[BaseException] = []

    def talk(a: socket.socket, b: socket.socket) -> None:
        try:
            for i in range(few(40)):
                reading = engine.read(a, 4)
                assert engine.write(b, b"%04d" % i).wait() is Outcome.COMPLETED
                assert reading.wait() is Outcome.COMPLETED
                assert reading.result() == b"%04d" % i
        except (AssertionError, OSError, RuntimeError) as error:
            failed.append(error)

    threads = [threading.Thread(target=talk, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in pairs:
        a.close()
        b.close()
    assert not failed


@only_glibc
def test_a_number_of_its_own_stays_while_it_runs(engine: PosixAioEngine, ends: Ends) -> None:
    read_end, write_end = ends()
    op = engine.read(read_end, 1)
    engine.submit()
    runs(op)
    engine.cancel([op])
    os.fstat(own_number(op))
    os.write(write_end, b"x")
    assert op.wait() is Outcome.COMPLETED
