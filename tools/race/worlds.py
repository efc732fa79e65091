"""The loops that the tasks of a round run in: how to wait, to cancel, and what is known of a cancel.

trio's is in `world_trio`, for those who have it.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import iocancel.asyncio
from iocancel.asyncio import hub as asyncio_hub
from tools.race.check import Failure

if TYPE_CHECKING:
    from tools.race.tasks import Game, Strand


class Boom(Exception):
    """What makes a task group fail."""


class Record(ABC):
    """What can be cancelled of a task: itself, or a scope or timeout in it."""

    asked = False
    """Somebody was about to."""

    @abstractmethod
    def cancel(self) -> None:
        """Cancel it."""


class World(ABC):
    """One kind of loop.

    Args:
        game: the round.
    """

    verbs: ClassVar[Any]
    """The library's module for it."""
    delivers: ClassVar[bool] = False
    """Whether a value that beats the cancel is returned."""
    cancelled: ClassVar[type[BaseException]]
    """What a cancelled task sees."""

    def __init__(self, game: Game) -> None:
        self.game = game

    @classmethod
    def warm(cls) -> None:
        """Run an empty loop, where that leaves something in the process."""
        return

    @abstractmethod
    def run(self) -> None:
        """Run `game.main` in a loop."""

    @abstractmethod
    def hub(self) -> Any:
        """The running loop's."""

    @abstractmethod
    async def conduct(self, strands: Sequence[Strand]) -> None:
        """Have them all do their parts, with the game's conductor."""

    @abstractmethod
    def give_up(self) -> None:
        """End what hangs: with the engine."""

    def end_engine(self) -> None:
        """Close the engine under the feet of those who wait for it."""
        hub = self.game.hub
        with warnings.catch_warnings():  # of what still runs
            warnings.simplefilter("ignore")
            hub.close(0.5)

    @abstractmethod
    def nobody_left(self) -> None:
        """Raise where tasks are left."""

    @abstractmethod
    def stacks(self) -> str:
        """Where all the tasks are."""

    # What tasks do

    @abstractmethod
    async def pause(self, seconds: float) -> None:
        """Let others run."""

    @abstractmethod
    async def give_way(self) -> None:
        """The same, of a strand's own."""

    @abstractmethod
    def later(self, passes: int, call: Callable[[], object]) -> None:
        """Have a call made some passes of the loop later."""

    @abstractmethod
    def from_thread(self, call: Callable[[], object]) -> None:
        """Have a call made in the loop; from another thread."""

    @abstractmethod
    async def outermost(self, strand: Strand) -> None:
        """A block with nothing around it."""

    @abstractmethod
    async def block(self, strand: Strand, depth: int) -> None:
        """Some steps, in a scope or timeout or group; what is checked at its end."""

    def breaking(self, strand: Strand) -> None:  # noqa: ARG002
        """A strand is about to fail, and its group with it."""
        return

    # What is known

    @abstractmethod
    def must(self, strand: Strand) -> object:
        """Why a verb that begins now must raise; None where it need not."""

    @abstractmethod
    def rightly(self, strand: Strand, name: str, begun: float) -> None:
        """A verb of it has raised the loop's cancellation. Raise where it must not have, or too late."""

    @abstractmethod
    def delivered(self, strand: Strand) -> None:
        """A strand has seen a cancellation, from whatever."""

    def late(self, name: str, since: float) -> None:
        """Raise where a cancel has taken too long."""
        late = time.monotonic() - since
        if late > max(5.0, self.game.options.patience / 2):  # a machine may have others to serve
            raise Failure(f"{name} was cancelled, and has raised {late:.1f} s later")


# asyncio


class Watched(asyncio.Task[Any]):
    """A task, and what is known of its cancels: whoever cancels it, a timeout or group too, comes by here."""

    due = False
    """It was cancelled, and has not seen it yet."""
    since = float("inf")
    strand: Strand | None = None

    def cancel(self, msg: Any = None) -> bool:
        """See asyncio.Task."""
        done = super().cancel(msg)
        if done:
            if not self.due:
                self.due, self.since = True, time.monotonic()
            strand = self.strand
            if strand is not None and strand.waiting and asyncio.current_task(self.get_loop()) is not self:
                strand.must = True
        return done


