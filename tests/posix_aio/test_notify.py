"""Notification by nothing, by signal, by a thread that writes an eventfd."""

import errno
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from iocancel import posix_aio as aio
from iocancel.posix_aio import Aiocb, SigEvent, notify

Pipe = Callable[[], tuple[int, int]]


@pytest.fixture
def usr1(leaves_nothing: None) -> Iterator[Callable[[], int]]:
    """Waits for SIGUSR1, whichever thread the kernel gives it to."""
    near, far = socket.socketpair()
    far.setblocking(False)
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    wakeup = signal.set_wakeup_fd(far.fileno())
    near.settimeout(60)
    yield lambda: near.recv(1)[0]
    signal.set_wakeup_fd(wakeup)
    signal.signal(signal.SIGUSR1, before)
    near.close()
    far.close()


def test_none(pipe: Pipe) -> None:
    read, write = pipe()
    block = Aiocb(read, bytearray(1), sigevent=SigEvent.none())
    assert repr(block.sigevent) == "<SigEvent NONE>"
    aio.aio_read(block)
    os.write(write, b"x")
    assert aio.aio_suspend([block])


def test_signal(pipe: Pipe, usr1: Callable[[], int]) -> None:
    read, write = pipe()
    event = SigEvent.signal(signal.SIGUSR1, 7)
    assert (event.notify, event.signo, event.value) == (aio.SIGEV_SIGNAL, signal.SIGUSR1, 7)
    assert repr(event) == f"SigEvent.signal({int(signal.SIGUSR1)}, 7)"
    block = Aiocb(read, bytearray(1), sigevent=event)
    for _ in range(3):
        aio.aio_read(block)
        os.write(write, b"x")
        assert usr1() == signal.SIGUSR1
        assert aio.aio_error(block) == 0


def test_a_handler_may_ask_about_what_ended_before_the_start_returned(pipe: Pipe) -> None:
    read, write = pipe()
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(aio.aio_error(block)))
    try:
        block = Aiocb(read, bytearray(1), sigevent=SigEvent.signal(signal.SIGUSR1))
        for _ in range(20):
            os.write(write, b"x")
            aio.aio_read(block)
            assert aio.aio_suspend([block])
            while not seen:  # the signal is queued when it has ended
                signal.sigtimedwait([], 0.001)
            # Where the signal overtakes the C call's return, the library does not call it ended yet.
            assert seen.pop() in (0, errno.EINPROGRESS)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_what_comes_with_a_signal(fresh: Callable[..., str]) -> None:
    out = fresh("""
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])    # no other Python thread is there
        r, w = os.pipe()
        first = Aiocb(r, bytearray(1))
        aio_read(first)
        libc = ctypes.CDLL(None, use_errno=True)
        info, wanted = (ctypes.c_int * 32)(), (ctypes.c_ulong * 16)()
        libc.sigemptyset(wanted), libc.sigaddset(wanted, signal.SIGRTMIN)
        for value in (-5, 2**31 - 1, -2**31):
            block = Aiocb(r, bytearray(1), sigevent=SigEvent.signal(signal.SIGRTMIN, value))
            aio_read(block)
            assert aio_cancel(r, block) is AIO_CANCELED       # queued: and the signal is sent already
            assert libc.sigwaitinfo(wanted, info) == signal.SIGRTMIN
            # signo, errno, code, (padding), pid, uid, value
            print(info[2], info[4 if sys.maxsize > 2**32 else 3] == os.getpid(),
                  info[6 if sys.maxsize > 2**32 else 5] == value)
        os.write(w, b"x")
        aio_suspend([first])
    """)
    assert out.splitlines() == ["-4 True True"] * 3  # SI_ASYNCIO


def test_thread(pipe: Pipe, eventfd: int) -> None:
    read, write = pipe()
    event = SigEvent.thread(eventfd)
    assert event.notify is aio.SIGEV_THREAD
    assert repr(event) == "<SigEvent THREAD>"
    blocks = [Aiocb(read, bytearray(1), sigevent=event) for _ in range(3)]
    for block in blocks:
        aio.aio_read(block)
    assert not select.select([eventfd], [], [], 0)[0]
    os.write(write, b"xyz")
    told = 0
    while told < 3:
        told += os.eventfd_read(eventfd)
    assert told == 3
    assert [aio.aio_error(block) for block in blocks] == [0, 0, 0]


