"""A context's kernel side: who is inside of it, how it is left, and what stays when it can't be.

What the code rests on:

- io_destroy cancels polls and then *blocks* until everything in flight has ended; events that were not
  reaped are lost. So closing cancels, reaps by io_getevents, and destroys only when nothing is in flight.
  Past its bound it destroys nothing: the context and the memory stay, and are looked at again when
  the next context is made and at interpreter exit.
- Only polls and the requests of USB gadgets' endpoints can be cancelled; the rest ends by itself.
- A context's name is an address, which the next context may get. So nobody may be inside of a call when
  it is destroyed; each call enters `users` before it looks whether the context is closing.
- A thread that is blocked in io_getevents is woken by a poll of the context's own: armed from the start on
  an eventfd that only closing writes. The request that it takes is asked of io_setup in addition.
- A forked child has none of the context's requests (io_cancel there is -EINVAL), but on some kernels the
  device may still write to pages that it shares with the parent: it keeps the memory, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
import warnings
from queue import Empty, SimpleQueue
from typing import Any

from iocancel import _lifetime, _record
from iocancel._native import ffi, lib
from iocancel.libaio.ledger import Ledger, records

_ROOM = 1024  # events that one call reaps
_LOOK_AGAIN = 0.1  # seconds; a KeyboardInterrupt may keep a call that leaves from telling so
AT_EXIT = 5.0
_abandoned: list[Kernel] = []


class Kernel:
    """The kernel's context, who uses it, and the ledger of what is in flight in it."""

    __slots__ = (
        "__weakref__",
        "_lock",
        "_spare",
        "_wake",
        "c",
        "done",
        "forked",
        "leaving",
        "ledger",
        "users",
    )

    def __init__(self) -> None:
        self.c: Any = ffi.new("struct ioc_laio_context *")
        self.ledger = Ledger()
        self.users: dict[object, int] = {}  # one entry a call that is inside -> its thread
        self.leaving: SimpleQueue[None] | None = None  # set: closing, or closed; each user that leaves puts
        self.done = True  # nothing of the kernel's is held
        self.forked = False
        self._lock = threading.RLock()  # held by whoever closes
        self._spare: tuple[int, object] | None = None
        self._wake = -1

    def open(self, nr: int) -> tuple[int, str]:
        """Set up a context for `nr` requests; returns a negated errno, or 0, and the call's name."""
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.done = False
        call, res = "io_setup", lib.ioc_laio_setup(self.c, nr, self._wake)
        if res == 0:
            call, res = "io_submit", lib.ioc_laio_wake(self.c)
        if res < 0:
            self._destroy()
        else:
            _lifetime.register(self)
        return res, call

    def enter(self) -> object | None:
        """The token of a call that is now inside; None when the context is closing or closed.

        To leave, the call takes its token out of `users`, by itself and first of all, and then calls
        `left`. (No signal handler can come between this function's store and the caller's `try`.)
        """
        token = object()
        self.users[token] = threading.get_ident()
        if self.leaving is None:
            return token
        self.users.pop(token, None)
        self.left()
        return None

    def left(self) -> None:
        """A call is no longer inside."""
        leaving = self.leaving
        if leaving is not None:
            leaving.put(None)

    def reap(self, least: int, most: int, deadline: int) -> tuple[int, int]:
        """One call of io_getevents into the ledger; returns how much room there was, and the result."""
        ledger = self.ledger
        room = max(1, min(most, _ROOM, max(least, len(ledger.flight))))
        spare, self._spare = self._spare, None
        record = spare[1] if spare is not None and spare[0] >= room else records(room)
        try:
            res = lib.ioc_laio_getevents(self.c, min(least, room), room, deadline, record)
            ledger.absorb(record)
        except BaseException:
            ledger.late += [record]
            raise
        self._spare = (max(room, spare[0]) if spare is not None and spare[1] is record else room, record)
        return room, res

    def shut(self, deadline: int) -> bool:
        """Cancel, reap and destroy; False when something is still in flight, or inside, at the deadline."""
        seconds = remaining(deadline)
        if not self._lock.acquire(timeout=-1 if seconds is None else seconds):
            return self.done  # another thread closes it
        try:
            if not self.done and self._drain(deadline):
                self._destroy()
            if self.done and self in _abandoned:
                _abandoned.remove(self)
            return self.done
        finally:
            self._lock.release()

    def _drain(self, deadline: int) -> bool:
        leaving = self.leaving
        if leaving is None:
            self.leaving = leaving = SimpleQueue()
        if not self._send_out(leaving, deadline):
            return False
        ledger = self.ledger
        ledger.catch_up()
        for batch in set(ledger.flight.values()):
            ledger.settle(batch)
        self._cancel_all()
        while ledger.flight:
            room, res = self.reap(1, _ROOM, deadline)
            if res < 0 and not lib.ioc_laio_open(self.c):
                return self.done  # a signal handler has closed it meanwhile
            if res < 0 and res != -errno.EINTR:
                return False
            if ledger.flight and res < room and remaining(deadline) == 0:
                return False
        return True

    def _send_out(self, leaving: SimpleQueue[None], deadline: int) -> bool:
        """Wake the other threads that are inside, until all have left. (The own one's calls are further down
        on this thread's stack, and see that the context is closed when they go on.)"""
        me, told = threading.get_ident(), False
        while any(thread != me for thread in list(self.users.values())):
            if not told:
                with contextlib.suppress(OSError):  # the program has closed all its fds, ours too
                    os.eventfd_write(self._wake, 1)
                told = True
            lib.ioc_laio_wake(self.c)  # whoever was woken took the event: it is armed for the next one
            left = remaining(deadline)
            try:
                leaving.get(timeout=_LOOK_AGAIN if left is None else min(left, _LOOK_AGAIN))
            except Empty:
                if left == 0:
                    return False
        return True

    def _cancel_all(self) -> None:
        """Oldest first: the kernel looks for them in that order."""
        ledger = self.ledger
        blocks = [batch.memory + (serial - batch.first) for serial, batch in list(ledger.flight.items())]
        for start in range(0, len(blocks), _ROOM):
            some = blocks[start : start + _ROOM]
            record = records(len(some))
            try:
                _cancel_many(self.c, some, len(some), record)
                ledger.absorb(record)
            except BaseException:
                ledger.late += [record]
                raise

    def _destroy(self) -> None:
        lib.ioc_laio_destroy(self.c)
        if self.leaving is None:
            self.leaving = SimpleQueue()
        self.done = True
        self._close_wake()

    def _close_wake(self) -> None:
        wake, self._wake = self._wake, -1
        if wake >= 0:
            with contextlib.suppress(OSError):
                os.close(wake)

    def foreign(self) -> bool:
        """Whether this is a forked child of the process that made the context."""
        return self.forked or bool(self.c.process and self.c.process != lib.ioc_process())

    def abandon(self) -> None:
        """Keep the context and its memory, to be looked at again: see `sweep`."""
        if self not in _abandoned:
            _abandoned.append(self)

    def disown(self) -> None:
        """In a forked child: forget the context without touching it, keep the memory."""
        self.forked = self.done = True
        self.leaving = SimpleQueue()
        held = self.ledger.give_up()
        if held:
            _lifetime.keep_forever(held)

    def _forked(self) -> None:
        self.users.clear()
        if not self.done:
            self.disown()
            self._close_wake()
        if self in _abandoned:
            _abandoned.remove(self)

    def _at_exit(self) -> None:
        if self.foreign() and not self.done:
            self.disown()
        if self.done:
            return
        with contextlib.suppress(Exception):  # a warning that is an error, above all
            if self.leaving is None:
                unclosed(self)
        with contextlib.suppress(Exception):
            # What was waited for before is not waited for again here; the kernel will.
            self.shut(after(0 if self in _abandoned else AT_EXIT))
        if not self.done:
            _lifetime.keep_forever(self)

    def __repr__(self) -> str:
        ends = "closed" if self.done else "closing"
        state = "forked" if self.forked else "open" if self.leaving is None else ends
        return f"<iocancel.libaio.Context {state} in_flight={len(self.ledger.flight)}>"


