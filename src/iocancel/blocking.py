"""Blocking I/O for plain threads that a deadline, another thread or Ctrl-C can end.

Each verb does one thing, waits for it, and returns its value. It ends early

- at its `timeout`, in seconds from the call (TimeoutError), or the deadline of a `CancelScope` around it
  (`Cancelled`, which that scope catches): whichever is first;
- by `scope.cancel()`, from another thread or from a signal's handler;
- by an exception of a signal's handler, as Ctrl-C's KeyboardInterrupt. A value that had come when it came is
  its `operation`'s, an attribute of the exception: `error.operation.result()`.

In each case the kernel's request is gone before the exception is raised: nothing is read, written or accepted
afterwards, and no buffer touched. What came first is returned, and the next verb in a cancelled scope raises.
Only where the system can't stop a request (a disk's, a hung server's) `CancelTooLate` is raised after some
seconds: it has the operation, which goes on.

What is ready is taken at once, by one system call that never waits. Else an engine is borrowed from the
process's pool (`iocancel.pool`). What this machine's engine can't do raises `FeatureUnavailable`, which names
the engines that can.

A file is a number or an object with `fileno()`; O_NONBLOCK is left as it is, and does not matter.
"""

from __future__ import annotations

import errno
import math
import os
import select
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from iocancel import errors
from iocancel.engines import ready
from iocancel.engines.ready import NOT_READY, ROOM, Attempt
from iocancel.operation import Outcome
from iocancel.operation.core import expiry
from iocancel.operation.verbs import whole
from iocancel.scope import Here, checkpoint, local
from iocancel.waiting import Waiting, blocked, blocked_ready

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from iocancel.operation.verbs import File, Path

_read, _write, _recv, _send = ready.read, ready.write, ready.recv, ready.send
_from_buffer, _release, _BYTES = ready.from_buffer, ready.release, ready.BYTES
_IN, _OUT = select.POLLIN, select.POLLOUT


def _number(fd: File) -> int:
    if isinstance(fd, int):
        return fd
    fileno = getattr(fd, "fileno", None)
    if fileno is None:
        raise TypeError(f"a file is an int or an object with fileno(), not {type(fd).__name__}")
    return int(fileno())


# Bytes


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
    if isinstance(into, int) and 0 <= into <= ROOM:
        number = fd if fd.__class__ is int else _number(fd)
        data = None
        now = here.attempt or Attempt()
        here.attempt = None  # a signal's handler that makes a call takes another one
        now.calls += 1
        try:
            many = _read(now.told, number, into, offset)
            if many >= 0:
                data = now.data[:many]
                here.attempt = now
                return data
        except BaseException as error:
            _bring(error, now, "read", number, data)
            raise
        here.attempt = now
        if many != NOT_READY:
            errors.check(many, "read")
    elif not isinstance(into, int):
        return _into("read", ready.read_to, fd, into, offset, timeout)
    return blocked_ready(here, lambda engine, file: engine.read(file, into, offset), fd, _IN, timeout)


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
    return _out_of("write", _write, fd, data, offset, timeout)


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
    whole_it = flags & socket.MSG_WAITALL
    if isinstance(into, int) and 0 <= into <= ROOM and not whole_it:
        number = sock if sock.__class__ is int else _number(sock)
        data = None
        now = here.attempt or Attempt()
        here.attempt = None  # a signal's handler that makes a call takes another one
        now.calls += 1
        try:
            many = _recv(now.told, number, into, flags)
            if many >= 0:
                data = now.data[:many]
                here.attempt = now
                return data
        except BaseException as error:
            _bring(error, now, "recv", number, data)
            raise
        here.attempt = now
        if many != NOT_READY:
            errors.check(many, "recv")
    elif not isinstance(into, int) and not whole_it:
        return _into("recv", ready.recv_to, sock, into, flags, timeout)
    flags &= ~socket.MSG_DONTWAIT
    return blocked_ready(here, lambda engine, file: engine.recv(file, into, flags), sock, _IN, timeout)


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
    return _out_of("send", _send, sock, data, flags & ~socket.MSG_DONTWAIT, timeout)


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
    many: int = blocked_ready(
        local.here, lambda engine, file: engine.readv(file, buffers, offset), fd, _IN, timeout
    )
    return many


