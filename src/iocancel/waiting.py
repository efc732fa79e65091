"""One blocking call: it borrows an engine, waits for an operation, and leaves nothing, whatever ends it.

Python runs signals' handlers between any two bytecodes here. Whatever is held (an engine, an operation, the
wake-up of signals) is found again from the call's own fields, and `end`, which can be run any number of
times, gives all of it back. It is run twice where an exception came: a Ctrl-C may have come within the first.
"""

from __future__ import annotations

import errno
import functools
import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from iocancel import pool
from iocancel.engines.bell import Ear
from iocancel.engines.ready import NOT_READY, Duplicate
from iocancel.errors import CancelTooLate, OperationTimedOut
from iocancel.operation import FdOperation, Operation, Outcome
from iocancel.operation.core import expiry
from iocancel.operation.leading import Stoppable, Waiter
from iocancel.operation.operation import CALLER, CLOSING, DEADLINE, IN_FLIGHT, RELEASING
from iocancel.scope import Here, cancelled

Start = Callable[[Any], Operation[Any]]
_PAUSE, _LONGEST_PAUSE = 0.001, 0.05  # seconds between two looks at what is ready, and does not go
_TRIES = 10  # Ctrl-C may come so often while a call is being cleaned up; others may be first so often
_LONGEST = 1e8  # seconds: some years; more than a lock's timeout can be
StartOn = Callable[[Any, Any], Operation[Any]]


