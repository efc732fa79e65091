"""One running loop's engine, and the operations whose endings its tasks wait for.

A turn of the engine submits what is staged, sends the cancels that were asked for and takes what has come,
all in one system call; the tasks go on when it is over, never within: a task's next step may call a verb.

The order of events at a cancel:

1. the loop cancels the task; the adapter marks the operation, and tells the loop that it has taken note: the
   task stays where it is;
2. the next turn sends the cancel to the kernel;
3. the operation's own completion comes, with "cancelled" or with a result that was first;
4. the task goes on: with the loop's cancellation, or, where the loop has room for it (trio), with the value.

A second cancel between 1 and 4 changes nothing.
"""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from iocancel.engines import open_engine
from iocancel.engines.auto import ENGINES, engine_class
from iocancel.engines.ready import Attempt
from iocancel.operation import Operation
from iocancel.operation.operation import CALLER, RELEASING


class Ending(Protocol):
    """A task that waits for an operation, or for what a multishot one brings next."""

    def wake(self) -> None:
        """Have the task go on. Not within a turn."""
        ...


class Hub(ABC):
    """See the module. Adapters derive theirs.

    Args:
        engine: the loop's own; closed with the hub.
    """

    checkpoints = False
    """Whether a verb that has nothing to wait for is to be a checkpoint (trio)."""
    delivers = False
    """Whether a success that beats the cancel is delivered (trio); else the await has to raise (asyncio)."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.credit = 1 << 62
        """So many verbs may be done at once, before one has to give way to other tasks."""
        self.attempt = Attempt()
        """Where C leaves its result. No two calls use it at once: none of them waits."""
        self.thread = threading.get_ident()
        self.waking: deque[Ending] = deque()
        """Whose operation has ended, and who have not gone on yet."""
        self._told: Sequence[Operation[Any]] = ()  # have ended, and `_woken` is not through with them
        self.closed = False

    # What an adapter has of its own

    @abstractmethod
    def soon(self) -> None:
        """Have a turn made before the loop waits."""

    @abstractmethod
    def ended(self, op: Operation[Any], abandon: bool = False) -> Awaitable[None]:
        """Wait until an operation's outcome is known. It is submitted with the next turn.

        A cancel of the task cancels the operation, and is raised when that has ended: on asyncio in any case,
        on trio only where it was cancelled.

        Args:
            op: of this hub's engine.
            abandon: let the task go on at its cancel; the operation and its memory stay in the ledger.
        """

    @abstractmethod
    def until_ready(self, file: Any, number: int, events: int) -> Any:
        """Wait until a file is ready, by a poll of the engine's.

        Args:
            file, number: the file.
            events: what for.

        Returns:
            What to await, and then to give to `waited`.
        """

    @abstractmethod
    def waited(self, wait: Any) -> int:
        """What a file is ready for, behind the wait for it; raises where the poll has failed."""

    @abstractmethod
    def give_way(self) -> Awaitable[None]:
        """Let other tasks run, and notice a cancel: where there is no credit left."""

    @abstractmethod
    def drained(self, op: Operation[Any]) -> Awaitable[None]:
        """Wait for the ending of `op`; a cancel of the task is raised only then, and does not reach it."""

    @abstractmethod
    async def checkpoint_if_cancelled(self) -> None:
        """Raise where the task was cancelled; only called where there are `checkpoints`."""

    @abstractmethod
    async def cancel_shielded_checkpoint(self) -> None:
        """Let others run; only called where there are `checkpoints`."""

    # What they share

    def turn(self) -> None:
        """Submit, send cancels, take what has come. Who waited for it goes on by `step`, behind this."""
        try:
            if self._told:  # a KeyboardInterrupt came through
                self._woken()
            self._told = self.engine.tick()
            self._woken()
        finally:
            if self._told:
                self.soon()

    def _woken(self) -> None:
        waking = self.waking
        for op in self._told:  # it can be run again
            ending = op._awaited
            if ending is not None:
                op._awaited = None
                waking.append(ending)
        self._told = ()

    def step(self) -> None:
        """Have those go on whose operation has ended."""
        waking = self.waking
        try:
            while True:
                if not waking:
                    break
                waking[0].wake()  # it can be run again
                waking.popleft()
        finally:
            if waking:  # a KeyboardInterrupt came through
                self.soon()

    def wait_on(self, op: Operation[Any], ending: Ending) -> None:
        """Have `ending` woken when the operation `op` has ended."""
        first = op._awaited
        if first is not None:  # two tasks wait for the same one
            ending = Both(first, ending)
        op._awaited = ending

    def cancel(self, op: Operation[Any]) -> None:
        """A task was cancelled: its operation, `op`, is to be."""
        engine = self.engine
        engine._mute = True  # nobody has to be woken for it: a turn is coming
        try:
            op._ask(CALLER)
        finally:
            engine._mute = False
        self.soon()

    def abandon(self, op: Operation[Any]) -> None:
        """Nobody waits for `op` any more. Its memory and what it brings are the engine's."""
        self.cancel(op)
        self.engine.orphan(op)

    async def value(self, op: Operation[Any], abandon: bool = False) -> Any:
        """Wait for the operation `op`, and return its value; `abandon`: as `ended` has it.

        A value that comes with the loop's cancellation is told on it, as `operation`.
        """
        try:
            await self.ended(op, abandon)
        except BaseException as error:
            if op.done() and op._res >= 0 and not op._why:
                op._why = CALLER  # an fd that came too late is closed with it, and nobody has to be warned
            error.operation = op  # type: ignore[attr-defined]
            raise
        return op.result()

    async def now(self, op: Operation[Any]) -> bool:
        """Do the operation `op` at once, or not at all: whether it was done.

        The kernel tries a request without waiting first. What it can't do so is cancelled right here, before
        anybody else runs: so no cancel of the task comes between, and nothing is done that nobody hears of.
        """
        self.turn()
        if op._state < RELEASING:
            self.cancel(op)
            self.turn()
            # A worker has it in hand. It ends in a moment, and the loop stands still for that: what it brings
            # would be nobody's if a cancel of the task came between.
            until = time.monotonic() + _MOMENT
            while op._state < RELEASING and (left := until - time.monotonic()) > 0:
                self._told = self.engine.reap(left)
                self._woken()
        if self.waking:
            self.soon()
        if op._state < RELEASING:
            try:
                await self.drained(op)
            except BaseException as error:
                if not self.delivers or op.cancelled():
                    error.operation = op  # type: ignore[attr-defined]
                    raise
        return not op.cancelled()

    def close(self, timeout: float = 1.0) -> None:
        """Cancel what is in flight, wait for it, give the engine back.

        Args:
            timeout: seconds that what can't be stopped has; the loop stands still meanwhile.
        """
        self.closed = True
        left = list(self.engine._ledger.flight.values())
        try:
            self.engine.close(timeout)
        finally:  # also where a ResourceWarning about what still runs is an error
            for op in left:
                if op._awaited is not None:
                    self.waking.append(op._awaited)
                    op._awaited = None


class Both:
    """Two that wait for the same."""

    __slots__ = ("_first", "_second")

    def __init__(self, first: Ending, second: Ending) -> None:
        self._first, self._second = first, second

    def wake(self) -> None:
        """See Ending."""
        try:
            self._first.wake()
        finally:
            self._second.wake()


_MOMENT = 1.0  # seconds that a worker gets at most to end what is ready, and was cancelled
_chosen: dict[str, str] = {}  # what was asked for -> what works here


def open_for_loop(name: str | None = None) -> Any:
    """An engine for a loop: as `open_engine`, but "auto" is tried out once in a process.

    Args:
        name: as `open_engine` takes it.
    """
    wanted = name or os.environ.get("IOCANCEL_ENGINE") or "auto"
    known = _chosen.get(wanted)
    if known is None:
        engine: Any = open_engine(name)
        if engine.name in (wanted, ENGINES[0]):  # what refuses the best one may pass
            _chosen[wanted] = engine.name
    else:
        engine = engine_class(known)()
    engine._quiet = True  # nobody is to close it: nobody is told that it was not closed
    return engine


__all__ = ["Both", "Ending", "Hub", "open_for_loop"]