def writev(
    fd: File, buffers: Sequence[ReadableBuffer], offset: int = -1, *, timeout: float | None = None
) -> int:
    """Write several buffers (writev(2)); otherwise as `write`."""
    many: int = blocked_ready(
        local.here, lambda engine, file: engine.writev(file, buffers, offset), fd, _OUT, timeout
    )
    return many


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
    found: tuple[bytes, list[tuple[int, int, bytes]], int, Any] = blocked_ready(
        local.here,
        lambda engine, file: engine.recvmsg(file, bufsize, ancbufsize, flags & ~socket.MSG_DONTWAIT),
        sock,
        _IN,
        timeout,
    )
    return found


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

    Args and value are as for `socket.sendmsg`; an address in Python's form needs a socket object.

    Raises: as `read`.
    """
    many: int = blocked_ready(
        local.here,
        lambda engine, file: engine.sendmsg(
            file if address is None else sock,  # an address in Python's form needs the socket's family
            buffers,
            ancdata,
            flags & ~socket.MSG_DONTWAIT,
            address,
        ),
        sock,
        _OUT,
        timeout,
    )
    return many


# Connections


def accept(sock: File, *, timeout: float | None = None) -> tuple[socket.socket, Any]:
    """Accept a connection (accept4(2) with SOCK_CLOEXEC).

    Args:
        sock: a listening socket.
        timeout: as for `read`.

    Returns:
        (socket, address), as `socket.accept`.

    Raises: as `read`.
    """
    here = local.here
    if here.stack:
        here.check()
    if timeout is not None and not (
        (timeout.__class__ is int or timeout.__class__ is float) and timeout >= 0
    ):
        expiry(timeout)  # says what is wrong with it
    number = _number(sock)
    now = _attempt(here)
    op = None
    try:
        many = ready.accept(now.told, number)
        if many >= 0:
            op = ready.taken("accept", number, many)
            ready.mine(op)
            here.attempt = now
            return op.result()  # type: ignore[no-any-return]
    except BaseException as error:
        if op is None and now.came() >= 0:
            op = ready.taken("accept", number, now.came())
        if op is not None:
            ready.mine(op)
            error.operation = op  # type: ignore[attr-defined]
        raise
    here.attempt = now
    if many != NOT_READY:
        errors.check(many, "accept")
    pair: tuple[socket.socket, Any] = blocked_ready(
        here, lambda engine, file: engine.accept(file), sock, _IN, timeout
    )
    return pair


def connect(sock: socket.socket, address: Any, *, timeout: float | None = None) -> None:
    """Connect a socket (connect(2)).

    Args:
        sock: the socket.
        address: in Python's form, with a numeric host.
        timeout: as for `read`.

    Raises:
        As `read`. After a cancel the socket is of no use: close it.
    """
    here = local.here
    try:
        blocked(here, lambda engine: engine.connect(sock, address), timeout)
    except (BlockingIOError, InterruptedError) as error:
        # O_NONBLOCK: it is under way. (A Unix socket's EAGAIN is a full backlog: nothing tells of its end.)
        if error.errno != errno.EINPROGRESS:
            raise
        poll(sock, _OUT, timeout=timeout)
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, f"{os.strerror(number)}: connect") from None


# Readiness, time, processes


def poll(fd: File, mask: int, *, timeout: float | None = None) -> int:
    """Wait until a file is ready (poll(2)).

    Args:
        fd, timeout: as for `read`.
        mask: `select.POLLIN`, POLLOUT ...; POLLERR and POLLHUP are always reported.

    Returns:
        The mask of what is ready.

    Raises: as `read`.
    """
    here = local.here
    if here.stack:
        here.check()
    if timeout is not None and not (
        (timeout.__class__ is int or timeout.__class__ is float) and timeout >= 0
    ):
        expiry(timeout)  # says what is wrong with it
    whole(mask, "mask")
    now = _attempt(here)
    found: int = ready.poll(now.told, _number(fd), mask & 0x7FFF)
    here.attempt = now
    if found != NOT_READY:
        return errors.check(found, "poll")
    return int(blocked(here, lambda engine: engine.poll(fd, mask), timeout))


def sleep(seconds: float) -> None:
    """Let time pass: `time.sleep` that a scope can end.

    Args:
        seconds: how long, >= 0.

    Raises:
        Cancelled: a scope around it was cancelled.
    """
    here = local.here
    if here.stack:
        here.check()
    _sleep(here, expiry(seconds) if seconds != math.inf else math.inf)


def sleep_until(deadline: float) -> None:
    """Let time pass until a time, in `time.monotonic()` seconds; otherwise as `sleep`."""
    import time

    sleep(max(0.0, deadline - time.monotonic()))


def sleep_forever() -> None:
    """Wait until a scope around it is cancelled, or a signal's handler raises."""
    sleep(math.inf)


