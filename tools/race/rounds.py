"""A round: an engine, some files, and one thread or several who do things to them at random."""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import random
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import iocancel
from iocancel import Outcome
from iocancel.errors import CancelTooLate
from iocancel.operation import Reach, leading
from iocancel.operation.operation import ENDED as ENDED_STATE
from tools.race import check
from tools.race.actors import Actor, Fifo, File, Pipe, Poll, Splice, Timer
from tools.race.check import Arena, Failure, Spy, Stalls, Track
from tools.race.sockets import Connections, Datagrams, Stream

SCENARIOS: dict[str, tuple[type[Actor], ...]] = {
    "pipes": (Pipe,),
    "streams": (Stream,),
    "datagrams": (Datagrams,),
    "files": (File,),
    "timers": (Timer, Poll),
    "connections": (Connections,),
    "workers": (Fifo, Splice, Pipe),
    "mixed": (Pipe, Pipe, Stream, Stream, Datagrams, File, Timer, Poll, Connections),
}
"""What is in a round of each scenario."""


@dataclass
class Options:
    """What is asked for."""

    engine: str = "uring"
    seed: int = 0
    scenario: str = "mixed"
    threads: int = 1
    ops: int = 2000
    """How many operations a round has, about."""
    patience: float = 20.0
    """Seconds that an ending may take, once all has been done for it."""
    switch: float = 1e-5
    """sys.setswitchinterval, with several threads."""
    sabotage: Callable[[Any], None] | None = None
    """What tests do to each engine, so that something is found."""


class Game:
    """What the hands of one round share."""

    def __init__(self, options: Options, number: int) -> None:
        self.options = options
        self.number = number
        self.name = f"{options.seed}/{options.scenario}/{options.engine}/{options.threads}/{number}"
        self.engine = iocancel.open_engine(options.engine)
        if options.sabotage is not None:
            options.sabotage(self.engine)
        self.spy = Spy(self.engine)
        self.strict = self.engine.name == "uring"
        self.numbers = itertools.count()
        self.made = 0
        self.asked_upto = -1  # all operations with numbers up to this were cancelled
        self.closing = False
        self.failure: BaseException | None = None
        self._actors = itertools.count()
        self.actors: list[Actor] = []  # in use
        self.retired: list[Actor] = []
        self.hands: list[Hand] = []
        self.grow = threading.Lock()
        self.over = threading.Event()
        self.reaped: set[int] = set()

    def next_actor(self) -> int:
        """A number for an actor."""
        return next(self._actors)

    def kinds(self) -> list[type[Actor]]:
        """The kinds of files in this round: what the engine can do something with."""
        supports = self.engine.supports
        return [
            kind for kind in SCENARIOS[self.options.scenario] if all(supports(verb) for verb in kind.needs)
        ]


