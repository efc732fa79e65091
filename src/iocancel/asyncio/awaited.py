"""An operation that is the future of its own wait: what a task of asyncio yields while a file gets ready.

One object, used again and again, in the place of an operation, an awaitable and a future: a wait costs half of
what it costs with the three. Nobody but its verb ever has one, and one that was cancelled is not used again: the
kernel's answer to the cancel may still come, and names it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from iocancel.operation import Operation
from iocancel.operation.operation import ASKED, CALLER, PREPARED, RELEASING
from iocancel.operation.verbs import KINDS

if TYPE_CHECKING:
    from iocancel.asyncio.hub import Hub

_POLL = KINDS["poll"]
_Call = Callable[[Any], object]


class Awaited(Operation[int]):
    """A poll that one task waits for."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub.engine, _POLL)
        self._hub = hub
        self._awaited = self
        self._call: _Call | None = None
        self._context: contextvars.Context | None = None
        self._told: tuple[Any, ...] | None = None  # the task was cancelled: with this message
        self._asyncio_future_blocking = False

    def begin(self, file: Any, number: int, mask: int) -> None:
        """Stage it."""
        self._state = PREPARED
        self._fd = number
        self._file = None if file.__class__ is int else file
        self._awaited = self
        self._engine._start(self, mask)

    def __await__(self) -> Generator[Any, Any, int]:
        """Wait; the value is the mask of what is ready."""
        self._asyncio_future_blocking = True
        yield self
        res = self._res
        if res < 0:
            Operation.result(self)  # raises
        self._hub.polls.append(self)
        return res

    __iter__ = __await__

    # What a task asks of a future

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop."""
        return self._hub.loop

    def add_done_callback(self, call: _Call, *, context: contextvars.Context | None = None) -> None:
        """The task's own, once."""
        self._call = call
        self._context = context

    def cancel(self, msg: Any = None) -> bool:
        """The task was cancelled: the operation is asked to end, and the task waits on until it has."""
        if self._state >= RELEASING:
            return False
        if self._told is None:
            self._told = () if msg is None else (msg,)
            if not self._why:
                self._why = CALLER
            self._cancel = ASKED
            hub = self._hub
            hub.cancelled.append(self)
            if not hub.turning:
                hub.soon()
        return True

    def result(self) -> int:
        """What the task goes on with: CancelledError, or whatever it then finds."""
        if self._told is not None:
            raise asyncio.CancelledError(*self._told)
        return self._res

    def exception(self) -> BaseException | None:
        """As of an operation."""
        if self._told is not None and self._state >= RELEASING:
            return asyncio.CancelledError(*self._told)
        return super().exception()

    # What the hub asks

    def wake(self) -> None:
        """Have the task go on, right here: this is a callback of the loop's, within no task."""
        call, self._call = self._call, None
        if call is not None:
            context = self._context
            if context is None:
                call(self)
            else:
                context.run(call, self)


__all__ = ["Awaited"]
