"""What is in progress, and the memory that must outlive it.

Facts that this rests on:

- The C library's threads write into the buffer and into the control block until the operation has ended,
  whatever became of the Python objects. `aio_cancel` interrupts nothing that runs on glibc
  (NOTCANCELED): the buffer is in use until the operation has ended by itself.
- `aio_error` of glibc takes the lock under which a thread ends an operation and notifies; on musl it is
  the shim that does. So an answer other than EINPROGRESS means that nobody touches the block any more,
  and only that answer frees.
- Threads that wait in `aio_suspend` may look at a control block after it has ended. So each start has a
  C control block of its own: none is ever filled anew.
- `exit()` waits for nothing on glibc, and a blocked read can't be interrupted there.

Here is no lock that Python code could hold: an operation is entered and taken out by one dict operation
each, so that signal handlers and finalizers may do anything between any two bytecodes. What has the
name `Request` is one start of a control block.
"""

import errno
import itertools
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from iocancel import _lifetime, _record
from iocancel._native import ffi, lib
from iocancel.errors import EngineUnavailable
from iocancel.posix_aio import notify

__all__ = ["Request", "Startable", "forked", "in_progress", "launch", "settle", "too_many", "wait"]

EXIT_WAIT = 1.0
"""How long, in seconds, the interpreter's exit waits for operations that can't be cancelled."""

_cancel = lib.ioc_aio_cancel
_serials = itertools.count(1)
_pins: "dict[int, Request]" = {}
_orphans: "deque[Request]" = deque()  # pinned, and nobody will ever ask about them
_inherited: "list[Request]" = []


class Request:
    """One start of a control block, and what it keeps alive.

    Attributes:
        c: the C control block (`struct ioc_aio *`), or None for a block that was never started.
        what: the call as the user made it, for messages.
        fd: the descriptor's number.
        buffer: the export of the user's buffer, which keeps it from being resized, or None.
        keeps: what else must live: the file object, the notification.
        launching: whether a thread is about to give it to the C library.
        successor: the next start of the same block, by whichever thread was first.
    """

    __slots__ = ("buffer", "c", "fd", "keeps", "launching", "serial", "successor", "what")

    def __init__(
        self, what: str = "", fd: int = -1, c: Any = None, buffer: Any = None, keeps: object = None
    ) -> None:
        self.what, self.fd, self.c, self.buffer, self.keeps = what, fd, c, buffer, keeps
        self.serial, self.launching = next(_serials), False
        self.successor: dict[int, Request] = {}

    def error(self) -> int:
        """The errno, EINPROGRESS, IOC_AIO_NEVER or IOC_AIO_FORKED."""
        return lib.ioc_aio_error(self.c) if self.c is not None else lib.IOC_AIO_NEVER

    def running(self) -> bool:
        """Whether the C library still has it."""
        return self.error() == errno.EINPROGRESS


class Startable:
    """What has a current request: `Aiocb`."""

    __slots__ = ("__weakref__", "_request")
    _request: Request

    def __del__(self) -> None:
        request = getattr(self, "_request", None)
        # None: the interpreter has cleared this module, behind `_at_exit`.
        if request is None or _pins is None or request.serial not in _pins:
            return
        if not request.running():
            settle(request)
            return
        if _owner.closing:
            return  # it was spoken of
        _orphans.append(request)
        warnings.warn(
            f"an Aiocb was collected while {request.what} was in progress; its memory is kept until it ends: "
            "hold on to it until aio_error() is not EINPROGRESS",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )


def settle(request: Request) -> None:
    """Let go of the memory of a request that has ended (or was never started)."""
    _pins.pop(request.serial, None)
    buffer, request.buffer = request.buffer, None
    if buffer is not None:
        ffi.release(buffer)  # twice does no harm


def forked(call: str) -> EngineUnavailable:
    """The exception for a process that was forked off one that had used POSIX AIO."""
    error = EngineUnavailable(errno.ENOTSUP, f"POSIX AIO does not survive a fork: {call}")
    error.reason = (
        "an ancestor of this process used POSIX AIO before it forked: the threads that did the work are not "
        "in the child, while the C library's books count them and its lock may be held for ever, so that "
        "operations never run and calls hang"
    )
    error.remedy = (
        "Start the child with multiprocessing's spawn or forkserver method, or exec, or fork before the "
        "first use; or use io_uring or libaio in the child"
    )
    return error


def _sweep(most: int) -> None:
    """Let go of what has ended among the `most` orphans that were not looked at for longest."""
    notify.sweep(most)
    for _ in range(most):
        try:
            request = _orphans.popleft()
        except IndexError:
            return
        if request.running():
            _orphans.append(request)
        else:
            settle(request)


def in_progress() -> int:
    """How many operations, started by this process through this module, are in progress.

    It also lets go of the memory of those whose `Aiocb` was collected and that have ended by now. Not a
    POSIX call.
    """
    _sweep(len(_orphans) + notify.waiting())
    requests = list(_pins.values())
    errors = ffi.new("int[]", len(requests))
    return lib.ioc_aio_errors(control_blocks(requests), len(requests), errors)


