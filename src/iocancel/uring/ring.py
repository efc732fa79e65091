"""A ring: entries go in, completions come out, and memory lives as long as the kernel may use it.

The way of an entry:

1. `get_sqe()` makes an `Sqe` and appends it to `_staged`; its bytes are Python's until it is submitted.
2. `submit()` takes what is staged, enters it into the ledger (user_data -> what it pins), and hands the
   bytes to one C call, which moves them into the queue and enters the kernel. How many were moved is
   written to a cell of C memory, so that it is known also when a signal's exception comes before the
   call's result is stored; the others are staged again. So the pin is in the ledger before the kernel
   can see the entry.
3. `wait()` and `peek()` let C append completions to `_out`, C memory too, and take them from there; a
   signal between the two loses nothing, the next call finds them. One thread reaps at a time.
4. At a last completion (no F_MORE: for zero-copy sends that is the notification) the ledger lets go.

Closing by itself ends nothing: see `_drain`, and limbo.py for what does not end.
"""

from __future__ import annotations

import errno
import os
import time
from typing import Any

from iocancel import _record, errors
from iocancel._native import ffi, lib
from iocancel.uring import memory
from iocancel.uring import probe as _probe
from iocancel.uring.bulk import Bulk
from iocancel.uring.closing import Closing
from iocancel.uring.core import deadline_of, left_of
from iocancel.uring.cqe import Cqe
from iocancel.uring.entry import MASK64
from iocancel.uring.flags import Features, SetupFlags
from iocancel.uring.prep_cancel import check_sync_flags
from iocancel.uring.registered import Registered
from iocancel.uring.sqe import Sqe

_AT_COLLECTION = 1.0  # seconds: a collection must not take long
_sync_cancel = lib.ioc_sync_cancel
_MANY = lib.IORING_ASYNC_CANCEL_ALL | lib.IORING_ASYNC_CANCEL_ANY


