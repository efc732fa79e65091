"""Linux AIO: what the demonstration starts and cancels."""

from __future__ import annotations

import os
import socket

from iocancel.demo.row import Scenes, Shown
from iocancel.doctor.live import LIMIT, Overdue, code
from iocancel.doctor.props import folder, pipe, sockets
from iocancel.errors import CancelNotFound
from iocancel.libaio import Context, Event, Iocb, PollEvents

__all__ = ["SCENES"]

SCENES: Scenes[Context] = Scenes()
_ACCEPTED = "-EINPROGRESS: cancelled, its event will come"
_NOT_FOUND = "-EINVAL: nothing to cancel"


def _cancel(context: Context, iocb: Iocb) -> str:
    try:
        event = context.cancel(iocb)
    except CancelNotFound:
        return _NOT_FOUND
    return _ACCEPTED if event is None else "0: cancelled, its event at once"


def _event(context: Context) -> Event:
    events = context.getevents(1, 1, timeout=LIMIT)
    if not events:
        raise Overdue(f"no event within {LIMIT:g} s")
    return events[0]


def _poll(context: Context, fd: int | socket.socket) -> Shown:
    iocb = Iocb.poll(fd, PollEvents.IN)
    context.submit([iocb])
    answer = _cancel(context, iocb)
    event = _event(context)
    text = "res 0: no event was found, it did not happen" if event.res == 0 else f"res {code(event.res)}"
    return Shown(answer, text, answer == _ACCEPTED and event.iocb is iocb and event.res == 0)


@SCENES.add("poll of an empty pipe", "io_cancel")
def _pipe_poll(context: Context) -> Shown:
    with pipe() as (read_end, _):
        return _poll(context, read_end)


@SCENES.add("poll of a socket", "io_cancel")
def _socket_poll(context: Context) -> Shown:
    with sockets() as (here, _):
        return _poll(context, here)


@SCENES.add("poll of a pipe with data in it", "io_cancel, too late")
def _beaten(context: Context) -> Shown:
    with pipe() as (read_end, write_end):
        os.write(write_end, b"first")
        iocb = Iocb.poll(read_end, PollEvents.IN)
        context.submit([iocb])
        answer = _cancel(context, iocb)
        event = _event(context)
        kept = os.read(read_end, 16) == b"first"
    right = answer == _NOT_FOUND and event.res == PollEvents.IN and kept
    return Shown(answer, f"res {event.res}: the pipe is readable", right)


@SCENES.add("read of a regular file", "io_cancel, which can't")
def _file(context: Context) -> Shown:
    with folder() as there:
        (there / "file").write_bytes(b"content")
        with (there / "file").open("rb", 0) as file:
            buffer = bytearray(16)
            iocb = Iocb.pread(file, buffer)
            context.submit([iocb])
            answer = _cancel(context, iocb)
            event = _event(context)
    right = answer == _NOT_FOUND and event.res == 7 and buffer[:7] == b"content"
    return Shown(answer, f"res {event.res}: the bytes are delivered", right)