def control_blocks(requests: Sequence[Request]) -> Any:
    """The C array of the control blocks of `requests`, which must live as long as it is used."""
    return ffi.new("struct ioc_aio *[]", [request.c for request in requests])


def of_descriptor(fd: int) -> list[Request]:
    """The requests of a descriptor's number whose memory is still kept."""
    return [request for request in list(_pins.values()) if request.fd == fd]


def launch(pairs: Sequence[tuple[Startable, Request]], call: Callable[[], int]) -> int:
    """Give each block its new request, pin that, and call the C library.

    Args:
        pairs: blocks, and their requests to be.
        call: makes the C call that starts all of them; 0 or a negated errno is its result.

    Returns:
        The result of `call`.

    Raises:
        RuntimeError: a block is in progress, another thread starts it, or the interpreter ends.
    """
    if _owner.closing:
        raise RuntimeError("the interpreter is ending: no POSIX AIO operation can be started any more")
    _sweep(2)  # not all: a start must not cost more for what is stuck
    result = -1
    try:
        olds = [block._request for block, _ in pairs]  # read once: what is looked at here is replaced below
        _refuse_running(olds, pairs)
        for old, (block, request) in zip(olds, pairs, strict=True):
            request.launching = True
            if old.successor.setdefault(0, request) is not request:
                raise RuntimeError(f"{request.what}: another thread has just started this control block")
            _pins[request.serial] = request  # before the C library can see it,
            block._request = request  # and before a signal can tell of its end
        result = call()
    finally:
        for _, request in pairs:
            request.launching = False
        if result:  # refused in whole or in part, or an exception (a signal handler's, too) before or after
            for block, request in pairs:
                old = block._request
                if old.successor.get(0) is request:
                    block._request = request
                if not request.running():
                    settle(request)
    return result


def _wait_for_each(requests: Sequence[Request], deadline: int) -> None:
    for request in requests:
        if wait([request], "exit", deadline) is None:
            break


def _refuse_running(olds: Sequence[Request], pairs: Sequence[tuple[Any, Request]]) -> None:
    for old, (_, request) in zip(olds, pairs, strict=True):
        launching, error = old.launching, old.error()  # in this order: what is launched has an error
        if error == errno.EINPROGRESS or (launching and error == lib.IOC_AIO_NEVER):
            raise RuntimeError(
                f"{request.what}: this control block is in progress ({old.what}): wait until aio_error() "
                "is not EINPROGRESS, or use another one"
            )


def too_many(call: str, count: int) -> ValueError:
    """The exception for a list that the C library would not find room for."""
    return ValueError(
        f"{call}: {count} control blocks do not fit the stack of this thread, where the C library puts its "
        "list: pass fewer at a time, or use a thread with a bigger stack (threading.stack_size)"
    )


def wait(requests: Sequence[Request], call: str, deadline: int | None) -> Request | None:
    """Wait until one of `requests`, at least one, is over; handlers of signals run meanwhile.

    Args:
        requests: what to wait for.
        call: for messages.
        deadline: by `time.monotonic_ns()`, or None.

    Returns:
        One that is over; None when the time was up.
    """
    array = control_blocks(requests)
    while True:
        left = -1 if deadline is None else max(0, deadline - time.monotonic_ns())
        result = lib.ioc_aio_suspend(array, len(requests), min(left, 2**62))
        if result >= 0:
            settle(requests[result])
            return requests[result]
        if result == -errno.EAGAIN and not left:
            return None
        if result == -errno.E2BIG:
            raise too_many(call, len(requests))
        if result == lib.IOC_AIO_FORKED:
            raise forked(call)


class _Owner:
    """What hears of forks and of the interpreter's end, for all requests together."""

    closing = False

    def _forked(self) -> None:
        # No thread of this process writes into the buffers; the C library's lists, which other code may
        # walk, do still name the control blocks.
        for request in list(_pins.values()):
            _inherited.append(request)
            settle(request)
        _orphans.clear()

    def _at_exit(self) -> None:
        self.closing = True
        running = [request for request in list(_pins.values()) if request.running()]
        try:
            for request in reversed(running):
                lib.ioc_aio_mute(request.c)  # its handler may be gone by the time that it would be told
                _cancel(request.fd, request.c)
            deadline = time.monotonic_ns() + int(EXIT_WAIT * 1e9)
            _wait_for_each(running, deadline)
        finally:
            left = [request for request in running if request.running()]
            for request in left:
                _lifetime.keep_forever(request)
        if left:
            try:
                warnings.warn(
                    f"the interpreter ends with POSIX AIO operations in progress: {len(left)}, the first "
                    f"{left[0].what}: they can't be interrupted, and their outcome is lost",
                    ResourceWarning,
                    stacklevel=1,
                )
            except ResourceWarning:  # warnings are errors: nobody could handle it here
                pass


_owner = _Owner()
_lifetime.register(_owner)


_record.join(globals(), _cancel="aio_cancel")
