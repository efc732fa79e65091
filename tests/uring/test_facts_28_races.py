"""facts.md 2.8: a cancel races the data; whoever wins, nothing is lost and nothing is told twice."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from iocancel import CancelNotFound
from iocancel.uring import CancelFlags, SetupFlags

from ..support import few
from .helpers import RING_KINDS, Asked, need_flags

CANCELED, NOENT, ALREADY = -125, -2, -114
MANY = 3000


class Writer:
    """A thread that writes a byte into a pipe each time it is told to, and says so."""

    def __init__(self, write_end: int) -> None:
        self.write_end = write_end
        self.start_read, self.start_write = os.pipe()
        self.done_read, self.done_write = os.pipe()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while os.read(self.start_read, 1):
            os.write(self.write_end, b"x")
            os.write(self.done_write, b".")

    def start(self) -> None:
        os.write(self.start_write, b".")

    def wait(self) -> None:
        assert os.read(self.done_read, 1)

    def close(self) -> None:
        os.close(self.start_write)
        self.thread.join()
        for fd in (self.start_read, self.done_read, self.done_write):
            os.close(fd)


@contextlib.contextmanager
def ends(what: str, pipes: Callable[[], tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The reading and the writing end of a pipe or of a pair of sockets."""
    if what == "pipe":
        source, sink = pipes()
        yield source, sink
        os.close(source)
        os.close(sink)
    else:
        a, b = socket.socketpair()
        with a, b:
            yield a.fileno(), b.fileno()


@pytest.mark.parametrize("kind", RING_KINDS)
def test_pipe_reads_against_a_writer(
    open_ring: Callable[..., Asked], pipe: tuple[int, int], kind: str
) -> None:
    asked = open_ring(8, RING_KINDS[kind])
    os.set_blocking(pipe[0], False)
    writer = Writer(pipe[1])
    seen = {0: 0, ALREADY: 0, NOENT: 0}
    try:
        for number in range(few(MANY)):
            os.set_blocking(pipe[0], True)  # with O_NONBLOCK the ring's read would end at once
            buffer = bytearray(1)
            asked.go(1, "read", pipe[0], buffer)
            if number % 3 == 0:
                writer.start()
                asked.put(2, "cancel64", 1)
            else:
                asked.put(2, "cancel64", 1)
                writer.start()
            if number % 5 == 0:
                os.sched_yield()
            asked.ring.submit()
            verdict, target = asked.end(2), asked.end(1)
            writer.wait()
            os.set_blocking(pipe[0], False)
            try:
                left = os.read(pipe[0], 2)
            except BlockingIOError:
                left = b""
            assert (verdict, target, left, bytes(buffer)) in (
                (0, CANCELED, b"x", b"\0"),
                (ALREADY, CANCELED, b"x", b"\0"),  # 6.1, where a wake-up is just being looked at
                (NOENT, 1, b"", b"x"),
            )
            seen[verdict] += 1
    finally:
        writer.close()
    assert sum(seen.values()) == few(MANY)
    assert not asked.told


@pytest.mark.parametrize("kind", RING_KINDS)
def test_both_outcomes_in_turn(open_ring: Callable[..., Asked], pipe: tuple[int, int], kind: str) -> None:
    """The same without a race, so that each of the two is surely seen."""
    asked = open_ring(8, RING_KINDS[kind])
    buffer = bytearray(1)
    asked.go(1, "read", pipe[0], buffer)
    os.write(pipe[1], b"x")
    assert asked.end(1) == 1
    assert asked.cancel(1) == NOENT
    asked.go(1, "read", pipe[0], buffer)
    assert asked.cancel(1) == 0
    os.write(pipe[1], b"y")
    assert asked.end(1) == CANCELED
    assert bytes(buffer) == b"x"
    assert os.read(pipe[0], 2) == b"y"


@pytest.mark.parametrize("kind", ["default", "coop", "sqpoll"])
def test_synchronous_cancels_against_a_writer(
    open_ring: Callable[..., Asked], pipe: tuple[int, int], kind: str
) -> None:
    need_flags(CancelFlags.FD_FIXED)  # as old as synchronous cancels: 6.0
    asked = open_ring(8, RING_KINDS[kind])
    writer = Writer(pipe[1])
    try:
        for _ in range(few(MANY // 3)):
            buffer = bytearray(1)
            asked.go(1, "read", pipe[0], buffer)
            if kind == "sqpoll":
                asked.ask("nop")  # so the ring's thread has taken the read
            writer.start()
            try:
                verdict = asked.ring.register_sync_cancel(1)
            except CancelNotFound:
                verdict = NOENT
            target = asked.end(1)
            writer.wait()
            assert (verdict, target) in ((0, CANCELED), (NOENT, 1))
            if verdict == 0:
                assert os.read(pipe[0], 2) == b"x"
    finally:
        writer.close()


@pytest.mark.parametrize("flags", [SetupFlags(0), SetupFlags.COOP_TASKRUN])
def test_the_target_is_there_when_the_cancel_is(
    open_ring: Callable[..., Asked], pipe: tuple[int, int], flags: SetupFlags
) -> None:
    """Default and COOP: once the submission returns, both completions are posted, in whatever order."""
    asked = open_ring(8, flags)
    for _ in range(few(500)):
        asked.go(1, "read", pipe[0], bytearray(1))
        asked.go(2, "cancel64", 1)
        assert asked.ring.cq_ready == 2
        assert sorted((cqe.user_data, cqe.res) for cqe in asked.ring.peek()) == [(1, CANCELED), (2, 0)]


@pytest.mark.parametrize("kind", ["defer", "sqpoll"])
def test_elsewhere_the_target_comes_by_a_wait(
    open_ring: Callable[..., Asked], pipe: tuple[int, int], kind: str
) -> None:
    asked = open_ring(8, RING_KINDS[kind])
    for _ in range(few(500)):
        asked.go(1, "read", pipe[0], bytearray(1))
        asked.go(2, "cancel64", 1)
        assert asked.end(2) == 0
        assert asked.end(1) == CANCELED


@pytest.mark.parametrize("what", ["pipe", "socket"])
@pytest.mark.parametrize("kind", RING_KINDS)
def test_bytes_that_are_there_before_the_cancel(
    open_ring: Callable[..., Asked], pipes: Callable[[], tuple[int, int]], kind: str, what: str
) -> None:
    """They need not win, but whoever does, the answer, the ending, the buffer and what is left agree."""
    asked = open_ring(8, RING_KINDS[kind])
    seen = set()
    for _ in range(few(300)):
        with ends(what, pipes) as (source, sink):
            buffer = bytearray(1)
            asked.go(1, "read", source, buffer)
            if kind == "sqpoll":
                asked.ask("nop")  # so the ring's thread has taken the read
            os.write(sink, b"x")
            asked.go(2, "cancel64", 1)
            verdict, target = asked.end(2), asked.end(1)
            os.set_blocking(source, False)
            try:
                left = os.read(source, 2)
            except BlockingIOError:
                left = b""
            told = (verdict, target, left, bytes(buffer))
            assert told in ((0, CANCELED, b"x", b"\0"), (NOENT, 1, b"", b"x"))
            seen.add(verdict)
    if kind == "defer":
        assert seen == {0}, "the read is told of its bytes by the next call that reaps"
    elif kind != "sqpoll" and what == "socket":
        assert seen == {NOENT}
