"""Blocking verbs of many plain threads, with deadlines, nested scopes, shields, and cancels from each other.

Each round has a pool of engines of its own, some files, and threads that use them: every verb waits, and is
ended by what comes, by its timeout, by a scope's deadline, or by another thread's `scope.cancel()`. What each
thread knows of its own scopes says what may have happened, and what must:

- bytes: what was written is what was read and what is still there; in order where there is one reader and one
  writer at a time; nothing is lost and nothing comes twice, whatever was cancelled meanwhile;
- connections: each that was made was accepted once, or waits in the listener's queue;
- `Cancelled` comes only inside a cancelled scope, passes no shield, and the right scope catches it;
- a verb that begins in a cancelled scope raises, always: what came before its cancel was returned;
- no TimeoutError before its deadline; no wait goes on after its cancel;
- every engine is back in the pool at the end, with nothing in flight.
"""

from __future__ import annotations

import errno
import faulthandler
import functools
import gc
import itertools
import os
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from iocancel import blocking, pool, scope
from iocancel.errors import Cancelled, EngineUnavailable, OperationTimedOut
from tools.race import owned
from tools.race.check import Failure, quiescent
from tools.race.lanes import Buffered, Connections, Event, Fifo, File, Pipe, Splice, Stream
from tools.race.rounds import Options

ENGINES = ("uring", "libaio")
"""What has all that a blocking verb takes: POSIX AIO can't stop a read that waits."""
THREADS = (32, 8, 3)
_SLACK = 1e-6  # seconds, for what a float of `time.monotonic()` loses


# Scopes, and what is known of them


class Record:
    """One scope of a thread, seen from outside of the library."""

    __slots__ = ("_lock", "asked", "at", "earliest", "moved", "outer", "passed", "scope", "shield", "told")

    def __init__(self, made: scope.CancelScope, outer: Record | None, seconds: float, shield: bool) -> None:
        self.scope, self.outer, self.shield = made, outer, shield
        self.asked = False  # somebody is about to call cancel()
        self.told = False  # cancel() has returned
        self.at = float("inf")  # when
        self.earliest = time.monotonic() + seconds  # its deadline is not before this
        self.moved = False  # somebody else has set its deadline: no telling which one holds just now
        self.passed = False  # its deadline is over for sure, and nobody sets another one
        self._lock = threading.Lock()

    def cancel(self) -> None:
        """Cancel it, from any thread."""
        self.asked = True
        self.scope.cancel()
        self.at = time.monotonic()
        self.told = True

    def move(self, deadline: float) -> None:
        """Another deadline, from any thread."""
        with self._lock:
            if not self.passed:
                self.moved = True
                self.earliest = min(self.earliest, deadline)
                self.scope.deadline = deadline

    def reach(self) -> list[Record]:
        """The scopes whose cancel reaches what is inside of this one, the innermost first."""
        found = [self]
        while not found[-1].shield and found[-1].outer is not None:
            found.append(found[-1].outer)
        return found

    def may(self) -> bool:
        """Whether it can be cancelled by now."""
        return self.asked or time.monotonic() >= self.earliest - _SLACK

    def must(self) -> bool:
        """Whether it is cancelled for sure."""
        with self._lock:
            if not self.moved and time.monotonic() > self.scope.deadline:
                self.passed = True
        return self.told or self.passed

    def __str__(self) -> str:
        return f"{self.scope!r} asked={self.asked} told={self.told} shield={self.shield}"


class Limited(pool.Pool):
    """A pool of so many engines, as little locked memory makes it; each is handed to a test's sabotage."""

    def __init__(self, options: Options, limit: int) -> None:
        super().__init__(options.engine)
        self.sabotage, self.limit = options.sabotage, limit

    def _open(self, into: list[Any]) -> None:
        if len(self) >= self.limit:
            raise EngineUnavailable(errno.ENOMEM, f"this round's limit is {self.limit} engines")
        super()._open(into)
        if self.sabotage is not None:
            self.sabotage(into[-1])

    def verify(self, patience: float) -> None:
        """All are here, and empty; then none is left."""
        until = time.monotonic() + patience
        while True:
            gc.collect()  # those that were closed
            engines = [each() for each in list(self._all)]
            # One that was closed lives for as long as an operation that somebody keeps.
            there = sum(engine is not None and not engine.closed for engine in engines)
            del engines
            if self.idle == there and not self.stuck:
                break
            if time.monotonic() > until:
                raise Failure(f"of the pool's {there} engines {self.idle} are back, {self.stuck} stuck")
            time.sleep(0.01)
        if self._waiting:
            raise Failure(f"{len(self._waiting)} threads are still listed as waiting for an engine")
        for engine in self._free:
            quiescent(engine)


