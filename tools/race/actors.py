"""Pipes, files, timers, polls, FIFOs: what can be done with each, and how to account for what it did."""

# ruff: noqa: ARG002 - each kind of file is handed what some kind needs

from __future__ import annotations

import abc
import contextlib
import errno
import itertools
import os
import select
import tempfile
import threading
import time
from array import array
from typing import TYPE_CHECKING, Any, ClassVar

from iocancel import Outcome
from tools.race.check import Failure, Track

if TYPE_CHECKING:
    from tools.race.rounds import Hand

_NONE: frozenset[int] = frozenset()


class Words:
    """What went in and what came out, in words of 8 bytes: the number of the write, and the place in it."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._in: list[tuple[int, int]] = []
        self._out: list[array[int]] = []
        self.offered = 0

    def payload(self, words: int) -> tuple[int, bytes]:
        """The next write: its number and its bytes. At most 255 words."""
        number = next(self._numbers)
        self.offered += words
        return number, array("Q", range(number << 8, (number << 8) + words)).tobytes()

    def written(self, number: int, nbytes: int) -> None:
        """So many bytes of a write went in."""
        if nbytes % 8:
            raise Failure(f"write {number} was cut at {nbytes} bytes: the plan does not allow for that")
        self._in.append((number << 8, nbytes // 8))

    def received(
        self, data: bytes, track: Track | None = None, *, whole: bool = False, loose: bool = False
    ) -> None:
        """This came out, in one piece.

        Args:
            data: the bytes.
            track: the operation that brought them.
            whole: it must be one write, all of it (a datagram).
            loose: it may have come in pieces, with others served between them (MSG_WAITALL).
        """
        text = ""
        words = array("Q")
        if len(data) % 8:
            text = f"{len(data)} bytes came, which is no whole number of words"
        else:
            words.frombytes(data)
            before = words[0] - 1 if words else 0
            for word in words:
                if word != before + 1 and word & 255 and not loose:
                    text = f"word {word:#x} came behind {before:#x}: out of order, or not what was written"
                    break
                before = word
            if whole and words and (words[0] & 255 or words[-1] != words[0] + len(words) - 1):
                text = f"it is no whole message: {list(map(hex, words[:20]))}"
        if text:
            if track is not None:
                track.fail(text)
            raise Failure(f"{text} (taken without an operation)")
        self._out.append(words)

    def check(self, what: object, ordered: bool, lost: int = 0) -> None:
        """All that went in came out, once; in order, where there was one reader and one writer.

        Args:
            what: for the report.
            ordered: whether there was.
            lost: how many words may be missing.
        """
        went = [word for first, many in self._in for word in range(first, first + many)]
        came = [word for words in self._out for word in words]
        if ordered and came != went and sorted(came) == sorted(went):
            at = next(i for i, (a, b) in enumerate(zip(came, went, strict=True)) if a != b)
            raise Failure(f"{what}: out of order at word {at}: {came[at]:#x} came, {went[at]:#x} was due")
        if len(came) == len(went) and (came == went or sorted(came) == sorted(went)):
            return
        twice = sorted({word for word in came if came.count(word) > 1}) if len(came) != len(set(came)) else []
        missing = sorted(set(went) - set(came))
        if len(missing) <= lost and not twice and not set(came) - set(went):
            return
        raise Failure(
            f"{what}: {len(went)} words went in, {len(came)} came out; missing {list(map(hex, missing[:5]))} "
            f"({len(missing)}), twice {list(map(hex, twice[:5]))} ({len(twice)}), never written "
            f"{list(map(hex, sorted(set(came) - set(went))[:5]))}"
        )


class Actor(abc.ABC):
    """One file (or pair of files), and the operations on it."""

    needs: ClassVar[tuple[str, ...]] = ()
    """The verbs that an engine must support."""
    refusals: frozenset[int] = _NONE
    """Errors that its state explains."""
    ordered = False
    _numbers = itertools.count()

    def __init__(self, hand: Hand) -> None:
        self.lock = threading.RLock()  # between making operations on it and closing it
        self.closed = False
        self.asked_upto = -1  # operations with numbers up to this were cancelled through their file
        self.number = hand.game.next_actor()
        self.tracks: list[Track] = []

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.number}"

    @abc.abstractmethod
    def arm(self, hand: Hand) -> None:
        """Make an operation."""

    def before(self, hand: Hand, track: Track) -> bool:
        """Whether an operation has ended, and what it brought is known: the next one comes behind it."""
        if track.op.done():
            hand.settle(track)  # which another thread may be at just now
        return track.told

    def act(self, hand: Hand) -> None:
        """Do something on the other side, without the engine."""

    def target(self, hand: Hand) -> Any:
        """A file to cancel on, or to close; None where there is none to be closed."""
        return None

    def ended(self, track: Track, outcome: Outcome, data: bytes) -> None:
        """An operation has ended; `data` is what its buffer holds."""

    def release(self) -> None:
        """Do what ends all its operations without a cancel."""

    def verify(self) -> None:
        """All its operations have ended: account for everything."""

    def close(self) -> None:
        """Close its files."""


class Pipe(Actor):
    """A pipe with readers and writers."""

    needs = ("read", "write")
    CAPACITY: ClassVar[int] = 4096

    def __init__(self, hand: Hand) -> None:
        super().__init__(hand)
        self.words = Words()
        self.reader, self.writer = os.pipe()
        # The other side's own: another open file, so that it does not block and outlives close_fd.
        self.take = os.open(f"/proc/self/fd/{self.reader}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.give = os.open(f"/proc/self/fd/{self.writer}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.open = {self.reader, self.writer}
        self.style = hand.rng.choice(["both", "reads", "writes", "ordered"])
        self.ordered = self.style == "ordered"
        self.current: Track | None = None

    def arm(self, hand: Hand) -> None:
        """See the base class."""
        engine, rng, style = hand.engine, hand.rng, self.style
        vector = rng.random() < 0.1
        words = rng.choice((1, 1, 2, 4, 8, 32, 128))
        write = style == "writes" or (style == "both" and rng.random() < 0.5)
        own = rng.random() < 0.15
        timeout = hand.timeout()
        if write:
            number, data = self.words.payload(words)
            track = hand.track(self, "write", number)
            view = hand.arena.holding(track, data)
            if vector and engine.supports("writev"):
                track.verb = "writev"
                half = len(view) // 2
                op = engine.writev(self.writer, [view[:half], view[half:]], timeout=timeout)
            else:
                op = engine.write(self.writer, view, timeout=timeout)
            hand.start(track, op, timeout)
            return
        if self.ordered and self.current is not None and not self.before(hand, self.current):
            return
        track = hand.track(self, "read", None)
        if own:
            op = engine.read(self.reader, words * 8, timeout=timeout)
        elif vector and engine.supports("readv"):
            track.verb = "readv"
            view = hand.arena.take(track, words * 8)
            half = len(view) // 2
            op = engine.readv(self.reader, [view[:half], view[half:]], timeout=timeout)
        else:
            op = engine.read(self.reader, hand.arena.take(track, words * 8), timeout=timeout)
        if self.ordered:
            self.current = track
        hand.start(track, op, timeout)

    def act(self, hand: Hand) -> None:
        """See the base class."""
        rng = hand.rng
        words = rng.choice((1, 2, 8, 64))
        if self.style in ("reads", "ordered") or (self.style == "both" and rng.random() < 0.5):
            number, data = self.words.payload(words)
            with contextlib.suppress(BlockingIOError):
                self.words.written(number, os.write(self.give, data))
        else:
            with contextlib.suppress(BlockingIOError):
                self.words.received(os.read(self.take, words * 8))

    def target(self, hand: Hand) -> Any:
        """See the base class."""
        return hand.rng.choice((self.reader, self.writer))

    def ended(self, track: Track, outcome: Outcome, data: bytes) -> None:
        """See the base class."""
        if outcome is Outcome.COMPLETED:
            if track.verb.startswith("write"):
                self.words.written(track.extra, track.op.result())
            else:
                self.words.received(data, track)

    def release(self) -> None:
        """See the base class."""
        # Ends of file for the readers; for the writers room, until no more comes.
        for end in (self.give, self.writer):
            self._close(end)
        until = time.monotonic() + 10
        while any(track.verb.startswith("write") and not track.op.done() for track in self.tracks):
            with contextlib.suppress(BlockingIOError):
                self.words.received(os.read(self.take, 4096))
            self.tracks[0].op.engine.reap(0.001)
            if time.monotonic() > until:
                return

    def verify(self) -> None:
        """See the base class."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.take, 65536):
                self.words.received(data)
        self.words.check(self, self.ordered)

    def _close(self, end: int) -> None:
        if end in self.open or end in (self.give, self.take):
            self.open.discard(end)
            if end == self.give:
                self.give = -1
            os.close(end)

    def close(self) -> None:
        """See the base class."""
        for end in (*self.open, self.take, self.give):
            if end >= 0:
                os.close(end)


