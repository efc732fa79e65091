"""facts.md 2.4: targets in io-wq workers, queued and running; and zero-copy sends (10.2)."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from iocancel import CancelNotFound, CancelTooLate
from iocancel.uring import CancelFlags, Opcode, SqeFlags

from ..support import blocked_in, until, until_blocked
from .helpers import INTERRUPTED, RUNS, Asked, need_flags, need_op

CANCELED, NOENT, ALREADY = -125, -2, -114
ALL, ANY, FD = CancelFlags.ALL, CancelFlags.ANY, CancelFlags.FD


def open_fifo(asked: Asked, user_data: int, fifo: Path) -> None:
    asked.go(user_data, "openat", None, fifo, os.O_RDONLY, flags=SqeFlags.ASYNC)


def open_fifo_that_blocks(asked: Asked, fifo: Path) -> None:
    """It is number 1, and runs in a worker."""
    open_fifo(asked, 1, fifo)
    until_blocked("wait_for_partner")


def one_runs_two_are_queued(asked: Asked, fifo: Path) -> None:
    """Numbers 2 and 3, behind number 1, where there is one worker."""
    open_fifo_that_blocks(asked, fifo)
    for user_data in (2, 3):
        open_fifo(asked, user_data, fifo)


@pytest.fixture
def running(asked: Asked, fifo: Path) -> Asked:
    """A ring with the open of a FIFO, number 1, that blocks in a worker."""
    open_fifo_that_blocks(asked, fifo)
    return asked


@pytest.fixture
def alone(open_ring: Callable[..., Asked]) -> Callable[[Callable[[Asked], None]], None]:
    """Runs a function on a ring in a thread of its own, as workers and their limits are a thread's."""

    def play(function: Callable[[Asked], None]) -> None:
        raised: list[BaseException] = []

        def work() -> None:
            try:
                function(open_ring())
            except BaseException as error:  # noqa: BLE001 - raised again, where pytest sees it
                raised.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if raised:
            raise raised[0]

    return play


@pytest.fixture
def one_worker(
    alone: Callable[[Callable[[Asked], None]], None],
) -> Callable[[Callable[[Asked], None]], None]:
    """The same, with a single worker of each sort."""

    def play(function: Callable[[Asked], None]) -> None:
        def limited(asked: Asked) -> None:
            asked.ring.register_iowq_max_workers(1, 1)
            function(asked)

        alone(limited)

    return play


def test_a_running_open_is_interrupted(running: Asked) -> None:
    running.go(2, "cancel64", 1)
    cqe = running.last(2)
    assert cqe.res in RUNS
    with pytest.raises(CancelTooLate if cqe.res == ALREADY else CancelNotFound):
        cqe.check()
    target = running.last(1)
    assert target.res in INTERRUPTED  # -512: the kernel's own -ERESTARTSYS leaks
    with pytest.raises(InterruptedError):
        target.check()


@pytest.mark.parametrize("call", ["splice", "tee"])
def test_a_running_splice_or_tee_is_interrupted(
    asked: Asked, pipes: Callable[[], tuple[int, int]], call: str
) -> None:
    source, sink = pipes(), pipes()
    if call == "splice":
        asked.go(1, call, source[0], -1, sink[1], -1, 16)
    else:
        asked.go(1, call, source[0], sink[1], 16)
    until_blocked("pipe_wait")
    assert asked.cancel(1) in RUNS
    assert asked.end(1) in INTERRUPTED


