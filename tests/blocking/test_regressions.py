"""What a review broke, and must not break again."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import iocancel
from iocancel.pool import Pool

from .helpers import BOUND, GUEST

pytestmark = pytest.mark.usefixtures("engine_pool")


def test_a_peek_at_all_invents_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    a, b = pair
    a.send(b"abc")
    try:
        data = iocancel.recv(b, 6, socket.MSG_PEEK | socket.MSG_WAITALL, timeout=0.05)
    except iocancel.FeatureUnavailable:
        pytest.skip("io_uring before Linux 6.0 has no MSG_WAITALL here")
    assert data == b"abc"
    assert b.recv(10) == b"abc"


def test_records_stay_apart() -> None:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with a, b:
        a.send(b"abc")
        a.send(b"def")
        try:
            assert iocancel.recv(b, 6, socket.MSG_WAITALL, timeout=BOUND) == b"abc"
        except iocancel.FeatureUnavailable:
            pytest.skip("io_uring before Linux 6.0 has no MSG_WAITALL here")
        assert b.recv(6) == b"def"


def test_what_was_cut_off_is_not_made_up() -> None:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        a.send(b"S" * 200)
        assert len(iocancel.recv(b, 200)) == 200
        a.send(b"x" * 100)
        assert iocancel.recv(b, 10, socket.MSG_TRUNC) == b"x" * 10


def test_dontwait_does_not_wait(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(TimeoutError):
        iocancel.recv(pair[0], 10, socket.MSG_DONTWAIT)
    with pytest.raises(TimeoutError):
        iocancel.recvmsg(pair[0], 10, 0, socket.MSG_DONTWAIT)
    ours = iocancel.Socket.adopt(pair[0].dup())
    with ours, pytest.raises(BlockingIOError):
        ours.recv(10, socket.MSG_DONTWAIT)


def test_a_hundred_signals_do_not_hide_another_one(pipe: tuple[int, int], handler: Any) -> None:
    """asyncio learns of its signals from these bytes alone."""
    seen: list[int] = []
    handler(lambda: seen.append(1))
    before = signal.signal(signal.SIGUSR2, lambda *_: os.write(pipe[1], b"x"))
    heard, tells = socket.socketpair()
    heard.setblocking(False)
    tells.setblocking(False)
    main = threading.main_thread().ident or 0

    def send() -> None:
        for number in range(100):
            signal.pthread_kill(main, signal.SIGUSR1)
            until = time.monotonic() + BOUND
            while len(seen) <= number and time.monotonic() < until:
                time.sleep(0)
        signal.pthread_kill(main, signal.SIGUSR2)

    signal.set_wakeup_fd(tells.fileno())
    sender = threading.Thread(target=send)
    try:
        sender.start()
        assert iocancel.read(pipe[0], 1, timeout=BOUND) == b"x"
        sender.join()
        numbers = set(heard.recv(4096))
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGUSR2, before)
        heard.close()
        tells.close()
    assert {signal.SIGUSR1, signal.SIGUSR2} <= numbers


@pytest.mark.skipif(GUEST, reason="an emulated machine is slow")
def test_waiting_for_the_error_queue_does_not_spin() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.sendto(b"ordinary", sock.getsockname())
        before = resource.getrusage(resource.RUSAGE_THREAD)
        with pytest.raises(TimeoutError):
            iocancel.recvmsg(sock, 100, 100, socket.MSG_ERRQUEUE, timeout=0.3)
        after = resource.getrusage(resource.RUSAGE_THREAD)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.2


@pytest.mark.skipif(GUEST, reason="an emulated machine is slow")
def test_a_peer_without_room_is_not_asked_for_ever() -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as full,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
    ):
        full.bind("")  # the kernel chooses an abstract name
        sender.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sender.sendto(b"x", full.getsockname())
        before = resource.getrusage(resource.RUSAGE_THREAD)
        with pytest.raises(TimeoutError):
            iocancel.sendmsg(sender, [b"x"], (), 0, full.getsockname(), timeout=0.3)
        after = resource.getrusage(resource.RUSAGE_THREAD)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.2


def test_room_for_gigabytes_is_not_made_for_a_few_bytes(
    engine_pool: Pool, pipe: tuple[int, int], tmp_path: Any
) -> None:
    os.write(pipe[1], b"few")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert iocancel.read(pipe[0], 3 << 30, timeout=BOUND) == b"few"
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 1_000_000)
    with open(path, "rb", buffering=0) as file:
        assert len(iocancel.read(file, 3 << 30, 5)) == 9_999_995
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_a_raw_files_own_lines_lose_nothing(pipe: tuple[int, int]) -> None:
    with iocancel.RawFile(pipe[0], timeout=0.02, closefd=False) as file:
        os.write(pipe[1], b"part")
        for call in (file.readline, file.readlines, file.read, file.readall, lambda: next(file)):
            with pytest.raises(TimeoutError):
                call()
        os.write(pipe[1], b"ial\nmore\n")
        assert file.readline() == b"partial\n"
        assert file.read(2) == b"mo"
        assert next(file) == b"re\n"
        os.write(pipe[1], b"a\nb")
        os.close(pipe[1])
        assert file.readlines() == [b"a\n", b"b"]
        assert file.readall() == b""
        with pytest.raises(StopIteration):
            next(file)


def test_a_call_that_failed_keeps_nothing_of_its_caller(pipe: tuple[int, int]) -> None:
    """No cycle through the exception: the collector may come late."""

    class Buffer(bytearray):
        pass

    def leaves(call: Callable[[Buffer], object]) -> bool:
        buffer = Buffer(100_000)
        seen = weakref.ref(buffer)
        with contextlib.suppress(TimeoutError, OSError):
            call(buffer)
        del buffer
        return seen() is None

    def all_of_it(buffer: Buffer) -> None:
        with iocancel.move_on_after(0.01):
            iocancel.write_all(pipe[1], buffer)

    gc.collect()
    gc.disable()
    try:
        assert leaves(lambda buffer: iocancel.read(pipe[0], buffer, timeout=0.01))
        with iocancel.RawFile(pipe[0], timeout=0.01, closefd=False) as file:
            assert leaves(file.readinto)
        assert leaves(all_of_it)
        assert leaves(lambda buffer: iocancel.write_all(pipe[1], buffer, timeout=0.01))
        assert leaves(lambda buffer: iocancel.read(-1, buffer))
    finally:
        gc.enable()
