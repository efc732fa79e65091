"""Blocking verbs that move bytes. See the package.

Each has a `try` of its own around all that it does, instead of one that they share: what a signal's
exception finds must be found by the outermost frame, behind which nobody looks any more.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from select import POLLIN, POLLOUT
from typing import TYPE_CHECKING, Any

from iocancel import errors
from iocancel.blocking.trying import attempt, bring, number_of, of_buffer, sensible, to_buffer
from iocancel.engines import ready
from iocancel.engines.ready import NOT_READY, ROOM, Attempt
from iocancel.operation import Outcome
from iocancel.operation.core import expiry
from iocancel.scope import checkpoint, local
from iocancel.waiting import Waiting

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from iocancel.operation import Operation
    from iocancel.operation.verbs import File

_read, _recv = ready.read, ready.recv
# Plain numbers: an enum's `&` takes a microsecond.
_DONTWAIT = int(socket.MSG_DONTWAIT)
_ERRQUEUE = int(socket.MSG_ERRQUEUE)
# What takes several calls, and what tells of more bytes than it gives (recv(2)).
_SPECIAL = int(socket.MSG_WAITALL | socket.MSG_TRUNC)


def _events(flags: int) -> int:
    """What to wait for: a message of the error queue is no input, and POLLERR comes unasked."""
    return 0 if flags & _ERRQUEUE else POLLIN


def read(fd: File, into: int | WriteableBuffer, offset: int = -1, *, timeout: float | None = None) -> Any:
    """Read from a file, a pipe, a device or a socket (read(2), pread(2)).

    Args:
        fd: the file.
        into: how many bytes at most; or a writable buffer.
        offset: where in the file, in bytes; -1 is the file's own position, which then moves.
        timeout: seconds, >= 0; 0 takes what is ready; None waits for ever.

    Returns:
        The bytes (b"" at the end), or how many where a buffer was given.

    Raises:
        TimeoutError: nothing came in time (`OperationTimedOut`).
        Cancelled: a scope around it was cancelled.
        OSError: read(2) failed.
        CancelTooLate: the time is over, and the system can't stop the request.
        EngineUnavailable: no engine can be had here.
    """
    here = local.here
    if here.stack:
        here.check()
    if timeout is not None and not (
        (timeout.__class__ is int or timeout.__class__ is float) and timeout >= 0
    ):
        expiry(timeout)  # says what is wrong with it
    number = fd if fd.__class__ is int else number_of(fd)
    data = many = None
    now = here.attempt or Attempt()
    here.attempt = None  # a signal's handler that makes a call takes another one
    now.calls += 1
    try:
        if isinstance(into, int) and 0 <= into <= ROOM:
            many = _read(now.told, number, into, offset)
            if many >= 0:
                data = now.data[:many]
                here.attempt = now
                return data
        elif not isinstance(into, int):
            many = to_buffer(now, ready.read_to, number, into, offset)
            if many >= 0:
                here.attempt = now
                return many
    except BaseException as error:
        bring(error, now, "read", number, many, data, isinstance(into, int))
        raise
    if many is not None:
        here.attempt = now
        if many != NOT_READY:
            errors.check(many, "read")
    if isinstance(into, int):
        into = sensible(number, into, offset)
    call = Waiting(here, timeout)
    try:
        return call.value_on(lambda engine, file: engine.read(file, into, offset), fd, POLLIN)
    except BaseException as error:
        call.leave_on(error)
        raise


def write(fd: File, data: ReadableBuffer, offset: int = -1, *, timeout: float | None = None) -> int:
    """Write to a file, a pipe, a device or a socket (write(2), pwrite(2)).

    Args:
        fd, offset, timeout: as for `read`.
        data: a buffer.

    Returns:
        How many bytes were written: as many as there was room for, possibly fewer than given (see
        `write_all`).

    Raises: as `read`.
    """
    here = local.here
    if here.stack:
        here.check()
    if timeout is not None and not (
        (timeout.__class__ is int or timeout.__class__ is float) and timeout >= 0
    ):
        expiry(timeout)  # says what is wrong with it
    number = fd if fd.__class__ is int else number_of(fd)
    now, many = attempt(here), None
    try:
        many = of_buffer(now, ready.write, number, data, offset)
        here.attempt = now
        if many >= 0:
            return many
    except BaseException as error:
        bring(error, now, "write", number, many)
        raise
    if many != NOT_READY:
        errors.check(many, "write")
    call = Waiting(here, timeout)
    try:
        result: int = call.value_on(lambda engine, file: engine.write(file, data, offset), fd, POLLOUT)
        return result
    except BaseException as error:
        call.leave_on(error)
        raise


def write_all(fd: File, data: ReadableBuffer, *, timeout: float | None = None) -> None:
    """Write all of it, in as many parts as it takes.

    Args:
        fd, data: as for `write`.
        timeout: for all of it.

    Raises:
        As `read`; the exception's `sent` says how many bytes were written before.
    """
    _all_of(write, fd, data, timeout)


def recv(sock: File, into: int | WriteableBuffer, flags: int = 0, *, timeout: float | None = None) -> Any:
    """Receive from a socket (recv(2)).

    Args:
        sock: the socket.
        into: how many bytes at most, or a writable buffer.
        flags: `socket.MSG_PEEK`, MSG_WAITALL ...; MSG_DONTWAIT is `timeout=0`.
        timeout: as for `read`.

    Returns:
        The bytes (b"" when the peer has closed), or how many where a buffer was given. A MSG_WAITALL that is
        ended early returns what had come.

    Raises: as `read`.
    """
    here = local.here
    if here.stack:
        here.check()
    if timeout is not None and not (
        (timeout.__class__ is int or timeout.__class__ is float) and timeout >= 0
    ):
        expiry(timeout)  # says what is wrong with it
    number = sock if sock.__class__ is int else number_of(sock)
    data = many = None
    now = here.attempt or Attempt()
    here.attempt = None  # a signal's handler that makes a call takes another one
    now.calls += 1
    try:
        if isinstance(into, int) and 0 <= into <= ROOM and not flags & _SPECIAL:
            many = _recv(now.told, number, into, flags)
            if many >= 0:
                data = now.data[:many]
                here.attempt = now
                return data
        elif not isinstance(into, int) and not flags & _SPECIAL:
            many = to_buffer(now, ready.recv_to, number, into, flags)
            if many >= 0:
                here.attempt = now
                return many
    except BaseException as error:
        bring(error, now, "recv", number, many, data, isinstance(into, int))
        raise
    if many is not None:
        here.attempt = now
        if many != NOT_READY:
            errors.check(many, "recv")
    if flags & _DONTWAIT:
        timeout = 0
        flags &= ~_DONTWAIT
    call = Waiting(here, timeout)
    try:
        return call.value_on(lambda engine, file: engine.recv(file, into, flags), sock, _events(flags))
    except BaseException as error:
        call.leave_on(error)
        raise


def recv_into(sock: File, buffer: WriteableBuffer, flags: int = 0, *, timeout: float | None = None) -> int:
    """Receive into a buffer; otherwise as `recv`.

    Returns:
        How many bytes came.
    """
    if isinstance(buffer, int):
        raise TypeError("recv_into takes a writable buffer, not a number")
    many: int = recv(sock, buffer, flags, timeout=timeout)
    return many


def send(sock: File, data: ReadableBuffer, flags: int = 0, *, timeout: float | None = None) -> int:
    """Send to a connected socket (send(2)), without SIGPIPE.

    Args:
        sock, flags, timeout: as for `recv`.
        data: a buffer.

    Returns:
        How many bytes were sent: as many as there was room for, possibly fewer than given (see
        `sendall`).

    Raises: as `read`.
    """
    here = local.here
    if here.stack:
        here.check()
    if timeout is not None and not (
        (timeout.__class__ is int or timeout.__class__ is float) and timeout >= 0
    ):
        expiry(timeout)  # says what is wrong with it
    if flags & _DONTWAIT:
        timeout = 0
        flags &= ~_DONTWAIT
    number = sock if sock.__class__ is int else number_of(sock)
    now, many = attempt(here), None
    try:
        many = of_buffer(now, ready.send, number, data, flags)
        here.attempt = now
        if many >= 0:
            return many
    except BaseException as error:
        bring(error, now, "send", number, many)
        raise
    if many != NOT_READY:
        errors.check(many, "send")
    call = Waiting(here, timeout)
    try:
        result: int = call.value_on(lambda engine, file: engine.send(file, data, flags), sock, POLLOUT)
        return result
    except BaseException as error:
        call.leave_on(error)
        raise


def sendall(sock: File, data: ReadableBuffer, flags: int = 0, *, timeout: float | None = None) -> None:
    """Send all of it, in as many parts as it takes.

    Args:
        sock, data, flags: as for `send`.
        timeout: for all of it.

    Raises:
        As `read`; the exception's `sent` says how many bytes were sent before.
    """
    _all_of(lambda file, part, timeout: send(file, part, flags, timeout=timeout), sock, data, timeout)


def readv(
    fd: File, buffers: Sequence[WriteableBuffer], offset: int = -1, *, timeout: float | None = None
) -> int:
    """Read into several buffers (readv(2)); otherwise as `read`."""
    call = Waiting(local.here, timeout)
    try:
        result: int = call.value_on(lambda engine, file: engine.readv(file, buffers, offset), fd, POLLIN)
        return result
    except BaseException as error:
        call.leave_on(error)
        raise


def writev(
    fd: File, buffers: Sequence[ReadableBuffer], offset: int = -1, *, timeout: float | None = None
) -> int:
    """Write several buffers (writev(2)); otherwise as `write`."""
    call = Waiting(local.here, timeout)
    try:
        result: int = call.value_on(lambda engine, file: engine.writev(file, buffers, offset), fd, POLLOUT)
        return result
    except BaseException as error:
        call.leave_on(error)
        raise


def recvmsg(
    sock: File, bufsize: int, ancbufsize: int = 0, flags: int = 0, *, timeout: float | None = None
) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
    """Receive a message with its address and ancillary data (recvmsg(2)).

    Args:
        sock, flags, timeout: as for `recv`.
        bufsize, ancbufsize: room for the message and for ancillary data, in bytes.

    Returns:
        What `socket.recvmsg` returns: (data, ancdata, msg_flags, address).

    Raises: as `read`.
    """
    if flags & _DONTWAIT:
        timeout = 0
        flags &= ~_DONTWAIT
    call = Waiting(local.here, timeout)
    try:
        result: tuple[bytes, list[tuple[int, int, bytes]], int, Any] = call.value_on(
            lambda engine, file: engine.recvmsg(file, bufsize, ancbufsize, flags), sock, _events(flags)
        )
        return result
    except BaseException as error:
        call.leave_on(error)
        raise


def sendmsg(
    sock: File,
    buffers: Sequence[ReadableBuffer],
    ancdata: Sequence[tuple[int, int, ReadableBuffer]] = (),
    flags: int = 0,
    address: Any = None,
    *,
    timeout: float | None = None,
) -> int:
    """Send a message, perhaps with ancillary data and an address (sendmsg(2)).

    Args:
        sock: the socket, or its number.
        buffers: what to send, one after the other.
        ancdata: ancillary data, as `socket.sendmsg` takes it: (level, type, data).
        flags: the MSG_* of sendmsg(2).
        address: where to; in Python's form it needs a socket object.
        timeout: seconds, as for `read`.

    Returns:
        How many bytes were sent.

    Raises: as `read`.
    """
    if flags & _DONTWAIT:
        timeout = 0
        flags &= ~_DONTWAIT

    def start(engine: Any, file: File) -> Operation[int]:
        to = file if address is None else sock  # an address in Python's form needs the socket's family
        op: Operation[int] = engine.sendmsg(to, buffers, ancdata, flags, address)
        return op

    call = Waiting(local.here, timeout)
    try:
        result: int = call.value_on(start, sock, POLLOUT)
        return result
    except BaseException as error:
        call.leave_on(error)
        raise


def _all_of(call: Any, fd: File, data: Any, timeout: float | None) -> None:
    """Write or send all of it; what went before an exception is its `sent`."""
    checkpoint()
    until = None if timeout is None else expiry(timeout)
    view = memoryview(data).cast("B")
    sent = 0
    try:
        while True:
            if sent >= len(view):
                break
            left = None if until is None else max(0.0, until - time.monotonic())
            sent += call(fd, view[sent:], timeout=left)
    except BaseException as error:
        op = getattr(error, "operation", None)
        if op is not None and op.outcome is Outcome.COMPLETED:
            sent += op.result()
        error.sent = sent  # type: ignore[attr-defined]
        raise


__all__ = [
    "read",
    "readv",
    "recv",
    "recv_into",
    "recvmsg",
    "send",
    "sendall",
    "sendmsg",
    "write",
    "write_all",
    "writev",
]
