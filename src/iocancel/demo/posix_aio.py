"""POSIX AIO: what the demonstration starts and cancels. It is the C library's own."""

from __future__ import annotations

import errno
import os

from iocancel.demo.row import Scenes, Shown
from iocancel.doctor import aio
from iocancel.doctor.machine import is_glibc
from iocancel.posix_aio import Aiocb, CancelStatus, aio_cancel, aio_error

__all__ = ["SCENES"]

SCENES: Scenes[None] = Scenes()
_ANSWERS = {
    CancelStatus.CANCELED: "CANCELED: all of them",
    CancelStatus.NOTCANCELED: "NOTCANCELED: one runs, and goes on",
    CancelStatus.ALLDONE: "ALLDONE: nothing to cancel",
}


def _end(block: Aiocb) -> str:
    """How an operation ended, waited for."""
    res = aio.ended(block)
    return errno.errorcode.get(-res, str(-res)) if res < 0 else str(res)


@SCENES.add("read of an empty pipe, queued behind another", "aio_cancel of the second")
def _queued(_: None) -> Shown:
    with aio.pipe() as (read_end, write_end):
        first, second = aio.running(read_end), aio.reading(read_end)
        status = aio_cancel(read_end, second)
        ending = _end(second)
        os.write(write_end, b"one")
        other = _end(first)
    right = status is CancelStatus.CANCELED and ending == "ECANCELED" and other == "3"
    return Shown(_ANSWERS[status], f"{ending}: it did not happen; the first got its {other} bytes", right)


@SCENES.add("read of an empty pipe, running", "aio_cancel of it")
def _runs(_: None) -> Shown:
    with aio.pipe() as (read_end, write_end):
        block = aio.running(read_end)
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
    with aio.pipe() as (read_end, write_end):
        first, *others = aio.running(read_end), aio.reading(read_end), aio.reading(read_end)
        status = aio_cancel(read_end)
        endings = {_end(block) for block in others}
        os.write(write_end, b"one")
        ending = _end(first)
    wanted = (CancelStatus.NOTCANCELED, "3") if is_glibc() else (CancelStatus.CANCELED, "ECANCELED")
    right = (status, ending) == wanted and endings == {"ECANCELED"}
    return Shown(_ANSWERS[status], f"the first {ending}, the others {' and '.join(sorted(endings))}", right)


@SCENES.add("read of a pipe with data in it", "aio_cancel, too late")
def _beaten(_: None) -> Shown:
    with aio.pipe() as (read_end, write_end):
        os.write(write_end, b"first")
        block = aio.reading(read_end)
        _end(block)
        status = aio_cancel(read_end, block)
        ending = _end(block)
    right = status is CancelStatus.ALLDONE and ending == "5" and bytes(block.buf[:5]) == b"first"
    return Shown(_ANSWERS[status], f"{ending}: the bytes that came first are delivered", right)