class Game:
    """What the threads of a round share."""

    def __init__(self, options: Options, number: int) -> None:
        self.options = options
        self.name = f"{options.seed}/threads/{options.engine}/{options.threads}/{number}"
        self.rng = random.Random(self.name)
        self.workers: list[Worker] = []
        self.failure: BaseException | None = None
        self.pool = Limited(options, self.rng.choice((2, 5, 1000, 1000)))
        self.files: list[File] = []

    def make_files(self) -> None:
        """This round's files."""
        kinds: list[type[File]] = [Pipe, Pipe, Stream, Stream, Buffered, Buffered, Connections, Event]
        kinds += [owned.Reader, owned.Owned, owned.Listened]
        if self.options.engine == "uring":
            kinds += [Fifo, Splice]
        for number, kind in enumerate(kinds * self.rng.choice((1, 2))):
            self.files.append(kind(self, f"{kind.__name__} {number}"))

    def live(self, rng: random.Random) -> Record | None:
        """Some thread's scope that nobody has cancelled."""
        stack = list(rng.choice(self.workers).stack)
        found = rng.choice(stack) if stack else None
        return None if found is None or found.asked else found


# Threads


class Worker:
    """One thread's part in a round."""

    def __init__(self, game: Game, number: int, ops: int) -> None:
        self.game, self.number, self.left = game, number, ops
        self.plan = random.Random()  # of blocks; each is drawn from its number, whatever became of the last
        self.rng = random.Random()  # of one step; the same
        self.stack: list[Record] = []  # of scopes, the innermost last
        self.events: deque[Sequence[Any]] = deque(maxlen=16)
        self.done = 0
        self.over = False
        self.sent = 0  # of the last verb that writes all, before its exception

    def run(self) -> None:
        """A thread's whole part."""
        try:
            for block in itertools.count():
                if self.left <= 0 or self.game.failure is not None:
                    break
                self.plan.seed(f"{self.game.name}/{self.number}/{block}")
                self.block(0)
        except BaseException as error:  # noqa: BLE001 - the first one is raised in the main thread
            if self.game.failure is None:
                self.game.failure = error
                error.add_note(self.story())
        self.over = True

    def story(self) -> str:
        """What this thread has done lately."""
        lines = [" ".join(map(str, event)) for event in self.events]
        held = [str(record) for record in self.stack]
        return f"thread {self.number} of {self.game.name}, in {held}, lately:\n  " + "\n  ".join(lines)

    # Scopes

    def block(self, depth: int) -> None:
        """Some verbs, mostly in a scope; and what is checked at its end."""
        rng = self.plan
        if rng.random() < 0.15:
            self.steps(depth)
            return
        kind, seconds = rng.choice(_KINDS), float("inf")
        shield = rng.random() < 0.2
        if kind is not scope.CancelScope:
            seconds = rng.choice((0.0, 0.0005, 0.002, 0.01, 60.0))
            made = kind(seconds, shield=shield)
        else:
            made = scope.CancelScope(shield=shield)
        record = Record(made, self.stack[-1] if self.stack else None, seconds, shield)
        self.events.append(("enters", kind.__name__, seconds, "shield" if shield else "", "depth", depth))
        failed = False
        outer: list[Record] = []
        try:
            with made:
                self.stack.append(record)
                try:
                    self.steps(depth)
                except Cancelled:
                    # Those that are cancelled already: the outermost of them catches it.
                    if record.outer is not None and not record.shield:
                        outer = [each for each in record.outer.reach() if each.must()]
                    raise
                finally:
                    self.stack.pop()
        except OperationTimedOut as error:
            raise Failure("a verb's TimeoutError came out of its block") from error
        except TimeoutError:
            failed = True
            if kind is not scope.fail_after or not made.cancelled_caught:
                raise
        except Cancelled:
            if record.outer is None:
                raise Failure(f"Cancelled has left the outermost scope, {record}") from None
            if record.shield:
                raise Failure(f"Cancelled has passed a shield, {record}") from None
            if made.cancelled_caught:
                raise Failure(f"caught, and raised on: {record}") from None
            self.events.append(("Cancelled passes", record))
            raise
        if made.cancelled_caught:
            self.events.append(("caught by", record))
            if not record.may():
                raise Failure(f"it caught Cancelled, and nobody has cancelled it: {record}")
            if outer:
                raise Failure(f"{record} caught Cancelled, which was {outer[-1]}'s")
            if kind is scope.fail_after and not failed:
                raise Failure(f"fail_after has caught Cancelled and not raised TimeoutError: {record}")
        if scope.current_scope() is not (self.stack[-1].scope if self.stack else None):
            raise Failure(f"behind its block the scope is {scope.current_scope()!r}, not the one around")

    def steps(self, depth: int) -> None:
        """What is in a block."""
        rng = self.plan
        for _ in range(rng.choice((1, 2, 4, 8))):
            if self.left <= 0 or self.game.failure is not None:
                return
            self.left -= 1  # also where nothing is done: it ends
            self.rng.seed(rng.getrandbits(64))
            way = rng.random()
            if way < 0.1 and depth < 3:
                self.block(depth + 1)
            elif way < 0.2:
                other = self.game.live(self.rng)
                if other is not None and self.rng.random() < 0.7:
                    other.cancel()
                elif other is not None:
                    other.move(time.monotonic() + self.rng.choice((0.0, 0.0005, 0.005, 60.0)))
            elif way < 0.25:
                self.rest()
            elif way < 0.3:
                self.verb("checkpoint", _checkpoint, plain=True)
            elif way < 0.33 and self.stack:
                record = self.stack[-1]
                if not record.scope.cancel_called:
                    record.shield = record.scope.shield = not record.shield
            else:
                rng.choice(self.game.files).use(self)

    def rest(self) -> None:
        """Sleep."""
        seconds = self.rng.choice((0, 0.0005, 0.002, 0.01))
        if self.stack and self.rng.random() < 0.3:
            seconds = float("inf")
        begun = time.monotonic()
        self.verb("sleep", functools.partial(_sleep, seconds), plain=True)
        if time.monotonic() < begun + seconds - _SLACK:
            raise Failure(f"a sleep of {seconds} s was over after {time.monotonic() - begun} s")

    # Verbs

    def verb(
        self, name: str, call: Callable[..., Any], *args: Any, plain: bool = False, buffered: bool = False
    ) -> Any:
        """One verb, judged.

        Args:
            name: for the report.
            call: makes it; takes `args`, and `timeout`.
            plain: without a timeout.
            buffered: it may be served without a call: then a cancelled scope need not be noticed.

        Returns:
            Its value; None where it was not done: its time was over.

        Raises:
            Cancelled: rightly.
        """
        rng, timeout = self.rng, None
        if not plain and (not self.stack or rng.random() < 0.6):
            timeout = rng.choice((0, 0.0002, 0.001, 0.003, 0.01))
        reach = self.stack[-1].reach() if self.stack else []
        must = [record for record in reach if record.must()]
        self.done += 1
        event: list[Any] = [name, timeout, "..."]
        self.events.append(event)  # what becomes of it is told in place
        begun = time.monotonic()
        try:
            value = call(*args, timeout=timeout)
        except Cancelled as error:
            event[2] = "Cancelled"
            self.sent = getattr(error, "sent", 0)
            self.cancelled(name, error, reach, begun)
            raise
        except OperationTimedOut as error:
            event[2] = "timed out"
            self.sent = getattr(error, "sent", 0)
            if must:
                raise Failure(f"{name} went on in a cancelled scope, {must[0]}, until its timeout") from error
            if timeout is None or time.monotonic() < begun + timeout - _SLACK:
                raise Failure(f"{name}: TimeoutError before its time") from error
            self.nothing_else(name, error)
            return None
        except BlockingIOError as error:
            raise Failure(f"{name} raised {error!r}") from error
        event[2] = "done"
        if must and not buffered:
            text = f"{name} returned {value!r} in a scope that was cancelled before it: {must[0]}"
            if name == "accept":
                value[0].close()
            elif name == "open":
                os.close(value)
            raise Failure(text)
        return value

    def cancelled(self, name: str, error: Cancelled, reach: Sequence[Record], begun: float) -> None:
        """It has raised Cancelled: rightly, and in time."""
        if not any(record.may() for record in reach):
            raise Failure(f"{name} raised Cancelled, and no scope is cancelled: {list(map(str, reach))}")
        self.nothing_else(name, error)
        since = min((record.at for record in reach), default=float("inf"))
        late = time.monotonic() - max(begun, since)
        if late > max(5.0, self.game.options.patience / 2):  # a machine may have others to serve
            raise Failure(f"{name} was cancelled, and has raised {late:.1f} s later")

    @staticmethod
    def nothing_else(name: str, error: BaseException) -> None:
        """What ended it is the only thing that happened: a value would have been returned."""
        op = getattr(error, "operation", None)
        if op is not None and op.exception() is None:
            raise Failure(f"{name} has the value {op.result()!r}, and raised {error!r}")