def test_a_running_connect_is_interrupted(asked: Asked, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(path)
        server.listen(0)
        first.connect(path)
        with socket.socket(socket.AF_UNIX) as client:
            asked.go(1, "connect", client, path, flags=SqeFlags.ASYNC)
            until_blocked("unix_wait_for_peer")
            assert asked.cancel(1) in RUNS
            assert asked.end(1) in INTERRUPTED  # -EINTR here


@pytest.mark.parametrize("flags", [ALL, ANY, ANY | ALL])
def test_all_and_any_answer_0_for_what_runs(running: Asked, flags: CancelFlags) -> None:
    need_flags(flags)
    # 6.1 may count what runs (facts 2.6); all others say 0, although it was interrupted.
    assert running.cancel(1, flags) in (0, 1)
    assert running.end(1) in INTERRUPTED


def test_queued_behind_a_running_one_is_cancelled(
    one_worker: Callable[[Callable[[Asked], None]], None], fifo: Path
) -> None:
    @one_worker
    def _(asked: Asked) -> None:
        one_runs_two_are_queued(asked, fifo)
        for user_data in (3, 2):
            assert asked.cancel(user_data) == 0
            assert asked.end(user_data) == CANCELED
        assert asked.pending(1)


@pytest.mark.parametrize("flags", [ANY, ANY | ALL])
def test_any_answers_0_also_when_queued_ones_were_killed(
    one_worker: Callable[[Callable[[Asked], None]], None], fifo: Path, flags: CancelFlags
) -> None:
    need_flags(flags)

    @one_worker
    def _(asked: Asked) -> None:
        one_runs_two_are_queued(asked, fifo)
        assert asked.cancel(0, flags) in (0, 1, 2, 3)  # 0 but on 6.1 (facts 2.6): it says nothing
        assert [asked.end(n) for n in (2, 3)] == [CANCELED] * 2
        assert asked.end(1) in INTERRUPTED


def test_idle_workers_outlast_a_lower_limit(
    alone: Callable[[Callable[[Asked], None]], None], fifo: Path
) -> None:
    """For five seconds: what is to wait behind one that runs may run at once."""

    @alone
    def _(asked: Asked) -> None:
        def two_run(first: int, second: int) -> None:
            for user_data in (first, second):
                open_fifo(asked, user_data, fifo)
            until_blocked("wait_for_partner", 2)
            for user_data in (first, second):
                assert asked.cancel(user_data) in RUNS
                assert asked.end(user_data) in INTERRUPTED

        two_run(1, 2)
        asked.ring.register_iowq_max_workers(1, 1)
        until(lambda: blocked_in("io_wqe_worker") + blocked_in("io_wq_worker") >= 2, "both are idle")
        two_run(3, 4)


def test_a_running_open_that_finds_its_partner_is_no_cancel(running: Asked, fifo: Path) -> None:
    writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    try:
        fd = running.end(1)
        assert fd >= 0
        os.close(fd)
        assert running.cancel(1) == NOENT
    finally:
        os.close(writer)


def test_cancels_by_fd_of_what_runs(asked: Asked, pipes: Callable[[], tuple[int, int]]) -> None:
    need_flags(FD | ALL)
    source, sink = pipes(), pipes()
    asked.go(1, "splice", source[0], -1, sink[1], -1, 16)
    until_blocked("pipe_wait")
    assert asked.cancel_fd(sink[1], ALL) in (0, 1)  # 1 only on 6.1 (facts 2.6)
    assert asked.end(1) in INTERRUPTED


def send_zc(asked: Asked, tcp: tuple[socket.socket, socket.socket]) -> int:
    """A zero-copy send that went in part, and was cancelled: how much went. Its number is 1."""
    need_op(asked.ring, Opcode.SEND_ZC)
    for sock in tcp:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    data = bytes(1 << 23)
    asked.go(1, "send_zc", tcp[0], data, socket.MSG_WAITALL)
    assert asked.pending(1)
    assert asked.cancel(1) == 0
    cqe = asked.next(1)
    assert 0 < cqe.res < len(data)
    assert cqe.more  # the memory is still the kernel's
    assert asked.pending(1)
    return cqe.res


def notified(asked: Asked) -> None:
    last = asked.next(1)
    assert last.notification
    assert not last.more


def test_a_zero_copy_send_in_part_and_its_notification(
    asked: Asked, tcp: tuple[socket.socket, socket.socket]
) -> None:
    send_zc(asked, tcp)
    tcp[1].close()
    notified(asked)


def test_neither_shutdown_nor_close_brings_the_notification(
    asked: Asked, tcp: tuple[socket.socket, socket.socket]
) -> None:
    send_zc(asked, tcp)
    tcp[0].shutdown(socket.SHUT_RDWR)
    assert asked.pending(1)
    tcp[0].close()
    assert asked.pending(1)
    tcp[1].close()
    notified(asked)


def test_a_close_with_linger_0_brings_the_notification(
    asked: Asked, tcp: tuple[socket.socket, socket.socket]
) -> None:
    send_zc(asked, tcp)
    tcp[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    tcp[0].close()
    notified(asked)


def test_a_disconnect_brings_the_notification(asked: Asked, tcp: tuple[socket.socket, socket.socket]) -> None:
    send_zc(asked, tcp)
    unspecified = struct.pack("H14x", socket.AF_UNSPEC)
    assert asked.ask("connect", tcp[0], unspecified) == 0
    notified(asked)


def test_the_memory_of_a_zero_copy_send_is_held_until_its_notification(
    asked: Asked, tcp: tuple[socket.socket, socket.socket]
) -> None:
    need_op(asked.ring, Opcode.SEND_ZC)
    data = bytearray(1 << 23)
    asked.go(1, "send_zc", tcp[0], data, socket.MSG_WAITALL)
    assert asked.cancel(1) == 0
    assert asked.next(1).more
    with pytest.raises(BufferError):
        data.clear()
    tcp[1].close()
    notified(asked)
    data.clear()


def test_a_poll_of_the_ring_tells_of_a_workers_end(running: Asked) -> None:
    ready = select.poll()
    ready.register(running.ring.fileno(), select.POLLIN)
    assert not ready.poll(0)
    running.put(2, "cancel64", 1)
    thread = threading.Thread(target=running.ring.submit)
    thread.start()
    thread.join()
    assert ready.poll(20_000)
    assert running.end(2) in RUNS
    assert running.end(1) in INTERRUPTED
