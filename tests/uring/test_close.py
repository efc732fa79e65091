"""Closing, collecting, forking, leaving: nothing is written to afterwards, and nothing is left behind."""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
import sys
import threading
import time
import warnings
from typing import Any

import pytest

from iocancel import _lifetime, errors
from iocancel._native import ffi, lib
from iocancel.uring import Opcode, Ring, SqeFlags, limbo
from iocancel.uring import probe as _probe

from ..support import BOUND
from .helpers import pending_read


def test_an_accepted_connection_that_nobody_asked_for_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ring = Ring(4)
        sqe = ring.get_sqe()
        sqe.prep_accept(listener)
        ring.submit()
        with socket.create_connection(listener.getsockname(), timeout=BOUND) as peer:
            poll = select.poll()
            poll.register(ring.fileno(), select.POLLIN)
            assert poll.poll(BOUND * 1000)  # it was accepted
            ring.close()
            assert peer.recv(1) == b""  # and closed, and not leaked


def test_opened_files_that_nobody_asked_for_are_closed(tmp_path: Any) -> None:
    before = set(os.listdir("/proc/self/fd"))
    ring = Ring(4)
    sqe = ring.get_sqe()
    sqe.prep_openat(-100, tmp_path, os.O_RDONLY | os.O_DIRECTORY, 0)
    if ring.probe().supports(Opcode.PIPE):
        sqe = ring.get_sqe()
        sqe.prep_pipe(memoryview(bytearray(8)).cast("i"), 0)
    ring.submit()
    ring.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_closing_drains_what_starts_when_another_ends(pipe: tuple[int, int]) -> None:
    # A hard link's follower starts when the cancelled head ends; behind IO_DRAIN even cancels wait.
    ring = Ring(16)
    first, second, third = bytearray(8), bytearray(8), bytearray(8)
    for buffer, flags in ((first, SqeFlags.IO_HARDLINK), (second, 0), (third, SqeFlags.IO_DRAIN)):
        sqe = ring.get_sqe()
        sqe.prep_read(pipe[0], buffer)
        sqe.flags = flags
    ring.submit()
    if not _probe.sync_cancel_works():  # then nothing reaches behind IO_DRAIN: let the head end
        os.write(pipe[1], b"x" * 24)
    ring.close()
    for buffer in (first, second, third):
        buffer.append(0)
    assert limbo.sweep() == 0


def test_closing_interrupts_workers(tmp_path: Any) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    ring = Ring(4)
    sqe = ring.get_sqe()
    sqe.prep_openat(-100, fifo, os.O_RDONLY, 0)
    sqe.flags = SqeFlags.ASYNC
    ring.submit()
    ring.close()
    assert limbo.sweep() == 0


@pytest.mark.parametrize("wanted", [1, 3])
def test_closing_while_another_thread_waits_wakes_it(wanted: int, pipe: tuple[int, int]) -> None:
    ring = Ring(8)
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            ring.wait(wanted, BOUND)
        except ValueError as error:
            raised.append(error)

    buffer = pending_read(ring, pipe[0])
    thread = threading.Thread(target=wait)
    thread.start()
    while not ring._reaper:
        pass
    ring.close()
    thread.join(BOUND)
    assert [str(error) for error in raised] == ["the ring is closed"]
    buffer.append(0)


def test_closing_while_another_thread_cancels_synchronously(tmp_path: Any) -> None:
    if not _probe.sync_cancel_works():
        pytest.skip("IORING_REGISTER_SYNC_CANCEL needs Linux 6.0")
    ring = Ring(8)
    left, right = socket.socketpair()
    with left, right:
        buffer = pending_read(ring, left.fileno())
        results: list[Any] = []

        def cancel() -> None:
            try:
                results.append(ring.register_sync_cancel(fd=left, timeout=BOUND))
            except (OSError, ValueError) as error:
                results.append(error)

        thread = threading.Thread(target=cancel)
        thread.start()
        ring.close()
        thread.join(BOUND)
        assert len(results) == 1
        buffer.append(0)


def test_close_inside_ones_own_wait_says_so(pipe: tuple[int, int]) -> None:
    import signal

    ring = Ring(4)
    raised: list[str] = []

    def handler(*_: object) -> None:
        if not ring._reaper:  # too early: the wait has not begun
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            return
        try:
            ring.close()
        except RuntimeError as error:
            raised.append(str(error))
        os.write(pipe[1], b"x")

    sqe = ring.get_sqe()
    sqe.prep_poll_add(pipe[0], select.POLLIN)
    ring.submit()
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert len(ring.wait(1, BOUND)) == 1
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(raised) == 1
    assert "own wait" in raised[0]
    ring.close()