class Splice(Actor):
    """Two pipes and what moves from the first to the second. io_uring gives these to its workers."""

    needs = ("splice",)
    refusals = frozenset([-errno.EINTR])  # see `judge`: asked or not, a worker's end is told like this

    def __init__(self, hand: Hand) -> None:
        super().__init__(hand)
        self.words = Words()
        self.ends = (*os.pipe(), *os.pipe())
        for end in (self.ends[1], self.ends[2]):
            os.set_blocking(end, False)
        self.many = 0

    def arm(self, hand: Hand) -> None:
        """See the base class."""
        if self.many >= 4:  # each takes a worker
            return
        self.many += 1
        timeout = hand.timeout()
        track = hand.track(self, "splice", None)
        words = hand.rng.choice((1, 8, 64))
        op = hand.engine.splice(self.ends[0], self.ends[3], words * 8, timeout=timeout)
        hand.start(track, op, timeout)

    def act(self, hand: Hand) -> None:
        """See the base class."""
        number, data = self.words.payload(hand.rng.choice((1, 8, 64)))
        with contextlib.suppress(BlockingIOError):
            self.words.written(number, os.write(self.ends[1], data))
        with contextlib.suppress(BlockingIOError):
            self.words.received(os.read(self.ends[2], 64))

    def verify(self) -> None:
        """See the base class."""
        os.set_blocking(self.ends[0], False)
        for end in (self.ends[2], self.ends[0]):
            with contextlib.suppress(BlockingIOError):
                while data := os.read(end, 65536):
                    self.words.received(data)
        self.words.check(self, ordered=False)

    def close(self) -> None:
        """See the base class."""
        for end in self.ends:
            os.close(end)


