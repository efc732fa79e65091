"""trio, for the tasks of a round: scopes, deadlines, shields, nurseries that fail."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import trio

import iocancel.trio
from iocancel.trio import hub as trio_hub
from tools.race.check import Failure
from tools.race.worlds import Boom, Record, World

if TYPE_CHECKING:
    from tools.race.tasks import Game, Strand

_SLACK = 1e-3  # seconds between trio's clock and ours, and what a float loses


class Scope(Record):
    """A scope, seen from outside of trio."""

    def __init__(self, scope: trio.CancelScope, outer: Scope | None, earliest: float = float("inf")) -> None:
        self.scope, self.outer = scope, outer
        self.told = False
        self.at = float("inf")
        self.earliest = earliest

    def cancel(self) -> None:
        """See Record."""
        self.asked = True
        self.scope.cancel()
        if not self.told:
            self.at, self.told = time.monotonic(), True

    def reach(self) -> list[Scope]:
        """The scopes whose cancel reaches what is inside of this one, the innermost first."""
        found = [self]
        while not found[-1].scope.shield and found[-1].outer is not None:
            found.append(found[-1].outer)
        return found

    def may(self) -> bool:
        """Whether it can be cancelled by now."""
        return self.asked or time.monotonic() >= self.earliest - _SLACK

    def __str__(self) -> str:
        shield = " shield" if self.scope.shield else ""
        return f"scope asked={self.asked} told={self.told}{shield} deadline={self.scope.deadline}"


class Trio(World):
    """trio's loop."""

    verbs: ClassVar[Any] = iocancel.trio
    cancelled = trio.Cancelled
    delivers = True

    def __init__(self, game: Game) -> None:
        super().__init__(game)
        self._token: Any = None
        self._all: Any = None

    def run(self) -> None:
        """See World."""
        trio.run(self._main)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        await self.game.main()

    def hub(self) -> Any:
        """See World."""
        hub = trio_hub.current()
        hub.credit = self.game.inline or (1 << 62 if self.game.rng.random() < 0.5 else 0)
        return hub

    async def conduct(self, strands: Sequence[Strand]) -> None:
        """See World."""
        async with trio.open_nursery() as nursery:
            self._all = nursery
            for strand in strands:
                nursery.start_soon(strand.run, name=strand.name)
            await self.game.conductor()

    def give_up(self) -> None:
        """See World."""
        self._all.cancel_scope.cancel()
        self.end_engine()
        self.game.hub.step()

    def nobody_left(self) -> None:
        """See World."""
        if self._all.child_tasks:
            raise Failure(f"{len(self._all.child_tasks)} tasks are left")

    def stacks(self) -> str:
        """See World."""
        lines = []
        for task in list(self._all.child_tasks)[:6]:
            frames = [f"{f.f_code.co_name}:{n}" for f, n in task.iter_await_frames()]
            lines.append(f"{task!r}: " + " < ".join(frames))
        return "\n".join(lines)

    async def pause(self, seconds: float) -> None:
        """See World."""
        await trio.sleep(seconds)

    async def give_way(self) -> None:
        """See World."""
        await trio.lowlevel.checkpoint()

    def later(self, passes: int, call: Callable[[], object]) -> None:
        """See World."""
        if passes:
            self._token.run_sync_soon(self.later, passes - 1, call)
        else:
            self._token.run_sync_soon(call)

    def from_thread(self, call: Callable[[], object]) -> None:
        """See World."""
        try:
            trio.from_thread.run_sync(call, trio_token=self._token)
        except trio.RunFinishedError:
            return

    # Blocks

    async def outermost(self, strand: Strand) -> None:
        """See World."""
        await self._scope(strand, 0)
        if strand.stack:
            raise Failure(f"scopes are left: {list(map(str, strand.stack))}")

    async def block(self, strand: Strand, depth: int) -> None:
        """See World."""
        way = strand.plan.random()
        if way < 0.15:
            await strand.steps(depth)
        elif way < 0.7:
            await self._scope(strand, depth)
        else:
            await self._nursery(strand, depth)

    async def _scope(self, strand: Strand, depth: int) -> None:
        plan = strand.plan
        kind, seconds = plan.choice(("scope", "scope", "move_on", "move_on", "fail")), float("inf")
        if kind != "scope":
            seconds = plan.choice((0.0, 0.0005, 0.002, 0.01, 60.0))
        shield = plan.random() < 0.2
        strand.events.append([kind, seconds, "shield" if shield else ""])
        outer = strand.stack[-1] if strand.stack else None
        failed, record = False, None
        before: list[Scope] = []
        made: trio.CancelScope
        begun = time.monotonic()
        try:
            with _KINDS[kind](seconds) as made:
                made.shield = shield
                record = Scope(made, outer, begun + seconds)  # type: ignore[arg-type]
                strand.stack.append(record)
                try:
                    if depth or plan.random() < 0.4:
                        await strand.steps(depth)
                    else:
                        await self._nursery(strand, depth)
                except BaseException as error:
                    if _is_cancelled(error) and record.outer is not None and not shield:
                        before = [each for each in record.outer.reach() if each.told]
                    raise
                finally:
                    strand.stack.remove(record)
        except trio.TooSlowError:
            failed = True
            if kind != "fail" or not made.cancelled_caught:
                raise
        except BaseException as error:
            if _is_cancelled(error):
                if outer is None:
                    raise Failure(f"Cancelled has left the outermost scope, {record}") from None
                if shield:
                    raise Failure(f"Cancelled has passed a shield, {record}") from None
            raise
        if made.cancelled_caught:
            strand.events.append(["caught by", record])
            if record is None or not record.may():
                raise Failure(f"it caught Cancelled, and nobody has cancelled it: {record}")
            if before:
                raise Failure(f"{record} caught Cancelled, which was {before[-1]}'s")
            if kind == "fail" and not failed:
                raise Failure(f"fail_after has caught Cancelled and not raised TooSlowError: {record}")

    async def _nursery(self, strand: Strand, depth: int) -> None:
        plan = strand.plan
        breaks = plan.choice((-1, -1, 0, 1))
        outer: Any = strand.stack[-1] if strand.stack else None
        record: Scope | None = None
        try:
            async with trio.open_nursery() as nursery:
                record = Scope(nursery.cancel_scope, outer)
                strand.stack.append(record)
                try:
                    for number in range(plan.choice((1, 2, 3))):
                        child = strand.born(record)
                        nursery.start_soon(child.child, number == breaks, name=child.name)
                    if plan.random() < 0.5:
                        await strand.steps(depth)
                    if plan.random() < 0.2:
                        self.breaking(strand)
                        raise Boom(strand.name)
                except BaseException:
                    record.asked = True  # whatever leaves the body cancels the others
                    raise
                finally:
                    strand.stack.remove(record)
        except* Boom:
            strand.events.append(["nursery failed"])
        if nursery.child_tasks:
            raise Failure("a nursery has ended, and not all of its tasks")

    def breaking(self, strand: Strand) -> None:
        """See World."""
        if strand.stack:
            record: Any = strand.stack[-1]
            record.asked = True

    # What is known

    def must(self, strand: Strand) -> object:
        """See World."""
        if not strand.stack:
            return None
        inner: Any = strand.stack[-1]
        return next((record for record in inner.reach() if record.told), None)

    def rightly(self, strand: Strand, name: str, begun: float) -> None:
        """See World."""
        inner: Any = strand.stack[-1] if strand.stack else None
        reach = [] if inner is None else inner.reach()
        if not any(record.may() for record in reach):
            raise Failure(f"{name} raised Cancelled, and no scope is cancelled: {list(map(str, reach))}")
        since = min((record.at for record in reach), default=float("inf"))
        if since != float("inf"):
            self.late(name, max(begun, since))

    def delivered(self, strand: Strand) -> None:
        """See World: scopes stay cancelled."""


def _is_cancelled(error: BaseException) -> bool:
    """Whether it is nothing but Cancelled."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)


def _plain(_: float) -> trio.CancelScope:
    return trio.CancelScope()


_KINDS: dict[str, Any] = {"scope": _plain, "move_on": trio.move_on_after, "fail": trio.fail_after}
