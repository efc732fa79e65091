"""Blocking verbs that wait for connections, events, time, files. See the package."""

from __future__ import annotations

import errno
import math
import os
import socket
import time
from select import POLLIN, POLLOUT
from typing import TYPE_CHECKING, Any

from iocancel import errors
from iocancel.blocking.trying import attempt, number_of
from iocancel.engines import ready
from iocancel.engines.ready import NOT_READY
from iocancel.operation.core import expiry
from iocancel.operation.verbs import whole
from iocancel.scope import Here, checkpoint, local
from iocancel.waiting import Waiting

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from iocancel.operation.values import File, Path


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
    if timeout is not None:
        expiry(timeout)  # says what is wrong with it, also where nothing is to be waited for
    number = number_of(sock)
    now, op = attempt(here), None
    try:
        many = ready.accept(now.told, number)
        if many >= 0:
            op = ready.taken("accept", number, many)
            ready.mine(op)
            here.attempt = now
            pair: tuple[socket.socket, Any] = op.result()
            return pair
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
    call = Waiting(here, timeout)
    try:
        result: tuple[socket.socket, Any] = call.value_on(
            lambda engine, file: engine.accept(file), sock, POLLIN
        )
        return result
    except BaseException as error:
        call.leave_on(error)
        raise


def connect(sock: socket.socket, address: Any, *, timeout: float | None = None) -> None:
    """Connect a socket (connect(2)).

    Args:
        sock: the socket.
        address: in Python's form, with a numeric host.
        timeout: as for `read`.

    Raises:
        As `read`. After a cancel the socket is of no use: close it.
    """
    call = Waiting(local.here, timeout)
    try:
        call.value(lambda engine: engine.connect(sock, address))
    except (BlockingIOError, InterruptedError) as error:
        # O_NONBLOCK: it is under way. (A Unix socket's EAGAIN is a full backlog: nothing tells of its end.)
        if error.errno != errno.EINPROGRESS:
            raise
        poll(sock, POLLOUT, timeout=timeout)
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, f"{os.strerror(number)}: connect") from None
    except BaseException as error:
        call.leave_on(error)
        raise


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
    if timeout is not None:
        expiry(timeout)  # says what is wrong with it, also where nothing is to be waited for
    whole(mask, "mask")
    now = attempt(here)
    found: int = ready.poll(now.told, number_of(fd), mask & 0x7FFF)
    here.attempt = now
    if found != NOT_READY:
        return errors.check(found, "poll")
    call = Waiting(here, timeout)
    try:
        result: int = call.value(lambda engine: engine.poll(fd, mask))
        return result
    except BaseException as error:
        call.leave_on(error)
        raise


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
    """Let time pass until a time, `deadline`, in `time.monotonic()` seconds; otherwise as `sleep`."""
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
    if options & os.WNOHANG:
        checkpoint()
        return os.waitid(idtype, id, options)

    def start(engine: Any) -> Any:
        if not engine.supports("waitid") and idtype in (os.P_PID, os.P_PIDFD) and options & os.WEXITED:
            return engine.poll(pid_file(), POLLIN)
        return engine.waitid(idtype, id, options)

    pidfd: list[ready.PidFd] = []

    def pid_file() -> int:
        if idtype == os.P_PIDFD:
            return id
        if not pidfd:
            pidfd.append(ready.PidFd(id))
        return pidfd[0].value

    call = Waiting(local.here, timeout)
    try:
        value = call.value(start)
        return os.waitid(idtype, id, options | os.WNOHANG) if isinstance(value, int) else value
    except BaseException as error:
        call.leave_on(error)
        raise


def futex_wait(futex: WriteableBuffer, val: int, *, timeout: float | None = None) -> None:
    """Wait until a futex is woken (futex(2)). Linux 6.7, only on io_uring.

    Args:
        futex: 4 bytes, aligned.
        val: the value that it has to have for the wait to begin; with another one BlockingIOError is raised.
        timeout: as for `read`.

    Raises: as `read`.
    """
    call = Waiting(local.here, timeout)
    try:
        call.value(lambda engine: engine.futex_wait(futex, val))
    except BaseException as error:
        call.leave_on(error)
        raise


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
    call = Waiting(local.here, timeout)
    try:
        result: int = call.value(lambda engine: engine.openat(path, flags, mode, dir_fd=dir_fd))
        return result
    except BaseException as error:
        call.leave_on(error)
        raise


def fsync(fd: File, *, datasync: bool = False, timeout: float | None = None) -> None:
    """Have a file's data reach the disk (fsync(2)).

    Args:
        fd, timeout: as for `read`.
        datasync: only what is needed to read the data again (fdatasync(2)).

    Raises: as `read`; what runs can't be stopped.
    """
    call = Waiting(local.here, timeout)
    try:
        call.value(lambda engine: engine.fsync(fd, datasync=datasync))
    except BaseException as error:
        call.leave_on(error)
        raise


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
    call = Waiting(local.here, timeout)
    try:
        result: int = call.value(
            lambda engine: engine.splice(src, dst, count, offset_src, offset_dst, flags=flags)
        )
        return result
    except BaseException as error:
        call.leave_on(error)
        raise


def tee(src: File, dst: File, count: int, *, flags: int = 0, timeout: float | None = None) -> int:
    """Copy bytes from one pipe to another and leave them in the first (tee(2)); else as `splice`."""
    call = Waiting(local.here, timeout)
    try:
        result: int = call.value(lambda engine: engine.tee(src, dst, count, flags=flags))
        return result
    except BaseException as error:
        call.leave_on(error)
        raise


__all__ = [
    "accept",
    "connect",
    "fsync",
    "futex_wait",
    "open",
    "poll",
    "sleep",
    "sleep_forever",
    "sleep_until",
    "splice",
    "tee",
    "waitid",
]
