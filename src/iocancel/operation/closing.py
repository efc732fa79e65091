"""The end of an engine: cancel, drain, and only then free.

Closing is asynchronous in the kernel (of 1,280 direct reads 1,260 were still written after their ring was
closed), so every ending is awaited first. What does not end in the time given is abandoned: its outcome is
FAILED, its memory goes behind the carrier's barrier, or is kept for ever, and a ResourceWarning says so.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

from iocancel.operation.cancelling import Cancelling
from iocancel.operation.core import CLOSED, CLOSING, FORKED, OPEN, expiry
from iocancel.operation.frames import LEADERS, in_a_frame
from iocancel.operation.hooks import tell
from iocancel.operation.leading import Pending, Waiter
from iocancel.operation.ledger import Ledger
from iocancel.operation.model import Outcome
from iocancel.operation.operation import CLOSING as BY_CLOSING
from iocancel.operation.operation import ENDED, LEFT, PREPARED, RELEASING, FdOperation, Operation

if TYPE_CHECKING:
    from iocancel.operation.carrier import Carrier

CLOSE_TIMEOUT = 5.0
_STUCK = 0.1  # seconds that the leader has for leaving
_UNASKED = 1.0  # seconds that a collection, or the interpreter's end, may take
# In place of an export. An operation that was left may live for long, with the caller's buffer pinned for
# nothing; and of a memoryview that is garbage while it is exported, CPython before 3.11.9 and 3.12.3 makes a
# crash (gh-77894).
_KEPT = object()


class Closing(Cancelling):
    """Closing: of one file, of all."""

    def __init__(self, carrier: Carrier) -> None:
        self._orphans: set[Operation[Any]] = set()
        super().__init__(carrier)

    _quiet = False  # of a pool: nobody was to close it, so nobody is told that it was not closed

    @property
    def closed(self) -> bool:
        """Whether `close` was called (or this is a forked child)."""
        return self._state is not OPEN

    @property
    def in_flight(self) -> int:
        """How many operations have not ended; prepared ones are counted, too."""
        return len(self._ledger.flight)

    @property
    def orphans(self) -> int:
        """How many operations in flight nobody waits for any more: those of `abandon_on_cancel`."""
        return len(self._orphans)

    def orphan(self, op: Operation[Any]) -> None:
        """Nobody waits for `op` any more; the ledger keeps it, and its memory, until it has ended."""
        self._orphans.add(op)
        op.add_done_callback(self._orphans.discard)

    def close_fd(
        self, fd: Any, timeout: float | None = CLOSE_TIMEOUT, *, abort: bool = False
    ) -> dict[Operation[Any], Outcome]:
        """Cancel what is pending on a file, wait for the endings, close it.

        The order matters: closing a file cancels nothing, keeps it open for what is pending on it, and gives
        its number to the next file that is opened. Zero-copy sends are awaited as far as their result; their
        memory may be the kernel's for longer.

        Args:
            fd: the number, or an object with `fileno()` and `close()`, which is then called.
            timeout: how many seconds to wait for what a cancel does not stop; None for ever.
            abort: have the peer of a TCP connection see a reset (SO_LINGER 0). This also releases the
                memory of zero-copy sends.

        Returns:
            What became of each.

        Raises:
            CancelTooLate: something still runs; the file was not closed.
            ValueError, RuntimeError: as for `cancel`.
        """
        self._check_open()
        number = fd if isinstance(fd, int) else fd.fileno()
        pending = [op for op in self._ledger.on_file(number) if op._state < RELEASING]
        self._cancel_these(pending, BY_CLOSING)
        until = None if timeout is None else expiry(timeout)
        self._wait_for(pending, None if until is None else max(0.0, until - time.monotonic()), RELEASING)
        if abort:
            linger_zero(number)
        if isinstance(fd, int):
            os.close(fd)
        else:
            fd.close()
        return {op: op.outcome or Outcome.FAILED for op in pending}

    def close(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        """Cancel everything, wait for the endings, and give the system back.

        Threads that wait in this engine return when their operations have ended. A second call does nothing;
        one that comes while another thread is at it returns when that is done, or its own time is over.

        Raises the auditing events `iocancel.close` and, where something is in flight, `iocancel.cancel`;
        their hooks can't refuse it.

        Args:
            timeout: how many seconds to wait for what a cancel does not stop; None for ever. What still runs
                then ends as FAILED, keeps its memory for as long as the kernel may write there, or for ever,
                and is named in a ResourceWarning.

        Raises:
            RuntimeError: from a signal handler that has interrupted this engine.
        """
        mine, me = object(), threading.get_ident()
        if self._state in (CLOSED, FORKED):
            if self._kept and self._lead is None:  # an exception has cut the first short at its very end
                self._let_go()
            return
        if self._leads(me):
            raise self._inside()
        until = None if timeout is None else expiry(timeout)
        # One that a signal's exception has cut short is begun again. No call between the look and the stores:
        # of two threads one closes.
        again = self._state is CLOSING
        if self._state is OPEN or (self._state is CLOSING and self._closer == me):
            self._closer = me
            self._closing = mine
            self._state = CLOSING
        else:
            while self._closing is not mine:
                gone = self._await_closed(until)
                if gone is None:
                    return
                # Begun by a thread that was interrupted, and is elsewhere now. No call between, as above.
                if self._state is CLOSING and self._closing is gone:
                    self._closer = me
                    self._closing = mine
        try:
            if not again:
                tell("iocancel.close", self._carrier.name, tuple(self._ledger.newest_first()))
            if not self._sealed:  # else the carrier's closing was begun
                for op in self._ledger.newest_first():
                    op._why = op._why or BY_CLOSING
                self._drain(until)
        finally:
            try:
                # Also when Ctrl-C has ended the draining.
                self._finish(until)
            finally:
                if self._closing is mine:  # whatever keeps this frame: an exception's traceback
                    self._closing = object()

    def _await_closed(self, until: float | None) -> object:
        """Another thread closes: its end is the end of this call, too.

        Returns:
            None when it is closed, or the time is over; else the mark of one who has not come to the end.
        """
        waiter = Waiter()
        while self._state is CLOSING:
            mark = self._closing
            if not in_a_frame(self, "_closing", 1):
                return mark
            del mark
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return None
            self._await_lead(waiter, left)
        return None

    def _drain(self, until: float | None) -> None:
        """Cancel all and wait; the lead is taken from whoever has it."""
        asked: set[int] = set()
        while True:
            flight = self._ledger.newest_first()
            if not flight:
                return
            fresh = [op for op in flight if op._token not in asked]
            if fresh:  # the first time, all; then what was on its way in when the closing began
                for op in fresh:
                    op._why = op._why or BY_CLOSING
                asked.update(op._token for op in fresh)
                self._asked.append(fresh)  # type: ignore[arg-type]
                tell("iocancel.cancel", self._carrier.name, tuple(fresh), "closing")
            pending = Pending(flight, ENDED)
            if not self._lead_for(pending, until):
                self._follow(pending, Waiter(), until)  # this wakes the leader, who sees the end, and leaves
            if until is not None and time.monotonic() >= until:
                return

    def _finish(self, until: float | None) -> None:
        """Close the carrier, abandon what is left, wake everybody.

        After an interruption it can be run again: it is CLOSED, and who waits learns of that, at the end.
        """
        mine = self._lead_at_last(until)
        try:
            if self._lead is mine:  # else a thread is stuck in a system call
                self._settle()
                self._settle_batch()
            self._sealed = True  # before the look: what enters from now on is refused by `_start`
            left = []
            for op in self._ledger.newest_first():
                if op._state == PREPARED:  # the kernel never saw it
                    op._why = op._why or BY_CLOSING
                    self._withdraw(op, -errno.ECANCELED)
                else:
                    left.append(op)
            safe = self._carrier.close(None if until is None else max(0.0, until - time.monotonic()), left)
            for op in left:
                self._abandon(op)
            self._kept = [*self._kept, *((op, safe) for op in left)]
            # What is in the old ledger stays there: the carrier keeps it for as long as it has to.
            self._ledger = Ledger()
            self._state = CLOSED
        finally:
            if self._lead is mine:
                self._lead_thread = 0
                self._lead = None
            # The call of a thread that is stuck may be one that moves bytes by itself: then when it has left.
            self._wanted = True
            if self._lead is None:
                self._let_go()
        for waiter in list(self._followers):
            waiter.awake()
        running = [op for op in left if op._pins is not None or op._why == LEFT]
        if running and not safe:
            warnings.warn(
                f"{len(running)} operations still ran when {self!r} was closed ({running[0]!r} ...): "
                "their memory is kept",
                ResourceWarning,
                stacklevel=3,
            )

    def _lead_at_last(self, until: float | None) -> object:
        """Take the lead: nobody may be handing over when the rest is withdrawn."""
        mine, me, waiter = object(), threading.get_ident(), Waiter()
        while True:
            # No call between the look and the stores.
            if self._lead is None:
                self._lead = mine
                self._lead_thread = me
            if self._lead is mine or (until is not None and time.monotonic() >= until + _STUCK):
                return mine
            self._carrier.wake()
            if self._is_led():
                self._await_lead(waiter, 0.05)

    def _abandon(self, op: Operation[Any]) -> None:
        """The engine will not hear of its ending."""
        if op._state in (RELEASING, ENDED):
            op._state = ENDED  # of a zero-copy send the kernel has the memory yet: its pins say so
            return
        pins = op._pins  # not let go of: the kernel has them
        op._why = LEFT
        op._state = ENDED
        op._pins = pins
        self._call_back(op)

    def _let_go(self) -> None:
        """Of the memory of what was left: what the kernel has yet of it, the carrier keeps."""
        kept = self._kept
        for op, safe in kept:
            if op._pins is not None:
                op._pins = None if safe else _KEPT
            if op._why == LEFT:
                op._entry = None  # a carrier has its memory in either
        if self._kept is kept:  # at last: an exception in between loses nothing
            self._kept = ()

    # Unasked

    def __enter__(self) -> Any:
        """The engine itself."""
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        state = "" if self._state is OPEN else f" {self._state}"
        return f"<{self._carrier.name} engine{state} in_flight={len(self._ledger.flight)}>"

    def _forked(self) -> None:
        self._state = FORKED
        self._carrier.forked()
        for op in list(self._ledger.flight.values()):
            if op._state < RELEASING:
                op._pins = op._entry = None  # what is written is the parent's memory
            if isinstance(op, FdOperation):
                op._why = LEFT  # its fd is the parent's
        self._ledger = Ledger()
        self._staged.clear()
        self._lead, self._lead_thread = None, 0

    def _at_exit(self) -> None:
        if self._state in (OPEN, CLOSING):
            self._close_unasked(" at exit")

    def _close_unasked(self, when: str = "") -> None:
        text = "" if self._quiet and not self.in_flight else f"unclosed {self!r}{when}"
        try:
            self.close(_UNASKED)
        finally:
            if text:
                warnings.warn(text, ResourceWarning, source=self, stacklevel=3)

    def __del__(self) -> None:
        if getattr(self, "_state", "new") in (OPEN, CLOSING):
            # Of what is collected together any may be the first, and each is asked once: an fd that comes
            # only now is closed by asking again.
            asked: list[Any] = [op for op in self._ledger.newest_first() if gc.is_finalized(op)]
            try:
                self._close_unasked()
            finally:
                for op in asked:
                    op.__del__()


LEADERS.add(Closing._finish.__code__)


def linger_zero(fd: int) -> None:
    """Have the closing of a TCP socket reset its connection; other files are left as they are."""
    import socket
    import struct

    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