def _sleep(here: Here, until: float) -> None:
    waiting = Waiting(here, None)
    try:
        try:
            waiting.sleep(until)
        finally:
            waiting.end()
    except BaseException:
        waiting.end_at_last()
        raise


def waitid(
    idtype: int,
    id: int,  # noqa: A002
    options: int = os.WEXITED,
    *,
    timeout: float | None = None,
) -> Any:
    """Wait for a child to change its state (waitid(2)).

    Args:
        idtype: `os.P_PID`, P_PGID, P_ALL or P_PIDFD.
        id: the process, group or pidfd.
        options: `os.WEXITED`, WSTOPPED, WCONTINUED, WNOWAIT, WNOHANG.
        timeout: as for `read`.

    Returns:
        (pid, uid, signo, status, code), in the order of `os.waitid`'s; with WNOHANG None where nothing has
        changed. On an engine without it (io_uring before Linux 6.7) a pidfd is polled, which tells of exits
        of one process only.

    Raises: as `read`.
    """
    here = local.here
    if here.stack:
        here.check()
    if options & os.WNOHANG:
        return os.waitid(idtype, id, options)

    def call(engine: Any) -> Any:
        if not engine.supports("waitid") and idtype in (os.P_PID, os.P_PIDFD) and options & os.WEXITED:
            return engine.poll(pid_file(), _IN)
        return engine.waitid(idtype, id, options)

    pidfd: list[ready.PidFd] = []

    def pid_file() -> int:
        if idtype == os.P_PIDFD:
            return id
        if not pidfd:
            pidfd.append(ready.PidFd(id))
        return pidfd[0].value

    value = blocked(here, call, timeout)
    return os.waitid(idtype, id, options | os.WNOHANG) if isinstance(value, int) else value


def futex_wait(futex: WriteableBuffer, val: int, *, timeout: float | None = None) -> None:
    """Wait until a futex is woken (futex(2)). Linux 6.7, only on io_uring.

    Args:
        futex: 4 bytes, aligned.
        val: the value that it has to have for the wait to begin; with another one BlockingIOError is raised.
        timeout: as for `read`.

    Raises: as `read`.
    """
    blocked(local.here, lambda engine: engine.futex_wait(futex, val), timeout)


# Files


def open(  # noqa: A001
    path: Path,
    flags: int = os.O_RDONLY,
    mode: int = 0o777,
    *,
    dir_fd: File | None = None,
    timeout: float | None = None,
) -> int:
    """Open a file (openat(2)), with O_CLOEXEC: a FIFO's waits for its other end. Only on io_uring.

    Args:
        path, flags, mode, dir_fd: as for `os.open`.
        timeout: as for `read`.

    Returns:
        The fd.

    Raises: as `read`.
    """
    fd: int = blocked(local.here, lambda engine: engine.openat(path, flags, mode, dir_fd=dir_fd), timeout)
    return fd


def fsync(fd: File, *, datasync: bool = False, timeout: float | None = None) -> None:
    """Have a file's data reach the disk (fsync(2)).

    Args:
        fd, timeout: as for `read`.
        datasync: only what is needed to read the data again (fdatasync(2)).

    Raises: as `read`; what runs can't be stopped.
    """
    blocked(local.here, lambda engine: engine.fsync(fd, datasync=datasync), timeout)


