"""A thread that ends takes its requests along, in the kernel; whoever waits for them never hears of it.

What nobody asked to cancel is handed over again, on the very same file. Where that can't be told, it fails
and says why, and nothing is taken from anybody.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
from typing import Any

import pytest

from iocancel import OperationTimedOut, Outcome, Verdict
from iocancel.engines.uring import UringEngine, submitters
from iocancel.engines.uring.submitters import Origin
from iocancel.testing import interrupt_everywhere

from ..support import BOUND, GUEST, by_a_thread_that_is_gone, few, fill, need, until


def test_read(uring: UringEngine, pipe: tuple[int, int]) -> None:
    fds = len(os.listdir("/proc/self/fd"))
    read = by_a_thread_that_is_gone(uring, lambda: uring.read(pipe[0], 8))
    os.write(pipe[1], b"data")
    assert read.wait(BOUND) is Outcome.COMPLETED
    assert read.result() == b"data"
    assert len(os.listdir("/proc/self/fd")) == fds, "a duplicate is left"


def test_recv_and_poll_and_accept(uring: UringEngine, pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    recv = by_a_thread_that_is_gone(uring, lambda: uring.recv(left, 8))
    right.send(b"one")
    assert recv.wait(BOUND) is Outcome.COMPLETED
    assert recv.result() == b"one"

    poll = by_a_thread_that_is_gone(uring, lambda: uring.poll(left, select.POLLIN))
    right.send(b"two")
    assert poll.wait(BOUND) is Outcome.COMPLETED
    assert poll.result() & select.POLLIN

    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind("")
        listener.listen()
        accept = by_a_thread_that_is_gone(uring, lambda: uring.accept(listener))
        client.connect(listener.getsockname())
        assert accept.wait(BOUND) is Outcome.COMPLETED
        accept.result()[0].close()


def test_recvmsg_and_vectors(uring: UringEngine, pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    message = by_a_thread_that_is_gone(uring, lambda: uring.recvmsg(left, 8))
    right.send(b"one")
    assert message.wait(BOUND) is Outcome.COMPLETED
    assert message.result()[0] == b"one"

    parts = [bytearray(2), bytearray(2)]
    vector = by_a_thread_that_is_gone(uring, lambda: uring.readv(left, parts))
    right.send(b"four")
    assert vector.wait(BOUND) is Outcome.COMPLETED
    assert parts == [b"fo", b"ur"]


def test_write(uring: UringEngine, pipe: tuple[int, int]) -> None:
    fill(pipe[1])
    write = by_a_thread_that_is_gone(uring, lambda: uring.write(pipe[1], b"end"))
    while not write.done():
        assert os.read(pipe[0], 65536)
        uring.reap(0.01)
    assert write.outcome is Outcome.COMPLETED
    os.set_blocking(pipe[0], False)
    assert os.read(pipe[0], 65536).endswith(b"end")


def test_timeout(uring: UringEngine) -> None:
    timeout = by_a_thread_that_is_gone(uring, lambda: uring.timeout(0.05))
    assert timeout.wait(BOUND) is Outcome.COMPLETED


def test_multishot(uring: UringEngine, pair: tuple[socket.socket, socket.socket]) -> None:
    """The iterator goes on, and whoever iterates never hears of it."""
    left, right = pair
    blocks = []

    def begin() -> Any:
        blocks.append(uring.recv_multishot(left, 16, buffers=4))
        return blocks[0].__enter__()

    stream = by_a_thread_that_is_gone(uring, begin)
    for i in range(6):
        right.send(b"%d" % i)
        assert next(stream) == b"%d" % i
    stream.close()
    assert stream.leftovers == []


def test_zero_copy(uring: UringEngine, tcp: tuple[socket.socket, socket.socket]) -> None:
    need(uring.supports("send_zc"), "send_zc is there from 6.0")
    left, right = tcp
    sent = fill(left.fileno())
    send = by_a_thread_that_is_gone(uring, lambda: uring.send_zc(left, b"end"))
    got = b""
    while len(got) < sent + 3:
        got += right.recv(1 << 20)
        uring.reap(0)
        if not send.done() and len(got) >= sent:
            send.wait(BOUND)
    assert send.wait(BOUND) is Outcome.COMPLETED
    assert send.result() == 3
    assert got.endswith(b"\0end")
    assert send.memory_released.wait(BOUND)


def test_futex(uring: UringEngine) -> None:
    need(uring.supports("futex_wait"), "futex_wait is there from 6.7")
    word = bytearray((7).to_bytes(4, "little"))
    wait = by_a_thread_that_is_gone(uring, lambda: uring.futex_wait(word, 7))
    uring.reap(0)
    uring.submit()
    assert not wait.done()
    assert wait.cancel()
    assert wait.wait(BOUND) is Outcome.CANCELLED


def test_many_threads_come_and_go(uring: UringEngine) -> None:
    """Each prepares, waits and ends; the one who leads submits for all, and may be the first to end."""
    ends = [os.pipe() for _ in range(8)]
    failed: list[Any] = []

    def work(i: int) -> None:
        for n in range(few(40)):
            read = uring.read(ends[i][0], 16)
            assert uring.write(ends[i][1], b"%d" % n).wait() is Outcome.COMPLETED
            if read.wait() is not Outcome.COMPLETED or read.result() != b"%d" % n:
                failed.append((i, n, read))
                return

    for _ in range(3):
        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(ends))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for both in ends:
        for fd in both:
            os.close(fd)
    assert not failed


# The same file, or none


def fails_and_says_so(read: Any) -> None:
    assert read.wait(BOUND) is Outcome.FAILED
    error = read.exception()
    assert isinstance(error, OSError)
    assert error.errno == errno.ECANCELED
    assert "the thread that submitted it has ended" in str(error.strerror)


def test_a_number_that_is_another_files(uring: UringEngine) -> None:
    """Its file was closed, which the kernel does not mind; the next one has the number."""
    mine, peer = os.pipe()
    read = by_a_thread_that_is_gone(uring, lambda: uring.read(mine, 8))
    os.close(mine)
    other, other_peer = os.pipe()
    assert other == mine
    os.write(other_peer, b"theirs")
    os.write(peer, b"x")
    fails_and_says_so(read)
    assert os.read(other, 16) == b"theirs", "it was taken from another file"
    for fd in (peer, other, other_peer):
        os.close(fd)


def test_a_number_that_is_nobodys(uring: UringEngine) -> None:
    mine, peer = os.pipe()
    read = by_a_thread_that_is_gone(uring, lambda: uring.read(mine, 8))
    os.close(mine)
    os.write(peer, b"x")
    os.close(peer)
    fails_and_says_so(read)


def test_files_without_a_number_of_their_own(uring: UringEngine) -> None:
    """All eventfds have one inode: another's count could be taken."""
    event = os.eventfd(0)
    read = by_a_thread_that_is_gone(uring, lambda: uring.read(event, 8))
    os.eventfd_write(event, 5)
    fails_and_says_so(read)
    assert os.eventfd_read(event) == 5
    os.close(event)


