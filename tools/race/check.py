"""What is believed about an operation, about the memory around it, and about the engine as a whole."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from iocancel import Outcome, Verdict, _lifetime
from iocancel.errors import OperationCancelled, OperationTimedOut
from iocancel.operation import ANSWER, MORE, NOTIF, OTHER, leading
from iocancel.uring import limbo

GUARD = 16
CHUNK = 1 << 16
_PATTERN = bytes((7 * i ^ 0xA5) & 0xFF for i in range(CHUNK))
_DEADLINES = 64  # those that have passed unnoticed may wait to be this many
_FD_SWEEP = 10.0  # seconds that the kernel may take to let go of a closed ring


class Failure(Exception):
    """Something that must not be. Its text has the operation and its history; the caller adds the seed."""


class Chunk:
    """Memory for buffers, and what it must look like."""

    __slots__ = ("image", "memory", "owners", "used", "view")

    def __init__(self) -> None:
        self.memory = bytearray(_PATTERN)
        self.view = memoryview(self.memory)
        self.image = bytearray(_PATTERN)
        self.owners: list[Track] = []
        self.used = GUARD

    def check(self) -> None:
        """Compare: canaries are what they were, and buffers what they were at their ending."""
        if self.memory == self.image:
            return
        where = next(
            i for i, (is_, was) in enumerate(zip(self.memory, self.image, strict=True)) if is_ != was
        )
        for track in self.owners:
            if track.start - GUARD <= where < track.start + track.size + GUARD:
                place = where - track.start
                inside = 0 <= place < track.size
                kind = "its buffer was changed" if inside else "the canary beside its buffer was changed"
                track.fail(f"{kind} at byte {place} of {track.size} (without its completion saying so)")
        raise Failure(f"memory that no operation was given was changed, at byte {where}")


class Arena:
    """One thread's buffers."""

    def __init__(self) -> None:
        self.chunks = [Chunk()]

    def take(self, track: Track, size: int) -> memoryview:
        """A buffer with canaries on both sides."""
        chunk = self.chunks[-1]
        if chunk.used + size + GUARD > CHUNK:
            chunk = Chunk()
            self.chunks.append(chunk)
        track.chunk, track.start, track.size = chunk, chunk.used, size
        chunk.used += size + GUARD
        chunk.owners.append(track)
        return chunk.view[track.start : track.start + size]

    def holding(self, track: Track, data: bytes) -> memoryview:
        """A buffer to write from."""
        view = self.take(track, len(data))
        view[:] = data
        track.chunk.image[track.start : track.start + track.size] = data
        return view

    def check(self) -> None:
        """Look at all of it."""
        for chunk in self.chunks:
            chunk.check()


class Track:
    """One operation, and what is known of it beside what the library says."""

    __slots__ = (
        "actor",
        "calls",
        "chunk",
        "deadline",
        "events",
        "extra",
        "made",
        "number",
        "op",
        "reaped",
        "settled",
        "size",
        "start",
        "token",
        "told",
        "verb",
    )

    def __init__(self, number: int, actor: Any, verb: str, extra: Any = None) -> None:
        self.number = number
        self.actor = actor
        self.verb = verb
        self.extra = extra
        self.op: Any = None
        self.token = -1
        self.made = time.monotonic()
        self.deadline: float | None = None
        self.events: list[str] = []
        self.calls = -1  # endings told by callback; -1: none was asked for
        self.reaped = 0  # endings told by reap()
        self.settled = self.told = False  # looked at; and its actor was told
        self.chunk: Any = None
        self.start = self.size = 0

    def called(self, _op: Any) -> None:
        """The done callback."""
        self.calls += 1
        if self.calls > 1:
            self.events.append("CALLED BACK TWICE")

    def story(self) -> str:
        """What is known."""
        op = self.op
        state = "not made"
        if op is not None:
            state = (
                f"{op!r} state={op.state.name} outcome={op.outcome} verdict={op.verdict} res={op._res} "
                f"why={op._why} cancel={op._cancel} sent={op._sent}"
            )
        lately = " | ".join(self.events[-12:]) or "nothing"
        return f"operation {self.number}, {self.verb} of {self.actor}: {state}\n  events: {lately}"

    def fail(self, text: str) -> None:
        """It is not as it must be."""
        raise Failure(f"{text}\n  {self.story()}")