class File(Actor):
    """A regular file: a part that is read, known by position, and slots that are written once."""

    needs = ("read", "write")
    READ_WORDS: ClassVar[int] = 4096
    SLOT: ClassVar[int] = 2048

    def __init__(self, hand: Hand) -> None:
        super().__init__(hand)
        self.file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by `close`
        self.check = self.file.fileno()
        self.fd = os.dup(self.check)
        self.content = array("Q", range(1 << 32, (1 << 32) + self.READ_WORDS)).tobytes()
        os.pwrite(self.check, self.content, 0)
        self.slots = itertools.count()
        self.was: list[tuple[int, bytes, int]] = []

    def arm(self, hand: Hand) -> None:
        """See the base class."""
        engine, rng = hand.engine, hand.rng
        what = rng.random()
        size = rng.choice((1, 7, 8, 100, 512, 2048))
        timeout = hand.timeout()
        if what < 0.6:
            where = rng.randrange(len(self.content) - 1)
            track = hand.track(self, "read", where)
            view = hand.arena.take(track, size)
            hand.start(track, engine.read(self.fd, view, where, timeout=timeout), timeout)
        elif what < 0.95 or not engine.supports("fsync"):
            slot = next(self.slots)
            data = rng.randbytes(size)
            track = hand.track(self, "write", (slot, data))
            view = hand.arena.holding(track, data)
            where = len(self.content) + slot * self.SLOT
            hand.start(track, engine.write(self.fd, view, where, timeout=timeout), timeout)
        else:
            track = hand.track(self, "fsync", None)
            hand.start(track, engine.fsync(self.fd, datasync=True, timeout=timeout), timeout)

    def target(self, hand: Hand) -> Any:
        """See the base class."""
        return self.fd

    def ended(self, track: Track, outcome: Outcome, data: bytes) -> None:
        """See the base class."""
        done = outcome is Outcome.COMPLETED
        if track.verb == "write":
            slot, data = track.extra
            self.was.append((slot, data, track.op.result() if done else 0))
        elif track.verb == "read" and done:
            where = track.extra
            due = self.content[where : where + track.size]
            rest = data[len(due) :]  # of the slots behind: some write's, or zeros
            if data[: len(due)] != due[: len(data)] or (rest and len(data) < len(due)):
                track.fail(f"read at {where}: not what the file has there")

    def verify(self) -> None:
        """See the base class."""
        for slot, data, many in self.was:
            has = os.pread(self.check, self.SLOT, len(self.content) + slot * self.SLOT)
            if has[:many] != data[:many] or any(has[many:]):
                raise Failure(
                    f"{self}: slot {slot} has not the {many} bytes that were written to it, and zeros"
                )
        if os.pread(self.check, len(self.content), 0) != self.content:
            raise Failure(f"{self}: the part that is only read was changed")

    def close(self) -> None:
        """See the base class."""
        self.file.close()
        if not self.closed:
            os.close(self.fd)


