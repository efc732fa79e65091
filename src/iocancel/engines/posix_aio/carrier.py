"""Operations to the C library's AIO and back.

The way: `go` puts what is handed over into the lines of its files (lines.py) and starts the first of each
(moving.py); the C library's thread tells an eventfd when it has ended; `go`, which waits in poll(2) for that
and for the wake-up, asks which it was, and starts the next.

Facts that this rests on (docs/kernel-facts.md, 6 and 10.8; more in moving.py):

- What runs can't be interrupted on glibc (NOTCANCELED); on musl it can, but for files of a disk and syncs.
- What waits in musl's own queue can't be cancelled: it gets one operation of a number at a time.
- An eventfd is written after the error can be seen: who was told finds it.
- Nothing of it survives a fork: the bindings let no call through in a child.
"""

from __future__ import annotations

import errno
import functools
import math
import os
import select
import time
from collections.abc import Callable, Sequence
from typing import Any

from iocancel import errors
from iocancel._native import ffi, lib
from iocancel.engines.posix_aio import lines
from iocancel.engines.posix_aio.lines import NEVER, Line, Row
from iocancel.engines.posix_aio.moving import INTERVAL, Moving
from iocancel.engines.refusal import no_verb
from iocancel.operation import ANSWER, Operation, Reach
from iocancel.posix_aio import (
    Aiocb,
    CancelStatus,
    SigEvent,
    aio_cancel,
    aio_error,
    aio_read,
    aio_suspend,
    notify,
)
from iocancel.posix_aio.ledger import forked

_LAST_TOLD = 0.5  # seconds that a close waits for notifications of what has ended
_LAST_LEFT = 0.1  # seconds that it waits for the thread that told last to be gone
_VERBS = frozenset(["read", "write", "fsync", "timeout"])


class PosixAioBatch:
    """Operations on their way in."""

    __slots__ = ("_carrier", "ops")

    def __init__(self, ops: Sequence[Operation[Any]], carrier: PosixAioCarrier) -> None:
        self.ops = ops
        self._carrier = carrier

    def taken(self) -> int:
        """How many are in the carrier's lines."""
        self._carrier.note_last()
        many = 0
        for op in self.ops:
            if op._entry is None or not op._entry.taken:  # None: withdrawn meanwhile
                break
            many += 1
        return many


