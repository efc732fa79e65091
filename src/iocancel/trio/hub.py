"""trio's side of the hub: one for each run.

A task waits by `wait_task_rescheduled`. Its abort function says that the cancel has failed, for now: the
operation is asked to end, trio keeps the task where it is, and when the operation has ended the task goes on:
with `Cancelled`, by the `raise_cancel` that was kept, where it was cancelled; and with its value where that
was first. The cancel is then raised by the next checkpoint.

Facts that this rests on:

- trio calls instruments before and after each wait. What tasks have staged by then goes in one system call.
- The time that a wait may last is fixed before `before_io_wait` is called: what goes on by that call has to
  wake it.
- `wait_readable` tells once: the task that watches the ring's fd asks again each time.
- trio cancels system tasks when the main task has ended; in them nothing raises KeyboardInterrupt.
"""

from __future__ import annotations

import inspect
import logging
import math
import time
from collections.abc import Generator
from typing import Any, TypeVar

import trio
from trio.lowlevel import Abort, Task

from iocancel.awaiting import hub as _hub
from iocancel.operation import Operation
from iocancel.operation.operation import RELEASING

logger = logging.getLogger("iocancel")
_here: trio.lowlevel.RunVar[Hub] = trio.lowlevel.RunVar("iocancel")
T = TypeVar("T")
_AGAIN = 0.01  # seconds after which a turn that has failed is made again


class Ending:
    """A task that waits for an operation."""

    __slots__ = ("_task",)

    def __init__(self, task: Task) -> None:
        self._task: Task | None = task

    def wake(self) -> None:
        """See iocancel.awaiting.hub.Ending."""
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def leave(self) -> None:
        """The task goes on by itself."""
        self._task = None


class Ready:
    """A poll that a task is to wait for."""

    __slots__ = ("_hub", "op")

    def __init__(self, hub: Hub, op: Operation[Any]) -> None:
        self._hub, self.op = hub, op

    def __await__(self) -> Generator[Any, Any, None]:
        """Wait."""
        return self._hub.ended(self.op).__await__()


