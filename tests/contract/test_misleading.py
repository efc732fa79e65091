"""Answers of io_uring to a cancel that say something else than what becomes of the target (facts 2.4)."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from array import array
from pathlib import Path
from typing import Any

import pytest

from iocancel import FeatureUnavailable, OperationTimedOut, Verdict

from ..support import BOUND, blocked_in, until, until_blocked
from .helpers import C, X, need_verbs, outcomes, readable


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A FIFO with nobody at either end."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def test_an_open_that_a_worker_executes(ring: Any, fifo: Path) -> None:
    """-EALREADY; then -512, or -EINTR: it did not happen, hence CANCELLED."""
    op = ring.openat(fifo, os.O_RDONLY)
    ring.submit()
    until_blocked("wait_for_partner")
    assert op.cancel()
    assert op.wait() is X
    # Asked once more while its ending was on its way: not there any more.
    assert op.verdict in (Verdict.TOO_LATE, Verdict.NOT_FOUND, Verdict.CANCELLED)
    with pytest.raises(OSError, match="openat") as raised:
        op.result()
    assert raised.value.errno == 125


def test_opens_that_wait_for_a_worker(ring: Any, fifo: Path) -> None:
    """Found in the queue, found running: all end, none is opened. Four times as many as may run at once."""
    many = 4 * max(4, os.cpu_count() or 1)
    ops = [ring.openat(fifo, os.O_RDONLY) for _ in range(many)]
    ring.submit()
    until_blocked("wait_for_partner")
    assert ring.cancel_all() == many
    ring.wait(ops)
    assert outcomes(ops) == {X}


def test_a_link_timeout_does_not_fire_in_a_worker_and_the_waits_does(ring: Any, fifo: Path) -> None:
    """facts 2.5: so it is the wait's own clock that ends it."""
    op = ring.openat(fifo, os.O_RDONLY, timeout=0.01)
    assert op.wait(BOUND) is X
    with pytest.raises(OperationTimedOut):
        op.result()


def test_the_kernel_ends_what_nobody_waits_for(ring: Any, pipe: tuple[int, int]) -> None:
    """A link timeout: the completion is there although this thread never entered the engine again."""
    op = ring.read(pipe[0], 4, timeout=0.01)
    ring.submit()
    poll = select.poll()
    poll.register(ring.fileno(), select.POLLIN)
    assert poll.poll(BOUND * 1000), "the ring has completions"
    os.write(pipe[1], b"late")
    ring.submit()
    until(op.done, "it is settled by the way")
    assert op.outcome is X
    with pytest.raises(OperationTimedOut):
        op.result()
    assert os.read(pipe[0], 8) == b"late"


def test_a_worker_that_waits_for_a_pipe(ring: Any, pipe: tuple[int, int]) -> None:
    """One that was `TOO_LATE` and then waits on: asked again until it has ended.

    A worker that finds a pipe empty arms a poll and leaves; a cancel between is answered -EALREADY, and
    nobody would come back for it. IOSQE_ASYNC brings that about.
    """
    for _ in range(50):
        op = ring.read(pipe[0], 4)
        raw = bytearray(op._entry)
        raw[1] |= 16  # IOSQE_ASYNC
        op._entry = bytes(raw)
        ring.submit()
        assert op.cancel()
        assert op.wait() is X
    os.write(pipe[1], b"data")
    assert os.read(pipe[0], 8) == b"data"


@pytest.mark.parametrize("verb", ["send", "recv"])
def test_what_had_begun_is_told(ring: Any, verb: str) -> None:
    """A cancelled MSG_WAITALL gives what it has: COMPLETED, with a short count; no byte is lost."""
    if not ring.supports("send_zc"):
        refused(ring, verb)
        return
    a, b = socket.socketpair()
    with a, b:
        if verb == "recv":
            buffer = bytearray(10)
            op = ring.recv(a, buffer, socket.MSG_WAITALL)
            ring.submit()
            b.send(b"abc")
            taken_by_the_kernel(ring, a)
        else:
            data = bytes(1 << 22)
            op = ring.send(a, data, socket.MSG_WAITALL)
            ring.submit()
        op.cancel()
        outcome = op.wait()
        if verb == "recv":
            assert outcome is C
            assert op.result() == 3
            assert buffer[:3] == b"abc"
        else:
            assert outcome is C
            sent = op.result()
            assert 0 < sent < len(data)
            a.close()
            got = 0
            while more := len(b.recv(1 << 20)):
                got += more
            assert got == sent


def refused(ring: Any, verb: str) -> None:
    """Before 6.0 the count is lost (5.10: 219,264 bytes sent, and the answer is -ECANCELED): not offered."""
    a, b = socket.socketpair()
    with a, b:
        with pytest.raises(FeatureUnavailable, match="MSG_WAITALL") as raised:
            getattr(ring, verb)(a, bytearray(10), socket.MSG_WAITALL)
        assert raised.value.since == "6.0"
    assert ring.in_flight == 0


def taken_by_the_kernel(ring: Any, sock: socket.socket) -> None:
    """The request takes what came when its thread next enters the kernel; until then the socket has it."""

    def empty() -> bool:
        ring.reap()
        return readable(sock.fileno()) == 0

    until(empty, "the request has taken what came")


def test_a_connect_that_a_worker_executes(ring: Any, tmp_path: Path) -> None:
    """To a Unix socket whose queue is full: -EALREADY, then -EINTR (facts 2.4)."""
    path = str(tmp_path / "s")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(path)
        server.listen(0)
        first = stack.enter_context(socket.socket(socket.AF_UNIX))
        first.connect(path)
        sock = stack.enter_context(socket.socket(socket.AF_UNIX))
        op = ring.connect(sock, path)
        ring.submit()
        until(lambda: blocked_in("unix_") or op.done(), "a worker waits for a place in the queue")
        assert op.cancel()
        assert op.wait() is X
        server.accept()[0].close()
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_one_futex_is_answered_1(ring: Any) -> None:
    need_verbs(ring, "futex_wait")
    ops = [ring.futex_wait(array("I", [1]), 1) for _ in range(3)]
    ring.submit()
    assert ops[1].cancel()
    assert ops[1].wait() is X
    assert ops[1].verdict is Verdict.CANCELLED
    assert outcomes(ops) == {None, X}
    assert ring.cancel_all() == 2
    ring.wait(ops)
    assert outcomes(ops) == {X}


def test_not_there_is_what_has_ended(ring: Any, pipe: tuple[int, int]) -> None:
    """Data come just before the cancel: -ENOENT or a cancel that the completion has overtaken."""
    op = ring.read(pipe[0], 4)
    ring.submit()
    os.write(pipe[1], b"data")
    op.cancel()
    assert op.wait() is C
    assert op.verdict in (None, Verdict.NOT_FOUND)
    assert op.result() == b"data"


def test_a_zero_copy_send_in_part(ring: Any, tcp: tuple[socket.socket, socket.socket]) -> None:
    """Done at its result; its memory is the kernel's until the peer has taken the bytes, or is gone."""
    need_verbs(ring, "send_zc")
    data = bytearray(1 << 23)
    op = ring.send_zc(tcp[0], data, socket.MSG_WAITALL)
    ring.submit()
    op.cancel()
    assert op.wait() is C
    sent = op.result()
    assert 0 < sent < len(data)
    assert not op.memory_released
    with pytest.raises(BufferError):
        data.extend(b"x")
    got = 0
    while got < sent:
        got += len(tcp[1].recv(1 << 20))
    assert op.memory_released.wait(BOUND)
    data.extend(b"x")