def test_a_cancelled_one_is_told_too(pipe: Pipe, eventfd: int) -> None:
    read, write = pipe()
    first = Aiocb(read, bytearray(1))
    aio.aio_read(first)
    block = Aiocb(read, bytearray(1), sigevent=SigEvent.thread(eventfd))
    aio.aio_read(block)
    assert aio.aio_cancel(read, block) is aio.AIO_CANCELED
    assert os.eventfd_read(eventfd) == 1
    os.write(write, b"x")
    assert aio.aio_suspend([first], 60)


def test_closing_the_eventfd_early_is_safe(pipe: Pipe, eventfd: int) -> None:
    read, write = pipe()
    witness = os.dup(eventfd)
    block = Aiocb(read, bytearray(1), sigevent=SigEvent.thread(eventfd))
    aio.aio_read(block)
    os.close(eventfd)
    reused = os.open("/dev/null", os.O_RDWR)  # most likely the same number
    os.write(write, b"x")
    assert os.eventfd_read(witness) == 1
    os.close(reused)
    os.close(witness)


def test_forgetting_the_event_early_is_safe(pipe: Pipe, eventfd: int) -> None:
    read, write = pipe()
    block = Aiocb(read, bytearray(1), sigevent=SigEvent.thread(eventfd))
    aio.aio_read(block)
    with pytest.raises(RuntimeError, match="in progress"):
        block.sigevent = SigEvent.none()
    os.write(write, b"x")
    assert aio.aio_suspend([block])
    block.sigevent = SigEvent.none()  # its thread may still be on the way
    aio.aio_read(block)
    assert os.eventfd_read(eventfd) == 1
    os.write(write, b"x")
    assert aio.aio_suspend([block])


def test_a_full_eventfd_blocks_nobody(pipe: Pipe, eventfd: int) -> None:
    read, write = pipe()
    full = 2**64 - 2
    os.eventfd_write(eventfd, full)
    block = Aiocb(read, bytearray(1), sigevent=SigEvent.thread(eventfd))
    aio.aio_read(block)
    os.write(write, b"x")
    assert aio.aio_suspend([block])
    del block
    while notify.waiting():  # its thread has come and gone, though nobody has read
        notify.sweep(9)
    assert os.eventfd_read(eventfd) == full


@pytest.mark.parametrize("signo", [0, -1, 65, 1000, 2**31, 2**80, signal.SIGKILL, signal.SIGSTOP, 32, 33])
def test_no_signal(signo: int) -> None:
    with pytest.raises(ValueError, match="signal"):
        SigEvent.signal(signo)


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**100])
def test_a_value_that_does_not_fit(value: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        SigEvent.signal(signal.SIGUSR1, value)


@pytest.mark.parametrize("arguments", [("10",), (10, "x"), (None,), (10.0,)])
def test_no_integers(arguments: Any) -> None:
    with pytest.raises(TypeError, match="integers"):
        SigEvent.signal(*arguments)


def test_no_eventfd(pipe: Pipe, eventfd: int) -> None:
    os.close(eventfd)
    with pytest.raises(OSError, match=r"Bad file descriptor: SigEvent\.thread") as e:
        SigEvent.thread(eventfd)
    assert e.value.errno == errno.EBADF
    with pytest.raises(ValueError, match="not an eventfd"):
        SigEvent.thread(pipe()[1])
    for junk in (None, "x", 1.5):
        with pytest.raises(TypeError, match="fileno"):
            SigEvent.thread(junk)  # type: ignore[arg-type]
    for junk in (-5, 2**31, 2**70):
        with pytest.raises(ValueError, match="no file descriptor"):
            SigEvent.thread(junk)


def test_an_eventfd_without_proc(eventfd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "readlink", missing)
    event = SigEvent.thread(eventfd)  # taken on trust
    monkeypatch.undo()
    del event


def test_a_full_queue_of_signals_costs_the_result(fresh: Callable[..., str], glibc: bool) -> None:
    out = fresh("""
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
        r, w = os.pipe()
        block = Aiocb(r, bytearray(3), sigevent=SigEvent.signal(signal.SIGRTMIN))
        aio_read(block)
        resource.setrlimit(resource.RLIMIT_SIGPENDING, (0, 0))
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
        os.kill(os.getpid(), signal.SIGRTMIN)
        os.write(w, b"abc")
        aio_suspend([block])
        print(errno.errorcode.get(aio_error(block), "done"), bytes(block.buf))
    """)
    # glibc replaces the result by the refusal to queue the signal, though the bytes were read. Where the
    # kernel still had room for one, or on musl, which does not look, the result stands.
    assert out.strip() in ("EAGAIN b'abc'", "done b'abc'")
