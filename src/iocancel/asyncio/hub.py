"""asyncio's side of the hub: one for each running loop, on any loop that has `add_reader`.

A task waits for an `Ending`, a future of our own kind (asyncio knows them by `_asyncio_future_blocking`): a
task that is cancelled asks what it waits for to cancel itself, and one that says yes is waited for further.
So the task stays where it is until the operation has ended, and goes on once, with CancelledError.

Facts that this rests on:

- asyncio has no room for a success that beats the cancel: what a cancelled task waits for has to raise, or
  the cancel is lost to `asyncio.timeout` and its like.
- The ring's fd is readable while there are completions, also for epoll.
- `call_soon` runs a callback in the loop's next pass, before it waits: what the tasks of one pass have staged
  goes in one system call.
- Loops keep the async generators that run on them, and `shutdown_asyncgens()`, which `asyncio.run` calls
  last, closes them: that is how a loop's engine learns of its end.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import operator
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from iocancel.asyncio.awaited import Pause, Poll
from iocancel.awaiting import hub as _hub
from iocancel.operation import Operation
from iocancel.operation.hooks import tell
from iocancel.operation.operation import RELEASING

_token = operator.attrgetter("_token")
_running_loop = asyncio.get_running_loop
_Call = Callable[[Any], object]
INLINE = 64
"""So many verbs may be done without giving way to others; 0: each await suspends."""
_PAUSE = Pause()
_ROUNDS = 4  # turns that are made in one pass of the loop
_AGAIN = 0.01  # seconds after which a turn that has failed is made again


class Ending:
    """A task's wait for an operation, as asyncio takes futures. Awaited once, by one task, at once."""

    __slots__ = (
        "_abandon",
        "_asyncio_future_blocking",
        "_call",
        "_cancelled",
        "_context",
        "_deaf",
        "_hub",
        "_op",
    )

    def __init__(self, hub: Hub, op: Operation[Any], abandon: bool, deaf: bool = False) -> None:
        self._hub, self._op = hub, op
        self._abandon = abandon
        self._deaf = deaf  # a cancel of the task does not reach the operation
        self._cancelled: Any = None  # the cancel's message, in a tuple
        self._call: _Call | None = None
        self._asyncio_future_blocking = False

    def __await__(self) -> Generator[Any, Any, None]:
        """Wait."""
        if self._op._state >= RELEASING:
            return
        self._hub.wait_on(self._op, self)
        self._asyncio_future_blocking = True
        yield self

    __iter__ = __await__

    # What a task asks of a future

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop."""
        return self._hub.loop

    def mask(self) -> int:
        """Of a poll: what is ready."""
        return int(self._op.result())

    def add_done_callback(self, call: _Call, *, context: contextvars.Context | None = None) -> None:
        """The task's own, once."""
        self._call = call
        self._context = context

    def remove_done_callback(self, call: _Call) -> int:
        """Of a task that is dropped."""
        found = self._call == call
        if found:
            self._call = None
        return int(found)

    def cancel(self, msg: Any = None) -> bool:
        """The task was cancelled: the operation is asked to end, and the task waits on until it has."""
        if self.done():
            return False
        if self._cancelled is None:
            self._cancelled = () if msg is None else (msg,)
            if self._abandon:
                self._hub.abandon(self._op)
                self._hub.waking.append(self)
                self._hub.soon()
            elif not self._deaf:
                self._hub.cancel(self._op)
        return True

    def done(self) -> bool:
        """Whether the task may go on."""
        return self._op._state >= RELEASING or (self._abandon and self._cancelled is not None)

    def cancelled(self) -> bool:
        """Whether it goes on with CancelledError."""
        return self.done() and self._cancelled is not None

    def result(self) -> None:
        """What the task goes on with."""
        if self._cancelled is not None:
            raise asyncio.CancelledError(*self._cancelled)

    def exception(self) -> BaseException | None:
        """As `result`."""
        self.result()
        return None

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


