"""What a task yields: operations that are the futures of their own wait; and nothing, to give way.

One object, used again and again, in the place of an operation, an awaitable and a future: such a wait costs
half of what it costs with the three. Nobody but its verb ever has one. One that was cancelled is not used
again: the kernel's answer to the cancel may still come, and names it.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from iocancel.operation import Kind, Operation
from iocancel.operation.kinds import KINDS
from iocancel.operation.operation import ASKED, CALLER, PREPARED, RELEASING

if TYPE_CHECKING:
    from iocancel.asyncio.hub import Hub

_POLL = KINDS["poll"]
_Call = Callable[[Any], object]
T_co = TypeVar("T_co", covariant=True)
_go_on = itertools.repeat(None).__next__
_KEPT = 4096  # polls: what a burst has needed is not kept for ever


class Awaited(Operation[T_co]):
    """An operation that one task waits for, at once, and once."""

    # Beside the instance's dict, which has 23 already: CPython shares the keys of 30, and is slow with more.
    __slots__ = (
        "_asyncio_future_blocking",
        "_call",
        "_context",
        "_hub",
        "_told",
        "get_loop",
        "result",
    )
    result: Any
    """What the task goes on with: C's, which returns nothing, or raises CancelledError."""

    def __init__(self, hub: Hub, kind: Kind) -> None:
        super().__init__(hub.engine, kind)
        self._hub = hub
        self._awaited = self
        self._call: _Call | None = None
        self._context: contextvars.Context | None = None
        self._told: tuple[Any, ...] | None = None  # the task was cancelled: with this message
        self._asyncio_future_blocking = False
        self.get_loop = hub.get_loop
        self.result = _go_on

    def _name(self, file: Any, number: int) -> int:
        """Begin once more: with a token that nothing had before."""
        engine = self._engine
        if engine._state != "open":
            raise engine._gone()
        self._fd = number
        if file.__class__ is not int:
            self._file = file
            engine._doubt = True  # it is asked for its number again when this is submitted
        else:
            self._file = None
        self._state = PREPARED
        self._awaited = self
        return engine._ledger.name(self)

    def _stage(self, token: int) -> None:
        engine = self._engine
        ledger = engine._ledger
        ledger.flight[token] = self
        ledger.note(self._fd, token)
        engine._staged.append(self)

    # What a task asks of a future

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
            self._engine._doubt = True
            hub = self._hub
            # What raises is C's: a frame less for each task to unwind, and for the collector to look through.
            self.result = hub.gone(msg)
            hub.cancelled.append(self)
            if len(hub.cancelled) == 1:
                # Also where one is called for: a Ctrl-C in a bare loop may have come between it and its call.
                hub.turning = False
                hub.soon()
        return True

    def exception(self) -> BaseException | None:
        """As of an operation."""
        if self._told is not None and self._state >= RELEASING:
            return asyncio.CancelledError(*self._told)
        error = super().exception()
        self._exception = None  # the next use has its own
        return error

    def value(self) -> T_co:
        """As `result` of an operation."""
        return super().result()

    # What the hub asks

    def wake(self) -> None:
        """Have the task go on, right here: this is a callback of the loop's, within no task."""
        call = self._call
        if call is not None:
            self._call = None
            context = self._context
            if context is None:
                call(self)
            else:
                context.run(call, self)


class Poll(Awaited[int]):
    """A poll."""

    __slots__ = ()

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub, _POLL)

    def begin(self, file: Any, number: int, mask: int) -> None:
        """Stage it."""
        token = self._name(file, number)
        self._entry = self._hub.poll_entry(number, mask, token)
        self._stage(token)

    def __await__(self) -> Iterator[Any]:
        """Wait; then ask `mask`."""
        self._asyncio_future_blocking = True
        return iter((self,))  # no generator: it would be one more frame to unwind

    __iter__ = __await__

    def mask(self) -> int:
        """What is ready. It can be used again behind this."""
        res = self._res
        if res < 0:
            self.value()  # raises
        if not self._why:  # else a cancel came too late: it must not be taken for one of the next wait
            free = self._hub.polls
            if len(free) < _KEPT:
                free.append(self)
        return res


class Pause:
    """A task's giving way: it goes on in the loop's next pass, as by `asyncio.sleep(0)`."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        """Once."""
        yield


__all__ = ["Awaited", "Pause", "Poll"]