class Timer(Actor):
    """Timeouts."""

    needs = ("timeout",)

    def arm(self, hand: Hand) -> None:
        """See the base class."""
        seconds = hand.rng.choice((0, 0.0001, 0.0005, 0.002, 60.0, 60.0))
        track = hand.track(self, "timeout", seconds)
        hand.start(track, hand.engine.timeout(seconds), None)

    def ended(self, track: Track, outcome: Outcome, data: bytes) -> None:
        """See the base class."""
        if outcome is Outcome.COMPLETED and time.monotonic() < track.made + track.extra - 1e-6:
            track.fail(f"a timeout of {track.extra} s was over too early")


class Poll(Actor):
    """Polls of an eventfd."""

    needs = ("poll",)

    def __init__(self, hand: Hand) -> None:
        super().__init__(hand)
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.set = 0

    def arm(self, hand: Hand) -> None:
        """See the base class."""
        timeout = hand.timeout()
        track = hand.track(self, "poll", None)
        hand.start(track, hand.engine.poll(self.fd, select.POLLIN, timeout=timeout), timeout)

    def act(self, hand: Hand) -> None:
        """See the base class."""
        if self.closed:
            return
        if hand.rng.random() < 0.5:
            self.set += 1
            os.eventfd_write(self.fd, 1)
        else:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.fd)

    def target(self, hand: Hand) -> Any:
        """See the base class."""
        return self.fd

    def ended(self, track: Track, outcome: Outcome, data: bytes) -> None:
        """See the base class."""
        if outcome is Outcome.COMPLETED:
            mask = track.op.result()
            if not mask & select.POLLIN or mask & ~(select.POLLIN | 0x40):
                track.fail(f"a poll for POLLIN ended with {mask:#x}")
            if not self.set:
                track.fail("a poll found an eventfd readable that nobody has written to")

    def release(self) -> None:
        """See the base class."""
        if not self.closed:
            self.set += 1
            os.eventfd_write(self.fd, 1)

    def close(self) -> None:
        """See the base class."""
        if not self.closed:
            os.close(self.fd)


class Fifo(Actor):
    """Opens of a FIFO, which wait in a worker for the other end."""

    needs = ("openat",)

    def __init__(self, hand: Hand) -> None:
        super().__init__(hand)
        self.folder = tempfile.TemporaryDirectory()
        self.path = f"{self.folder.name}/fifo"
        os.mkfifo(self.path)
        self.many = 0

    def arm(self, hand: Hand) -> None:
        """See the base class."""
        if self.many >= 3:  # each takes a worker
            return
        self.many += 1
        timeout = hand.timeout()
        track = hand.track(self, "openat", None)
        hand.start(track, hand.engine.openat(self.path, os.O_RDONLY, timeout=timeout), timeout)

    def act(self, hand: Hand) -> None:
        """See the base class."""
        if hand.rng.random() < 0.3:
            with contextlib.suppress(OSError):  # ENXIO: nobody opens it for reading now
                os.close(os.open(self.path, os.O_WRONLY | os.O_NONBLOCK))

    def ended(self, track: Track, outcome: Outcome, data: bytes) -> None:
        """See the base class."""
        if outcome is Outcome.COMPLETED:
            fd = track.op.result()
            if not os.path.samestat(os.fstat(fd), os.stat(self.path)):
                track.fail(f"fd {fd} is not the FIFO's")
            os.close(fd)

    def close(self) -> None:
        """See the base class."""
        self.folder.cleanup()
