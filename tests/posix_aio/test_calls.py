"""Start, ask, return: one control block at a time."""

import contextlib
import errno
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from iocancel import posix_aio as aio
from iocancel.posix_aio import Aiocb

from ..support import GUEST

Pipe = Callable[[], tuple[int, int]]


def ended(block: Aiocb) -> int:
    assert aio.aio_suspend([block], 60)
    return aio.aio_error(block)


def test_write_read_and_sync_a_file(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb+", buffering=0) as file:
        block = Aiocb(file, b"0123456789", 2)
        aio.aio_write(block)
        assert ended(block) == 0
        assert aio.aio_return(block) == 10
        assert aio.aio_return(block) == 10  # POSIX forbids to ask again, both libraries keep it
        for op in (os.O_SYNC, os.O_DSYNC):
            aio.aio_fsync(op, block)
            assert ended(block) == 0
            assert aio.aio_return(block) == 0
        block.buf, block.offset, block.nbytes = bytearray(9), 4, 3
        aio.aio_read(block)
        assert ended(block) == 0
        assert (aio.aio_return(block), block.buf) == (3, b"234" + bytes(6))
        assert file.tell() == 0  # the file's own position does not count


def test_sockets_and_pipes_have_no_offset(pipe: Pipe) -> None:
    left, right = socket.socketpair()
    with left, right:
        block = Aiocb(left, bytearray(8), 1000)
        aio.aio_read(block)
        right.send(b"hello")
        assert (ended(block), aio.aio_return(block), block.buf) == (0, 5, b"hello\0\0\0")
    read, write = pipe()
    block = Aiocb(write, b"abc", 5)
    aio.aio_write(block)
    assert (ended(block), aio.aio_return(block), os.read(read, 9)) == (0, 3, b"abc")


def test_end_of_file_and_empty_buffers(pipe: Pipe, tmp_path: Path) -> None:
    read, write = pipe()
    os.close(write)
    block = Aiocb(read, bytearray(8))
    aio.aio_read(block)
    assert (ended(block), aio.aio_return(block)) == (0, 0)
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with path.open("rb") as file:
        block = Aiocb(file, bytearray())
        aio.aio_read(block)
        assert (ended(block), aio.aio_return(block)) == (0, 0)


def test_the_operations_own_failure(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with path.open("rb") as file:
        block = Aiocb(file, b"data")
        aio.aio_write(block)
        assert ended(block) == errno.EBADF  # open, but not for writing
        with pytest.raises(
            OSError, match=r"Bad file descriptor: aio_return of aio_write\(fd \d+, 4 bytes at 0\)"
        ) as e:
            aio.aio_return(block)
        assert e.value.errno == errno.EBADF
        assert aio.in_progress() == 0


def test_would_block_stays_what_it_is(pipe: Pipe) -> None:
    read, _ = pipe()
    os.set_blocking(read, False)
    block = Aiocb(read, bytearray(1))
    aio.aio_read(block)
    assert ended(block) == errno.EAGAIN
    with pytest.raises(BlockingIOError):
        aio.aio_return(block)


def test_a_descriptor_that_is_not_open(glibc: bool) -> None:
    block = Aiocb(10**6, bytearray(1))
    if glibc:  # the thread finds out
        aio.aio_read(block)
        assert ended(block) == errno.EBADF
    else:  # musl looks first
        with pytest.raises(OSError, match="not open") as e:
            aio.aio_read(block)
        assert e.value.errno == aio.aio_error(block) == errno.EBADF
    with pytest.raises(OSError, match="aio_return") as e:
        aio.aio_return(block)
    assert e.value.errno == errno.EBADF


def test_priorities(pipe: Pipe, glibc: bool) -> None:
    read, write = pipe()
    os.write(write, b"xx")
    block = Aiocb(read, bytearray(1), reqprio=20)
    aio.aio_read(block)
    assert ended(block) == 0
    for bad in (-1, 21, -(2**31), 2**31 - 1):
        block.reqprio = bad
        if not glibc:  # musl does not look at it
            break
        with pytest.raises(OSError, match="reqprio must be") as e:
            aio.aio_read(block)
        assert e.value.errno == errno.EINVAL
        assert aio.aio_error(block) == errno.EINVAL
        assert aio.aio_suspend([block])  # a refused one is over
        block.buf.append(1)  # and its memory free


def test_fsync_refusals(pipe: Pipe, tmp_path: Path) -> None:
    read, _ = pipe()
    block = Aiocb(read)
    for bad in (0, os.O_RDWR, -1, 2**70, "O_SYNC", None):
        with pytest.raises(ValueError, match="O_SYNC"):
            aio.aio_fsync(bad, block)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        aio.aio_fsync(os.O_SYNC, read)  # type: ignore[arg-type]
    with contextlib.suppress(OSError):  # some versions of glibc look whether it is open for writing
        aio.aio_fsync(os.O_SYNC, block)
    assert ended(block) in (errno.EINVAL, errno.EBADF)  # a pipe has nothing to sync


def test_started_twice(pipe: Pipe) -> None:
    read, write = pipe()
    block = Aiocb(read, bytearray(1), lio_opcode=aio.LIO_READ)
    aio.aio_read(block)
    with pytest.raises(RuntimeError, match="in progress"):
        aio.aio_read(block)
    with pytest.raises(RuntimeError, match="in progress"):
        aio.aio_write(block)
    with pytest.raises(RuntimeError, match="in progress"):
        aio.aio_fsync(os.O_SYNC, block)
    with pytest.raises(RuntimeError, match="in progress"):
        aio.lio_listio(aio.LIO_NOWAIT, [block])
    with pytest.raises(RuntimeError, match="in progress: wait"):
        aio.aio_return(block)
    os.write(write, b"xy")
    assert ended(block) == 0
    aio.aio_read(block)
    assert ended(block) == 0
    assert block.buf == b"y"


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_started_by_many_threads_at_once(pipe: Pipe, hasty: None) -> None:
    read, write = pipe()
    for _ in range(3 if GUEST else 200):
        block = Aiocb(read, bytearray(1))
        barrier = threading.Barrier(4)
        answers: list[object] = []

        def start(
            block: Aiocb = block, barrier: threading.Barrier = barrier, answers: list[object] = answers
        ) -> None:
            barrier.wait()
            try:
                aio.aio_read(block)
                answers.append(None)
            except RuntimeError as error:
                answers.append(error)

        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [answer for answer in answers if answer is None] == [None]
        assert aio.in_progress() == 1
        os.write(write, b"x")
        assert ended(block) == 0


def test_never_started(pipe: Pipe) -> None:
    block = Aiocb(pipe()[0], bytearray(1))
    for ask in (aio.aio_error, aio.aio_return, lambda block: aio.aio_suspend([block])):
        with pytest.raises(RuntimeError, match="never started"):
            ask(block)


@pytest.mark.parametrize("junk", [None, 3, b"x", object(), [], 1.5])
def test_no_control_block(junk: Any) -> None:
    for call in (aio.aio_read, aio.aio_write, aio.aio_error, aio.aio_return):
        with pytest.raises(TypeError, match="an Aiocb is needed"):
            call(junk)


def test_aio_init_once_it_is_used(pipe: Pipe, glibc: bool) -> None:
    from iocancel import errors

    read, write = pipe()
    os.write(write, b"x")
    block = Aiocb(read, bytearray(1))
    aio.aio_read(block)
    ended(block)
    if not glibc:
        with pytest.raises(errors.FeatureUnavailable, match="needs glibc"):
            aio.aio_init()
        return
    with pytest.raises(RuntimeError, match="used already"):
        aio.aio_init()


@pytest.mark.parametrize("name", ["threads", "num", "idle_time"])
def test_aio_init_arguments(name: str) -> None:
    for bad in (0, -1, 2**31, 2**70):
        with pytest.raises(ValueError, match=f"{name} must be 1 to"):
            aio.aio_init(**{name: bad})
    for odd in ("1", None, 1.5):
        with pytest.raises(TypeError, match=name):
            aio.aio_init(**{name: odd})  # type: ignore[arg-type]
