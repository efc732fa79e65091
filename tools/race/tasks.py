"""Awaited verbs of many tasks in one loop, with random cancels, timeouts, task groups that fail, and shields.

Each round has a loop of its own (asyncio's, uvloop's or trio's), the engine that goes with it, some files,
and tasks that use them: every verb waits, and is ended by what comes, by a timeout or scope around it, by a
cancel of its task (at once, twice, some passes of the loop later, from another thread), or by a sibling's
failure. What the suite knows of each cancel says what may have happened, and what must:

- bytes: what was written is what was read and what is still there; in order where there is one reader and one
  writer at a time; nothing is lost and nothing comes twice, whatever was cancelled meanwhile;
- connections: each that was made was accepted once, or waits in the listener's queue;
- asyncio: a verb whose task was cancelled while it waited raises, once, and has consumed nothing;
- trio: a verb that begins in a cancelled scope raises; what beats the cancel is returned;
- nobody is cancelled whom nobody has cancelled; what ends a wait comes soon after its cancel;
- at the end the engine's ledger is empty, no operation is an orphan, no task is left, and neither the loop
  nor the interpreter has had anything to report that nobody could catch.
"""

from __future__ import annotations

import faulthandler
import functools
import gc
import importlib.util
import os
import queue
import random
import sys
import threading
import time
import warnings
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from iocancel.asyncio import hub as asyncio_hub
from tools.race import awaited, owned_awaited
from tools.race.check import Failure, quiescent
from tools.race.rounds import Options
from tools.race.worlds import Asyncio, Boom, Record, Uvloop, World

ENGINES = ("uring", "libaio")
"""What has polls: POSIX AIO does not."""
TASKS = (200, 40, 8)
WORLDS = ("asyncio", "uvloop", "trio")
_MODULES = {"asyncio": "asyncio", "uvloop": "uvloop", "trio": "trio"}
_STEPS = 3  # to one operation that is asked for: not each step is one, and rounds have a price of their own
_KINDS: tuple[type[awaited.File], ...] = (
    awaited.Pipe,
    awaited.Pipe,
    awaited.Stream,
    awaited.Stream,
    awaited.Connections,
    awaited.Event,
    awaited.Disk,
    awaited.Requests,
    awaited.Closed,
    owned_awaited.Owned,
    owned_awaited.Owned,
    owned_awaited.Listened,
    owned_awaited.Chunks,
    owned_awaited.Accepts,
    owned_awaited.Polls,
    awaited.Fifo,
    awaited.Splice,
    awaited.Child,
)


