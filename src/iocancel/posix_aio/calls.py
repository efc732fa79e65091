"""The calls on one control block or one descriptor: start, ask, wait, cancel."""

import errno
import math
import os
import resource
import time
from collections.abc import Iterable

from iocancel import _record, errors
from iocancel._native import ffi, lib
from iocancel.posix_aio.block import Aiocb, current, prepare
from iocancel.posix_aio.flags import CancelStatus
from iocancel.posix_aio.ledger import Request, forked, launch, of_descriptor, settle, wait
from iocancel.posix_aio.notify import HasFileno, number

__all__ = [
    "aio_cancel",
    "aio_error",
    "aio_fsync",
    "aio_init",
    "aio_read",
    "aio_return",
    "aio_suspend",
    "aio_write",
]

_cancel = lib.ioc_aio_cancel


def refusal(result: int, what: str) -> OSError:
    """The exception for a start that the C library refused.

    Args:
        result: the negated errno, or IOC_AIO_FORKED.
        what: the call as it was made.
    """
    if result == lib.IOC_AIO_FORKED:
        return forked(what)
    text = os.strerror(-result)
    if result == -errno.EAGAIN:
        limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
        most = "unlimited" if limit == resource.RLIM_INFINITY else limit
        return errors.QueueFull(
            errno.EAGAIN,
            f"{text}: {what}: the C library could start no thread (RLIMIT_NPROC is {most}; a container's "
            "limit on pids counts, too) or had no memory. It was not started: call again when other "
            "operations have ended, or raise the limit (ulimit -u)",
        )
    hints = {
        errno.EINVAL: "reqprio must be 0 to AIO_PRIO_DELTA_MAX (20)",
        errno.EBADF: "it is not open, or not open for this (a sync may need one open for writing)",
    }
    hint = hints.get(-result)
    return OSError(-result, f"{text}: {what}: {hint}" if hint else f"{text}: {what}")


def _start(aiocb: Aiocb, call: str, opcode: int) -> None:
    current(aiocb, call)
    request = prepare(aiocb, call, opcode)
    result = launch([(aiocb, request)], lambda: lib.ioc_aio_start(request.c, opcode))
    if result:
        raise refusal(result, request.what)


def aio_read(aiocb: Aiocb) -> None:
    """Start to read into the control block's buffer.

    Args:
        aiocb: its `buf` must be writable; none of it may be in progress.

    Raises:
        QueueFull: EAGAIN: no thread could be started (RLIMIT_NPROC), or no memory; nothing was started.
            aio_read(3) says so, but not that `aio_error` of musl is then EINPROGRESS for ever; here it is
            EAGAIN.
        OSError: EINVAL: `reqprio` (glibc); EBADF: not open (musl; on glibc it is the operation's own error).
        EngineUnavailable: an ancestor used POSIX AIO before this process was forked.
        RuntimeError: the control block is in progress, or the interpreter is ending.
        TypeError, ValueError: the buffer is missing, read-only, not contiguous or shorter than `nbytes`.

    On glibc the operations of one descriptor *number* run one after the other, those of at most 20
    numbers at a time (see `aio_init`): forty blocked pipes leave twenty waiting for a thread, and closing
    the descriptor ends nothing: what is started on the same number later waits behind it. On musl each
    operation has a thread, and close() cancels them. POSIX, glibc 2.1, musl 1.1.9; man page: aio_read(3).
    """
    _start(aiocb, "aio_read", lib.LIO_READ)


def aio_write(aiocb: Aiocb) -> None:
    """Start to write the control block's buffer.

    Args:
        aiocb: its `buf` must not be changed before the end; none of it may be in progress.

    Raises:
        QueueFull, OSError, EngineUnavailable, RuntimeError, TypeError, ValueError: as `aio_read`.

    POSIX, glibc 2.1, musl 1.1.9; man page: aio_write(3).
    """
    _start(aiocb, "aio_write", lib.LIO_WRITE)


def aio_fsync(op: int, aiocb: Aiocb) -> None:
    """Start to bring what was written to the file to its disk.

    Args:
        op: `os.O_SYNC` (as fsync) or `os.O_DSYNC` (as fdatasync).
        aiocb: only its `fildes` and `sigevent` count.

    Raises:
        ValueError: another `op`.
        QueueFull, OSError, EngineUnavailable, RuntimeError: as `aio_read`; EBADF also for a file that is
            not open for writing, on some versions of glibc.

    POSIX, glibc 2.1, musl 1.1.9; man page: aio_fsync(3).
    """
    current(aiocb, "aio_fsync")
    if not isinstance(op, int) or op not in (os.O_SYNC, os.O_DSYNC):
        raise ValueError(f"aio_fsync: op must be os.O_SYNC or os.O_DSYNC, not {op!r}")
    request = prepare(aiocb, "aio_fsync", lib.LIO_NOP)
    result = launch([(aiocb, request)], lambda: lib.ioc_aio_fsync(request.c, op))
    if result:
        raise refusal(result, request.what)


