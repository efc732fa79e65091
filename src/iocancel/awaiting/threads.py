"""A function in a worker thread, inside of a cancel scope that the loop's side cancels.

The scope belongs to the one thread that runs the function: threads that the function starts have none of it.
`iocancel.Cancelled` stays in that thread. What leaves it is the function's value, its own exception, or the
news that it was cancelled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from iocancel.errors import Cancelled
from iocancel.scope import CancelScope

T = TypeVar("T")


class Work(Generic[T]):
    """One call of a function.

    Args:
        call: the function, with its arguments bound.
        unsaid: exceptions of which nobody is told where nobody waits any more.
    """

    def __init__(self, call: Callable[[], T], unsaid: tuple[type[BaseException], ...] = ()) -> None:
        self._call: Callable[[], T] | None = call
        self._unsaid = unsaid
        # A scope that some outer function of the thread has entered is nothing to this task.
        self.scope = CancelScope(shield=True)
        self._begins = threading.Lock()  # taken once: by who runs it, or by who withdraws it
        self._leaves = threading.Lock()  # taken once: by the thread, or by who waits; the first one to leave
        self.returned = False
        """Whether the function has returned."""
        self.value: T | None = None
        """What it returned."""
        self.error: BaseException | None = None
        """What it raised, less `Cancelled`."""

    # For the loop's side

    def cancel(self) -> bool:
        """Have the call end; whether it will not even begin."""
        self.scope.cancel()
        # Behind the scope's cancel: what begins just now begins inside of a cancelled scope.
        if not self._begins.acquire(blocking=False):
            return False
        self._call = None
        self._leaves.acquire(blocking=False)
        return True

    def leave(self) -> bool:
        """Who waits goes on; whether the call is over by now. What it brings later is not waited for."""
        return not self._leaves.acquire(blocking=False)

    def result(self) -> T:
        """What the function returned.

        Raises:
            RuntimeError: it was cancelled, and not from here: it has cancelled its own scope.
            What it raised.
        """
        if self.error is not None:
            try:
                raise self.error
            finally:
                self.error = None  # this frame is the error's: no cycle
        if not self.returned:
            raise RuntimeError("the function has cancelled the scope that to_thread has it run in")
        return self.value  # type: ignore[return-value]

    # For the thread

    def run(self) -> T | None:
        """Call the function, in the worker thread; never raises. Returns what it returned."""
        if not self._begins.acquire(blocking=False):
            return None
        call, self._call = self._call, None
        assert call is not None
        try:
            with self.scope:
                self.value = call()
                self.returned = True
        except BaseException as error:  # noqa: BLE001 - told to who waits
            self.returned = False  # it has left a scope of its own entered, say
            self.error = _ours(error)
        finally:
            del call  # a traceback may hold this frame, and the caller's arguments by it
        if not self._leaves.acquire(blocking=False):
            self._tell_anybody()
        return self.value

    def _tell_anybody(self) -> None:
        """Nobody waits any more: an error is told as any thread's is."""
        error = self.error
        if error is not None and not isinstance(error, self._unsaid):
            told = (type(error), error, error.__traceback__, threading.current_thread())
            threading.excepthook(threading.ExceptHookArgs(told))


def _ours(error: BaseException) -> BaseException:
    """What a function raised, without the `Cancelled` of scopes that are none of its own.

    The function's own scopes have caught theirs. One that is left was carried here from another thread, or
    raised by hand: in a loop nothing would catch it.
    """
    foreign = isinstance(error, Cancelled) or (
        isinstance(error, BaseExceptionGroup) and error.split(Cancelled)[0] is not None
    )
    if not foreign:
        return error
    stray = RuntimeError("a Cancelled came out of the function, and no scope around it was cancelled")
    stray.__cause__ = error
    return stray


__all__ = ["Work"]