class Of(Record):
    """A task, to be cancelled."""

    def __init__(self, task: Watched) -> None:
        self._task = task

    def cancel(self) -> None:
        """See Record."""
        self._task.cancel()

    def __str__(self) -> str:
        return f"task{' (due)' if self._task.due else ''}"


class Timed(Record):
    """A timeout, to be over at once."""

    def __init__(self, timeout: asyncio.Timeout) -> None:
        self._timeout: asyncio.Timeout | None = timeout

    def cancel(self) -> None:
        """See Record."""
        timeout = self._timeout
        if timeout is not None and not timeout.expired():
            self.asked = True
            timeout.reschedule(asyncio.get_running_loop().time())

    def leave(self) -> None:
        """Its block was left: it can't be moved any more."""
        self._timeout = None

    def __str__(self) -> str:
        return "timeout"


def _task_factory(loop: Any, coro: Any, **more: Any) -> Watched:
    return Watched(coro, loop=loop, **more)


class Asyncio(World):
    """asyncio's own loop; in debug mode now and then."""

    verbs: ClassVar[Any] = iocancel.asyncio
    cancelled = asyncio.CancelledError
    _factory: ClassVar[Callable[[], Callable[[], Any]]] = staticmethod(lambda: asyncio.new_event_loop)

    def __init__(self, game: Game) -> None:
        super().__init__(game)
        self.strays: list[Watched] = []  # behind a shield whose task was cancelled
        self._debug = game.rng.random() < 0.06
        self._loop: Any = None
        self._given_up = False

    def run(self) -> None:
        """See World."""
        factory = type(self)._factory()
        with asyncio.Runner(debug=self._debug, loop_factory=factory) as runner:
            loop = self._loop = runner.get_loop()
            loop.slow_callback_duration = float("inf")
            loop.set_exception_handler(self._reported)
            loop.set_task_factory(_task_factory)
            runner.run(self.game.main(), context=contextvars.copy_context())

    def _reported(self, _: Any, context: dict[str, Any]) -> None:
        self.game.fail(Failure(f"the loop's exception handler was called: {context}"))

    def hub(self) -> Any:
        """See World."""
        return asyncio_hub.current()

    async def conduct(self, strands: Sequence[Strand]) -> None:
        """See World."""
        tasks = [self._spawn(strand, strand.run()) for strand in strands]
        await self.game.conductor()
        if self._given_up:
            await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()}, timeout=1.0)
            return
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in self.strays:
            task.cancel()
        await asyncio.gather(*self.strays, return_exceptions=True)

    def give_up(self) -> None:
        """See World."""
        self._given_up = True
        self.end_engine()

    def nobody_left(self) -> None:
        """See World."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            raise Failure(f"{len(left)} tasks are left: {list(left)[:3]}")

    def stacks(self) -> str:
        """See World."""
        lines = []
        for task in list(asyncio.all_tasks(self._loop))[:6]:
            frames = task.get_stack()
            lines.append(f"{task!r}: " + " < ".join(f"{f.f_code.co_name}:{f.f_lineno}" for f in frames))
        return "\n".join(lines)

    def _spawn(self, strand: Strand, coro: Any) -> Watched:
        task: Watched = self._loop.create_task(coro)
        return self._known(strand, task)

    def _known(self, strand: Strand, task: Any) -> Watched:
        made: Watched = task
        made.strand = strand
        strand.task = made
        strand.stack.insert(0, Of(made))
        # One that is cancelled before its first step never gets there.
        made.add_done_callback(lambda _: self.game.strands.pop(strand, None))
        return made

    async def pause(self, seconds: float) -> None:
        """See World."""
        await asyncio.sleep(seconds)

    async def give_way(self) -> None:
        """See World."""
        await asyncio.sleep(0)

    def later(self, passes: int, call: Callable[[], object]) -> None:
        """See World."""
        if passes:
            self._loop.call_soon(self.later, passes - 1, call)
        else:
            self._loop.call_soon(call)

    def from_thread(self, call: Callable[[], object]) -> None:
        """See World."""
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:  # it is closed
            if not self._loop.is_closed():
                raise

    async def outermost(self, strand: Strand) -> None:
        """See World."""
        task = strand.task
        try:
            await self.block(strand, 0)
        except asyncio.CancelledError:
            self.delivered(strand)
        while task.cancelling():
            task.uncancel()

    async def block(self, strand: Strand, depth: int) -> None:
        """See World."""
        way = strand.plan.random()
        if way < 0.3:
            await strand.steps(depth)
        elif way < 0.6:
            await self._timeout(strand, depth)
        elif way < 0.7:
            await self._task(strand)
        elif way < 0.8:
            await self._wait_for(strand)
        elif way < 0.87:
            await self._shield(strand)
        else:
            await self._group(strand, depth)

    async def _timeout(self, strand: Strand, depth: int) -> None:
        seconds = strand.plan.choice((0.0, 0.0005, 0.002, 0.01, 60.0, None))
        strand.events.append(["timeout", seconds])
        record: Timed | None = None
        try:
            async with asyncio.timeout(seconds) as made:
                record = Timed(made)
                strand.stack.append(record)
                try:
                    await strand.steps(depth)
                finally:
                    strand.stack.remove(record)
                    record.leave()
        except TimeoutError as error:
            if not made.expired():
                raise Failure("a verb's TimeoutError came out of its block") from error

    async def _task(self, strand: Strand) -> None:
        child = strand.born()
        task = self._spawn(child, child.child())
        try:
            await task
        except asyncio.CancelledError:
            if self._is_mine(strand):
                raise
        if not task.done():
            raise Failure("a task was awaited, and has not ended")

    def _is_mine(self, strand: Strand) -> bool:
        """Whether a cancellation that came from a child is not the child's alone."""
        mine = bool(strand.task.cancelling() or strand.task.due)
        if mine:
            self.delivered(strand)
        return mine

    async def _wait_for(self, strand: Strand) -> None:
        child = strand.born()
        task = self._spawn(child, child.child())
        try:
            await asyncio.wait_for(task, strand.plan.choice((0.0, 0.0005, 0.002, 0.01, 60.0)))
        except TimeoutError:
            if not task.done():
                raise Failure("wait_for has raised TimeoutError before its task has ended") from None
        except asyncio.CancelledError:
            if self._is_mine(strand):
                raise

    async def _shield(self, strand: Strand) -> None:
        child = strand.born()
        task = self._spawn(child, child.child())
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                self.strays.append(task)
            if self._is_mine(strand):
                raise

    async def _group(self, strand: Strand, depth: int) -> None:
        plan, tasks = strand.plan, []
        breaks = plan.choice((-1, -1, 0, 1))
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(plan.choice((1, 2, 3))):
                    child = strand.born()
                    coro = child.child(breaks=number == breaks)
                    tasks.append(self._known(child, group.create_task(coro)))
                if plan.random() < 0.5:
                    await strand.steps(depth)
                if plan.random() < 0.2:
                    raise Boom(strand.name)
        except* Boom:
            strand.events.append(["group failed"])
        finally:
            if not all(task.done() for task in tasks):
                raise Failure("a task group has ended, and not all of its tasks")

    def must(self, strand: Strand) -> object:  # noqa: ARG002
        """See World: a cancel waits for the next wait, and a verb need not have one."""
        return None

    def rightly(self, strand: Strand, name: str, begun: float) -> None:
        """See World."""
        task = strand.task
        if not task.due:
            raise Failure(f"{name} raised CancelledError, and nobody has cancelled its task")
        self.late(name, max(begun, task.since))
        self.delivered(strand)

    def delivered(self, strand: Strand) -> None:
        """See World."""
        strand.task.due = strand.task._must_cancel  # another one may wait for its next wait


class Uvloop(Asyncio):
    """uvloop's."""

    _factory = staticmethod(lambda: importlib.import_module("uvloop").new_event_loop)

    @classmethod
    def warm(cls) -> None:
        """See World."""
        with asyncio.Runner(loop_factory=cls._factory()) as runner:
            runner.run(asyncio.sleep(0))