class Hub(_hub.Hub, trio.abc.Instrument):
    """One run's engine."""

    checkpoints = True
    delivers = True

    def __init__(self) -> None:
        super().__init__(_hub.open_for_loop())
        self._staged = False  # a turn is called for
        self._leaving = False  # the run ends: this waits for whoever still waits
        self._token = trio.lowlevel.current_trio_token()
        self._fd = self.engine.fileno()
        self._came: Any = getattr(self.engine._carrier, "came", None)
        self._scope = trio.CancelScope()  # of the wait for the ring's file; its deadline is the alarm

    def start(self) -> None:
        """Have trio call this."""
        trio.lowlevel.add_instrument(self)
        trio.lowlevel.spawn_system_task(self._watch, name="iocancel: completions")

    # See Hub

    def soon(self) -> None:
        """See Hub."""
        self._staged = True

    async def ended(self, op: Operation[Any], abandon: bool = False) -> None:
        """See Hub."""
        await self._wait(op, abandon, deaf=False)

    def until_ready(self, file: Any, number: int, events: int) -> Ready:  # noqa: ARG002
        """See Hub."""
        return Ready(self, self.engine.poll(file, events))

    def waited(self, wait: Ready) -> int:
        """See Hub."""
        many: int = wait.op.result()
        return many

    async def give_way(self) -> None:
        """See Hub: each verb is a checkpoint, so there is always credit."""
        await trio.lowlevel.checkpoint()

    async def drained(self, op: Operation[Any]) -> None:
        """See Hub."""
        await self._wait(op, False, deaf=True)

    async def _wait(self, op: Operation[Any], abandon: bool, deaf: bool) -> None:
        self._staged = True
        if op._state >= RELEASING:
            await trio.lowlevel.checkpoint()
            return
        ending = Ending(trio.lowlevel.current_task())
        raise_cancel: Any = None

        def abort(to_raise: Any) -> Abort:
            nonlocal raise_cancel
            raise_cancel = to_raise
            if abandon:
                ending.leave()
                self.abandon(op)
                return Abort.SUCCEEDED
            if not deaf:
                self.cancel(op)
            return Abort.FAILED

        self.wait_on(op, ending)
        await trio.lowlevel.wait_task_rescheduled(abort)
        if raise_cancel is not None and (deaf or op.cancelled()):
            raise_cancel()

    async def checkpoint_if_cancelled(self) -> None:
        """See Hub."""
        await trio.lowlevel.checkpoint_if_cancelled()

    async def cancel_shielded_checkpoint(self) -> None:
        """See Hub."""
        await trio.lowlevel.cancel_shielded_checkpoint()

    # What trio calls

    def before_io_wait(self, timeout: float) -> None:
        """Submit what the tasks have staged, before they all wait."""
        if self._staged and not self.closed:
            went = self._turn()
            if timeout and went:
                self._token.run_sync_soon(_nothing, idempotent=True)

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002
        """Take what has come: so who waited for it goes on in this pass, and not in the next."""
        if self._came is not None and not self.closed and self._came():
            self._turn()

    def _turn(self) -> bool:
        """A turn; whether tasks go on by it, or the alarm is another one."""
        self._staged = False
        before = self._scope.deadline
        try:
            self.turn()
            self._set_alarm(self.engine.alarm())
        except OSError as error:  # the system has no memory, say: what is staged is still there
            logger.warning("iocancel: %s: tried again in %g s", error, _AGAIN)
            self._set_alarm(time.monotonic() + _AGAIN)
        went = bool(self.waking) or self._scope.deadline < before
        self.step()
        if self._leaving and not self._awaited():
            self._scope.cancel()
            went = True
        return went

    def _awaited(self) -> bool:
        """Whether a task waits for something."""
        return any(op._awaited is not None for op in list(self.engine._ledger.flight.values()))

    def _set_alarm(self, when: float | None) -> None:
        """Have a turn made at a time: cancels that are to be sent again, deadlines."""
        left = math.inf if when is None else max(0.0, when - time.monotonic())
        if left != math.inf or self._scope.deadline != math.inf:
            self._scope.deadline = trio.current_time() + left

    async def _watch(self) -> None:
        """The system task: the engine's file is readable, or the alarm rings."""
        try:
            while True:
                await self._watch_once()
        except trio.Cancelled:  # the main task has ended; other system tasks may be at their clean-up
            self._leaving = True
            with trio.CancelScope(shield=True):
                while True:
                    if not self._awaited():
                        break
                    await self._watch_once()
            raise
        finally:
            trio.lowlevel.remove_instrument(self)
            self.close()
            self.step()

    def _turn_if_it_came(self) -> None:
        if self._came is None or self._came():  # else `after_io_wait` has taken it
            self._turn()

    async def _watch_once(self) -> None:
        scope = self._scope
        try:
            with scope:
                while True:
                    if self._leaving and not self._awaited():
                        break
                    await trio.lowlevel.wait_readable(self._fd)
                    self._turn_if_it_came()
        except trio.Cancelled:  # it is over before its alarm
            self._scope = trio.CancelScope(deadline=scope.deadline)
            raise
        self._scope = trio.CancelScope()
        self._turn()


def _nothing() -> None:
    """What wakes a wait has nothing to do."""


def current() -> Hub:
    """The hub of the run that this task is in.

    Raises:
        RuntimeError: it is in none.
    """
    try:
        hub = _here.get()
        if not hub.closed:
            return hub
    except LookupError:
        pass
    hub = Hub()
    try:
        hub.start()
        _here.set(hub)
    except BaseException:
        hub.close()
        raise
    return hub


def protected(made: type[T]) -> type[T]:
    """A class whose coroutines no KeyboardInterrupt enters: trio raises it before them or behind."""
    for each in made.__mro__:
        for function in vars(each).values():
            if inspect.iscoroutinefunction(function):
                trio.lowlevel.enable_ki_protection(function)
    return made


__all__ = ["Hub", "current", "protected"]