def _checkpoint(timeout: None) -> bool:  # noqa: ARG001 - as verbs are called
    scope.checkpoint()
    return True


def _sleep(seconds: float, timeout: None) -> bool:  # noqa: ARG001
    blocking.sleep(seconds)
    return True


_KINDS: tuple[Any, ...] = (
    scope.CancelScope,
    scope.CancelScope,
    scope.move_on_after,
    scope.move_on_after,
    scope.fail_after,
)


def play(options: Options, number: int) -> int:
    """Play one round.

    Args:
        options: what is asked for: the engine, how many threads and operations.
        number: the round's; with the options it decides what each thread is to do.

    Returns:
        How many verbs were called; 0 where the engine is not one for blocking verbs.

    Raises:
        Failure: something was not as it must be.
    """
    if options.engine not in ENGINES:
        return 0
    game = Game(options, number)
    was, interval = pool.current, sys.getswitchinterval()
    pool.current = game.pool
    sys.setswitchinterval(game.rng.choice((options.switch, 1e-4, 0.005)))
    try:
        game.make_files()
        many = max(1, options.threads)
        game.workers = [Worker(game, i, options.ops // many) for i in range(many)]
        _conduct(game)
        if game.failure is not None:
            raise game.failure
        game.pool.verify(options.patience)
        for file in game.files:
            file.verify()
    finally:
        sys.setswitchinterval(interval)
        pool.current = was
        game.pool.close()
        if all(worker.over for worker in game.workers):
            for file in game.files:
                file.close()
    return sum(worker.done for worker in game.workers)


def _conduct(game: Game) -> None:
    """Have the threads do their parts; cancel what waits, once each, so that all of it ends."""
    options = game.options
    threads = [threading.Thread(target=worker.run, daemon=True) for worker in game.workers]
    for thread in threads:
        thread.start()
    before, still_since = -1, time.monotonic()
    while not all(worker.over for worker in game.workers):
        time.sleep(0.0005)
        record = game.live(game.rng)
        if record is not None and game.rng.random() < 0.5:
            record.cancel()
        now = sum(worker.done for worker in game.workers)
        if now != before:
            before, still_since = now, time.monotonic()
        still = time.monotonic() - still_since
        if game.failure is None and still > options.patience:
            faulthandler.dump_traceback(all_threads=True)
            stuck = [worker.story() for worker in game.workers if not worker.over]
            game.failure = Failure(f"{len(stuck)} threads hang:\n" + "\n".join(stuck[:4]))
        if game.failure is not None:
            if still > options.patience + 1.0:
                break
            for worker in game.workers:  # that they end, if they can
                for each in list(worker.stack):
                    each.scope.cancel()
    for thread in threads:
        thread.join(0.1 if game.failure else None)