class Ring(Registered, Bulk, Closing):
    """An io_uring instance (io_uring_setup(2), io_uring_queue_init_params(3)). Linux 5.10 and later.

    Args:
        entries: how many requests can be prepared before they are submitted, 1 to 32768; the kernel
            rounds up to a power of two. It does not limit how many can be in flight.
        flags: `SetupFlags`. SQE128, CQE32, the mixed ones, NO_MMAP, REGISTERED_FD_ONLY, NO_SQARRAY and
            SQ_REWIND are not offered.
        cq_entries: the size of the completion queue, twice `entries` where it is None. Completions
            beyond it are kept by the kernel and come later.
        sq_thread_idle: with SQPOLL, after how many milliseconds without work its thread sleeps.
        attach: another ring whose workers this one shares.

    Raises:
        EngineUnavailable: no ring can be had here; `.reason` and `.remedy` say why and what helps.
        FeatureUnavailable: this kernel lacks one of the flags.
        ValueError, TypeError: wrong arguments.

    A context manager, closed at the end of its block. Any thread may prepare and submit, unless
    SINGLE_ISSUER is set; one thread at a time may wait. In a forked child every call raises.

    Completions are matched by user_data alone, as the kernel does it: what a request points to is kept
    until as many last completions with its user_data have come as requests went out with it.
    """

    # What it is

    def __repr__(self) -> str:
        if self._state != "open":
            return f"<Ring {self._state}>"
        return f"<Ring fd={self._handle.fd} entries={self._sq_entries} in_flight={len(self._ledger.flight)}>"

    @property
    def closed(self) -> bool:
        """Whether `close()` was called (or the process is a forked child)."""
        return self._state != "open"

    @property
    def features(self) -> Features:
        """What the kernel said at set-up that its rings can do."""
        return Features(self._handle.features)

    @property
    def flags(self) -> SetupFlags:
        """The set-up flags."""
        return SetupFlags(self._flags)

    @property
    def sq_entries(self) -> int:
        """The size of the submission queue."""
        return self._sq_entries

    @property
    def cq_entries(self) -> int:
        """The size of the completion queue."""
        return int(self._handle.cq_entries)

    @property
    def sq_space_left(self) -> int:
        """How many more entries can be prepared before the next submit (io_uring_sq_space_left(3))."""
        self._check_open()
        return max(0, self._sq_entries - len(self._staged) - self._ask(lib.ioc_sq_ready))

    @property
    def cq_ready(self) -> int:
        """How many completions are in the queue and not reaped yet (io_uring_cq_ready(3))."""
        self._check_open()
        return self._ask(lib.ioc_cq_ready) + int(self._settle_seen().n) + self._pending()

    @property
    def cq_overflow(self) -> int:
        """How many completions were lost because the kernel had no memory for them (its `koverflow`).

        Completions that merely found the queue full are not lost: the kernel keeps them and hands them
        over as the queue is reaped.
        """
        self._check_open()
        return self._ask(lib.ioc_cq_overflow)

    @property
    def in_flight(self) -> int:
        """How many different user_data are in flight, as far as the ring knows."""
        return len(self._ledger.flight)

    # Entries

    def get_sqe(self) -> Sqe:
        """A fresh entry, a NOP until a `prep_` method fills it (io_uring_get_sqe(3)).

        Raises:
            QueueFull: no entry is free: `submit()` first. Nothing that was prepared is lost.
            WrongThread: the ring is another thread's (SINGLE_ISSUER).
            ValueError: the ring is closed.
        """
        self._check_open()
        if len(self._staged) + self._backlog >= self._sq_entries:
            self._backlog = self._ask(lib.ioc_sq_ready)
            if len(self._staged) + self._backlog >= self._sq_entries:
                raise errors.QueueFull(
                    errno.EAGAIN,
                    f"{os.strerror(errno.EAGAIN)}: io_uring_get_sqe: all {self._sq_entries} entries are "
                    "prepared: submit() first",
                )
        entry = Sqe(self)
        self._staged.append(entry)
        return entry

    def submit(self) -> int:
        """Submits what was prepared (io_uring_submit(3)).

        Returns:
            How many entries the kernel took. An invalid one ends the round, unless SUBMIT_ALL is set:
            what is behind it stays prepared, for the next call.

        Raises:
            QueueFull: the kernel has no room for now (EAGAIN, EBUSY): reap, then submit again.
            WrongThread, ValueError: as for `get_sqe`.
        """
        self._check_open()
        return self._took(self._enter(0, -1, ffi.NULL), "io_uring_submit")

    def submit_and_wait(self, n: int = 1, timeout: float | None = None) -> int:
        """Submits, and waits until completions are there for `peek()` (io_uring_submit_and_wait(3)).

        Args:
            n: how many completions to wait for.
            timeout: the longest wait in seconds; None waits for ever.

        Returns:
            How many entries the kernel took, also when the time ran out.

        Raises: as `submit()` and `wait()`.
        """
        deadline = deadline_of(timeout)
        self._check_open()
        self._start_reaping()
        try:
            wanted, out = self._wanted(n) - self._pending(), self._settle_seen()
            res = self._enter(max(0, wanted - out.n), left_of(deadline), ffi.NULL)
            taken = 0 if res == -errno.EINTR else self._took(res, "io_uring_submit_and_wait")
            while True:
                if wanted <= out.n + self._ask(lib.ioc_cq_ready):
                    break
                left = left_of(deadline)
                if not left:
                    break
                self._check_open()
                res = lib.ioc_enter(
                    self._handle, ffi.NULL, lib.IOC_NO_SUBMIT, wanted - out.n, left, ffi.NULL, ffi.NULL
                )
                self._took(0 if res == -errno.EINTR else res, "io_uring_enter")
            return taken
        finally:
            self._reaper = 0

    def submit_and_reap(self, n: int = 1, timeout: float | None = None) -> list[tuple[int, int, int]]:
        """Submits, waits and reaps in one call of the kernel: the hot path.

        Args:
            n: how many completions to wait for; 0 takes what is there.
            timeout: the longest wait in seconds; None waits for ever.

        Returns:
            (user_data, res, flags) of each completion, at least `n` unless the time ran out.

        Raises: as `submit()` and `wait()`.
        """
        return self._records(n, timeout, submit=True)

    # Completions

    def wait(self, n: int = 1, timeout: float | None = None) -> list[Cqe]:
        """Waits for completions and reaps all that are there (io_uring_wait_cqes(3)). It submits nothing.

        Args:
            n: how many completions to wait for, at most `cq_entries`.
            timeout: the longest wait in seconds; None waits for ever.

        Returns:
            At least `n` completions, or those that had come when the time ran out (perhaps none).

        Raises:
            WrongThread: the ring is another thread's (SINGLE_ISSUER).
            RuntimeError: another thread is reaping this ring.
            ValueError: the ring is closed, also while this call waits.

        Waiting gives up the GIL; signal handlers run, and an exception from one loses no completion.
        """
        return self._records(n, timeout, submit=False, make=self._cqe)

    def peek(self) -> list[Cqe]:
        """Reaps the completions that are there, without waiting (io_uring_peek_cqe(3)); raises as `wait`."""
        return self._records(0, None, submit=False, make=self._cqe)

    # Cancelling from outside the queue

    def register_sync_cancel(
        self,
        user_data: int = 0,
        *,
        fd: Any = -1,
        flags: int = 0,
        opcode: int = 0,
        timeout: float | None = None,
    ) -> int:
        """Cancels at once, and waits for what runs in a worker (io_uring_register_sync_cancel(3)). Linux 6.0.

        From any thread, unless SINGLE_ISSUER is set, also while another one waits; the GIL is given up.
        The targets' completions come as ever, by `wait()`: with DEFER_TASKRUN or SQPOLL, later.

        Args:
            user_data: the target's number (with no flag, or USERDATA).
            fd: the file whose requests to cancel; sets FD. With FD_FIXED an index of the registered files.
            flags: `CancelFlags`, FD|ANY and OP|ANY too.
            opcode: the kind of request to cancel; sets OP. Linux 6.6.
            timeout: how long to wait, in seconds, for a request that runs in a worker to end; None waits
                for ever, 0 not at all. With ALL or ANY the kernel never waits.

        Returns:
            0 for one match; with ALL or ANY the number of matches, 0 where there was none. (0 as well for
            requests in workers that were only interrupted.)

        Raises:
            CancelNotFound: nothing matched.
            CancelTimeout: the target still ran when the time was over; it may have been interrupted.
            CancelTooLate: it can't be stopped.
            FeatureUnavailable: this kernel has no synchronous cancel, or does not act on a flag.
            WrongThread: the ring is another thread's (SINGLE_ISSUER).
            OSError: EBADF for a bad fd or an empty slot.

        On a DEFER_TASKRUN ring the kernel loses the wake-up for a request in a worker, and would wait for
        ever: there None is refused with ValueError; use `prep_cancel64` and `wait()`.
        """
        self._check_open()
        self._ask(lib.ioc_sq_ready)  # a child of a fork that Python did not see is told so first
        call = "io_uring_register_sync_cancel"
        number = memory.file_number(fd)
        asked, op = 0, 0
        op, asked = check_sync_flags(flags, number, opcode)
        if not 0 <= user_data <= MASK64:
            raise OverflowError(f"user_data takes 0 to 2**64 - 1, not {user_data}")
        seconds = nanoseconds = -1
        if timeout is not None:
            spec = memory.timespec(timeout)
            seconds, nanoseconds = spec.tv_sec, spec.tv_nsec
        elif SetupFlags.DEFER_TASKRUN in self.flags and not asked & _MANY:
            raise ValueError(
                f"{call} on a DEFER_TASKRUN ring may never return: give a timeout, or use prep_cancel64"
            )
        if not _probe.sync_cancel_works():
            raise errors.feature_unavailable("IORING_REGISTER_SYNC_CANCEL", "6.0", call)
        if asked & lib.IORING_ASYNC_CANCEL_OP and not _probe.sync_opcode_works():
            raise errors.feature_unavailable("IORING_ASYNC_CANCEL_OP", "6.6", call)
        _probe.require_cancel_flags(asked)
        deadline = deadline_of(timeout)
        while True:
            res = _sync_cancel(self._handle, user_data, number, asked, op, seconds, nanoseconds)
            if res != -errno.EINTR:
                return self._took(res, call)
            if deadline is not None:  # a signal's handler has run: on with what is left of the time
                left = max(0.0, deadline - time.monotonic())
                spec = memory.timespec(left)
                seconds, nanoseconds = spec.tv_sec, spec.tv_nsec
            self._check_open()

    def __enter__(self) -> Ring:
        """The ring itself."""
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the ring."""
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_state", "new") == "open":
            self._close_unasked(_AT_COLLECTION)
        elif getattr(self, "_state", "new") == "closed" and self._handle.fd >= 0:
            self._exit(time.monotonic())  # its close() was cut short twice


_record.join(globals(), _sync_cancel="sync_cancel")