def test_pythons_own_files(uring: UringEngine) -> None:
    """They keep their number for as long as they are open: no inode is needed."""
    master, slave = os.openpty()
    with open(slave, "rb", buffering=0) as terminal:
        read = by_a_thread_that_is_gone(uring, lambda: uring.read(terminal, 16))
        os.write(master, b"line\n")
        assert read.wait(BOUND) is Outcome.COMPLETED
        assert read.result() == b"line\n"
        late = by_a_thread_that_is_gone(uring, lambda: uring.read(terminal, 16))
    os.write(master, b"more\n")
    fails_and_says_so(late)
    os.close(master)


def test_closed_while_it_is_handed_over_again(
    uring: UringEngine, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number goes to another file just after the look: it is a duplicate that is handed over."""
    mine = os.dup(pipe[0])
    read = by_a_thread_that_is_gone(uring, lambda: uring.read(mine, 8))
    os.write(pipe[1], b"data")
    other, other_peer = os.pipe()
    os.write(other_peer, b"theirs")
    back = uring._back

    def closing(op: Any, number: int) -> None:
        os.dup2(other, mine)
        back(op, number)

    monkeypatch.setattr(uring, "_back", closing)
    assert read.wait(BOUND) is Outcome.COMPLETED
    assert read.result() == b"data"
    for fd in (mine, other, other_peer):
        os.close(fd)


# Between


def test_a_deadline_is_the_same_one(uring: UringEngine, pipe: tuple[int, int]) -> None:
    """The kernel's own timer went with the thread; what is left of the time is what it gets."""
    read = by_a_thread_that_is_gone(uring, lambda: uring.read(pipe[0], 8, timeout=0.3))
    expires = read._expires
    other = os.dup(pipe[0])  # somebody takes the byte that wakes it
    os.write(pipe[1], b"x")
    assert os.read(other, 1) == b"x"
    os.close(other)
    assert read.wait(BOUND) is Outcome.CANCELLED
    assert read._expires == expires
    with pytest.raises(OperationTimedOut):
        read.result()


def test_a_cancel_after_the_look_at_who_asked(
    uring: UringEngine, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is on its way to the kernel, which no longer has the request."""
    again = Origin.again

    def asked(self: Origin, op: Any) -> bool:
        assert op.cancel()
        return again(self, op)

    monkeypatch.setattr(Origin, "again", asked)
    read = by_a_thread_that_is_gone(uring, lambda: uring.read(pipe[0], 4))
    os.write(pipe[1], b"data")
    assert read.wait(BOUND) is Outcome.CANCELLED
    assert read.verdict is Verdict.CANCELLED
    assert os.read(pipe[0], 8) == b"data"


def test_a_cancel_while_it_is_prepared_again(uring: UringEngine, pipe: tuple[int, int]) -> None:
    back = uring._back

    def cancelling(op: Any, number: int) -> None:
        back(op, number)
        op.cancel()

    uring._back = cancelling  # type: ignore[method-assign]
    read = by_a_thread_that_is_gone(uring, lambda: uring.read(pipe[0], 4))
    os.write(pipe[1], b"data")
    assert read.wait(BOUND) is Outcome.CANCELLED
    assert os.read(pipe[0], 8) == b"data"


def test_a_cancel_of_all_finds_it(uring: UringEngine, pipe: tuple[int, int]) -> None:
    read = by_a_thread_that_is_gone(uring, lambda: uring.read(pipe[0], 4))
    os.write(pipe[1], b"data")
    until(lambda: uring._carrier.came() or read.done(), "the kernel has given it back")
    uring._settle()
    uring._carrier.go(None, False, None)
    uring._settle()
    assert uring.cancel_all() == 1
    assert read.wait(BOUND) is Outcome.CANCELLED
    assert os.read(pipe[0], 8) == b"data"


def test_the_engine_is_closed_then(pipe: tuple[int, int]) -> None:
    with UringEngine() as uring:
        read = by_a_thread_that_is_gone(uring, lambda: uring.read(pipe[0], 4))
        os.write(pipe[1], b"data")
    assert read.outcome is Outcome.CANCELLED
    assert os.read(pipe[0], 8) == b"data"


def test_given_back_twice(uring: UringEngine, pipe: tuple[int, int]) -> None:
    """Also who hands it over again may be about to end."""
    read = by_a_thread_that_is_gone(uring, lambda: uring.read(pipe[0], 4))
    other = os.dup(pipe[0])
    os.write(pipe[1], b"x")
    assert os.read(other, 1) == b"x"
    os.close(other)

    def submit() -> None:
        until(lambda: uring.reap(0) or read._seen >= 0, "it was given back")
        uring.submit()

    by_a_thread_that_is_gone(uring, submit)
    assert not read.done()
    os.write(pipe[1], b"data")
    assert read.wait(BOUND) is Outcome.COMPLETED
    assert read.result() == b"data"


def test_no_fd_is_left(uring: UringEngine, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(fd: int) -> None:
        raise OSError(errno.EMFILE, "no fd")

    read = by_a_thread_that_is_gone(uring, lambda: uring.read(pipe[0], 4))
    monkeypatch.setattr(submitters, "duplicate", none_left)
    os.write(pipe[1], b"data")
    fails_and_says_so(read)
    assert os.read(pipe[0], 8) == b"data"


def test_interrupted_everywhere() -> None:
    """Ctrl-C at each instruction of its way back: it is handed over again, once."""

    class Stage:
        def __init__(self) -> None:
            self.engine = UringEngine()
            self.pipe = os.pipe()
            self.read = by_a_thread_that_is_gone(self.engine, lambda: self.engine.read(self.pipe[0], 4))
            os.write(self.pipe[1], b"data")
            until(lambda: self.engine._carrier.came(), "the kernel has given it back")

        def close(self) -> None:
            self.engine.close(BOUND)
            for fd in self.pipe:
                os.close(fd)

    def check(stage: Stage, _: str) -> None:
        try:
            assert stage.read.wait(BOUND) is Outcome.COMPLETED
            assert stage.read.result() == b"data", "it was read twice, or by nobody"
            assert not stage.engine._staged
            assert stage.engine.in_flight == 0
        finally:
            stage.close()

    def given_back(stage: Stage) -> None:
        stage.engine.reap(0)

    sweep = interrupt_everywhere(Stage, given_back, check, places="opcodes", step=11 if GUEST else 1)
    assert any("_back" in place for place in sweep.where)