class Spy:
    """Sees every record that the engine takes from its carrier: what the endings are compared with."""

    def __init__(self, engine: Any) -> None:
        carrier = engine._carrier
        self._records, self._forget = carrier.records, carrier.forget
        self._last: Sequence[Any] = ()
        self.taken: list[tuple[int, int, int]] = []
        carrier.records, carrier.forget = self.records, self.forget

    def records(self) -> Any:
        """The carrier's."""
        self._last = found = self._records()
        return found

    def forget(self, many: int) -> None:
        """What is forgotten was dealt with: once each."""
        last, self._last = self._last, ()
        # Bulk cancels are settled without a look at each record.
        self.taken += (last if len(last) >= many else self._records())[:many]
        self._forget(many)

    def compare(self, tracks: Sequence[Track], carries_all: bool) -> None:
        """Every ending is one record's, and every record one ending's.

        Args:
            tracks: all operations of the engine.
            carries_all: the engine told of every token that it gave out (no helpers of its own).
        """
        last: dict[int, list[int]] = {}
        for token, res, flags in self.taken:
            if token < OTHER and (not flags & MORE or flags & NOTIF):
                last.setdefault(token, []).append(res)
        named: dict[int, Track] = {}
        for track in tracks:
            if named.setdefault(track.token, track) is not track:
                track.fail(f"it has the token of another one: {named[track.token].story()}")
            endings = last.pop(track.token, [])
            if len(endings) > 1:
                track.fail(f"the system reported {len(endings)} endings of it: {endings}")
            if endings and endings[0] != track.op._res:
                track.fail(f"it has the result {track.op._res}, the system reported {endings[0]}")
            if not endings and track.op._sent and track.op._state:
                track.fail("it was handed over and has ended without the system's word")
            if not endings and track.op._res not in (-errno.ECANCELED, -errno.EBADF):
                track.fail("it has ended without the system's word")
        if last and carries_all:
            token, endings = next(iter(last.items()))
            raise Failure(f"the system reported endings {endings} of {token:#x}, which is nobody's")

    def answers(self, track: Track) -> list[int]:
        """The answers to its cancels, for a report."""
        return [res for token, res, _ in self.taken if token == track.token | ANSWER]


# What may be. On io_uring a cancel that was found has stopped its target: the completion is then
# -ECANCELED, or what a write, a send or a MSG_WAITALL receive had done by then (facts 2.4, 2.8).
_MAY_BE_SHORT = frozenset(["write", "writev", "send", "sendmsg", "splice", "waitall", "connect"])


def judge(track: Track, asked: bool, refusals: frozenset[int], strict: bool) -> Outcome:
    """Whether outcome, verdict and result go together.

    Args:
        track: an operation that is done.
        asked: whether anybody has asked for its cancel, or its deadline may have.
        refusals: negative results that its file's state explains.
        strict: hold io_uring's rules about verdicts.

    Returns:
        The outcome.
    """
    op = track.op
    outcome, verdict, res = op.outcome, op.verdict, op._res
    fine = track.verb == "timeout" and res == -errno.ETIME
    if outcome is None:
        track.fail("done, without an outcome")
    if outcome is Outcome.COMPLETED:
        if res < 0 and not fine:
            track.fail("COMPLETED with an error")
        if strict and verdict is Verdict.CANCELLED and track.verb not in _MAY_BE_SHORT:
            track.fail("its cancel was found, and it completed all the same")
        if op.exception() is not None or op.cancelled():
            track.fail("COMPLETED, with an exception")
    elif outcome is Outcome.CANCELLED:
        # Another thread's cancel of all, or of the file, may have found it while its verb still ran here.
        if not asked and not (op._why and not op._sent):
            track.fail("CANCELLED, and nobody asked")
        if res not in op._kind.stopped:
            track.fail("CANCELLED with a result that does not say so")
        error = op.exception()
        if isinstance(error, OperationTimedOut):
            if track.deadline is None:
                track.fail("TimeoutError without a deadline")
            elif time.monotonic() < track.deadline:
                track.fail("TimeoutError before its time")
        elif not isinstance(error, OperationCancelled):
            track.fail(f"CANCELLED with {error!r}")
    else:
        if res not in refusals:
            track.fail(f"FAILED: {op.exception()!r}")
        if getattr(op.exception(), "errno", None) not in (-res, None):
            track.fail(f"its exception has another errno: {op.exception()!r}")
    if op.cancel():
        track.fail("a cancel after its ending returned True")
    if op.outcome is not outcome:
        track.fail(f"its outcome has changed to {op.outcome}")
    if track.calls > 1:
        track.fail(f"its callback was made {track.calls} times")
    if track.calls == 0:
        track.fail("its callback was never made")
    if track.reaped > 1:
        track.fail(f"reap() returned it {track.reaped} times")
    return outcome if isinstance(outcome, Outcome) else Outcome.FAILED


