"""Engines in an event loop: a file that epoll watches, `reap(0)` when it is readable, and never a wait."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import re
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from iocancel import Operation, OperationTimedOut, Outcome, Verdict
from iocancel._native import lib
from iocancel.engines.libaio import LibaioEngine
from iocancel.engines.uring import UringEngine
from iocancel.engines.uring import carrier as uring_carrier
from iocancel.testing import Answer, ScriptedEngine

from ..contract.conftest import name as name
from ..contract.conftest import nothing_left_behind as nothing_left_behind
from ..contract.conftest import opened
from ..contract.helpers import need_stopping, need_verbs, stops
from ..support import BOUND, few, need, until

ROUNDS = 5
"""In so many looks with nothing happening, whatever is still to be seen to is over."""


class Loop:
    """An event loop: it sleeps in epoll, and nowhere else."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.epoll = select.epoll()
        self.fd = engine.fileno()
        self.epoll.register(self.fd, select.EPOLLIN)  # level-triggered
        self.ended: list[Operation[Any]] = []
        self.rounds = 0
        self.alarmed = 0

    def once(self, limit: float = BOUND) -> bool:
        """One turn; whether there was a reason for it."""
        when = self.engine.alarm()
        left = limit if when is None else min(limit, max(0.0, when - time.monotonic()))
        ready = bool(self.epoll.poll(left))
        due = when is not None and time.monotonic() >= when
        if not ready and not due:
            return False
        self.rounds += 1
        self.alarmed += not ready
        self.ended += self.engine.reap(0)
        return True

    def run(self, *ops: Operation[Any]) -> None:
        """Until these have ended."""
        deadline = time.monotonic() + BOUND
        while not all(op.done() for op in ops):
            assert time.monotonic() < deadline, (
                f"the loop was not told of {[op for op in ops if not op.done()]}"
            )
            self.once(max(0.0, deadline - time.monotonic()))

    def rest(self) -> None:
        """Nothing is to be done: the file is quiet after a few looks, and nothing asks for another one."""
        looks = 0
        while self.epoll.poll(0):
            looks += 1
            assert looks <= ROUNDS, "the file stays readable, and nothing comes"
            self.ended += self.engine.reap(0)
        if not self.engine.in_flight:
            # A look, for alarms that were set for what has ended.
            self.engine.reap(0)
            assert self.engine.alarm() is None, "something is due, with nothing in flight"


@pytest.fixture
def looping() -> Iterator[Callable[[Any], Loop]]:
    """Makes loops."""
    with contextlib.ExitStack() as stack:

        def make(engine: Any) -> Loop:
            loop = Loop(engine)
            stack.callback(loop.epoll.close)
            return loop

        yield make


@pytest.fixture
def engine(name: str) -> Iterator[Any]:
    """An engine of each kind, which nobody lets wait."""
    with opened(name) as engine:
        yield engine


@pytest.fixture
def loop(engine: Any, looping: Callable[[Any], Loop]) -> Loop:
    """A loop that watches the engine from its beginning."""
    return looping(engine)


def end_read(engine: Any, op: Operation[Any], end: int) -> None:
    """After a cancel's verdict: what runs and can't be stopped ends when its byte comes."""
    if not stops(engine, "read") and not op.done():  # done: no thread of the C library's had it yet
        os.write(end, b"z")


def check_cancelled(engine: Any, op: Operation[Any]) -> None:
    """That it was cancelled, where that is possible."""
    assert op.cancelled() or (not stops(engine, "read") and op.result() == b"z")


# What comes


def test_a_read_gets_its_byte(engine: Any, loop: Loop, pipe: tuple[int, int]) -> None:
    loop.rest()
    op = engine.read(pipe[0], 10)
    engine.submit()
    loop.rest()
    assert not op.done()
    os.write(pipe[1], b"a")
    loop.run(op)
    assert op.result() == b"a"
    assert loop.ended == [op]
    loop.rest()


