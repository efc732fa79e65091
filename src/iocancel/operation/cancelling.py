"""Cancels, one and many.

Newest first, in batches of at most 1,024, each one's completions dealt with before the next is sent: only so
does the kernel's search for the target cost the same among 60,000 pending requests as among 64 (200 to
240 ns each; oldest first 4,800 at 60,000; ANY|ALL 248,000 at 16,384).

A cancel that finds nothing, or a target that runs, says nothing about its ending. Such a target is asked
again for as long as it has not ended: a read of a pipe that a worker had in hand arms its poll after it was
"too late", and waits on, for ever; direct I/O in flight is not found and is found nowhere else either.
The pause between doubles, from 1 ms to 0.1 s: an answer wakes the leader, and would make it spin.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable
from sys import audit
from typing import Any

from iocancel.operation.hooks import tell
from iocancel.operation.ledger import by_age
from iocancel.operation.looping import Looping
from iocancel.operation.operation import (
    CALLER,
    IN_FLIGHT,
    PREPARED,
    RELEASING,
    SENT,
    Operation,
)

BATCH = 1024
_LONGEST_PAUSE = 0.1


class Cancelling(Looping):
    """Asking for cancels, and sending them."""

    def cancel(self, ops: Iterable[Operation[Any]]) -> int:
        """Cancel many, in one go: the cost of each does not grow with how many are pending.

        Where another thread waits in this engine, that thread sends them; else they are sent here, and what
        has ended by it is settled on return.

        Args:
            ops: operations of this engine, in any order.

        Returns:
            How many of them had not ended yet.

        Raises:
            ValueError: one is another engine's; the engine is closed.
            RuntimeError: in a forked child; in a signal handler that has interrupted this engine (there,
                use `Operation.cancel`).

        Raises the auditing event `iocancel.cancel` once for all that had not ended, before any of them is
        asked: an exception from a hook is raised here, and none was.
        """
        pending = []
        for op in list(ops):
            if op._engine is not self:
                raise ValueError(f"{op!r} is another engine's")
            if op._state < RELEASING:
                pending.append(op)
        return self._cancel_these(by_age(pending), CALLER)

    def cancel_fd(self, fd: Any) -> int:
        """Cancel what is pending on one file, by its number; returns and raises as `cancel`.

        A duplicate of the fd (dup(2)) is another file to this: cancel on both.

        Args:
            fd: the number, or an object with `fileno()`.
        """
        return self._cancel_these(self._ledger.on_file(fd if isinstance(fd, int) else fd.fileno()), CALLER)

    def cancel_all(self) -> int:
        """Cancel all that this engine has; returns and raises as `cancel`."""
        return self._cancel_these(self._ledger.newest_first(), CALLER)

    def _cancel_these(self, ops: list[Operation[Any]], why: int) -> int:
        """Cancel, the newest first."""
        self._check_open()
        if ops and why == CALLER:
            # Before anything is changed: a hook may refuse it.
            audit("iocancel.cancel", self._carrier.name, tuple(ops), "caller")
        pending: list[Operation[Any]] = []
        add = pending.append
        for op in ops:
            if op._state < RELEASING:
                if not op._why:
                    op._why = why
                add(op)
        if pending:
            # One entry for all of them: they are in the right order already.
            self._asked.append(pending)  # type: ignore[arg-type]
            if why != CALLER:
                tell("iocancel.cancel", self._carrier.name, tuple(pending), "closing")
            self._run(wait=False, timeout=None)
            self._ledger.tidy()
        return len(pending)

    def _stop(self, op: Operation[Any]) -> bool:
        """Stop one that is in flight right here: see Carrier.stop. False where it has to be asked for."""
        if not self._carrier.stop(op):
            return False
        tell("iocancel.cancel", self._carrier.name, (op,), "caller")
        return True

    def _ask_for(self, op: Operation[Any]) -> None:
        """Have a cancel sent, by whoever leads. No lock: this runs in signal handlers and finalizers."""
        self._asked.append(op)
        self._wanted = self._doubt = True
        if self._lead is not None or (self._watched and not self._mute):
            self._carrier.wake()

    def _send(self) -> None:
        """Send what was asked for, and again what did not find its target."""
        asked = self._asked
        while asked:
            # Taken off when they were sent: after a signal's exception they are still there.
            head: Any = asked[0]
            if head.__class__ is list:  # of `cancel`: in order already
                many = 1
                self._send_these(head)
            elif len(asked) == 1:
                many = 1
                self._send_these([head])
            else:
                singles = self._singles()
                many = len(singles)
                self._send_these(by_age(singles))
            for _ in range(many):
                asked.popleft()
        if self._again and time.monotonic() >= self._again_at:
            self._send_again()

    def _singles(self) -> list[Operation[Any]]:
        """What `Operation.cancel` has put at the head of the queue."""
        found = []
        for each in list(self._asked):
            if isinstance(each, list):
                break
            found.append(each)
        return found

    def _send_again(self) -> None:
        """Ask those again that were not found, or were running."""
        again = [op for op in self._again if op._state == IN_FLIGHT]
        self._pause = min(_LONGEST_PAUSE, self._pause * 2)
        pause = self._pause
        self._again = []
        try:
            self._send_these(by_age(again))
        except BaseException:
            self._again = again
            raise
        if self._again:
            self._pause = pause
            self._again_at = time.monotonic() + pause

    def _send_these(self, ops: list[Operation[Any]]) -> None:
        """Send cancels for those of `ops` that are in flight, which are the newest first."""
        if self._oldest_first:
            ops = ops[::-1]
        for start in range(0, len(ops), BATCH):
            number = self._sendings + 1
            self._sendings = number
            batch: list[Operation[Any]] = []
            add = batch.append
            for op in ops[start : start + BATCH] if len(ops) > BATCH else ops:
                if op._state == IN_FLIGHT:
                    op._cancel = SENT
                    op._sent = number
                    add(op)
                elif op._state == PREPARED:
                    self._withdraw(op, -errno.ECANCELED)
            self._sending, self._sent_to = batch, None
            if batch and not (self._carrier.cancel(batch) and self._settle_cancelled(batch)):
                self._settle()
                self._expect_late(batch)
            self._answered = number
            # Those that have ended are the caller's alone from here on: what nobody claims of them is
            # collected.
            self._sending, self._sent_to = [], None

    def _expect_late(self, batch: list[Operation[Any]]) -> None:
        """Their answers may still come, also when they have ended by then. They are not kept alive for it."""
        late = self._late
        if len(late) > 4 * BATCH:
            late.clear()
        for op in batch:
            if op._state == IN_FLIGHT:
                late[op._token] = op
