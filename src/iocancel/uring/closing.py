"""The end of a ring: cancel, drain, and only then free.

Closing a ring's fd ends nothing at once (limbo.py says how much of it is written into afterwards). So
what holds memory, or would bring an fd that nobody could claim any more, is cancelled by its user_data
and reaped first. A request in a worker may need a second cancel, what is linked hard to a cancelled one
starts when that ends, and behind IO_DRAIN only a synchronous cancel reaches: hence the rounds.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
import warnings
from array import array
from typing import Any

from iocancel import _lifetime, _record
from iocancel._native import ffi, lib
from iocancel.uring import limbo
from iocancel.uring import probe as _probe
from iocancel.uring.core import RingCore, deadline_of, left_of
from iocancel.uring.flags import SetupFlags
from iocancel.uring.ledger import Group

CLOSE_TIMEOUT = 5.0
"""How many seconds `Ring.close()` waits for what does not end by itself."""

_AT_EXIT = 1.0
_PATIENCE = 1.0
_PAUSE = 0.005  # seconds from one round of cancels to the next
_ANY = lib.IORING_ASYNC_CANCEL_ANY
_BATCH = 1024
_push_many, _sync_cancel = lib.ioc_push_many, lib.ioc_sync_cancel
_CANCEL = bytearray(64)
_CANCEL[0] = lib.IORING_OP_ASYNC_CANCEL
_CANCEL[4:8] = b"\xff" * 4


class Closing(RingCore):
    """The closing of `Ring`."""

    def close(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        """Cancels what is in flight, waits for its endings, and closes the ring (io_uring_queue_exit(3)).

        What was prepared and not submitted is dropped. Completions that were not reaped are dropped, too,
        but an fd in one of them (accepted, opened) is closed. A thread that waits on this ring gets
        ValueError.

        Args:
            timeout: how long to wait, in seconds, for requests that can't be cancelled (None: for ever).
                What still runs then keeps its memory until it ends: the ring is closed all the same.

        Raises:
            WrongThread: the ring is another thread's (SINGLE_ISSUER).
            RuntimeError: called from a signal handler that interrupted this ring's own wait.

        A second call does nothing.
        """
        if self._state != "open":
            return
        if self._took_by_child():
            return
        self._check_open()
        if self._reaper == threading.get_ident():
            raise RuntimeError("close() inside this ring's own wait: let the wait return first")
        deadline = deadline_of(timeout)
        self._state = "closed"
        try:
            lib.ioc_ring_closing(self._handle, 1)  # a submit in another thread is in by now, or never
            self._stop_waiters()
        except BaseException:
            lib.ioc_ring_closing(self._handle, 0)
            self._state = "open"
            raise
        try:
            dropped, self._staged = self._staged, []
            self._drop(dropped)
            self._drain(deadline)
        finally:
            # Also when Ctrl-C ends the draining: what has not ended goes behind the barrier.
            try:
                self._exit(deadline)
            except BaseException:  # a signal's exception: once more, without waiting; nothing is done twice
                self._exit(time.monotonic())
                raise
            finally:
                self._reaper = 0

    def _took_by_child(self) -> bool:
        """Whether this is a child of a fork that Python did not see: then nothing may be touched."""
        if lib.ioc_sq_ready(self._handle) != lib.IOC_FORKED:
            return False
        self._state = "forked"
        return True

    def _stop_waiters(self) -> None:
        """Gets the right to reap; a thread that waits is woken by completions, as many as it wants."""
        number = self._unique()
        patience = time.monotonic() + _PATIENCE
        while self._reaper:
            # -1: a hot path that does not say whose; it may be the very call that a signal interrupted.
            res = lib.ioc_wake(self._handle, number)
            if (self._reaper == -1 or res == -errno.EEXIST) and time.monotonic() > patience:
                raise RuntimeError("close() inside a call that reaps this ring: let it return first")
            time.sleep(0.001)
        self._reaper = threading.get_ident()

    def _drop(self, entries: list[Any]) -> None:
        """Let go of what the kernel never saw."""
        for entry in entries:
            # Perhaps it is in the ledger: by a submit that was interrupted.
            entry._ring, entry._pins, entry._gives_fd = None, (), False
            if entry._entered:
                self._ledger.last(entry._user_data)

    def _drain(self, deadline: float | None) -> None:
        out = self._out
        self._late()
        number = self._unique()
        pause, before = _PAUSE, 0
        first = True
        while True:
            if first and lib.ioc_sq_ready(self._handle):
                lib.ioc_defuse(self._handle)  # what was not taken is dropped, not done at last
                if self._flags & SetupFlags.R_DISABLED:
                    lib.ioc_register(self._handle, lib.IORING_REGISTER_ENABLE_RINGS, ffi.NULL, 0)
                lib.ioc_enter(self._handle, ffi.NULL, 0, 0, -1, out, ffi.NULL)
                self._late()
            targets = self._held()
            if not targets:
                return
            if not self._cancel_all(targets, number):
                return  # not this thread's ring: nothing can be done from here
            if not first and _probe.sync_cancel_works():
                _sync_cancel(self._handle, 0, -1, _ANY, 0, 0, 0)
            first = False
            # What goes on ending is asked again at once: in one submission 5.10 takes but one of those with
            # one number. What does not is asked ever more seldom.
            progress = len(targets) < before
            again = time.monotonic() + (0 if progress else pause)
            pause = _PAUSE if progress else min(2 * pause, 1.0)
            before = len(targets)
            while self._held():
                left = left_of(again if deadline is None else min(again, deadline))
                if not left:
                    break
                res = lib.ioc_enter(self._handle, ffi.NULL, 0, 1, left, out, ffi.NULL)
                self._late()
                if res < 0 and res != -errno.EINTR:
                    return
            if deadline is not None and time.monotonic() >= deadline:
                return

    def _held(self) -> list[int]:
        """The user_data of what must end before its memory can be freed, the newest first.

        As often as requests with it are still to end: a cancel by user_data takes one.
        """
        held: list[int] = []
        for user_data, found in list(self._ledger.flight.items()):
            entries = found.entries if isinstance(found, Group) else [found]
            if any(entry._gives_fd or _memory(entry) for entry in entries):
                many = 1 if not isinstance(found, Group) else 0 if found.sticky else found.expected
                held += [user_data] * many
        held.reverse()
        return held

    def _cancel_all(self, targets: list[int], number: int) -> bool:
        """One cancel each; False where the kernel refuses this thread."""
        size = min(_BATCH, self._sq_entries)
        for start in range(0, len(targets), size):
            batch = array("Q", targets[start : start + size])
            names = array("Q", [number]) * len(batch)
            _push_many(
                self._handle,
                bytes(_CANCEL),
                len(batch),
                ffi.from_buffer("uint64_t[]", names),
                ffi.from_buffer("uint64_t[]", batch),
                ffi.NULL,
            )
            res = lib.ioc_enter(self._handle, ffi.NULL, 0, 0, -1, self._out, ffi.NULL)
            self._late()
            if res == -errno.EEXIST:
                return False
        return True

    def _late(self) -> None:
        """Takes completions that nobody will ask for any more: fds in them are closed."""
        while True:
            self._take(self._late_one)
            # Submits nothing: what the kernel has not taken yet is dropped, see _drain.
            lib.ioc_enter(self._handle, ffi.NULL, lib.IOC_NO_SUBMIT, 0, -1, self._out, ffi.NULL)
            if not self._out.n:
                return

    def _late_one(self, user_data: int, res: int, _flags: int) -> None:
        found = self._ledger.flight.get(user_data)
        entries = [] if found is None or res < 0 else found.entries if isinstance(found, Group) else [found]
        if entries and all(entry._gives_fd for entry in entries):
            with contextlib.suppress(OSError):
                os.close(res)
        elif entries and all(entry.opcode == lib.IORING_OP_PIPE for entry in entries):
            for entry in entries:
                _close_pipe(entry)

    def _exit(self, deadline: float | None) -> None:
        """Closes the ring's fd; what still holds memory goes behind the barrier."""
        held = [entry for _, entry in self._ledger.entries() if _memory(entry)]
        barrier = None
        things = (self._ledger, self._kept())
        try:
            barrier = self._barrier() if held else None
        finally:
            # First, whatever comes: a signal's exception below must not free what the kernel uses.
            if held:
                limbo.keep(barrier, things)
            self._ledger = type(self._ledger)()
            self._forget_registered()
            res = lib.ioc_ring_exit(self._handle)
        while res == lib.IOC_IN_USE:  # a synchronous cancel in another thread
            if deadline is not None and time.monotonic() >= deadline:
                _lifetime.keep_forever((self._handle, things))
                break
            time.sleep(0.001)
            res = lib.ioc_ring_exit(self._handle)
        if barrier is not None:
            limbo.wait(barrier, left_of(deadline))

    def _barrier(self) -> int | None:
        """A pipe's read end that hangs up when the kernel has let go of the last request, or None."""
        try:
            read_end, write_end = os.pipe()
        except OSError:  # no fd left
            return None
        res = -errno.EINTR  # what a signal's exception leaves it at
        try:
            one = ffi.new("int[]", [write_end])
            res = lib.ioc_register(self._handle, lib.IORING_REGISTER_FILES, one, 1)
            if res == -errno.EBUSY:  # there is a table already
                res = lib.ioc_register_update(self._handle, lib.IORING_REGISTER_FILES_UPDATE, 0, one, 1)
        finally:
            os.close(write_end)
            if res < 0:
                os.close(read_end)
        return read_end if res >= 0 else None

    def _forked(self) -> None:
        if self._state == "open":
            self._state = "forked"
        lib.ioc_ring_forked(self._handle)
        self._ledger = type(self._ledger)()
        self._staged = []

    def _at_exit(self) -> None:
        if self._state == "open":
            self._close_unasked(_AT_EXIT, " at exit")

    def _close_unasked(self, timeout: float, when: str = "") -> None:
        text = f"unclosed {self!r}{when}"
        self._owner = 0  # whichever thread this is: the kernel says what it may do
        try:
            self.close(timeout)  # first: a warning may be made an error
        except RuntimeError:  # another thread waits in it, whom nobody can wake (SINGLE_ISSUER)
            _lifetime.keep_forever((self._handle, self._ledger, self._kept()))
        warnings.warn(text, ResourceWarning, source=self, stacklevel=3)


def _memory(entry: Any) -> bool:
    """Whether a request pins memory; files are pinned, too, so that nobody closes them by forgetting."""
    return any(not hasattr(pin, "fileno") for pin in entry._pins)


def _close_pipe(entry: Any) -> None:
    if int.from_bytes(entry._bytes[44:48], "little"):  # into the registered files
        return
    both = ffi.cast("int *", entry._pins[0])
    for i in range(2):
        number, both[i] = both[i], 0
        if number > 0:  # not yet written by the kernel, or closed before
            with contextlib.suppress(OSError):
                os.close(number)


_record.join(globals(), _push_many="push_many", _sync_cancel="sync_cancel")