def test_again_and_again(engine: Any, loop: Loop, pipe: tuple[int, int]) -> None:
    for i in range(few(200)):
        op = engine.read(pipe[0], 10)
        engine.submit()
        os.write(pipe[1], b"%d" % i)
        loop.run(op)
        assert op.result() == b"%d" % i
    loop.rest()
    assert loop.rounds <= few(200) * 4, "a few looks for each"


def test_what_was_in_flight_before_anybody_watched(
    engine: Any, looping: Callable[[Any], Loop], pipes: Callable[[], tuple[int, int]]
) -> None:
    (first, put_first), (second, put_second) = pipes(), pipes()
    ops = [engine.read(first, 10), engine.read(second, 10)]
    engine.submit()
    os.write(put_first, b"a")  # ends before
    loop = looping(engine)
    loop.run(ops[0])
    os.write(put_second, b"b")  # and after
    loop.run(ops[1])
    assert [op.result() for op in ops] == [b"a", b"b"]
    loop.rest()


def test_what_was_asked_for_before_anybody_watched(
    engine: Any, looping: Callable[[Any], Loop], pipe: tuple[int, int]
) -> None:
    op = engine.read(pipe[0], 10)
    engine.submit()
    op.cancel()
    loop = looping(engine)
    while op.verdict is None and not op.done():
        assert loop.once(), "the cancel was not noticed"
    end_read(engine, op, pipe[1])
    loop.run(op)
    check_cancelled(engine, op)
    loop.rest()