class PosixAioCarrier(Moving):
    """See iocancel.operation.carrier."""

    name = "posix_aio"
    keeps_deadlines = False
    alarms = True

    def __init__(self, pooled: bool = False) -> None:
        if lib.ioc_aio_error(ffi.new("struct ioc_aio *")) == lib.IOC_AIO_FORKED:
            raise forked("opening the engine")
        lines.sweep()
        self._wake, self._told = _wake(pooled), _wake(False)
        try:
            super().__init__(SigEvent.thread(self._told.fd))
        except OSError as error:
            raise _no_eventfd(error.errno or errno.EMFILE) from None
        self._heard = 0  # notifications that came
        self._closed = False
        self._left = False  # something ran on when it was closed
        self._poll = select.poll()
        self._poll.register(self._wake.fd, select.POLLIN)
        self._poll.register(self._told.fd, select.POLLIN)
        self._both: select.epoll | None = None  # the same two, for an event loop

    def fileno(self) -> int:
        """See Carrier: of an epoll set, which can itself be polled."""
        if self._both is None:
            both = select.epoll()
            both.register(self._wake.fd, select.EPOLLIN)
            both.register(self._told.fd, select.EPOLLIN)
            self._both = both
        return self._both.fileno()

    def alarm(self) -> float | None:
        """See Carrier."""
        soonest = None
        if self._busy:  # a notification may never come
            soonest = self._looked if self._look else self._looked + INTERVAL
        if self._timing:
            for when, _ in self._timers[:1]:
                if soonest is None or when < soonest:
                    soonest = when
        return soonest

    # In

    def prepare(self, op: Operation[Any], *args: Any) -> None:
        """See Carrier."""
        name = op._kind.name
        if name not in _VERBS:
            raise no_verb(self.name, name)
        if not -1 << 31 <= op._fd < 1 << 31:  # else every later turn would fail at it
            raise OverflowError(f"a file's number is a C int, not {op._fd}")
        row = Row(op._token, name, op._fd)
        if name == "timeout":
            row.seconds = args[0]
        elif name == "fsync":
            row.sync = os.O_DSYNC if args[0] else os.O_SYNC
        else:
            row.offset = lines.checked(args[1])
            op._pins = lines.export(args[0], name, name == "read")
        op._entry = row

    def batch(self, ops: Sequence[Operation[Any]]) -> PosixAioBatch:
        """See Carrier."""
        return PosixAioBatch(ops, self)

    def go(self, batch: Any, wait: bool, timeout: float | None) -> None:
        """See Carrier."""
        if self._closed:
            raise ValueError("the engine is closed")
        if batch is not None:
            incoming = self._incoming
            for op in batch.ops:
                row = op._entry
                if op._pins is not None:
                    row.buffer = ffi.buffer(op._pins)
                incoming.append(row)  # from here on it is taken: see note_last
                row.taken = True
        self._listen(0.0)
        if self._both is not None and not wait:
            lib.ioc_wake_clear(self._wake)  # before the look: who rings behind this is for the next one
        self._advance()
        if wait and not self._records:
            self._listen(self._limit(timeout))
            self._advance()

    def note_last(self) -> None:
        """Note that what is last in line to come in was taken, also where a signal's exception came first."""
        if self._incoming:
            self._incoming[-1].taken = True

    def _limit(self, timeout: float | None) -> float | None:
        """For how many seconds to wait at most."""
        limits = [] if timeout is None else [timeout]
        if self._busy:
            limits.append(INTERVAL)
        if self._timing:
            limits.append(self._timers[0][0] - time.monotonic())
        return max(0.0, min(limits)) if limits else None

    def _listen(self, seconds: float | None) -> None:
        """Wait until a notification or a wake-up comes."""
        limit = None if seconds is None else min(math.ceil(seconds * 1e3), 1 << 30)
        for fd, _ in self._poll.poll(limit):
            if fd == self._told.fd:
                self._look = True  # before it is known only here
                self._heard += os.eventfd_read(fd)
            elif seconds != 0.0:  # somebody who has been waiting is to look
                lib.ioc_wake_clear(self._wake)

    # Cancels

    def cancel(self, ops: Sequence[Operation[Any]]) -> None:
        """See Carrier."""
        for op in ops:
            self._cancel(op._entry)

    def _cancel(self, row: Row) -> None:
        if row.over:  # its record is there
            self._answer(row, -errno.ENOENT)
            return
        line = row.line
        if row.state() == NEVER:
            self._over(row, -errno.ECANCELED)
            self._timing.pop(row.token, None)
            self._look = True
            if line is not None:
                line.one_gone()
            return
        assert line is not None
        self._look = True
        try:
            status = aio_cancel(line.number, row.aiocb)
        except OSError as error:  # the number of a regular file was closed: the C library asks that first
            if error.errno != errno.EBADF:
                raise
            status = CancelStatus.NOTCANCELED
        if row.state() == errno.EINPROGRESS:
            self._answer(row, -errno.EALREADY)
        else:
            if status is not CancelStatus.CANCELED:
                self._answer(row, -errno.ENOENT)
            self._harvest(row, line)

    def _answer(self, row: Row, res: int) -> None:
        self._records.append((row, res))

    # Out

    def records(self) -> list[tuple[int, int, int]]:
        """See Carrier."""
        # Less those whose ending was cut short by a signal's exception before it was stored.
        entries = self._records = [each for each in self._records if each[1] is not None or each[0].over]
        return [
            (row.token, row.res or 0, 0) if answer is None else (row.token | ANSWER, answer, 0)
            for row, answer in entries
        ]

    def forget(self, many: int) -> None:
        """See Carrier."""
        del self._records[:many]

    def own(self, token: int, res: int) -> None:
        """See Carrier: there are no records of its own."""
        raise AssertionError((token, res))

    def stop(self, op: Operation[Any]) -> bool:  # noqa: ARG002
        """See Carrier: only who waits cancels here."""
        return False

    def wake(self) -> None:
        """See Carrier."""
        lib.ioc_wake_set(self._wake)

    @property
    def bell(self) -> Any:
        """The wake-up: see iocancel.engines.bell."""
        return self._wake

    # About

    def failure(self, op: Operation[Any]) -> OSError:
        """See Carrier."""
        row: Row = op._entry
        if isinstance(row.error, OSError):
            return row.error
        try:
            errors.check(op._res, f"posix_aio {op._kind.call}")
        except OSError as error:
            return error
        raise AssertionError(op._res)

    def supports(self, name: str) -> bool:
        """See Carrier."""
        return name in _VERBS

    def reach(self, name: str) -> Reach:
        """See Carrier. What waits in line can always be cancelled; this is about what runs."""
        if name == "timeout":
            return Reach.TOTAL
        if name == "fsync" or not interrupts():
            return Reach.NONE
        return Reach.TOTAL if name == "read" else Reach.PARTIAL

    def patience(self, op: Operation[Any]) -> float:  # noqa: ARG002
        """See Carrier. What the C library did not stop at once, it does not stop."""
        return 0.0

    # The end

    def close(self, timeout: float | None, left: Sequence[Operation[Any]] = ()) -> bool:  # noqa: ARG002
        """See Carrier. What has not been started never is."""
        until = None if timeout is None else time.monotonic() + timeout
        self._closed = True  # first: nothing comes in behind the clearing
        self._incoming.clear()
        self._timing.clear()
        firsts = [(line.queue[0], line) for line in self._busy if line.queue]
        running = [(row, line) for row, line in firsts if row.state() != NEVER]
        try:
            for row, line in running:
                self._cancel_quietly(row, line)
            self._wait(lambda: not _running(running), until)
            # It was told of all endings that there are, or that does not come.
            bound = time.monotonic() + _LAST_TOLD
            self._wait(
                lambda: self._heard >= self._started - _running(running),
                bound if until is None else min(bound, until),
            )
        finally:
            for row, line in firsts:
                aiocb = row.aiocb
                if aiocb is not None and row.state() == errno.EINPROGRESS:
                    self._left = True
                    lines.leave(aiocb, line)
                else:
                    line.give_back()
            self._busy.clear()
            self._fresh.clear()
            self._lines.clear()
            self._close_fds()
        return not self._left

    @staticmethod
    def _cancel_quietly(row: Row, line: Line) -> None:
        try:
            aio_cancel(line.number, row.aiocb)
        except OSError as error:
            if error.errno != errno.EBADF:  # a regular file's, which was closed: it ends by itself
                raise

    def _wait(self, done: Callable[[], bool], until: float | None) -> None:
        """Wait for what the C library tells, or can be asked."""
        while not done():
            left = INTERVAL if until is None else min(INTERVAL, until - time.monotonic())
            if left <= 0:
                return
            self._listen(left)

    def _close_fds(self) -> None:
        before = notify.waiting()
        self._sigevent = None
        # Who told last may not have left yet (it writes, and leaves): a moment, else the bindings see to it.
        bound = time.monotonic() + _LAST_LEFT
        while notify.waiting() > before and self._heard >= self._started and time.monotonic() < bound:
            notify.sweep(notify.waiting())
            os.sched_yield()
        if self._both is not None:
            self._both.close()
        lib.ioc_wake_close(self._wake)
        lib.ioc_wake_close(self._told)

    def forked(self) -> None:
        """See Carrier."""
        self._incoming.clear()
        self._timing.clear()
        for line in list(self._busy):
            for row in line.queue:
                row.aiocb = None
            line.queue.clear()
            line.give_back()
        self._busy.clear()
        self._fresh.clear()
        self._lines.clear()
        self._close_fds()


