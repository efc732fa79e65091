"""The control block: its arguments, and the memory that it holds while in progress."""

import copy
import errno
import gc
import mmap
import os
import pickle
import weakref
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iocancel import posix_aio as aio
from iocancel.posix_aio import Aiocb

Pipe = Callable[[], tuple[int, int]]


class Bytes(bytearray):
    """A buffer whose end can be seen."""


def ended(block: Aiocb) -> None:
    assert aio.aio_suspend([block], 60)


def test_attributes() -> None:
    buf = bytearray(3)
    block = Aiocb(7, buf, 5, nbytes=2, reqprio=1, lio_opcode=aio.LIO_READ)
    assert (block.fildes, block.buf, block.offset, block.nbytes) == (7, buf, 5, 2)
    assert (block.reqprio, block.lio_opcode) == (1, aio.LioOpcode.READ)
    assert block.sigevent.notify is aio.Notify.NONE
    block.offset = 9
    block.sigevent = aio.SigEvent.signal(10)
    block.nbytes = None
    assert (block.offset, block.sigevent.signo, block.nbytes) == (9, 10, None)
    with pytest.raises(AttributeError):
        setattr(block, "unknown", 1)  # noqa: B010


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("fildes", "x", TypeError),
        ("fildes", None, TypeError),
        ("fildes", 2**31, ValueError),
        ("fildes", -2, ValueError),
        ("offset", -1, ValueError),
        ("offset", 2**63, ValueError),
        ("offset", 1.5, TypeError),
        ("nbytes", -1, ValueError),
        ("nbytes", 2**80, ValueError),
        ("nbytes", "4", TypeError),
        ("reqprio", 2**31, ValueError),
        ("reqprio", -(2**31) - 1, ValueError),
        ("reqprio", None, TypeError),
        ("sigevent", 5, TypeError),
        ("lio_opcode", 0, TypeError),
    ],
)
def test_bad_values(name: str, value: Any, error: type[Exception]) -> None:
    arguments: dict[str, Any] = {"fildes": 0, name: value}
    with pytest.raises(error, match=r"\w{5}"):
        Aiocb(**arguments)
    block = Aiocb(0)
    with pytest.raises(error):
        setattr(block, name, value)


def test_no_fileno_that_lies() -> None:
    class Liar:
        def fileno(self) -> Any:
            return "3"

    with pytest.raises(ValueError, match="no file descriptor"):
        Aiocb(Liar())


def test_it_is_neither_copied_nor_pickled() -> None:
    block = Aiocb(0)
    for act in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="address"):
            act(block)


def test_repr(pipe: Pipe) -> None:
    read, write = pipe()
    block = Aiocb(read, bytearray(1))
    assert "not started" in repr(block)
    aio.aio_read(block)
    assert "EINPROGRESS" in repr(block)
    os.write(write, b"x")
    ended(block)
    assert "done" in repr(block)


def test_nothing_of_it_can_be_set_while_in_progress(pipe: Pipe) -> None:
    read, write = pipe()
    block = Aiocb(read, bytearray(1))
    aio.aio_read(block)
    for name in ("fildes", "buf", "offset", "nbytes", "reqprio", "sigevent", "lio_opcode"):
        with pytest.raises(RuntimeError, match="in progress"):
            setattr(block, name, None)
    os.write(write, b"x")
    ended(block)
    block.buf = bytearray(5)


def test_the_buffer_cannot_be_resized_until_the_end(pipe: Pipe) -> None:
    read, write = pipe()
    buf = bytearray(4)
    block = Aiocb(read, buf)
    aio.aio_read(block)
    aio.aio_cancel(read, block)  # whatever it answers
    if aio.aio_error(block) == errno.EINPROGRESS:  # NOTCANCELED: it runs on, and still writes
        with pytest.raises(BufferError):
            buf.append(1)
        os.write(write, b"abcd")
        ended(block)
        assert (aio.aio_return(block), bytes(buf)) == (4, b"abcd")
    buf.append(1)  # the end lets go of it, though the block lives