def _error(request: Request, call: str) -> int:
    """The request's errno; what has ended is let go of."""
    error = request.error()
    if error == errno.EINPROGRESS:
        return error
    if error == lib.IOC_AIO_NEVER:
        raise RuntimeError(
            f"{call}: this control block was never started: call aio_read or another start first"
        )
    if error == lib.IOC_AIO_FORKED:
        raise forked(call)
    settle(request)
    return error


def aio_error(aiocb: Aiocb) -> int:
    """How the operation stands.

    Args:
        aiocb: one that was started.

    Returns:
        0: it has ended well; EINPROGRESS: it has not ended; ECANCELED: it was cancelled, and did not
        happen (but what a cancelled write of musl's had written stays written); any other errno: it
        failed, or its start was refused.

    Raises:
        RuntimeError: it was never started.
        EngineUnavailable: in a forked child.

    Any answer but EINPROGRESS lets go of the memory. POSIX, glibc 2.1, musl 1.1.9; man page: aio_error(3).
    """
    return _error(current(aiocb, "aio_error"), "aio_error")


def aio_return(aiocb: Aiocb) -> int:
    """The result of an operation that has ended.

    Args:
        aiocb: one that was started and has ended.

    Returns:
        The number of bytes that were read or written, 0 for a sync. Asking again gives the same (POSIX
        allows to ask only once; both C libraries keep it).

    Raises:
        OperationCancelled: ECANCELED: it was cancelled.
        OSError: with the operation's errno (the C call returns -1 and leaves errno alone).
        RuntimeError: it is in progress (the C call returns nonsense then), or was never started.
        EngineUnavailable: in a forked child.

    POSIX, glibc 2.1, musl 1.1.9; man page: aio_return(3).
    """
    request = current(aiocb, "aio_return")
    error = _error(request, "aio_return")
    if error == errno.EINPROGRESS:
        raise RuntimeError(f"aio_return: {request.what} is in progress: wait with aio_suspend first")
    errors.check(-error, f"aio_return of {request.what}")
    return lib.ioc_aio_return(request.c)


def _deadline(timeout: float | None) -> int | None:
    """`timeout` as a time of `time.monotonic_ns()`; None for ever."""
    if timeout is None:
        return None
    try:
        seconds = math.fsum((timeout,))  # float() would take a string
    except OverflowError:
        seconds = math.inf if timeout > 0 else 0.0
    except TypeError:
        given = type(timeout).__name__
        raise TypeError(f"aio_suspend: timeout must be seconds or None, not {given}") from None
    if math.isnan(seconds):
        raise ValueError("aio_suspend: timeout is not a number (nan): use None to wait for ever")
    if seconds > 1e9:  # thirty years
        return None
    return time.monotonic_ns() + int(max(seconds, 0.0) * 1e9)


def aio_suspend(aiocbs: Iterable[Aiocb | None], timeout: float | None = None) -> bool:
    """Wait until one of several operations at least has ended.

    Handlers of signals run meanwhile, and when they raise nothing, the wait goes on with the time that is
    left (PEP 475), also where SA_RESTART is set: the C call, called without a time limit, would not come
    back for those. The GIL is given up.

    Args:
        aiocbs: control blocks that were started, and None, which is passed over. With none at all it is
            True at once, as in C on glibc (musl would wait for ever).
        timeout: seconds; None: no limit. Less than 0 counts as 0, more than a thousand million as None.
            (glibc ends the process when a timespec is not normalised, which aio_suspend(3) doesn't say.)

    Returns:
        True: one has ended, or ended long ago: ask each by `aio_error`; or its start was refused. False:
        the time was up (EAGAIN in C).

    Raises:
        ValueError: timeout is nan; or the list doesn't fit the thread's stack, where glibc puts it.
        TypeError: something is no Aiocb, or no number.
        RuntimeError: one was never started (in C such a one counts as ended).
        EngineUnavailable: in a forked child.

    POSIX, glibc 2.1, musl 1.1.9; man page: aio_suspend(3).
    """
    if isinstance(aiocbs, Aiocb):
        raise TypeError("aio_suspend: a list of control blocks is needed: aio_suspend([aiocb])")
    requests = [current(aiocb, "aio_suspend") for aiocb in aiocbs if aiocb is not None]
    deadline = _deadline(timeout)
    for request in requests:
        if request.c is None:
            _error(request, "aio_suspend")
    return not requests or wait(requests, "aio_suspend", deadline) is not None


