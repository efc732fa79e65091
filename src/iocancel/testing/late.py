"""Completions that come late: the order that a race would need luck for, forced on a real engine."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from iocancel.operation import ANSWER, OTHER, Operation, Record, Verbs
from iocancel.testing.faults import Deadlock, alone

Chooser = Callable[[Operation[Any]], bool]


class Held:
    """What is held back. Made by `hold_back`. It is a carrier in front of the engine's own one."""

    def __init__(self, engine: Verbs, which: Chooser | None, *, completions: bool, answers: bool) -> None:
        self._engine, self._which = engine, which
        self._completions, self._answers = completions, answers
        self._real: Any = engine._carrier
        self._out: list[Record] = []
        self._held: list[Record] = []
        self._holding = True
        self._changed = threading.Condition()

    # For tests

    def __contains__(self, op: Operation[Any]) -> bool:
        """Whether a completion (or an answer) of this operation is held back now."""
        return any(record[0] & ~ANSWER == op.token for record in list(self._held))

    def __len__(self) -> int:
        """How many records are held back."""
        return len(self._held)

    def wait_for(self, op: Operation[Any], timeout: float = 20.0) -> None:
        """Wait until the kernel has completed the operation `op`; the engine does not know of it.

        Args:
            op: of the engine whose completions are held back.
            timeout: seconds.

        Raises:
            Deadlock: it did not within `timeout` seconds.
        """
        until = time.monotonic() + timeout
        while op not in self:
            left = until - time.monotonic()
            if left <= 0:
                raise Deadlock(f"{op!r} did not complete within {timeout} s")
            if not self._engine._run(wait=True, timeout=left):  # another thread leads, and will bring it
                with self._changed:
                    self._changed.wait_for(lambda: op in self, min(left, 0.1))

    def release(self, op: Operation[Any] | None = None) -> int:
        """Let through what is held back now.

        Args:
            op: of this one; None: of all.

        Returns:
            How many records.
        """
        with self._changed:
            go = list(filter(lambda r: op is None or r[0] & ~ANSWER == op.token, self._held))
            self._held = list(filter(lambda r: r not in go, self._held))
            self._out += go
        self._real.wake()
        return len(go)

    def stop(self) -> None:
        """Hold back nothing any more, and let everything through."""
        self._holding = False
        self.release()

    # The Carrier: all else is the real one's

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def go(self, batch: Any, wait: bool, timeout: float | None) -> None:
        """As the real one's, but for a wait that could never end; see `Carrier.go`."""
        if self._out:
            wait = False
        flight = self._engine._ledger.flight
        if wait and timeout != 0 and batch is None and self._held and alone():
            held = {record[0] for record in self._held}
            if all(token in held for token in flight):
                raise Deadlock("all that is in flight has completed, and is held back: release it first")
        self._real.go(batch, wait, timeout)

    def records(self) -> list[Record]:
        """What the real one has, less what is held back."""
        fresh = self._real.records()
        if fresh:
            with self._changed:
                for record in fresh:
                    (self._held if self._is_held(record[0]) else self._out).append(record)
                self._changed.notify_all()
            self._real.forget(len(fresh))
        return list(self._out)

    def _is_held(self, token: int) -> bool:
        if not self._holding or token & OTHER or not (self._answers if token & ANSWER else self._completions):
            return False
        op = self._engine._ledger.get(token & ~ANSWER)
        return op is not None and (self._which is None or self._which(op))

    def forget(self, many: int) -> None:
        """The first `many` of what was let through have been dealt with."""
        del self._out[:many]


@contextlib.contextmanager
def hold_back(
    engine: Verbs, which: Chooser | None = None, *, completions: bool = True, answers: bool = False
) -> Iterator[Held]:
    """Hold completions of a real engine back inside of a block.

        with hold_back(engine) as held:
            op = engine.read(pipe, 1)
            pipe.write(b"x")
            held.wait_for(op)       # the byte is in the buffer, and nobody knows
            op.cancel()
            engine.submit()         # the cancel finds nothing
            held.release(op)
            assert op.wait() is Outcome.COMPLETED

    Args:
        engine: any that `open_engine` returns. No other thread may be inside of it when the block is entered.
        which: chooses the operations whose completions are held back; all, if it is not given.
        completions: hold back completions.
        answers: hold back what the system answers to cancels.

    Yields:
        What is held back. Leaving the block lets everything through.
    """
    held = Held(engine, which, completions=completions, answers=answers)
    carrier: Any = held
    engine._carrier = carrier
    try:
        yield held
    finally:
        held.stop()
        while held._out and not engine.closed:  # the real carrier does not know these any more
            if not engine._run(wait=False, timeout=None):
                with held._changed:
                    held._changed.wait(0.01)
        engine._carrier = held._real