def test_what_does_not_end_is_kept_behind_the_barrier(monkeypatch: pytest.MonkeyPatch) -> None:
    # A request that can't be cancelled is played by one that close() does not cancel: a read in a
    # worker whose cancel is left out. Its memory must outlive the ring, and be freed when it has ended.
    read_end, write_end = os.pipe()
    monkeypatch.setattr(Ring, "_cancel_all", lambda *_: True)
    monkeypatch.setattr(_probe, "sync_cancel_works", lambda: False)
    ring = Ring(4)
    keeper = Keeper(ring)  # another process has the ring, so that its end does not cancel the read
    buffer = pending_read(ring, read_end)
    ring.close(timeout=0.05)
    assert ring.closed
    assert limbo.sweep() == 1
    with pytest.raises(BufferError):
        buffer.append(0)
    keeper.let_go()
    until = time.monotonic() + BOUND
    while limbo.sweep() and time.monotonic() < until:
        pass
    assert limbo.sweep() == 0
    buffer.append(0)
    os.close(read_end)
    os.close(write_end)


class Keeper:
    """A process that holds the ring's file open, so that the kernel does not let go of it."""

    def __init__(self, ring: Ring) -> None:
        left, self.right = socket.socketpair()
        self.process = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"],
            stdin=subprocess.PIPE,
            pass_fds=[ring.fileno()],
        )
        left.close()

    def let_go(self) -> None:
        self.right.close()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(BOUND)


def test_a_table_of_files_does_not_defeat_the_barrier(
    monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]
) -> None:
    monkeypatch.setattr(Ring, "_cancel_all", lambda *_: True)
    monkeypatch.setattr(_probe, "sync_cancel_works", lambda: False)
    ring = Ring(4)
    ring.register_files([pipe[0]])
    buffer = pending_read(ring, pipe[0])
    ring.close(timeout=0.0)
    until = time.monotonic() + BOUND
    while limbo.sweep() and time.monotonic() < until:
        pass
    assert limbo.sweep() == 0
    buffer.append(0)


def test_without_a_barrier_memory_is_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    kept = _lifetime.kept()
    monkeypatch.setattr(Ring, "_cancel_all", lambda *_: False)
    monkeypatch.setattr(Ring, "_barrier", lambda *_: None)
    ring = Ring(4)
    buffer = pending_read(ring, read_end)
    ring.close()
    assert _lifetime.kept() == kept + 1
    with pytest.raises(BufferError):
        buffer.append(0)
    _lifetime._kept.pop()  # for the next test's count; the reference itself stays
    os.close(read_end)
    os.close(write_end)


def test_a_barrier_that_cannot_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = Ring(4)
    ring.close()
    assert ring._barrier() is None  # a closed ring refuses


def test_ctrl_c_while_closing_leaves_the_memory_safe(
    monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]
) -> None:
    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    ring = Ring(4)
    buffer = pending_read(ring, pipe[0])
    with monkeypatch.context() as patch:
        patch.setattr(Ring, "_cancel_all", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ring.close()
    assert ring.closed
    until = time.monotonic() + BOUND
    while limbo.sweep() and time.monotonic() < until:
        pass
    buffer.append(0)


def test_the_process_token_is_this_processes_alone() -> None:
    mine = lib.ioc_process()
    assert mine == lib.ioc_process() != 0
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        os.write(write_end, str(lib.ioc_process()).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert int(os.read(read_end, 100)) != mine
    os.close(read_end)
    os.close(write_end)


def test_a_ring_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(number) for number in os.listdir("/proc/self/fd")) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
    try:
        filler = []
        while True:
            try:
                filler.append(os.dup(0))
            except OSError:
                break
        with pytest.raises(errors.EngineUnavailable) as caught:
            Ring(4)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in filler:
            os.close(number)
    assert caught.value.errno == errno.EMFILE
    assert "RLIMIT_NOFILE" in caught.value.remedy


def test_memory_that_is_given_back_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from iocancel.uring import setup

    answers = [-errno.ENOMEM, -errno.ENOMEM]
    real = lib

    class Lib:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def ioc_ring_setup(self, *arguments: Any) -> int:
            return answers.pop() if answers else int(real.ioc_ring_setup(*arguments))

    monkeypatch.setattr(setup, "lib", Lib())
    with Ring(4) as ring:
        assert not ring.closed
    answers[:] = [-errno.ENOMEM] * 100
    with pytest.raises(errors.EngineUnavailable) as caught:
        Ring(4)
    assert "RLIMIT_MEMLOCK" in caught.value.reason
    assert ffi.NULL is not None