class Hand:
    """One thread's part in a round."""

    def __init__(self, game: Game, number: int, ops: int) -> None:
        self.game = game
        self.engine = game.engine
        self.number = number
        self.ops = ops
        self.rng = random.Random(f"{game.name}/{number}")
        self.arena = Arena()
        self.tracks: list[Track] = []
        self.fresh = 0  # the first that may not be settled
        self.done = False

    # What actors use

    def timeout(self) -> float | None:
        """A deadline for an operation."""
        chance = self.rng.random()
        if chance < 0.85:
            return None
        return 60.0 if chance < 0.93 else self.rng.choice((0.0, 0.0002, 0.001, 0.003))

    def track(self, actor: Actor, verb: str, extra: Any) -> Track:
        """Before an operation is made."""
        return Track(next(self.game.numbers), actor, verb, extra)

    def start(self, track: Track, op: Any, timeout: float | None) -> None:
        """It was made."""
        track.op, track.token = op, op.token
        if timeout is not None:
            track.deadline = track.made + timeout
            track.events.append(f"deadline in {timeout} s")
        if self.rng.random() < 0.25:
            track.calls = 0
            op.add_done_callback(track.called)
        track.actor.tracks.append(track)
        self.tracks.append(track)

    # What it does

    def play(self) -> None:
        """All its operations."""
        while len(self.tracks) < self.ops and self.game.failure is None:
            if self.game.closing:
                return
            self.step()
            self.settle_ended()

    def step(self) -> None:
        """Some operations, and one thing more."""
        rng, game = self.rng, self.game
        for _ in range(rng.choice((1, 2, 4, 8, 24))):
            actor = rng.choice(game.actors)
            with actor.lock:
                if not actor.closed:
                    actor.arm(self)
        if rng.random() < 0.6:
            for _ in range(rng.choice((1, 2, 6))):
                actor = rng.choice(game.actors)
                with actor.lock:
                    actor.act(self)
        rng.choice(_STEPS)(self)

    def _some(self) -> list[Track]:
        """Some operations, of any hand: ended ones, in flight, prepared."""
        hand = self.rng.choice(self.game.hands)
        lately = hand.tracks[-40:]
        if not lately:
            return []
        many = self.rng.choice((1, 1, 2, 5, 20, 40))
        return [self.rng.choice(lately) for _ in range(many)]

    def _own(self) -> Track | None:
        lately = self.tracks[-20:]
        return self.rng.choice(lately) if lately else None

    def submit(self) -> None:
        """Hand over."""
        self.engine.submit()

    def reap(self) -> None:
        """Take what has come."""
        timeout = self.rng.choice((0, 0, 0, 0.0003))
        self._reaped(self.engine.reap(timeout))

    def _reaped(self, ops: list[Any]) -> None:
        tokens = {op.token for op in ops}
        if len(tokens) != len(ops):
            raise Failure("reap() returned an operation twice in one call")
        for op in ops:
            if not op.done():
                raise Failure(f"reap() returned {op!r}, which has not ended")
            if op.token in self.game.reaped:
                raise Failure(f"reap() returned {op!r} a second time")
            self.game.reaped.add(op.token)

    def cancel_one(self) -> None:
        """By Operation.cancel: any number of times, early and late."""
        for track in self._some():
            track.events.append(f"op.cancel() by {self.number}")
            done = track.op.done()
            if done and track.op.cancel():
                track.fail("a cancel after its ending returned True")
            elif not done and not track.op.cancel() and not track.op.done():
                track.fail("a cancel of it returned False, and it had not ended")

    def cancel_some(self) -> None:
        """By engine.cancel."""
        tracks = self._some()
        for track in tracks:
            track.events.append(f"engine.cancel by {self.number}")
        self.engine.cancel([track.op for track in tracks])

    def cancel_file(self) -> None:
        """By engine.cancel_fd."""
        actor = self.rng.choice(self.game.actors)
        with actor.lock:  # its number is another file's once it is closed
            target = None if actor.closed else actor.target(self)
            if target is None:
                return
            self._asks(actor)
            self.engine.cancel_fd(target)

    def _asks(self, actor: Actor) -> None:
        # Nobody makes operations on it while this holds its lock.
        number = next(self.game.numbers)
        actor.asked_upto = max(actor.asked_upto, number)
        for track in actor.tracks[-5:]:
            track.events.append(f"cancel_fd by {self.number}")

    def cancel_all(self) -> None:
        """By engine.cancel_all."""
        if self.rng.random() < 0.3:
            # Whoever is being made meanwhile may be hit, too.
            self.game.asked_upto = max(self.game.asked_upto, next(self.game.numbers) + 10_000)
            self.engine.cancel_all()
            self.game.asked_upto = next(self.game.numbers)

    def wait_one(self) -> None:
        """By Operation.wait, with a deadline, or for one that was cancelled."""
        track = self._own()
        if track is None:
            return
        timeout = self.rng.choice((0, 0.0001, 0.0005, 0.002, None))
        if timeout is None and self.engine.reach(track.op.name) is Reach.NONE:
            timeout = 0.02  # what runs, and can't be stopped, waits for a byte that may never be written
        self._wait([track], timeout)

    def wait_some(self) -> None:
        """By engine.wait."""
        tracks = [track for track in (self._own() for _ in range(4)) if track is not None]
        self._wait(tracks, self.rng.choice((0, 0.0003, 0.001)))

    def _wait(self, tracks: list[Track], timeout: float | None) -> None:
        now = time.monotonic()
        for track in tracks:
            track.events.append(f"wait({timeout}) by {self.number}")
            if timeout is None:
                track.op.cancel()
            elif track.deadline is None or track.deadline > now + timeout:
                track.deadline = now + timeout
        self.wait_for(tracks, timeout)

    def wait_for(self, tracks: list[Track], timeout: float | None) -> None:
        """Wait."""
        try:
            if len(tracks) == 1:
                tracks[0].op.wait(timeout)
            else:
                self.engine.wait([track.op for track in tracks], timeout)
        except CancelTooLate:
            if self.game.strict:
                raise
            return
        took = time.monotonic()
        for track in tracks:
            if not track.op.done():
                track.fail(f"wait({timeout}) returned at {took}, and it has not ended")

    def close_file(self) -> None:
        """By engine.close_fd, and the number is used again at once."""
        if self.rng.random() > 0.25:
            return
        game = self.game
        at = self.rng.randrange(len(game.actors))
        actor = game.actors[at]
        with actor.lock:
            target = None if actor.closed else actor.target(self)
            if target is None:
                return
            actor.closed = True
            self._asks(actor)
            number = target if isinstance(target, int) else target.fileno()
            if isinstance(actor, Pipe):
                actor.open.discard(number)
        was = [track for track in actor.tracks if track.op.fd == number and not track.op.done()]
        try:
            became = self.engine.close_fd(target)
        except BaseException as error:  # the file is open: what could not be stopped, or the engine is closed
            actor.closed = False
            if isinstance(actor, Pipe):
                actor.open.add(number)
            if isinstance(error, CancelTooLate) and not game.strict:
                return
            raise
        for op, outcome in became.items():
            if op.outcome is not outcome or not op.done():
                raise Failure(f"close_fd said {outcome} of {op!r}")
        for track in was:
            if not track.op.done():
                track.fail(f"close_fd({number}) returned, and it has not ended")
        self.replace(at, actor)

    def replace(self, at: int, actor: Actor) -> None:
        """Another file of the same kind in its place."""
        new = type(actor)(self)
        with self.game.grow:
            self.game.retired.append(actor)
            self.game.actors[at] = new

    # Endings

    def settle_ended(self) -> None:
        """Look at those that have ended since."""
        tracks = self.tracks
        while self.fresh < len(tracks) and tracks[self.fresh].settled:
            self.fresh += 1
        for track in tracks[self.fresh :]:
            if not track.settled and track.op._state == ENDED_STATE:
                self.settle(track)

    def settle(self, track: Track) -> None:
        """It has ended: is it all as it must be?"""
        if track.settled:
            return
        track.settled = True
        actor, op = track.actor, track.op
        asked = bool(
            track.events
            or track.number <= self.game.asked_upto
            or track.number <= actor.asked_upto
            or self.game.closing
        )
        if track.calls == 0:  # the callbacks are made just behind the ending, by whoever leads
            until = time.monotonic() + self.game.options.patience
            while track.calls == 0 and time.monotonic() < until:
                time.sleep(0)
        outcome = check.judge(track, asked, actor.refusals, self.game.strict)
        data = b""
        if outcome is Outcome.COMPLETED and track.verb in _READS:
            value = op.result()
            if isinstance(value, int):
                if not 0 <= value <= track.size:
                    track.fail(f"{value} bytes in a buffer of {track.size}")
                end = track.start + value
                data = bytes(track.chunk.view[track.start : end])
                track.chunk.image[track.start : end] = data
            else:
                data = value
            if op.result() is not value and op.result() != value:
                track.fail("its result has changed")
        with actor.lock:
            actor.ended(track, outcome, data)
            track.told = True

    def finish(self) -> None:
        """Cancel, by one way or another, and wait for all of its own."""
        rng, engine = self.rng, self.engine
        left = [track for track in self.tracks if not track.op.done()]
        way = rng.randrange(3)
        for track in left:
            track.events.append(f"finish {way}")
        if way == 0:
            for track in left:
                track.op.cancel()
        elif way == 1:
            engine.cancel([track.op for track in left])
        else:
            for track in rng.sample(left, len(left)):
                track.op.cancel()
        self.drain(left)

    def drain(self, left: list[Track]) -> None:
        """Wait for endings that must come."""
        until = time.monotonic() + self.game.options.patience
        while left and self.game.failure is None:
            self.engine.reap(0.002)
            left = [track for track in left if not track.op.done()]
            if left and time.monotonic() > until:
                left[0].fail(
                    f"{len(left)} operations have not ended: cancelled, and waited for; {left[0].op!r}"
                )

    def run(self) -> None:
        """A thread's whole part."""
        try:
            self.play()
            if self.game.strict:
                self.finish()
        except ValueError as error:
            if not self.game.closing or "closed" not in str(error):
                self.game.failure = self.game.failure or error
        except BaseException as error:  # noqa: BLE001 - the first one is raised in the main thread
            self.game.failure = self.game.failure or error
        # A thread that exits takes with it what it has submitted for the others (facts 5.7): so all stay.
        self.done = True
        self.game.over.wait()


