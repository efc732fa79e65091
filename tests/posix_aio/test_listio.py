"""lio_listio."""

import errno
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iocancel import posix_aio as aio
from iocancel.posix_aio import Aiocb, LioMode, LioOpcode, SigEvent

Pipe = Callable[[], tuple[int, int]]


def reader(fd: int, **more: Any) -> Aiocb:
    return Aiocb(fd, bytearray(1), lio_opcode=LioOpcode.READ, **more)


def test_wait(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb+", buffering=0) as file:
        file.write(b"0123")
        buf = bytearray(4)
        blocks = [
            Aiocb(file, buf, lio_opcode=aio.LIO_READ),
            None,
            Aiocb(file, b"x", 10, lio_opcode=aio.LIO_WRITE),
            Aiocb(file, lio_opcode=aio.LIO_NOP),
        ]
        aio.lio_listio(aio.LIO_WAIT, blocks)
        assert buf == b"0123"
        assert [aio.aio_return(block) for block in blocks[:3] if block] == [4, 1]
        assert blocks[3] is not None
        with pytest.raises(RuntimeError, match="never started"):
            aio.aio_error(blocks[3])
        assert file.seek(0, 2) == 11


def test_nothing() -> None:
    for mode in LioMode:
        aio.lio_listio(mode, [])
        aio.lio_listio(mode, [None, Aiocb(0, lio_opcode=aio.LIO_NOP)])


def test_wait_with_a_cancelled_member(pipe: Pipe) -> None:
    read, write = pipe()
    blocks = [reader(read) for _ in range(3)]
    caught: list[OSError] = []

    def run() -> None:
        try:
            aio.lio_listio(aio.LIO_WAIT, blocks)
        except OSError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while aio.in_progress() < 3:
        os.sched_yield()
    assert aio.aio_cancel(read, blocks[1]) is aio.AIO_CANCELED
    os.write(write, b"xx")
    thread.join()
    (error,) = caught
    assert error.errno == errno.EIO
    assert "1 of 3 have failed" in str(error)
    assert "2 done, 1 ECANCELED" in str(error)
    assert [aio.aio_error(block) for block in blocks] == [0, errno.ECANCELED, 0]


@pytest.mark.parametrize("with_cancel", [False, True])
def test_nowait_tells_once_at_the_last(with_cancel: bool, pipe: Pipe, eventfd: int) -> None:
    read, write = pipe()
    blocks = [reader(read) for _ in range(3)]
    aio.lio_listio(aio.LIO_NOWAIT, blocks, SigEvent.thread(eventfd))
    os.write(write, b"x")
    assert aio.aio_suspend(blocks)
    os.set_blocking(eventfd, False)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(eventfd)
    if with_cancel:
        aio.aio_cancel(read)  # the last one or two, unless one runs already
    os.write(write, b"xx")
    os.set_blocking(eventfd, True)
    assert os.eventfd_read(eventfd) == 1
    assert {aio.aio_error(block) for block in blocks} <= {0, errno.ECANCELED}


def test_nowait_with_a_signal(pipe: Pipe) -> None:
    read, write = pipe()
    blocks = [reader(read) for _ in range(2)]
    seen: list[int] = []
    near, far = os.pipe()

    def handler(*_: object) -> None:
        seen.append(1)
        os.write(far, b"x")

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        os.write(write, b"xx")
        aio.lio_listio(aio.LIO_NOWAIT, blocks, SigEvent.signal(signal.SIGUSR1))
        assert os.read(near, 9) == b"x"
        assert [aio.aio_error(block) for block in blocks] == [0, 0]
        assert seen == [1]
    finally:
        signal.signal(signal.SIGUSR1, before)
        os.close(near)
        os.close(far)


def test_members_may_have_their_own(pipe: Pipe, eventfd: int) -> None:
    read, write = pipe()
    blocks = [reader(read, sigevent=SigEvent.thread(eventfd)) for _ in range(2)]
    aio.lio_listio(aio.LIO_NOWAIT, blocks)
    os.write(write, b"xx")
    told = 0
    while told < 2:
        told += os.eventfd_read(eventfd)
    assert told == 2


def test_an_empty_list_is_told_at_once(eventfd: int) -> None:
    aio.lio_listio(aio.LIO_NOWAIT, [], SigEvent.thread(eventfd))
    assert os.eventfd_read(eventfd) == 1


def test_a_member_that_fails(pipe: Pipe, tmp_path: Path) -> None:
    read, write = pipe()
    os.write(write, b"x")
    bad = Aiocb(read, b"x", lio_opcode=LioOpcode.WRITE)
    good = reader(read)
    with pytest.raises(OSError, match="1 of 2") as e:
        aio.lio_listio(aio.LIO_WAIT, [bad, good])
    assert e.value.errno == errno.EIO
    assert (aio.aio_error(bad), aio.aio_return(good)) == (errno.EBADF, 1)


def test_a_member_that_is_refused(pipe: Pipe, glibc: bool) -> None:
    read, write = pipe()
    os.write(write, b"xx")
    good, bad = reader(read), reader(read, reqprio=99)
    if not glibc:  # musl does not look at priorities
        aio.lio_listio(aio.LIO_WAIT, [bad, good])
        return
    with pytest.raises(OSError, match="lio_listio of 2 control blocks") as e:
        aio.lio_listio(aio.LIO_NOWAIT, [good, bad])
    assert e.value.errno == errno.EINVAL
    assert aio.aio_error(bad) == errno.EINVAL
    assert aio.aio_suspend([good])
    assert aio.aio_return(good) == 1  # the other one went
    with pytest.raises(OSError, match="1 of 2 have failed") as e:
        aio.lio_listio(aio.LIO_WAIT, [good, bad])
    assert e.value.errno == errno.EIO
    bad.buf.append(1)


def test_bad_arguments(pipe: Pipe, eventfd: int) -> None:
    read, _ = pipe()
    block = reader(read)
    bare = Aiocb(read, bytearray(1))
    event = SigEvent.thread(eventfd)
    call: Any = aio.lio_listio
    for mode in (7, -1, 2**70, None, "WAIT", 0.5):
        with pytest.raises(ValueError, match="mode must be"):
            call(mode, [block])
    with pytest.raises(ValueError, match="twice"):
        call(aio.LIO_WAIT, [block, block])
    with pytest.raises(ValueError, match="no lio_opcode"):
        call(aio.LIO_WAIT, [block, bare])
    with pytest.raises(ValueError, match="sigevent is for"):
        call(aio.LIO_WAIT, [block], event)
    with pytest.raises(ValueError, match="no buffer"):
        call(aio.LIO_WAIT, [block, Aiocb(read, lio_opcode=aio.LIO_READ)])
    for junk in (5, block, None, [3], ["x"], [object()]):
        with pytest.raises(TypeError):
            call(aio.LIO_WAIT, junk)
    with pytest.raises(TypeError, match="SigEvent"):
        call(aio.LIO_NOWAIT, [block], 5)
    block.buf.append(1)  # nothing was started, nothing is kept
    assert aio.in_progress() == 0


def test_a_member_in_progress(pipe: Pipe) -> None:
    read, write = pipe()
    other, feed = pipe()
    done, running = reader(other), reader(read)
    os.write(feed, b"x")
    aio.aio_read(done)
    assert aio.aio_suspend([done])
    aio.aio_read(running)
    with pytest.raises(RuntimeError, match="in progress"):
        aio.lio_listio(aio.LIO_NOWAIT, [done, running])
    assert aio.aio_return(done) == 1  # the other one was not touched
    os.write(write, b"x")
    assert aio.aio_suspend([running], 60)


def test_control_c_while_it_waits(pipe: Pipe) -> None:
    # The C call leaves pointers to its dead stack in the requests when a signal interrupts it.
    read, write = pipe()
    blocks = [reader(read) for _ in range(3)]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            aio.lio_listio(aio.LIO_WAIT, blocks)
    finally:
        signal.signal(signal.SIGALRM, before)
    os.write(write, b"xyz")
    for block in blocks:
        assert aio.aio_suspend([block], 60)
        assert aio.aio_return(block) == 1


def test_many_for_a_small_stack(pipe: Pipe, glibc: bool) -> None:
    read, _ = pipe()
    os.set_blocking(read, False)
    blocks = [reader(read) for _ in range(3500 if glibc else 1)]
    caught: list[BaseException] = []

    def run() -> None:
        try:
            aio.lio_listio(aio.LIO_NOWAIT, blocks)
        except ValueError as error:
            caught.append(error)

    old = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=run)
        thread.start()
    finally:
        threading.stack_size(old)
    thread.join()
    assert ["stack" in str(error) for error in caught] == ([True] if glibc else [])
    if glibc:
        with pytest.raises(RuntimeError, match="never started"):
            aio.aio_error(blocks[0])