def sweep() -> None:
    """Close what could not be closed in time and has ended since."""
    for kernel in _abandoned.copy():
        if kernel.shut(0):
            kernel.ledger.take(0, len(kernel.ledger.ready))


def unclosed(kernel: Kernel) -> None:
    """Warn of a context that nobody closed."""
    text = f"unclosed {kernel!r}: call close(), or use it in a with block"
    warnings.warn(text, ResourceWarning, stacklevel=3, source=kernel)


def after(seconds: float | None) -> int:
    """A deadline for C: CLOCK_MONOTONIC nanoseconds; -1 for never, 0 for now.

    Raises:
        TypeError: for what is not a number.
        ValueError: for one that is negative, or not one (NaN).
    """
    if seconds is None:
        return -1
    if not isinstance(seconds, int | float):
        raise TypeError(f"timeout takes seconds as float or int, or None, not {type(seconds).__name__}")
    if not seconds >= 0:
        raise ValueError(f"timeout takes 0 or more seconds, or None, not {seconds}")
    if seconds == 0:
        return 0
    if seconds > 1e9:  # 30 years
        return -1
    return time.monotonic_ns() + int(seconds * 1e9)


def remaining(deadline: int) -> float | None:
    """The seconds until a deadline; None for never."""
    if deadline < 0:
        return None
    return max(0, deadline - time.monotonic_ns()) / 1e9 if deadline else 0.0


def _cancel_many(c: Any, iocbs: list[Any], many: int, out: Any) -> int:
    return int(lib.ioc_laio_cancel_many(c, iocbs, many, out))


_record.join(globals(), _cancel_many="io_cancel_many")