class Waiting:
    """A call under way. See iocancel.scope.Blocked, iocancel.pool.Patience."""

    __slots__ = (
        "_ear",
        "_engines",
        "_here",
        "_number",
        "_op",
        "_pending",
        "_pool",
        "_scope",
        "_until",
        "polls",
        "waiter",
    )

    def __init__(self, here: Here, timeout: float | None) -> None:
        if here.stack:
            here.check()
        self._here = here
        self._until = math.inf if timeout is None else expiry(timeout)
        self._scope = here.innermost() if here.stack else None
        self._engines: list[Any] = []
        self._pool = pool.current
        self._op: Operation[Any] | None = None
        self._pending: Stoppable | None = None
        self._ear: Ear | None = None
        self._number: Duplicate | None = None
        self.waiter: Waiter | None = None
        self.polls = False  # the operation is only there to wait with

    # What others call

    def look(self) -> None:
        """See Blocked."""
        pending, waiter, scope = self._pending, self.waiter, self._scope
        if pending is not None:
            op = pending.op
            if scope is None or not scope._reached():
                pending.stop = True
                op._engine._carrier.wake()
            # Stopped right here, where the system lets any thread do that: its ending wakes who waits for it.
            elif op._state != IN_FLIGHT or not op._engine._stop(op):
                pending.stop = True  # the wait for what can't be stopped has a bound
                op._ask(CALLER)  # whoever waits is woken, and sends it
        if waiter is not None:
            waiter.awake()

    def left(self) -> float | None:
        """See Patience."""
        scope = self._scope
        if scope is not None and scope._reached():
            raise cancelled()
        until = self._until if scope is None else min(self._until, scope._until())
        if until == math.inf:
            return None
        left = until - time.monotonic()
        if left <= 0 and self._until <= until:
            text = f"{os.strerror(errno.ECANCELED)}: no engine was free before the deadline had passed"
            raise OperationTimedOut(errno.ECANCELED, text)
        return left

    # The call. Whoever makes it puts `leave_on` behind it, around all that comes before its own return.

    def value(self, start: Start) -> Any:
        """Do an operation, and return its value; everything is given back whatever happens.

        Args, raises: as `run`.
        """
        try:
            try:
                self.begin()
                return self.run(start).result()
            finally:
                self.end()
        except BaseException:
            self.end_at_last()
            raise

    def value_on(self, start: StartOn, fd: Any, events: int) -> Any:
        """The same on a file that may have O_NONBLOCK.

        Args, raises: as `run_ready`.
        """
        try:
            try:
                self.begin()
                return self.run_ready(start, fd, events).result()
            finally:
                self.end()
        except BaseException:
            self.end_at_last()
            raise

    def begin(self) -> None:
        """Borrow an engine, and be found by whoever cancels a scope."""
        self._here.calls.append(self)
        self._pool.take(self._engines, self)

    def run(self, start: Start) -> Any:
        """Do an operation, and wait for it.

        Args:
            start: makes it, of an engine.

        Returns:
            The operation, which was not cancelled.

        Raises:
            Cancelled: a scope was cancelled.
            OperationTimedOut: the time is over.
        """
        while True:
            try:
                op = self._op = start(self._engines[-1])
                self._wait(op)
            except RuntimeError:
                if self._pool is pool.current:
                    raise
                self._in_child()
                continue
            if op.outcome is not Outcome.CANCELLED:
                return op
            if op._why == CLOSING:
                self._at_exit()
            if op._why == DEADLINE:
                op.result()  # raises
            if self._scope is not None and self._scope._reached():
                raise cancelled()
            # The deadline was put off, or a shield was put up, just as it was cancelled: once more.

    def run_ready(self, start: StartOn, fd: Any, events: int) -> Any:
        """Do an operation on a file that may have O_NONBLOCK, which has it fail where others wait.

        Args:
            start: makes it, of an engine and a file.
            fd: the file.
            events: what the file has to be ready for.

        Returns, raises: as `run`.
        """
        pause, tries = _PAUSE, 0
        while True:
            file = fd if self._number is None else self._number.value
            op = self.run(functools.partial(_on, start, file))
            if op._res != NOT_READY:
                return op
            if self._number is None:  # the number may be another file's when it is ready
                self._number = Duplicate(op.fd)
                continue
            self.polls = True
            tries += 1
            if tries > _TRIES:  # ready, and still it does not go: a datagram's peer that has no room, say
                seconds, pause = pause, min(2 * pause, _LONGEST_PAUSE)
                self.run(functools.partial(_let_pass, seconds))
            self.run(functools.partial(_poll, file, events))
            self._op = None  # before the next line: nobody is to take its mask for a value
            self.polls = False

    def _in_child(self) -> None:
        """A signal's handler has forked, and this is the child: the operation is the parent's alone."""
        self._deaf()
        self._engines.clear()
        self._op = self._pending = None
        self._pool = pool.current
        self._pool.take(self._engines, self)

    def _wait(self, op: Operation[Any]) -> None:
        engine = op._engine
        pending = self._pending = Stoppable(op, RELEASING)
        if self._here.main:
            ear = self._ear = Ear(engine)
            ear.open()
        tried = False
        while op._state < RELEASING:
            pending.stop = False
            # Behind the store: whoever cancels after this look stops the wait.
            scope = self._scope
            if scope is not None and scope._reached():
                op._ask(CALLER)
                break
            until = self._until if scope is None else min(self._until, scope._until())
            left = None if until == math.inf else until - time.monotonic()
            if left is not None and left <= 0:
                if tried and self._until <= until:
                    op._ask(DEADLINE)
                    break
                left = 0.0
            engine._wait_for((), left, RELEASING, cancel=False, pending=pending)
            tried = True
        if op._state < RELEASING:
            engine._wait_for([op], 0.0, RELEASING)
        self._deaf()

    def _deaf(self) -> None:
        ear = self._ear
        if ear is not None:
            ear.close()
            self._ear = None

    def end(self) -> None:
        """Leave nothing in flight, give everything back. It can be run again."""
        for engine in self._engines:
            if (engine.in_flight or engine._staged) and not engine.closed:
                self._drain(engine)
        self._pending = None
        self._deaf()
        self._number = None
        if self._engines:
            self._pool.give_back(self._engines)
        calls = self._here.calls
        while self in calls:
            calls.remove(self)

    def end_at_last(self) -> None:
        """The same behind an exception, which is raised in any case: another Ctrl-C must not cut it short."""
        for left in range(_TRIES, 0, -1):
            try:
                self.end()
                break
            except BaseException:
                if left == 1:
                    raise

    @staticmethod
    def _drain(engine: Any) -> None:
        left = engine._ledger.newest_first()
        for op in left:
            op._ask(CALLER)
        try:
            engine.wait(left, 0.0)
        except CancelTooLate:  # the engine stays out of use for as long as it runs: see Pool.give_back
            return
        if engine.in_flight or engine._staged:  # it is done, and a signal's exception cut its settling short
            engine.reap(0)

    def leave_on(self, error: BaseException) -> None:
        """Put on an exception what had come when it came."""
        op = self._op
        if op is not None and op._exception is error:
            op._exception = None  # its frames hold the operation: the cycle would keep the caller's buffers
            return
        if op is None or self.polls:
            return
        if op.outcome in (Outcome.COMPLETED, None):
            if isinstance(op, FdOperation):
                op._unclaim()
            error.operation = op  # type: ignore[attr-defined]

    def _at_exit(self) -> None:
        """The interpreter is ending, and this is a daemon thread: it does not return, as from a call of C."""
        if self._pool.closed and not self._here.main:
            lock = threading.Lock()
            lock.acquire()
            lock.acquire()

    def sleep(self, until: float) -> None:
        """Let time pass. Only the main thread takes an engine for it, since it has signals to hear of."""
        if self._here.main:
            self._until = until  # of the wait for an engine
            try:
                self.begin()
            except OperationTimedOut:
                return
            self._until = math.inf
            while time.monotonic() < until:
                self.run(lambda engine: engine.timeout(max(0.0, min(until - time.monotonic(), _LONGEST))))
            return
        self._here.calls.append(self)
        waiter = self.waiter = Waiter()
        while True:
            if self._scope is not None and self._scope._reached():
                raise cancelled()
            first = until if self._scope is None else min(until, self._scope._until())
            left = first - time.monotonic()
            if left <= 0 and first == until:
                return
            waiter.sleep(max(0.0, min(left, _LONGEST)))


def _on(start: StartOn, file: Any, engine: Any) -> Operation[Any]:
    return start(engine, file)


def _let_pass(seconds: float, engine: Any) -> Operation[Any]:
    op: Operation[Any] = engine.timeout(seconds)
    return op


def _poll(file: Any, events: int, engine: Any) -> Operation[Any]:
    op: Operation[Any] = engine.poll(file, events)
    return op


__all__ = ["Start", "StartOn", "Waiting"]