class Strand:
    """One task's part in a round; a child's is its own."""

    def __init__(self, game: Game, name: str, left: int, held: Record | None = None) -> None:
        self.game, self.name, self.left = game, name, left
        self.base = hash_of(f"{game.name}/{name}")
        self.plan = random.Random()  # of blocks; each is drawn from its number, whatever became of the last
        self.rng = random.Random()  # of one step; the same
        self.stack: list[Record] = [] if held is None else [held]  # the innermost last
        self.events: deque[list[Any]] = deque(maxlen=12)
        self.task: Any = None
        self.waiting = ""  # the verb that it is in
        self.must = False  # asyncio: its task was cancelled while it waited in this verb
        self.children = 0
        game.strands[self] = None

    def __str__(self) -> str:
        return f"{self.name}, in {self.waiting or 'no verb'}, within {list(map(str, self.stack))}"

    def story(self) -> str:
        """What it has done lately."""
        lines = [" ".join(map(str, event)) for event in self.events]
        return f"task {self}, lately:\n  " + "\n  ".join(lines)

    # Its parts

    async def run(self) -> None:
        """A task's whole part: block after block."""
        game = self.game
        try:
            block = 0
            while self.left > 0 and game.failure is None:
                self.plan.seed(self.base + block)
                block += 1
                await game.world.outermost(self)
        except BaseException as error:  # noqa: BLE001 - the first one is raised when the loop has ended
            game.fail(error, self)
        finally:
            game.strands.pop(self, None)

    async def child(self, breaks: bool = False) -> None:
        """A child's whole part: some steps, and perhaps a failure."""
        game = self.game
        try:
            self.plan.seed(self.base)
            await self.steps(2)
            if breaks:
                game.world.breaking(self)
                raise Boom(self.name)
        except (Boom, game.world.cancelled):
            raise
        except BaseExceptionGroup as group:
            if group.split((Boom, game.world.cancelled))[1] is not None:
                game.fail(group, self)
            raise
        except BaseException as error:  # noqa: BLE001
            game.fail(error, self)
        finally:
            game.strands.pop(self, None)

    def born(self, held: Record | None = None) -> Strand:
        """A child of it."""
        self.children += 1
        many = self.plan.choice((1, 1, 2, 4))
        self.left -= many
        return Strand(self.game, f"{self.name}.{self.children}", many, held)

    async def steps(self, depth: int) -> None:
        """What is in a block."""
        plan, rng, game = self.plan, self.rng, self.game
        try:
            for _ in range(plan.choice((1, 2, 4, 8))):
                if self.left <= 0 or game.failure is not None:
                    return
                self.left -= 1  # also where nothing is done: it ends
                rng.seed(plan.getrandbits(64))
                way = rng.random()
                if way < 0.1 and depth < 3:
                    await game.world.block(self, depth + 1)
                elif way < 0.2:
                    game.cancel_somebody(rng)
                elif way < 0.25:
                    await self.rest()
                else:
                    for _ in range(4):
                        if await rng.choice(game.files).play(self):
                            break
        except game.world.cancelled:
            game.world.delivered(self)
            raise

    async def rest(self) -> None:
        """Sleep, by the kernel's clock or the loop's."""
        verbs, rng = self.game.verbs, self.rng
        seconds = rng.choice((0.0, 0.0005, 0.002, 0.01, float("inf")))
        way, begun = rng.random(), time.monotonic()
        if way < 0.4:
            await self.verb("pass", self.game.world.give_way, own=False)
            return
        if way < 0.7:
            await self.verb("sleep", functools.partial(verbs.sleep, seconds), late=_nothing)
        else:
            await self.verb(
                "sleep_until", functools.partial(verbs.sleep_until, begun + seconds), late=_nothing
            )
        if time.monotonic() < begun + seconds - 1e-6:
            raise Failure(f"a sleep of {seconds} s was over after {time.monotonic() - begun} s")

    async def verb(
        self,
        name: str,
        call: Callable[[], Awaitable[Any]],
        late: Callable[[Any], object] | None = None,
        own: bool = True,
        lost: Callable[[Any], object] | None = None,
        begun_before: bool = False,
    ) -> Any:
        """One verb, judged.

        Args:
            name: for the report.
            call: makes it.
            late: what is told of an operation that has a value, where its verb was cancelled: for such as
                may have happened. None: that must not be; nor where a loop delivers what beats the cancel.
            own: it is the library's, and not the loop's.
            lost: what becomes of a value that was returned and should not have been.
            begun_before: it waits for what was begun before it, and may bring its value in a cancelled
                scope; or it may be abandoned, and end when it was.

        Returns:
            Its value.

        Raises:
            The loop's cancellation: rightly.
        """
        game = self.game
        world = game.world
        game.ops += own
        event: list[Any] = [name, "..."]
        self.events.append(event)  # what becomes of it is told in place
        must = None if begun_before else world.must(self)
        self.must, self.waiting = False, name
        begun = time.monotonic()
        try:
            value = await call()
        except world.cancelled as error:
            event[1] = "cancelled"
            world.rightly(self, name, begun)
            op = getattr(error, "operation", None)
            if op is not None and op.done() and op.exception() is None:
                if late is None or (world.delivers and not begun_before):
                    text = f"{name} has the value {op.result()!r}, and raised {error!r}"
                    raise Failure(text) from error
                late(op)
            raise
        except BlockingIOError as error:
            raise Failure(f"{name} raised {error!r}") from error
        except OSError as error:
            event[1] = repr(error)
            if self.must and own:
                raise Failure(
                    f"{name} raised {error!r}, and its task was cancelled while it waited"
                ) from error
            raise
        finally:
            self.waiting = ""
        event[1] = "done"
        if must is not None or (self.must and own):
            if lost is not None:
                lost(value)
            when = "while it waited" if must is None else f"before it: {must}"
            raise Failure(f"{name} returned {value!r}, and was cancelled {when}")
        return value


