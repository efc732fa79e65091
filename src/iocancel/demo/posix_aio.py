"""POSIX AIO: what the demonstration starts and cancels. It is the C library's own."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator

from iocancel.demo.row import Scenes, Shown
from iocancel.doctor.live import LIMIT, Overdue
from iocancel.doctor.machine import is_glibc
from iocancel.doctor.props import pipe
from iocancel.posix_aio import Aiocb, CancelStatus, aio_cancel, aio_error, aio_read, aio_return, aio_suspend

__all__ = ["SCENES"]

SCENES: Scenes[None] = Scenes()
_ANSWERS = {
    CancelStatus.CANCELED: "CANCELED: all of them",
    CancelStatus.NOTCANCELED: "NOTCANCELED: one runs, and goes on",
    CancelStatus.ALLDONE: "ALLDONE: nothing to cancel",
}


def _read(fd: int) -> Aiocb:
    block = Aiocb(fd, bytearray(16))
    aio_read(block)
    return block


def _running(fd: int) -> Aiocb:
    """A read that a thread has taken up: on glibc, one that answers NOTCANCELED."""
    deadline = time.monotonic() + LIMIT
    while True:
        block = _read(fd)
        if not is_glibc() or aio_cancel(fd, block) is CancelStatus.NOTCANCELED:
            return block
        if time.monotonic() > deadline:
            raise Overdue(f"no thread took a read up within {LIMIT:g} s")


def _end(block: Aiocb) -> str:
    """How an operation ended, waited for."""
    if not aio_suspend([block], LIMIT):
        raise Overdue(f"it has not ended within {LIMIT:g} s")
    error = aio_error(block)
    return str(aio_return(block)) if error == 0 else f"{errno.errorcode.get(error, error)}"


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """A pipe, on which nothing is in progress any more at the end: a byte for each read that still is."""
    with pipe() as (read_end, write_end):
        try:
            yield read_end, write_end
        finally:
            aio_cancel(read_end)
            os.write(write_end, b"x")


@SCENES.add("read of an empty pipe, queued behind another", "aio_cancel of the second")
def _queued(_: None) -> Shown:
    with _pipe() as (read_end, write_end):
        first, second = _running(read_end), _read(read_end)
        status = aio_cancel(read_end, second)
        ending = _end(second)
        os.write(write_end, b"one")
        other = _end(first)
    right = status is CancelStatus.CANCELED and ending == "ECANCELED" and other == "3"
    return Shown(_ANSWERS[status], f"{ending}: it did not happen; the first got its {other} bytes", right)


@SCENES.add("read of an empty pipe, running", "aio_cancel of it")
def _runs(_: None) -> Shown:
    with _pipe() as (read_end, write_end):
        block = _running(read_end)
        status = aio_cancel(read_end, block)
        in_progress = aio_error(block) == errno.EINPROGRESS
        os.write(write_end, b"one")
        ending = _end(block)
    if is_glibc():
        right = status is CancelStatus.NOTCANCELED and in_progress and ending == "3"
        return Shown(_ANSWERS[status], f"{ending}: it went on until bytes came, and delivered them", right)
    right = status is CancelStatus.CANCELED and ending == "ECANCELED"
    return Shown(_ANSWERS[status], f"{ending}: it did not happen", right)


@SCENES.add("three reads of one empty pipe", "aio_cancel of all on the fd")
def _all(_: None) -> Shown:
    with _pipe() as (read_end, write_end):
        first, *others = _running(read_end), _read(read_end), _read(read_end)
        status = aio_cancel(read_end)
        endings = {_end(block) for block in others}
        os.write(write_end, b"one")
        ending = _end(first)
    wanted = (CancelStatus.NOTCANCELED, "3") if is_glibc() else (CancelStatus.CANCELED, "ECANCELED")
    right = (status, ending) == wanted and endings == {"ECANCELED"}
    return Shown(_ANSWERS[status], f"the first {ending}, the others {' and '.join(sorted(endings))}", right)


@SCENES.add("read of a pipe with data in it", "aio_cancel, too late")
def _beaten(_: None) -> Shown:
    with _pipe() as (read_end, write_end):
        os.write(write_end, b"first")
        block = _read(read_end)
        _end(block)
        status = aio_cancel(read_end, block)
        ending = _end(block)
    right = status is CancelStatus.ALLDONE and ending == "5" and bytes(block.buf[:5]) == b"first"
    return Shown(_ANSWERS[status], f"{ending}: the bytes that came first are delivered", right)
