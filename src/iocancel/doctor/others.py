"""Linux AIO and POSIX AIO: what works, and how far requests can be cancelled."""

from __future__ import annotations

import errno
import os

from iocancel.doctor import aio
from iocancel.doctor.live import LIMIT, Overdue, code
from iocancel.doctor.props import direct_file, folder, pipe, sockets
from iocancel.doctor.report import Checks, Reach, Seen, Wrong
from iocancel.errors import CancelNotFound
from iocancel.libaio import Context, Event, Iocb, PollEvents
from iocancel.posix_aio import (
    Aiocb,
    CancelStatus,
    SigEvent,
    aio_cancel,
    aio_init,
    aio_read,
    aio_write,
)

__all__ = ["LIBAIO", "LIBAIO_KINDS", "POSIX_AIO", "POSIX_AIO_KINDS"]

LIBAIO: Checks[Context] = Checks("mechanism")
LIBAIO_KINDS: Checks[Context] = Checks("request")
POSIX_AIO: Checks[None] = Checks("mechanism")
POSIX_AIO_KINDS: Checks[None] = Checks("request")


# Linux AIO


def _event(context: Context) -> Event:
    events = context.getevents(1, 1, timeout=LIMIT)
    if not events:
        raise Overdue(f"no event within {LIMIT:g} s")
    return events[0]


def _end(context: Context, iocb: Iocb) -> Seen:
    """Submits and cancels a request, and says how far it could be cancelled."""
    context.submit([iocb])
    answer = "-EINPROGRESS"
    try:
        if context.cancel(iocb) is not None:
            raise Wrong("io_cancel handed the event over, as no kernel since 3.10 does")
    except CancelNotFound:
        answer = "-EINVAL"
    res = _event(context).res
    if answer == "-EINVAL":
        return Seen(f"io_cancel {answer}, then {code(res)}", "none")
    if res:
        raise Wrong(f"io_cancel {answer}, then {code(res)}")
    return Seen(f"io_cancel {answer}, then an event with res 0", "total")


@LIBAIO_KINDS.add("poll (empty pipe)")
def _poll_pipe(context: Context) -> Seen:
    with pipe() as (read_end, _):
        return _end(context, Iocb.poll(read_end))


@LIBAIO_KINDS.add("poll (socket)")
def _poll_socket(context: Context) -> Seen:
    with sockets() as (here, _):
        return _end(context, Iocb.poll(here))


@LIBAIO_KINDS.add("pread (regular file)")
def _read_file(context: Context) -> Seen:
    with folder() as there:
        (there / "file").write_bytes(b"content")
        with (there / "file").open("rb", 0) as file:
            return _end(context, Iocb.pread(file, bytearray(7)))


@LIBAIO_KINDS.add("pwrite (regular file)")
def _write_file(context: Context) -> Seen:
    with folder() as there, (there / "file").open("wb", 0) as file:
        return _end(context, Iocb.pwrite(file, b"content"))


@LIBAIO_KINDS.add("pread (regular file, O_DIRECT)")
def _read_direct(context: Context) -> Seen:
    with direct_file() as (fd, memory):
        return _end(context, Iocb.pread(fd, memory))


@LIBAIO_KINDS.add("fsync")
def _fsync(context: Context) -> Seen:
    with folder() as there, (there / "file").open("wb", 0) as file:
        return _end(context, Iocb.fsync(file))


@LIBAIO.add("notification by an eventfd")
def _eventfd(context: Context) -> Seen:
    fd = os.eventfd(0)
    try:
        with pipe() as (read_end, _):
            iocb = Iocb.poll(read_end, PollEvents.IN)
            iocb.set_eventfd(fd)
            context.submit([iocb])
            context.cancel(iocb)
            _event(context)
        os.set_blocking(fd, False)
        count = os.eventfd_read(fd)
    finally:
        os.close(fd)
    return Seen(f"it counted {count} for one cancelled poll")


# POSIX AIO


def _reach(status: CancelStatus, res: int) -> Seen:
    reach: Reach = "total" if res == -errno.ECANCELED else "none"
    return Seen(f"aio_cancel {status.name}, then {code(res)}", reach)


@POSIX_AIO.add("aio_init")
def _init(_: None) -> Seen:
    try:
        aio_init()
    except RuntimeError:
        return Seen("it is there; this process has used POSIX AIO before, so that it comes too late")
    return Seen("at most 20 threads, as by default")


@POSIX_AIO_KINDS.add("aio_read, queued behind another (empty pipe)")
def _queued(_: None) -> Seen:
    with aio.pipe() as (read_end, write_end):
        first, second = aio.running(read_end), aio.reading(read_end)
        status = aio_cancel(read_end, second)
        os.write(write_end, b"one")
        aio.ended(first)
        return _reach(status, aio.ended(second))


@POSIX_AIO_KINDS.add("aio_read, running (empty pipe)")
def _runs(_: None) -> Seen:
    with aio.pipe() as (read_end, write_end):
        block = aio.running(read_end)
        status = aio_cancel(read_end, block)
        os.write(write_end, b"one")
        return _reach(status, aio.ended(block))


@POSIX_AIO_KINDS.add("aio_write (regular file)")
def _write(_: None) -> Seen:
    with folder() as there, (there / "file").open("wb", 0) as file:
        block = Aiocb(file, b"content")
        aio_write(block)
        status = aio_cancel(file, block)
        seen = _reach(status, aio.ended(block))
    # Whether a thread had taken it up is chance; what a thread has taken up can't be stopped.
    return Seen(f"{seen.text}; once a thread has it, it is done", "none")


@POSIX_AIO.add("notification by a thread")
def _thread(_: None) -> Seen:
    fd = os.eventfd(0)
    try:
        with aio.pipe() as (read_end, write_end):
            block = Aiocb(read_end, bytearray(8), sigevent=SigEvent.thread(fd))
            aio_read(block)
            os.write(write_end, b"x")
            aio.ended(block)
            count = os.eventfd_read(fd)
    finally:
        os.close(fd)
    return Seen(f"it counted {count} for one read")