def _running(pairs: list[tuple[Row, Line]]) -> int:
    """How many of these the C library still has."""
    return sum(row.state() == errno.EINPROGRESS for row, _ in pairs)


def _wake(pipe: bool) -> Any:
    """A wake-up that is closed when it is collected, at the latest."""
    wake = lib.ioc_wake_new(pipe)
    if wake == ffi.NULL:
        raise _no_eventfd(ffi.errno)
    return ffi.gc(wake, lib.ioc_wake_free)


def _no_eventfd(number: int) -> errors.EngineUnavailable:
    error = errors.EngineUnavailable(number, f"{os.strerror(number)}: eventfd")
    if number in (errno.EMFILE, errno.ENFILE):
        error.reason = "no file descriptor is left"
        error.remedy = "raise RLIMIT_NOFILE (ulimit -n) or close some"
    else:
        error.reason = "the kernel refused an eventfd, which is how the C library tells of an ending"
        error.remedy = "look at dmesg, at the memory that is left, and at the seccomp profile"
    return error


@functools.cache
def interrupts() -> bool:
    """Whether the C library can end a read that runs: musl can, glibc can't, others are tried once."""
    if lib.IOC_AIO_GLIBC:
        # What does not wait any more can't be told from what does without a look at other threads; but its
        # source knows only one way to cancel: taking it off the queue.
        return False
    read_end, write_end = os.pipe()
    try:
        block = Aiocb(read_end, bytearray(1))
        aio_read(block)  # musl returns when the operation's thread has it
        aio_cancel(read_end, block)
        stopped = aio_error(block) == errno.ECANCELED
        os.write(write_end, b"x")
        aio_suspend([block])
    finally:
        os.close(read_end)
        os.close(write_end)
    return stopped