def aio_cancel(fd: int | HasFileno, aiocb: Aiocb | None = None) -> CancelStatus:
    """Try to cancel one operation, or all of a descriptor.

    A status is no outcome: ask each operation by `aio_error` (ECANCELED: it did not happen).

    Args:
        fd: the descriptor the operations were started on; it must be open (also when it has been closed
            and opened as something else since, its number counts).
        aiocb: which one; None for all that were started on this number, by anybody in the process.

    Returns:
        CANCELED: all of them were cancelled, and their notifications are sent (a signal before the call
        returns). NOTCANCELED: one at least goes on. On glibc that is what runs: nothing interrupts it. musl
        interrupts it, but for reads and writes of regular files and block devices, syncs, and a write that
        was started when another of this number was in progress: these it is not asked to (it would make
        the caller wait, or hang for ever). The others are cancelled all the same. ALLDONE: nothing was
        there: ended, cancelled before, or never started.

    Raises:
        OSError: EBADF: `fd` is not open, also when operations still wait for its number; EINVAL: `aiocb` is
            another descriptor's, or is in progress but unknown to the C library.
        TypeError, ValueError: something is no descriptor, or no Aiocb.
        EngineUnavailable: in a forked child.

    A bug of glibc's (2.36 to 2.43 at least): cancelling *one* operation that is the first of its descriptor
    and still waits for a thread (all twenty are busy) strands those behind it: they stay EINPROGRESS for
    ever, though there is data, and so does whatever is started on that number later. `aio_cancel(fd)`
    frees them; using only that form, or cancelling one only behind a running one, avoids it. Their memory
    is kept all that time.

    One of musl's (1.2.3 to 1.2.6): os.close() of a descriptor with two writes to a pipe or a socket in
    progress, or a write and a sync, hangs for ever. Wait for them first.

    POSIX, glibc 2.1, musl 1.1.9; man page: aio_cancel(3).
    """
    where = number(fd, "aio_cancel")
    request = None if aiocb is None else current(aiocb, "aio_cancel")
    if request is None:
        affected = of_descriptor(where)
        result = _cancel_all(where, affected)
    else:
        if request.c is None:  # never started: C asks its descriptor only
            assert aiocb is not None
            request = prepare(aiocb, "aio_cancel", lib.LIO_NOP)
        affected = [request]
        result = _cancel(where, request.c)
    if result < 0:
        raise _cancel_error(result, where, request)
    for one in affected:
        if not one.running():
            settle(one)
    return CancelStatus(result)


def _cancel_all(fd: int, ours: list[Request]) -> int:
    """All of a descriptor: a status, or a negated errno.

    musl's may hang at one that waits behind a write, which it does not do with those that it is not asked
    about (csrc/posix_aio_musl.c).
    """
    running = [] if lib.IOC_AIO_GLIBC else [request for request in reversed(ours) if request.running()]
    results = [_cancel(fd, request.c) for request in running] or [_cancel(fd, ffi.NULL)]
    worst = (*(result for result in results if result < 0), lib.AIO_NOTCANCELED, lib.AIO_CANCELED)
    return next((each for each in worst if each in results), int(lib.AIO_ALLDONE))


def _cancel_error(result: int, fd: int, request: Request | None) -> OSError:
    asked = f"aio_cancel(fd {fd})" if request is None else f"aio_cancel(fd {fd}, {request.what})"
    if result == lib.IOC_AIO_FORKED:
        return forked(asked)
    hints = {
        errno.EBADF: "it is not open; what was started on its number can be cancelled once it is open again",
        errno.EINVAL: "the block is not in progress on this descriptor: pass the one it was started on",
    }
    hint = hints.get(-result, "the C library refused")
    return OSError(-result, f"{os.strerror(-result)}: {asked}: {hint}")


def aio_init(*, threads: int = 20, num: int = 64, idle_time: int = 1) -> None:
    """Tune glibc's AIO, before anything else of this module is called.

    Args:
        threads: how many threads there are at most, which is how many descriptors are served at a time.
        num: how many requests are expected at a time, up to 1,048,576: memory is set aside for them at the
            first start, and without it nothing could ever be started.
        idle_time: after how many seconds a thread without work ends.

    Raises:
        FeatureUnavailable: the C library has no aio_init (musl, where each operation has its own thread).
        RuntimeError: this module has been used: glibc would ignore the call without a word, which aio_init(3)
            does not say.
        ValueError, TypeError: something is no int, less than 1, or too big.
        EngineUnavailable: in a forked child.

    glibc 2.1; man page: aio_init(3).
    """
    limits = (("threads", threads, 2**15), ("num", num, 2**20), ("idle_time", idle_time, 2**31 - 1))
    for name, value, most in limits:
        if not isinstance(value, int):
            raise TypeError(f"aio_init: {name} must be an int, not {type(value).__name__}")
        if not 1 <= value <= most:
            raise ValueError(f"aio_init: {name} must be 1 to {most:,}, not {value}")
    result = lib.ioc_aio_init(threads, num, idle_time)
    if result == -errno.ENOSYS:
        raise errors.feature_unavailable("aio_init", "glibc", "aio_init", errno.ENOSYS)
    if result == lib.IOC_AIO_FORKED:
        raise forked("aio_init")
    if result:
        raise RuntimeError(
            "aio_init: POSIX AIO has been used already: the C library would ignore it: call it first"
        )


_record.join(globals(), _cancel="aio_cancel")