def _nothing(_: Any) -> None:
    """It may have happened, and changes nothing."""


class Game:
    """What the tasks of a round share."""

    def __init__(self, options: Options, number: int) -> None:
        self.options = options
        self.name = f"{options.seed}/{options.scenario}/{options.engine}/{options.threads}/{number}"
        self.rng = random.Random(self.name)
        self.world: World = _world(options.scenario)(self)
        self.verbs = self.world.verbs
        self.strands: dict[Strand, None] = {}
        self.files: list[awaited.File] = []
        self.failure: BaseException | None = None
        self.ops = 0
        self.hub: Any = None
        self.inline = self.rng.choice((64, 64, 0, 2))
        self.pauses = self.rng.choice(((0.0,), (0.0, 0.0, 0.0, 0.0002, 0.001), (0.0005,)))
        self.share = self.rng.choice((10, 20, 40))  # one in so many tasks is cancelled each time
        self.requests: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self.by_thread = self.rng.random() < 0.5

    def fail(self, error: BaseException, strand: Strand | None = None) -> None:
        """Something is wrong; the first such thing is told."""
        if self.failure is None:
            self.failure = error = _first_of(error)
            if strand is not None:
                error.add_note(strand.story())

    def make_files(self) -> None:
        """This round's files."""
        scale = max(1, self.options.threads // 50)
        for kind in _KINDS * scale:
            if kind.plays(self):
                self.files.append(kind(self, f"{kind.__name__} {len(self.files)}"))

    def live(self, rng: random.Random) -> Record | None:
        """Something of some task's that can be cancelled."""
        stack = rng.choice(list(self.strands)).stack if self.strands else None
        if not stack:
            return None
        return stack[-1] if rng.random() < 0.7 else rng.choice(stack)

    def cancel_somebody(self, rng: random.Random) -> None:
        """Cancel a task, or a scope: in one of several ways."""
        record = self.live(rng)
        if record is None or record.asked:
            return
        way = rng.random()
        if way < 0.5:
            record.cancel()
        elif way < 0.65:
            record.cancel()
            record.cancel()
        elif way < 0.75:
            record.cancel()
            self.world.later(rng.randrange(3), record.cancel)
        elif way < 0.9 or not self.by_thread:
            self.world.later(rng.randrange(4), record.cancel)
        else:
            self.requests.put(record.cancel)

    async def main(self) -> None:
        """The loop's first task."""
        world, options = self.world, self.options
        self.hub = world.hub()
        if self.hub is None:
            return
        if options.sabotage is not None:
            options.sabotage(self.hub.engine)
        self.make_files()
        try:
            many = max(1, options.threads)
            steps = max(1, _STEPS * options.ops // many)
            strands = [Strand(self, str(number), steps) for number in range(many)]
            await world.conduct(strands)
            if self.failure is None:
                await self.settle()
                for file in self.files:
                    await file.finish()
                await self.settle()
                quiescent(self.hub.engine)
                world.nobody_left()
        except BaseException as error:  # noqa: BLE001 - raised when the loop has ended
            self.fail(error)
        finally:
            for file in self.files:
                file.close()

    async def conductor(self) -> None:
        """Cancel what waits, now and then, so that all of it ends; tell of what hangs."""
        world, rng, patience = self.world, random.Random(f"{self.name}/conductor"), self.options.patience
        before, since = -1, time.monotonic()
        while self.strands:
            await world.pause(rng.choice(self.pauses))
            for _ in range(1 + len(self.strands) // self.share):
                self.cancel_somebody(rng)
            if self.ops != before:
                before, since = self.ops, time.monotonic()
            if self.failure is None and time.monotonic() > since + patience:
                self.fail(Failure(f"{len(self.strands)} tasks hang:\n{self.report()}"))
            if self.failure is not None:
                for strand in list(self.strands):  # that they end, if they can
                    for record in strand.stack:
                        record.cancel()
                if time.monotonic() > since + patience + 1.0:
                    world.give_up()
                    return

    def report(self) -> str:
        """Who waits for what."""
        engine = self.hub.engine
        stories = [strand.story() for strand in list(self.strands)[:4]]
        flight = list(engine._ledger.flight.values())
        ops = [f"{op!r} cancel={op._cancel} why={op._why} sent={op._sent}" for op in flight[:8]]
        return "\n".join([*stories, self.world.stacks(), f"in the ledger: {len(flight)}, {ops}"])

    async def settle(self) -> None:
        """All has ended: the engine's ledger gets empty."""
        engine, until = self.hub.engine, time.monotonic() + self.options.patience
        while engine.in_flight or engine.orphans:
            if time.monotonic() > until:
                flight = list(engine._ledger.flight.values())
                raise Failure(
                    f"all tasks have ended, and {len(flight)} operations are in flight, {engine.orphans} of "
                    f"them orphans: {flight[:4]}"
                )
            await self.world.pause(0.0002)


def _first_of(error: BaseException) -> BaseException:
    """What a group of exceptions is about."""
    while isinstance(error, BaseExceptionGroup):
        error = next((each for each in error.exceptions if isinstance(each, Failure)), error.exceptions[0])
    return error


def hash_of(text: str) -> int:
    """A number that is the same in each process."""
    return zlib.crc32(text.encode()) << 24


def _world(name: str) -> type[World]:
    if name == "trio":
        found: type[World] = importlib.import_module("tools.race.world_trio").Trio
        return found
    return Uvloop if name == "uvloop" else Asyncio


def is_here(name: str) -> bool:
    """Whether this world can be had."""
    return importlib.util.find_spec(_MODULES[name]) is not None


def warm(name: str) -> None:
    """Run a loop once: what a process has of it but once (uvloop's pipe for signals) is there then."""
    if is_here(name):
        world = _world(name)
        world.warm()


class Watch:
    """A thread that cancels what it is asked to, and tells of a loop that stands still."""

    def __init__(self, game: Game) -> None:
        self._game = game
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._game.requests.put(None)
        self._thread.join()

    def _run(self) -> None:
        game, patience = self._game, 2 * self._game.options.patience + 5.0
        ops, since = -1, time.monotonic()
        while True:
            try:
                call = game.requests.get(timeout=1.0)
            except queue.Empty:
                if game.ops != ops:
                    ops, since = game.ops, time.monotonic()
                elif time.monotonic() > since + patience:
                    since = float("inf")
                    faulthandler.dump_traceback(all_threads=True)
                    game.fail(Failure(f"the loop stands still:\n{game.report()}"))
                    print(f"the loop of {game.name} stands still:\n{game.report()}", file=sys.stderr)
                continue
            if call is None:
                return
            game.world.from_thread(call)


@contextmanager
def _surroundings(game: Game) -> Iterator[None]:
    """The engine of the round is the loop's; what nobody can catch is a failure."""
    was, hook, inline = os.environ.get("IOCANCEL_ENGINE"), sys.unraisablehook, asyncio_hub.INLINE

    def unraisable(told: Any) -> None:
        game.fail(Failure(f"unraisable: {told.err_msg} {told.object!r}: {told.exc_value!r}"))

    os.environ["IOCANCEL_ENGINE"] = game.options.engine
    sys.unraisablehook = unraisable
    asyncio_hub.INLINE = game.inline
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
            if game.failure is None:
                gc.collect()  # a task that was dropped tells of it now
    finally:
        asyncio_hub.INLINE = inline
        sys.unraisablehook = hook
        if was is None:
            del os.environ["IOCANCEL_ENGINE"]
        else:
            os.environ["IOCANCEL_ENGINE"] = was


def play(options: Options, number: int) -> int:
    """Play one round.

    Args:
        options: what is asked for: the world as `scenario`, the engine, how many tasks (as `threads`) and
            operations.
        number: the round's; with the options it decides what each task is to do.

    Returns:
        How many verbs were called; 0 where the world is not there, or the engine not one for loops.

    Raises:
        Failure: something was not as it must be.
    """
    if options.engine not in ENGINES or not is_here(options.scenario):
        return 0
    game = Game(options, number)
    with _surroundings(game):
        with Watch(game):
            game.world.run()
        game.strands.clear()
        if game.failure is None and game.hub is not None and not game.hub.engine.closed:
            game.fail(Failure("the loop has ended, and its engine is open"))
        game.hub = None
    if game.failure is not None:
        raise game.failure
    return game.ops