_READS = frozenset(["read", "readv", "recv", "waitall"])
_STEPS = (
    Hand.submit,
    Hand.submit,
    Hand.reap,
    Hand.reap,
    Hand.reap,
    Hand.cancel_one,
    Hand.cancel_one,
    Hand.cancel_some,
    Hand.cancel_some,
    Hand.cancel_file,
    Hand.cancel_all,
    Hand.wait_one,
    Hand.wait_one,
    Hand.wait_some,
    Hand.close_file,
)


def play(options: Options, number: int) -> int:
    """Play one round.

    Args:
        options: what is asked for.
        number: the round's; with the options it decides what is done.

    Returns:
        How many operations there were.

    Raises:
        Failure: something was not as it must be.
    """
    game = Game(options, number)
    try:
        with _watchdog(6 * options.patience):
            return _play(game)
    except BaseException:
        _give_up(game)
        raise


@contextlib.contextmanager
def _watchdog(seconds: float) -> Iterator[None]:
    """Ends a hang of the main thread by an exception: the library takes one anywhere."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def bark(*_: object) -> None:
        raise Failure(f"it hangs: nothing for {seconds} s\n{''.join(traceback.format_stack())}")

    was = signal.signal(signal.SIGALRM, bark)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, was)


def _give_up(game: Game) -> None:
    """After a failure: close what can be closed; what is wrong has been said."""
    game.closing = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            game.engine.close(0.2)
        for actor in (*game.actors, *game.retired):
            with contextlib.suppress(OSError):
                actor.close()


def _play(game: Game) -> int:
    options = game.options
    many = max(1, options.threads)
    game.hands = [Hand(game, i, options.ops // many) for i in range(many)]
    first = game.hands[0]
    kinds = game.kinds()
    if not kinds:
        game.engine.close()
        return 0
    rng = random.Random(f"{game.name}/files")
    for kind in kinds * rng.choice((1, 2)) if len(kinds) > 2 else kinds * rng.choice((1, 2, 4)):
        game.actors.append(kind(first))
    # The engine is closed while all goes on; but not where a read that waits can't be stopped (glibc's AIO):
    # the close would rightly leave it behind.
    early = rng.random() < 0.25 and game.engine.reach("read") is not Reach.NONE
    if many == 1:
        first.play()
        if early:
            _close_engine(game)
        else:
            first.finish() if game.strict else _end_without_cancel(game, first)
    else:
        _threads(game, early, rng)
    return _account(game)


def _end_without_cancel(game: Game, hand: Hand) -> None:
    """Where a cancel does not reach everything: do what ends the rest."""

    def drain() -> None:
        game.asked_upto = next(game.numbers)
        hand.drain([track for each in game.hands for track in each.tracks if not track.op.done()])

    hand.engine.cancel_all()
    if hand.engine.reach("read") is not Reach.NONE:
        # What was "not found" just then (its poll had fired) goes on, and is not to find its file closed.
        drain()
    for actor in (*game.actors, *game.retired):
        actor.release()
    drain()


def _threads(game: Game, early: bool, rng: random.Random) -> None:
    options = game.options
    stalls = Stalls(game.engine)
    was, old = leading.Waiter, sys.getswitchinterval()
    leading.Waiter = stalls.waiter  # type: ignore[assignment, misc]
    sys.setswitchinterval(options.switch)
    threads = [threading.Thread(target=hand.run, daemon=True) for hand in game.hands]
    try:
        for thread in threads:
            thread.start()
        if early:
            wanted = options.ops * rng.uniform(0.1, 0.9)
            while sum(len(hand.tracks) for hand in game.hands) < wanted and not all(
                hand.done for hand in game.hands
            ):
                time.sleep(0.001)
            _close_engine(game)
        until = time.monotonic() + 3 * options.patience
        while not all(hand.done for hand in game.hands):
            time.sleep(0.001)
            if time.monotonic() > until:
                faulthandler.dump_traceback(all_threads=True)
                game.failure = game.failure or Failure(
                    f"threads hang in the engine ({game.engine!r}); see the tracebacks"
                )
                break
        game.over.set()
        for thread in threads:
            thread.join(0.1 if game.failure else None)
    finally:
        game.over.set()
        sys.setswitchinterval(old)
        leading.Waiter = was  # type: ignore[misc]
    if game.failure is not None:
        raise game.failure
    if stalls.seen:
        raise Failure(f"{stalls.seen} waits were ended by the library's one-second safety net: lost wake-ups")
    if not game.strict and not early:
        _end_without_cancel(game, game.hands[0])


def _close_engine(game: Game) -> None:
    game.closing = True
    game.engine.close(game.options.patience)


def _account(game: Game) -> int:
    """All has ended: is everything there?"""
    engine = game.engine
    tracks = [track for hand in game.hands for track in hand.tracks]
    for track in tracks:
        if not track.op.done():
            track.fail("the engine was closed, and it has no outcome" if game.closing else "it has not ended")
        if track.op._state != ENDED_STATE:
            track.fail("its memory was not released")
        if track.op._pins is not None:
            track.fail("it has ended, and still pins memory")
    for hand in game.hands:
        hand.settle_ended()
    if not game.closing:
        check.quiescent(engine)
        engine.close()
    if engine.in_flight:
        raise Failure(f"{engine.in_flight} in flight after the close")
    game.spy.compare(tracks, carries_all=True)
    for actor in (*game.actors, *game.retired):
        actor.verify()
    for hand in game.hands:
        hand.arena.check()
    for actor in (*game.actors, *game.retired):
        actor.close()
    return len(tracks)