def quiescent(engine: Any) -> None:
    """The engine's own books, when all has ended: nothing is left, and every slot is free once."""
    ledger = engine._ledger
    if engine.in_flight:
        raise Failure(
            f"{engine.in_flight} operations are in flight at the end: {list(ledger.flight.values())[:3]}"
        )
    free = ledger._free
    if len(free) != ledger._slots or len(set(free)) != len(free):
        raise Failure(
            f"of {ledger._slots} slots {len(free)} are free, {len(free) - len(set(free))} of them twice"
        )
    if engine._followers:
        raise Failure(f"{len(engine._followers)} threads are still listed as waiting")
    engine.reap()
    if len(engine._deadlines) > _DEADLINES:
        raise Failure(f"{len(engine._deadlines)} deadlines are kept of operations that have ended")
    if engine._lead is not None or engine._lead_thread:
        raise Failure("somebody still leads")


@dataclass
class Resources:
    """What the process has."""

    fds: dict[str, str] = field(default_factory=dict)
    threads: int = 0
    kept: int = 0

    @classmethod
    def now(cls) -> Resources:
        """Look."""
        return cls(dict(open_fds()), threading.active_count(), _lifetime.kept())

    def check(self) -> None:
        """Nothing has grown; the kernel may take a moment to let go of a ring."""
        gc.collect()
        until = time.monotonic() + _FD_SWEEP
        pause = threading.Event()
        for _ in itertools.count():
            limbo.sweep()
            now = Resources.now()
            left = {number: to for number, to in now.fds.items() if self.fds.get(number) != to}
            if not left and now.threads <= self.threads:
                break
            if time.monotonic() > until:
                some = dict(itertools.islice(left.items(), 8))
                raise Failure(
                    f"left behind: {len(left)} fds, {some} ..., {now.threads - self.threads} threads"
                )
            pause.wait(0.002)
        gone = {number: to for number, to in self.fds.items() if number not in now.fds}
        if gone:
            some = dict(itertools.islice(gone.items(), 8))
            raise Failure(f"{len(gone)} fds were closed that are not the engine's: {some} ...")
        if now.kept != self.kept:
            raise Failure(f"{now.kept - self.kept} objects were kept for ever")


def open_fds() -> Iterator[tuple[str, str]]:
    """The open fds and what they are."""
    for name in os.listdir("/proc/self/fd"):
        try:
            yield name, os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the listing's own
            continue


def resident() -> int:
    """Bytes of memory that the process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Stalls:
    """Counts waits that ended by the library's safety net (one second) while nobody led: lost wake-ups."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.seen = 0

    def waiter(self) -> leading.Waiter:
        """What the library makes for a thread that waits, watched."""
        return _Watched(self)


class _Watched(leading.Waiter):
    """One of them."""

    def __init__(self, stalls: Stalls) -> None:
        super().__init__()
        self._stalls = stalls

    def sleep(self, seconds: float) -> bool:
        """See the base class."""
        got = self._lock.acquire(timeout=seconds)
        engine = self._stalls.engine
        if got or seconds < 0.9 or engine._lead is not None or engine.closed:
            return got
        # Between a leader's leaving and its waking a follower nobody leads: give it time.
        got = self._lock.acquire(timeout=0.2)
        if not got and engine._lead is None and not engine.closed:
            self._stalls.seen += 1
        return got
