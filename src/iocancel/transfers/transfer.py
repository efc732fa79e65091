"""One call of a verb, and where its result is found."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from iocancel.engines import ready
from iocancel.engines.ready import Attempt
from iocancel.errors import Cancelled, CancelTooLate
from iocancel.operation import Operation, Outcome
from iocancel.operation.operation import RELEASING
from iocancel.scope import CancelScope, Here, local
from iocancel.waiting import StartOn, Waiting

if TYPE_CHECKING:
    from iocancel.operation.verbs import File


class Transfer(Waiting):
    """One call of a verb, on a file that has an owner: `Owned.close` can end it.

    Args:
        here: the thread's own.
        timeout: seconds, None for ever.
        verb: which, "read".
    """

    __slots__ = ("_inner", "_now", "_outer", "_verb")

    def __init__(self, here: Here, timeout: float | None, verb: str) -> None:
        super().__init__(here, timeout)
        # A scope that was never entered, so that nobody has to leave it: this call alone is inside of it.
        inner = CancelScope()
        inner._parent = self._outer = self._scope
        inner._here, inner._entered = here, True
        self._inner = self._scope = inner
        self._verb = verb
        self._now: Attempt | None = None

    def stop(self) -> None:
        """End it; from any thread."""
        self._inner._called = True
        self.look()

    def attempt(self, call: Any, *args: Any) -> int:
        """Take what is ready.

        Args:
            call: one of iocancel.engines.ready's, which C does.
            args: for it.

        Returns:
            What it returns: NOT_READY, another negative errno, or what came, which is found here, too.
        """
        here = self._here
        now: Attempt = here.attempt or Attempt()
        here.attempt = None
        now.calls += 1
        self._now = now  # behind the count: before it, the result is still that of a call before this one
        many: int = call(now.told, *args)
        return many

    def wait(self, start: StartOn, fd: File, events: int, closed: Callable[[], BaseException]) -> None:
        """Have an operation done.

        Args:
            start, fd, events: see `Waiting.run_ready`.
            closed: what to raise when `stop` has ended it.
        """
        try:
            try:
                self.begin()
                self.run_ready(start, fd, events).result()
            finally:
                self.end()
        except Cancelled:
            self.end_at_last()
            if self._inner._called and not (self._outer is not None and self._outer._reached()):
                raise closed() from None
            raise
        except BaseException as error:
            self.end_at_last()
            if isinstance(error, CancelTooLate):
                self.leave_on(error)
            elif self._op is not None and self._op._exception is error:
                self._op._exception = None  # as there
            raise

    def operation(self) -> Operation[Any] | None:
        """What has been waited for, if it has brought something.

        Raises:
            CancelTooLate: it still runs, since the system can't stop it.
        """
        op = self._op
        if op is None or op._kind.name != self._verb:
            return None
        if op._state < RELEASING:
            op._engine._wait_for((op,), 0.0, RELEASING, cancel=False)
        if op.outcome is None:
            error = CancelTooLate(
                errno.EALREADY, f"{os.strerror(errno.EALREADY)}: an earlier {op.name} of it still runs"
            )
            error.operation = op  # type: ignore[attr-defined]
            raise error
        return op if op.outcome is Outcome.COMPLETED else None

    def many(self) -> int:
        """The number that has come; -1: none."""
        now = self._now
        if now is not None and now.came() >= 0:
            return now.came()
        op = self._op
        if op is None or op._kind.name != self._verb or op.outcome is not Outcome.COMPLETED:
            return -1
        return op._res

    def data(self) -> bytes | None:
        """The bytes that have come; None: nothing has."""
        now = self._now
        if now is not None and now.came() >= 0:
            data: bytes = now.data[: now.came()]
            return data
        op = self.operation()
        return None if op is None else bytes(op.result())

    def accepted(self, fd: int) -> Operation[Any] | None:
        """The operation whose value is the connection that has come; None: none has. The same one each time.

        Args:
            fd: the socket's number.
        """
        now = self._now
        if now is not None and now.came() >= 0:
            op = self._op
            if op is None:
                op = self._op = ready.taken("accept", fd, now.came())
            ready.mine(op)  # behind the store: one that was dropped before would close the fd
            return op
        return self.operation()

    def give_back(self) -> None:
        """The result is no longer looked for: another call may use the memory."""
        now, self._now = self._now, None
        if now is not None and now.told.calls == now.calls:  # else it was cut short, and its count is wrong
            local.here.attempt = now