def splice(
    src: File,
    dst: File,
    count: int,
    offset_src: int = -1,
    offset_dst: int = -1,
    *,
    flags: int = 0,
    timeout: float | None = None,
) -> int:
    """Move bytes between a pipe and another file, without copying (splice(2)).

    Args:
        src, dst: the files; one at least is a pipe.
        count: how many bytes at most.
        offset_src, offset_dst: where in a file that is no pipe, in bytes; -1 is its own position.
        flags: `os.SPLICE_F_MOVE` ...
        timeout: as for `read`.

    Returns:
        How many bytes were moved.

    Raises: as `read`.
    """
    many: int = blocked(
        local.here,
        lambda engine: engine.splice(src, dst, count, offset_src, offset_dst, flags=flags),
        timeout,
    )
    return many


def tee(src: File, dst: File, count: int, *, flags: int = 0, timeout: float | None = None) -> int:
    """Copy bytes from one pipe to another and leave them in the first (tee(2)); else as `splice`."""
    many: int = blocked(local.here, lambda engine: engine.tee(src, dst, count, flags=flags), timeout)
    return many


# Helpers


def _attempt(here: Here) -> Attempt:
    """Where C leaves its result. A signal's handler that makes a call meanwhile takes another one."""
    now: Attempt = here.attempt or Attempt()
    here.attempt = None
    now.calls += 1
    return now


def _bring(error: BaseException, now: Attempt, name: str, number: int, data: bytes | None) -> None:
    """Put on an exception what an attempt had brought when it came."""
    if data is None and now.came() >= 0:
        data = now.data[: now.came()]
    if data is not None:
        error.operation = ready.taken(name, number, len(data), data)  # type: ignore[attr-defined]


def _into(name: str, call: Any, fd: File, buffer: Any, extra: int, timeout: float | None) -> int:
    """Read or receive into the caller's buffer."""
    many = _try(name, call, fd, buffer, True, extra)
    if many >= 0:
        return many
    return int(
        blocked_ready(
            local.here, lambda engine, file: getattr(engine, name)(file, buffer, extra), fd, _IN, timeout
        )
    )


def _out_of(name: str, call: Any, fd: File, data: Any, extra: int, timeout: float | None) -> int:
    """Write or send."""
    here = local.here
    if here.stack:
        here.check()
    if timeout is not None and not (
        (timeout.__class__ is int or timeout.__class__ is float) and timeout >= 0
    ):
        expiry(timeout)  # says what is wrong with it
    many = _try(name, call, fd, data, False, extra)
    if many >= 0:
        return many
    return int(
        blocked_ready(here, lambda engine, file: getattr(engine, name)(file, data, extra), fd, _OUT, timeout)
    )


def _try(name: str, call: Any, fd: File, data: Any, writable: bool, extra: int) -> int:
    """Try with the caller's buffer; NOT_READY, or how many bytes."""
    here, number = local.here, _number(fd)
    now = _attempt(here)
    pin = _from_buffer(_BYTES, data, writable)
    try:
        many: int = call(now.told, number, pin, len(pin), extra)
        here.attempt = now
        if many >= 0 or many == NOT_READY:
            return many
    except BaseException as error:
        if now.came() >= 0:
            error.operation = ready.taken(name, number, now.came())  # type: ignore[attr-defined]
        raise
    finally:
        # Not left to the collector: a memoryview in a cycle with its own export crashes CPython, and an
        # exception's frames are such cycles easily.
        _release(pin)
    return errors.check(many, name)


def _all_of(call: Any, fd: File, data: Any, timeout: float | None) -> None:
    """Write or send all of it; what went before an exception is its `sent`."""
    import time

    checkpoint()
    until = None if timeout is None else expiry(timeout)
    view = memoryview(data).cast("B")
    sent = 0
    try:
        while sent < len(view):
            left = None if until is None else max(0.0, until - time.monotonic())
            sent += call(fd, view[sent:], timeout=left)
    except BaseException as error:
        op = getattr(error, "operation", None)
        if op is not None and op.outcome is Outcome.COMPLETED:
            sent += op.result()
        error.sent = sent  # type: ignore[attr-defined]
        raise


__all__ = [
    "accept",
    "connect",
    "fsync",
    "futex_wait",
    "open",
    "poll",
    "read",
    "readv",
    "recv",
    "recv_into",
    "recvmsg",
    "send",
    "sendall",
    "sendmsg",
    "sleep",
    "sleep_forever",
    "sleep_until",
    "splice",
    "tee",
    "waitid",
    "write",
    "write_all",
    "writev",
]