def test_what_was_cut_short_before_anybody_watched(
    engine: Any, looping: Callable[[Any], Loop], pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    op = engine.read(pipe[0], 10)
    engine.submit()
    cut_records(engine, monkeypatch)
    os.write(pipe[1], b"a")
    with pytest.raises(KeyboardInterrupt):
        op.wait()
    assert not op.done()
    loop = looping(engine)
    loop.run(op)
    assert op.result() == b"a"
    loop.rest()


def cut_records(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C comes when records have come, and nobody has dealt with them."""
    carrier = type(engine._carrier)
    go = carrier.go

    def cut(self: Any, batch: Any, wait: bool, timeout: float | None) -> None:
        go(self, batch, wait, timeout)
        if self.records():
            monkeypatch.undo()
            raise KeyboardInterrupt

    monkeypatch.setattr(carrier, "go", cut)


def test_a_disks_file(engine: Any, loop: Loop, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 1000)
    flags = os.O_RDWR
    with contextlib.suppress(
        OSError
    ):  # where the file system has it, libaio's requests really take their time
        os.close(os.open(path, flags | os.O_DIRECT))
        flags |= os.O_DIRECT
    fd = os.open(path, flags)
    try:
        with mmap.mmap(-1, 4096) as room:  # aligned, as O_DIRECT needs
            read = engine.read(fd, room, 0)
            sync = engine.fsync(fd)
            engine.submit()
            loop.run(read, sync)
            assert read.result() == 4096
            assert room[:10] == b"0123456789"
            assert sync.outcome is Outcome.COMPLETED
            loop.rest()
    finally:
        os.close(fd)


def read_many(engine: Any, loop: Loop, pipe: tuple[int, int], many: int) -> None:
    # On one file, since glibc runs no more than 20 files at a time.
    ops = [engine.read(pipe[0], 1) for _ in range(many)]
    engine.submit()
    assert not any(op.done() for op in ops)
    os.write(pipe[1], b"x" * many)
    loop.run(*ops)
    assert [op.result() for op in ops] == [b"x"] * many
    assert sorted(map(id, loop.ended)) == sorted(map(id, ops)), "each is told once"
    loop.rest()


def test_a_thousand_at_once(engine: Any, loop: Loop, pipe: tuple[int, int]) -> None:
    read_many(engine, loop, pipe, few(1000))


@pytest.mark.parametrize("room", [8, 4096])
def test_more_than_one_call_reaps(looping: Callable[[Any], Loop], pipe: tuple[int, int], room: int) -> None:
    """libaio: in contexts that are full one after the other, and in one with more than 1,024 events."""
    with opened("libaio", nr_events=room) as engine:
        read_many(engine, looping(engine), pipe, few(3000))


def test_completions_that_outnumber_the_queue(looping: Callable[[Any], Loop], pipe: tuple[int, int]) -> None:
    """io_uring: the kernel keeps them, and the ring's fd says so."""
    with opened("uring", entries=8) as engine:
        read_many(engine, looping(engine), pipe, few(1000))


def test_a_thousand_are_cancelled(engine: Any, loop: Loop, pipe: tuple[int, int]) -> None:
    ops = [engine.read(pipe[0], 1) for _ in range(few(1000))]
    engine.submit()
    for op in ops:
        op.cancel()
    engine.submit()
    for op in ops:
        if op.verdict is Verdict.TOO_LATE:  # of POSIX AIO, the first of its file
            os.write(pipe[1], b"z")
    loop.run(*ops)
    assert sum(op.cancelled() for op in ops) >= len(ops) - 1
    loop.rest()


def test_what_follows_one_that_the_kernel_refuses_at_once(
    uring: UringEngine, looping: Callable[[Any], Loop], pair: tuple[Any, Any]
) -> None:
    """io_uring leaves in its queue what is behind an entry that is wrong in itself."""
    need_verbs(uring, "splice")
    loop = looping(uring)
    loop.rest()
    wrong, right = [], []
    for _ in range(2):
        wrong.append(uring.splice(pair[0], pair[1], 1, flags=1 << 20))
        right.append(uring.recv(pair[0], 1))
    wrong.append(uring.splice(pair[0], pair[1], 1, flags=1 << 20))
    uring.submit()
    pair[1].send(b"ab")
    loop.run(*wrong, *right)
    assert [op.outcome for op in wrong] == [Outcome.FAILED] * 3
    assert sorted(op.result() for op in right) == [b"a", b"b"]
    loop.rest()


# Cancels


def test_a_cancel_in_the_loops_own_thread(engine: Any, loop: Loop, pipe: tuple[int, int]) -> None:
    """Also nobody else's reap is needed: the file says that there is something to do."""
    op = engine.read(pipe[0], 10)
    engine.submit()
    loop.rest()
    op.cancel()
    assert loop.epoll.poll(BOUND), "a cancel was asked for, and the file says nothing"
    while op.verdict is None and not op.done():
        assert loop.once()
    end_read(engine, op, pipe[1])
    loop.run(op)
    check_cancelled(engine, op)
    loop.rest()


def test_a_muted_cancel(engine: Any, loop: Loop, pipe: tuple[int, int]) -> None:
    """Whoever asks, and will reap by himself, is spared a round."""
    op = engine.read(pipe[0], 10)
    engine.submit()
    loop.rest()
    engine._mute = True
    op.cancel()
    engine._mute = False
    assert not loop.epoll.poll(0)
    engine.reap(0)
    assert op.verdict is not None
    end_read(engine, op, pipe[1])
    loop.run(op)
    loop.rest()


def test_a_cancel_by_another_thread(engine: Any, loop: Loop, pipe: tuple[int, int]) -> None:
    for _ in range(3):
        op = engine.read(pipe[0], 10)
        engine.submit()
        loop.rest()
        thread = threading.Thread(target=op.cancel)
        thread.start()
        deadline = time.monotonic() + BOUND
        while op.verdict is None and not op.done():
            assert time.monotonic() < deadline, "the cancel was not noticed"
            loop.once(max(0.0, deadline - time.monotonic()))
        thread.join()
        end_read(engine, op, pipe[1])
        loop.run(op)
        check_cancelled(engine, op)
        loop.rest()


def test_a_cancel_in_a_signals_handler(
    engine: Any, loop: Loop, pipe: tuple[int, int], handler: Callable[[Callable[[], object]], None]
) -> None:
    op = engine.read(pipe[0], 10)
    engine.submit()
    loop.rest()
    handler(op.cancel)
    main = threading.get_ident()

    def send() -> None:
        until_asleep(main)
        signal.pthread_kill(main, signal.SIGUSR1)

    thread = threading.Thread(target=send)
    thread.start()
    deadline = time.monotonic() + BOUND
    while op.verdict is None and not op.done():
        assert time.monotonic() < deadline, "the cancel was not noticed"
        loop.once(max(0.0, deadline - time.monotonic()))
    thread.join()
    end_read(engine, op, pipe[1])
    loop.run(op)
    check_cancelled(engine, op)
    loop.rest()


def until_asleep(ident: int) -> None:
    """Wait until a thread is in epoll_wait."""
    number = next(each.native_id for each in threading.enumerate() if each.ident == ident)
    where = Path(f"/proc/self/task/{number}/syscall")
    need(where.exists(), "no /proc/self/task/*/syscall")
    # epoll_wait and epoll_pwait, on x86-64 and elsewhere (unistd.h); "running" where it is in none.
    until(
        lambda: where.read_text().split()[0] in {"232", "281", "22"}, "the thread has come to sleep in epoll"
    )


def test_a_cancel_that_races_with_the_data(engine: Any, loop: Loop, pipe: tuple[int, int]) -> None:
    """Whichever is first, the loop hears of the ending, and no byte is lost."""
    need_stopping(engine, "read")
    read, lost = 0, 0
    for i in range(few(300)):
        op = engine.read(pipe[0], 1)
        engine.submit()
        acts = [lambda: os.write(pipe[1], b"x"), op.cancel]
        threads = [threading.Thread(target=act) for act in (acts if i % 2 else acts[::-1])]
        for thread in threads:
            thread.start()
        loop.run(op)
        for thread in threads:
            thread.join()
        if op.cancelled():
            lost += 1
            assert os.read(pipe[0], 1) == b"x"
        else:
            read += 1
            assert op.result() == b"x"
    assert read + lost == few(300)
    loop.rest()


# Time


def test_a_timeout_operation(engine: Any, loop: Loop) -> None:
    need_verbs(engine, "timeout")
    before = time.monotonic()
    op = engine.timeout(0.02)
    engine.submit()
    loop.run(op)
    assert time.monotonic() >= before + 0.02
    assert op.outcome is Outcome.COMPLETED
    loop.rest()


def test_a_cancelled_timeout_leaves_no_alarm(engine: Any, loop: Loop) -> None:
    op = engine.timeout(3600.0)
    engine.submit()
    loop.rest()
    op.cancel()
    loop.run(op)
    assert op.cancelled()
    loop.rest()  # which asks for the alarm


def test_a_deadline(engine: Any, loop: Loop, pipe: tuple[int, int]) -> None:
    """Of an operation: where the system keeps none, the alarm tells the loop."""
    need_stopping(engine, "read")
    op = engine.read(pipe[0], 10, timeout=0.02)
    engine.submit()
    loop.run(op)
    assert op.cancelled()
    with pytest.raises(OperationTimedOut):
        op.result()
    loop.rest()


def test_the_earliest_deadline_is_the_alarm(
    engine: Any, loop: Loop, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    need_stopping(engine, "read")  # the other one looks at what runs before that
    before = time.monotonic()
    ops = [engine.read(pipe[0], 1, timeout=seconds) for seconds in (3600.0, 2700.0)]
    engine.submit()
    engine.reap(0)
    assert before + 2700.0 <= engine.alarm() <= time.monotonic() + 2700.0
    ops.append(engine.read(pipe[0], 1, timeout=1800.0))  # no turn has seen it
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_staged", type(engine._staged)())
        assert before + 1800.0 <= engine.alarm() <= time.monotonic() + 1800.0
    engine.submit()
    os.write(pipe[1], b"abc")
    loop.run(*ops)
    assert engine.alarm() is None, "nothing has a deadline any more"
    loop.rest()


def test_what_is_prepared_is_due(engine: Any, loop: Loop, pipe: tuple[int, int]) -> None:
    loop.rest()
    op = engine.read(pipe[0], 1)
    os.write(pipe[1], b"a")
    loop.run(op)  # submits by the alarm
    assert op.result() == b"a"
    assert loop.alarmed
    loop.rest()


def test_what_the_system_does_not_take_is_due() -> None:
    with ScriptedEngine() as engine:
        loop = Loop(engine)
        with loop.epoll:
            ops = [engine.read(3, 10) for _ in range(3)]
            for op in ops:
                engine.complete(op, b"x")
            engine.next_go(taken=1)
            engine.submit()
            assert ops[0].done()
            assert not ops[1].done()
            loop.run(*ops)


def test_a_cancel_is_asked_again_by_alarm() -> None:
    """What was not found, and has not ended, is asked again: nothing but the alarm says when."""
    with ScriptedEngine() as engine:
        engine.fileno()
        op = engine.read(3, 10)
        engine.submit()
        engine.answer(op, Answer.TOO_LATE)  # then CANCELS
        op.cancel()
        engine.submit()
        assert op.verdict is Verdict.TOO_LATE
        when = engine.alarm()
        assert when is not None
        while time.monotonic() < when:
            os.sched_yield()
        engine.reap(0)
        assert op.cancelled()
        assert engine.alarm() is None


# No spin


def test_it_is_quiet_while_something_is_in_flight(engine: Any, loop: Loop, pipe: tuple[int, int]) -> None:
    op = engine.read(pipe[0], 10)
    engine.submit()
    loop.rest()
    assert not loop.epoll.poll(0)
    engine.reap(0)
    engine.submit()
    assert not loop.epoll.poll(0)
    if engine.name != "posix_aio":
        assert engine.alarm() is None
    os.write(pipe[1], b"a")
    loop.run(op)
    loop.rest()


def test_an_engine_that_nobody_watches_rings_nothing(
    engine: Any, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not asked for costs nothing: no cancel of this thread wakes anybody."""
    op = engine.read(pipe[0], 10)
    engine.submit()
    woken = []
    monkeypatch.setattr(engine._carrier, "wake", lambda: woken.append(1))
    op.cancel()
    monkeypatch.undo()
    assert not woken
    end_read(engine, op, pipe[1])
    op.wait()


# Waits in between


def test_after_a_wait_the_file_is_right(
    engine: Any, loop: Loop, pipes: Callable[[], tuple[int, int]]
) -> None:
    (mine, put_mine), (other, put_other) = pipes(), pipes()
    for _ in range(3):
        left = engine.read(other, 10)
        waited = engine.read(mine, 10)
        engine.submit()
        thread = threading.Thread(target=lambda: os.write(put_mine, b"a"))
        thread.start()
        assert waited.wait() is Outcome.COMPLETED
        thread.join()
        loop.rest()
        assert not left.done()
        # A cancel by another thread is heard, though the wait had the wake-up for itself.
        thread = threading.Thread(target=left.cancel)
        thread.start()
        thread.join()
        assert loop.epoll.poll(BOUND), "the cancel is not heard of"
        while left.verdict is None and not left.done():
            assert loop.once()
        end_read(engine, left, put_other)
        loop.run(left)
        loop.rest()


def test_after_a_wait_that_a_wake_up_has_ended(
    engine: Any, loop: Loop, pipes: Callable[[], tuple[int, int]]
) -> None:
    """The wait's own wake-up fires as it ends: it is polled again all the same."""
    need_stopping(engine, "read")
    (mine, _), (other, put) = pipes(), pipes()
    left, waited = engine.read(other, 10), engine.read(mine, 10)
    engine.submit()
    thread = threading.Thread(target=waited.cancel)
    thread.start()
    assert waited.wait() is Outcome.CANCELLED
    thread.join()
    loop.rest()
    os.write(put, b"b")
    assert loop.epoll.poll(BOUND)
    loop.run(left)
    engine._carrier.wake()
    assert loop.epoll.poll(BOUND), "nobody polls the wake-up any more"
    loop.rest()


def test_what_ended_while_the_engine_waited_is_not_lost(
    engine: Any, loop: Loop, pipes: Callable[[], tuple[int, int]]
) -> None:
    (mine, put_mine), (other, put_other) = pipes(), pipes()
    left, waited = engine.read(other, 10), engine.read(mine, 10)
    engine.submit()
    os.write(put_other, b"b")
    os.write(put_mine, b"a")
    waited.wait()
    loop.run(left)
    assert left.result() == b"b"
    loop.rest()


def test_a_turn_that_is_cut_short_rings(
    engine: Any, loop: Loop, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that were taken from the kernel and not dealt with make nothing readable by themselves."""
    op = engine.read(pipe[0], 10)
    engine.submit()
    loop.rest()
    os.write(pipe[1], b"a")
    cut_records(engine, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        loop.run(op)
    assert not op.done()
    assert loop.epoll.poll(BOUND), "what was taken waits, and nobody is told"
    loop.run(op)
    assert op.result() == b"a"
    loop.rest()


# The end


def test_the_file_is_the_same_and_closed_with_the_engine(name: str, pipe: tuple[int, int]) -> None:
    with opened(name) as engine, select.epoll() as epoll:
        fd = engine.fileno()
        assert engine.fileno() == fd
        assert not os.get_inheritable(fd)
        epoll.register(fd, select.EPOLLIN)
        op = engine.read(pipe[0], 1)
        engine.submit()
        os.write(pipe[1], b"a")
        engine.close()
        assert op.done()
        with pytest.raises(ValueError, match="closed"):
            engine.fileno()
        assert engine.alarm() is None
        # Nobody has the file any more: epoll has forgotten it, and the number is free for another one.
        assert epoll.poll(0) == []
        with pytest.raises(OSError, match="Bad file") as caught:
            epoll.unregister(fd)
        assert caught.value.errno == errno.EBADF
        op.cancel()  # late: it must not write to anybody


def test_a_close_with_something_in_flight(name: str, pipe: tuple[int, int]) -> None:
    with opened(name) as engine, select.epoll() as epoll:
        epoll.register(engine.fileno(), select.EPOLLIN)
        ops = [engine.read(pipe[0], 1), engine.timeout(3600.0)]
        engine.submit()
        end_read(engine, ops[0], pipe[1])
        engine.close()
        assert all(op.done() for op in ops)
        assert epoll.poll(0) == []
        assert engine.alarm() is None


def test_in_a_child_it_is_the_parents(engine: Any, loop: Loop) -> None:
    op = engine.timeout(3600.0)
    engine.submit()
    child = os.fork()
    if not child:
        good = False
        try:
            engine.fileno()
        except RuntimeError:
            good = engine.alarm() is None
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    engine._carrier.wake()
    assert loop.epoll.poll(BOUND), "the child has taken the parent's with it"
    op.cancel()
    loop.run(op)
    loop.rest()


def test_a_pooled_engine_of_libaio_has_none() -> None:
    with LibaioEngine(8, pooled=True) as engine, pytest.raises(RuntimeError, match="pooled"):
        engine.fileno()


# What only one has


def test_what_finds_no_room(
    looping: Callable[[Any], Loop], pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """libaio: nothing tells when there is room again, so the alarm does."""
    with opened("libaio") as engine:
        loop = looping(engine)
        loop.rest()
        room = engine._carrier._contexts.room
        asked = []

        def none_yet() -> Any:
            asked.append(1)
            return None if len(asked) < 5 else room()

        monkeypatch.setattr(engine._carrier._contexts, "room", none_yet)
        op = engine.read(pipe[0], 1)
        engine.submit()
        os.write(pipe[1], b"a")
        loop.run(op)
        assert op.result() == b"a"
        loop.rest()


def test_a_notification_that_never_comes(looping: Callable[[Any], Loop], pipe: tuple[int, int]) -> None:
    """posix_aio: the C library is asked now and then, and in a loop the alarm says when."""
    with opened("posix_aio") as engine:
        loop = looping(engine)
        loop.rest()
        op = engine.read(pipe[0], 1)
        engine.submit()
        loop.epoll.unregister(loop.fd)  # as if nothing were told
        os.write(pipe[1], b"a")
        loop.run(op)
        assert op.result() == b"a"
        assert loop.alarmed
        loop.epoll.register(loop.fd, select.EPOLLIN)
        loop.rest()


@pytest.mark.parametrize(("room", "watched"), [(1, False), (1024, True)])
def test_an_event_between_the_look_and_the_bell(
    pipes: Callable[[], tuple[int, int]], monkeypatch: pytest.MonkeyPatch, room: int, watched: bool
) -> None:
    """libaio: what rings (in a further context, in any where a loop watches) and comes behind the look is not
    hidden by clearing the bell."""
    with opened("libaio", nr_events=room) as engine:
        carrier = engine._carrier
        contexts, wake = carrier._contexts, carrier._wake.fd
        if watched:
            engine.fileno()
            engine.reap(0)
        files = [pipes() for _ in range(3)]
        ops = [engine.read(source, 1) for source, _ in files]
        engine.submit()
        assert len(contexts.all) == (2 if room == 1 else 1)
        reap, late = contexts.reap, [files[2][1]]

        def reap_and_ring(wait: bool, timeout: float | None) -> None:
            reap(wait, timeout)
            if wait and late:
                until(lambda: carrier._rung() or reap(False, 0), "the bell has fired")
                before = count(wake)
                os.write(late.pop(), b"c")
                until(lambda: count(wake) > before, "the event of the other one is there")

        monkeypatch.setattr(contexts, "reap", reap_and_ring)
        os.write(files[1][1], b"b")
        ops[1].wait()
        assert not late
        assert ops[2].done(), "its event rang, and nobody looked"
        os.write(files[0][1], b"a")
        ops[0].wait()


def count(fd: int) -> int:
    """How often an eventfd was written to since it was read."""
    found = re.search(r"eventfd-count:\s*([0-9a-f]+)", Path(f"/proc/self/fdinfo/{fd}").read_text())
    assert found
    return int(found[1], 16)


def test_a_wake_up_that_the_kernel_does_not_take(
    uring: UringEngine, looping: Callable[[Any], Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """io_uring: without memory the poll of the wake-up is not taken; the alarm says when to try again."""
    loop = looping(uring)
    loop.rest()
    assert uring.alarm() is None

    class Short:
        def __getattr__(self, name: str) -> Any:
            return (lambda *_: -errno.EAGAIN) if name == "ioc_poll_one" else getattr(lib, name)

    monkeypatch.setattr(uring_carrier, "lib", Short())
    uring._carrier.wake()
    assert loop.once()
    assert uring.alarm() is not None
    monkeypatch.undo()
    assert loop.once()
    assert uring.alarm() is None
    uring._carrier.wake()
    assert loop.epoll.poll(BOUND), "nobody polls the wake-up"
    loop.rest()


def test_the_scripted_engine_rings(looping: Callable[[Any], Loop]) -> None:
    with ScriptedEngine() as engine:
        early = engine.read(3, 10)
        engine.submit()
        engine.complete(early, b"early")
        loop = looping(engine)
        loop.run(early)
        loop.rest()
        ops = [engine.read(3, 10) for _ in range(3)]
        engine.submit()
        loop.rest()
        engine.complete(ops[0], b"one")
        loop.run(ops[0])
        ops[1].cancel()
        loop.run(ops[1])
        assert ops[1].cancelled()
        with engine.hold():
            engine.complete(ops[2], b"two")
            loop.rest()
            assert not ops[2].done()
        loop.run(ops[2])
        assert ops[2].result() == b"two"
        loop.rest()