class Hub(_hub.Hub):
    """One loop's engine."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(_hub.open_for_loop())
        self.loop = loop
        self.get_loop: Callable[[], asyncio.AbstractEventLoop] = itertools.repeat(loop).__next__
        """The loop; C's, since each step of a task that waits asks for it."""
        self._gone: asyncio.Future[None] = loop.create_future()
        self._gone.cancel()
        self.credit = INLINE
        self.turning = False
        """Whether a turn is called for."""
        carrier = self.engine._carrier
        self.poll_entry: Any = getattr(carrier, "poll_entry", None)
        """Makes a poll's entry, where the engine has the short way."""
        self.polls: list[Poll] = []
        """Such as are in no use."""
        self.cancelled: list[Operation[Any]] = []
        """Such as are to be cancelled by the next turn."""
        self._came = getattr(self.engine._carrier, "came", None)
        self._alarm: asyncio.TimerHandle | None = None
        self._fd = self.engine.fileno()
        self._life: AsyncGenerator[None] | None = None
        try:
            # In no task's context: the loop would keep its values for as long as it lives.
            contextvars.Context().run(loop.add_reader, self._fd, self._readable)
        except BaseException:
            self.engine.close()
            raise

    def soon(self) -> None:
        """See Hub."""
        if not self.turning:
            self.loop.call_soon(self._turn)
            self.turning = True  # behind it: a Ctrl-C may come between

    def gone(self, message: Any) -> Callable[[], Any]:
        """What raises CancelledError, each time another one."""
        if message is None:
            return self._gone.result
        future: asyncio.Future[None] = self.loop.create_future()
        future.cancel(message)
        return future.result

    def until_ready(self, file: Any, number: int, events: int) -> Any:
        """See Hub."""
        if self.poll_entry is None:
            return self.ended(self.engine.poll(file, events))
        polls = self.polls
        op = polls.pop() if polls else Poll(self)
        op.begin(file, number, events)
        if not self.turning:
            self.loop.call_soon(self._turn)
            self.turning = True  # behind it: a Ctrl-C may come between
        return op

    def waited(self, wait: Any) -> int:
        """See Hub."""
        mask: int = wait.mask()
        return mask

    def give_way(self) -> Pause:
        """See Hub."""
        self.credit = INLINE
        return _PAUSE

    def ended(self, op: Operation[Any], abandon: bool = False) -> Ending:
        """See Hub."""
        if not self.turning:
            self.loop.call_soon(self._turn)
            self.turning = True  # behind it: a Ctrl-C may come between
        return Ending(self, op, abandon)

    def drained(self, op: Operation[Any]) -> Ending:
        """See Hub."""
        self.soon()
        return Ending(self, op, False, deaf=True)

    async def checkpoint_if_cancelled(self) -> None:
        """See Hub: a verb that has nothing to wait for does not look."""

    async def cancel_shielded_checkpoint(self) -> None:
        """See Hub."""

    def _readable(self) -> None:
        """The engine's file is; a turn of this very pass may have taken what was there."""
        came = self._came
        if came is not None and not came():
            return
        if self.turning:  # what is staged by this goes with the turn that is called for
            self._once()
        else:
            self._turn()

    def _turn(self) -> None:
        """Something was staged, something has come, or the alarm rings.

        What tasks stage when they go on by this is submitted here, too, a few times over: that saves a pass
        of the loop each time, and others have their turn soon.
        """
        engine = self.engine
        self.credit = INLINE
        self.turning = True  # nobody is to call for one meanwhile
        pausing = False
        try:
            for rounds in range(_ROUNDS):
                if rounds and (self.closed or not (engine._staged or self.cancelled or engine._asked)):
                    break
                self._once()
        except OSError:
            pausing = True  # the alarm was set: at once it would fail again, and the loop spin
            raise
        finally:
            self.turning = False
            if not self.closed and (
                self.waking
                or self._told
                or (not pausing and (engine._staged or self.cancelled or engine._asked))
            ):
                self.soon()

    def _once(self) -> None:
        if self.closed:
            self.step()
            return
        try:
            if self.cancelled:
                engine = self.engine
                asked = sorted(self.cancelled, key=_token, reverse=True)
                engine._asked.append(asked)
                self.cancelled = []  # behind it: one that is asked twice does no harm
                tell("iocancel.cancel", engine._carrier.name, tuple(asked), "caller")
            self.turn()
            when = self.engine.alarm()
            if when is not None or self._alarm is not None:
                self._set_alarm(when)
        except OSError:  # the system has no memory, say: what is staged is still there, and the loop tells
            self._set_alarm(time.monotonic() + _AGAIN)
            raise
        finally:
            self.step()

    def _set_alarm(self, when: float | None) -> None:
        """Have a turn made at a time: cancels that are to be sent again, deadlines."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if when is not None:
            # Both clocks tell seconds; they need not begin at the same time.
            self._alarm = self.loop.call_later(max(0.0, when - time.monotonic()), self._turn)

    def close(self, timeout: float = 1.0) -> None:
        """See Hub."""
        if self.closed:
            return
        if not self.loop.is_closed():
            self.loop.remove_reader(self._fd)
            self._set_alarm(None)
        try:
            super().close(timeout)
        finally:
            if self.waking and not self.loop.is_closed():
                self.loop.call_soon(self.step)

    def live(self) -> None:
        """Have the loop tell of its end."""
        life = self._life = _life(weakref.ref(self))
        try:
            life.asend(None).send(None)
        except StopIteration:
            return


async def _life(hub: weakref.ref[Hub]) -> AsyncGenerator[None]:
    """Waits for `shutdown_asyncgens()`."""
    try:
        yield
    finally:
        found = hub()
        if found is not None:
            found.close()


def current() -> Hub:
    """The hub of the loop that runs.

    Raises:
        RuntimeError: none does; or this is a forked child.
    """
    loop: Any = _running_loop()
    try:
        hub: Hub = loop._iocancel
    except AttributeError:
        return _first(loop)
    if hub.closed:
        return _first(loop, again=True)
    return hub


def _first(loop: Any, again: bool = False) -> Hub:
    hub = Hub(loop)
    try:
        loop._iocancel = hub  # they live and die together
    except BaseException:
        hub.close()
        raise
    if not again:  # a loop that has shut its generators down takes no more of them
        hub.live()
    return hub


__all__ = ["Ending", "Hub", "current"]