def test_a_mapping_cannot_be_closed_until_the_end(pipe: Pipe) -> None:
    read, write = pipe()
    with mmap.mmap(-1, 4096) as memory:
        block = Aiocb(read, memory, nbytes=2)
        aio.aio_read(block)
        with pytest.raises(BufferError):
            memory.close()
        os.write(write, b"abc")
        ended(block)
        assert (aio.aio_return(block), memory[:3]) == (2, b"ab\0")
    assert os.read(read, 9) == b"c"


@pytest.mark.parametrize(
    "kind", [bytearray, lambda n: array("I", [0] * (n // 4)), lambda n: memoryview(bytearray(n))]
)
def test_kinds_of_buffers(kind: Callable[[int], Any], pipe: Pipe) -> None:
    read, write = pipe()
    buf = kind(8)
    block = Aiocb(read, buf)
    os.write(write, b"12345678")
    aio.aio_read(block)
    ended(block)
    assert (aio.aio_return(block), bytes(buf)) == (8, b"12345678")


@pytest.mark.parametrize(
    ("buf", "error"),
    [
        (None, ValueError),
        (b"read-only", TypeError),
        ("text", TypeError),
        (5, TypeError),
        (memoryview(bytearray(8))[::2], TypeError),
    ],
)
def test_buffers_that_cannot_be_read_into(buf: Any, error: type[Exception], pipe: Pipe) -> None:
    read, _ = pipe()
    with pytest.raises(error, match="aio_read"):
        aio.aio_read(Aiocb(read, buf))


def test_more_bytes_than_the_buffer_has(pipe: Pipe) -> None:
    buf = bytearray(3)
    with pytest.raises(ValueError, match=r"nbytes is 4.*3 bytes"):
        aio.aio_read(Aiocb(pipe()[0], buf, nbytes=4))
    buf.append(1)  # nothing was kept


def test_a_file_object_is_kept_open(tmp_path: Path, eventfd: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    buf = bytearray(7)
    file = path.open("rb")
    block = Aiocb(file, buf, sigevent=aio.SigEvent.thread(eventfd))
    aio.aio_read(block)
    del file
    gc.collect()
    ended(block)
    assert (aio.aio_return(block), bytes(buf)) == (7, b"content")
    block.fildes.close()  # type: ignore[union-attr]
    os.eventfd_read(eventfd)
    with pytest.raises(ValueError, match="closed"):
        aio.aio_read(block)


def collected(pipe: Pipe, eventfd: int) -> tuple[weakref.ref[Bytes], int]:
    """A read that is in progress, and that nobody has any more: its buffer, and its pipe's write end."""
    read, write = pipe()
    buf = Bytes(4)
    alive = weakref.ref(buf)
    block = Aiocb(read, buf, sigevent=aio.SigEvent.thread(eventfd))
    aio.aio_read(block)
    del buf
    with pytest.warns(ResourceWarning, match="in progress"):
        del block
    return alive, write


def test_collected_while_in_progress(pipe: Pipe, eventfd: int) -> None:
    alive, write = collected(pipe, eventfd)
    assert aio.in_progress() == 1
    assert alive() is not None
    os.write(write, b"abcd")
    os.eventfd_read(eventfd)
    assert aio.in_progress() == 0  # and that let go
    assert alive() is None


def test_starting_others_lets_go_of_what_was_collected(pipe: Pipe, eventfd: int) -> None:
    alive, write = collected(pipe, eventfd)
    other, feed = pipe()
    os.write(feed, b"xx")
    second = Aiocb(other, bytearray(1))
    aio.aio_read(second)
    ended(second)
    assert alive() is not None  # looked at, and still in progress
    os.write(write, b"abcd")
    os.eventfd_read(eventfd)
    aio.aio_read(second)
    ended(second)
    assert alive() is None


def test_collected_after_the_end_is_silent(pipe: Pipe, eventfd: int) -> None:
    read, write = pipe()
    buf = Bytes(1)
    alive = weakref.ref(buf)
    os.write(write, b"x")
    block = Aiocb(read, buf, sigevent=aio.SigEvent.thread(eventfd))
    aio.aio_read(block)
    os.eventfd_read(eventfd)
    del buf, block  # nobody ever asked; warnings are errors here
    assert alive() is None


def test_never_made(pipe: Pipe) -> None:
    block = Aiocb.__new__(Aiocb)
    del block  # a finalizer that finds nothing
    event = aio.SigEvent.__new__(aio.SigEvent)
    del event
