"""The system behind a `ScriptedEngine`: no kernel, only what the script says.

It is strict where a kernel is strict, or silently harmful: what is submitted twice, cancelled without ever
having been submitted, completed twice or after its memory was let go of raises `ScriptError`.

It stands for a kernel, which no Ctrl-C interrupts halfway: so it calls nothing of `iocancel.operation` in
its system calls, and a sweep of interrupts through that package does not reach it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from iocancel import errors
from iocancel.operation import ANSWER, MORE, NOTIF, VERBS, Operation, Reach, Record
from iocancel.operation.kinds import KINDS
from iocancel.testing.clock import current_clock
from iocancel.testing.faults import Deadlock, ScriptError, alone

MOST_CANCELS = 1024
_WRITABLE = frozenset(["read", "recv", "futex_wait"])
_READABLE = frozenset(["write", "send", "send_zc"])


class Answer(Enum):
    """What the system says to a cancel, and what it does about it."""

    CANCELS = "cancels"
    """Found; the operation ends with -ECANCELED. One that has completed is NOT_FOUND, as in a kernel."""
    FOUND = "found"
    """Found; the operation ends when the script completes it."""
    NOT_FOUND = "not found"
    """-ENOENT. It may run all the same: direct I/O in flight is answered so."""
    TOO_LATE = "too late"
    """-EALREADY: it runs, and ends when the script completes it."""
    HELD = "held"
    """No answer for now: a later `answer()` gives it."""


_RESULTS = {
    Answer.CANCELS: 0,
    Answer.FOUND: 0,
    Answer.NOT_FOUND: -errno.ENOENT,
    Answer.TOO_LATE: -errno.EALREADY,
}


class Memory:
    """What an operation has lent to the system: live exports of its buffers."""

    def __init__(self, buffers: Iterable[Any], *, writable: bool) -> None:
        self.views = [memoryview(each).cast("B") for each in buffers]
        if writable and any(view.readonly for view in self.views):
            raise TypeError("a writable buffer is needed")
        self.writable = writable

    def fill(self, data: bytes) -> None:
        """Write what has come."""
        if not self.writable:
            raise ScriptError("this operation has no memory that the system may write to")
        if len(data) > sum(len(view) for view in self.views):
            raise ScriptError(f"{len(data)} bytes do not fit into the buffers of this operation")
        for view in self.views:
            part, data = data[: len(view)], data[len(view) :]
            view[: len(part)] = part


class Completion(NamedTuple):
    """What the script has for an operation."""

    res: int
    flags: int
    data: bytes


class Step(NamedTuple):
    """How one system call goes."""

    taken: int | None
    act: Callable[[], object] | None
    error: BaseException | None


class _File:
    """An eventfd, closed when it is collected."""

    def __init__(self) -> None:
        self.number = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ring(self) -> None:
        """Make it readable."""
        if self.number >= 0:
            os.eventfd_write(self.number, 1)

    def clear(self) -> None:
        """Make it unreadable."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.number)

    def close(self) -> None:
        """Twice does no harm."""
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)

    def __del__(self) -> None:
        self.close()


class ScriptedBatch:
    """See iocancel.operation.carrier.Batch."""

    def __init__(self, ops: Sequence[Operation[Any]], seen: Mapping[int, Operation[Any]]) -> None:
        self.ops = ops
        self._seen = seen
        if any(op._token in seen for op in ops):
            raise ScriptError("an operation is handed over a second time")

    def taken(self) -> int:
        """How many the system has."""
        for i, op in enumerate(self.ops):
            if op._token not in self._seen:
                return i
        return len(self.ops)


class ScriptedCarrier:
    """A `Carrier` without a system. See `ScriptedEngine`, whose methods are what tests use."""

    name = "scripted"
    keeps_deadlines = False
    alarms = False

    def __init__(
        self,
        *,
        verbs: Iterable[str],
        reaches: Mapping[str, Reach],
        silent: bool,
        patience: float,
        limit: float,
    ) -> None:
        self.verbs = frozenset(verbs)
        unknown = self.verbs - VERBS
        if unknown:
            raise ValueError(f"no such verbs: {', '.join(sorted(unknown))}")
        self.reaches, self.silent, self.limit = dict(reaches), silent, limit
        self._patience = patience
        self.seen: dict[int, Operation[Any]] = {}  # all that was ever taken, in order
        self.flight: dict[int, Operation[Any]] = {}  # what the system has now
        self.cancels: list[Operation[Any]] = []
        self.answers: dict[int, deque[Answer]] = {}
        self.unanswered: dict[int, int] = {}
        self.default = Answer.CANCELS
        self.goes: deque[Step] = deque()
        self.sendings: deque[Step] = deque()
        self.acts: deque[Callable[[], object]] = deque()
        self.holding = 0
        self.waiting = 0
        self.closed = False
        self._memory: dict[int, weakref.ref[Memory]] = {}
        self._kept: list[Memory] = []  # of what was left when it was closed
        self._early: dict[int, list[Completion]] = {}
        self._records: list[Record] = []
        self._chunks: dict[int, deque[bytes]] = {}
        self._idle = 0.0
        self._wake = threading.Lock()
        self._wake.acquire()
        self.changed = threading.Condition()
        self._file: _File | None = None  # for an event loop

    # What the script says

    def complete(self, op: Operation[Any], res: int | bytes, flags: int) -> None:
        """Has an operation complete."""
        if op._token not in self._memory:
            raise ScriptError(f"{op!r} is another engine's")
        data = b"" if isinstance(res, int) else bytes(res)
        completion = Completion(res if isinstance(res, int) else len(data), flags, data)
        if op._token in self.seen:
            self._end(op, completion)
        else:
            self._early.setdefault(op._token, []).append(completion)

    def _end(self, op: Operation[Any], completion: Completion) -> None:
        last = not completion.flags & MORE or completion.flags & NOTIF
        # One step, so that of two threads one is the first.
        if (self.flight.pop(op._token, None) if last else self.flight.get(op._token)) is None:
            raise ScriptError(f"{op!r} has completed before")
        self._emit(op, completion)

    def _emit(self, op: Operation[Any], completion: Completion) -> None:
        token = op._token
        res, flags, data = completion
        memory = self._memory[token]()
        if memory is None:
            raise ScriptError(f"the memory of {op!r} was let go of before its ending")
        if token in self._chunks and res >= 0:
            self._chunks[token].append(data)
        elif data:
            memory.fill(data)
        self._records.append((token, res, flags))
        self.wake()

    def answer(self, op: Operation[Any], answers: Sequence[Answer]) -> None:
        """Has cancels of an operation answered."""
        queue = self.answers.setdefault(op._token, deque())
        for each in answers:
            if each is not Answer.HELD and self.unanswered.get(op._token):
                self.unanswered[op._token] -= 1
                self._reply(op, each, aloud=True)
            else:
                queue.append(each)

    def _reply(self, op: Operation[Any], answer: Answer, *, aloud: bool) -> None:
        if answer is Answer.CANCELS and self.flight.pop(op._token, None) is None:
            answer = Answer.NOT_FOUND
        if answer is Answer.HELD:
            self.unanswered[op._token] = self.unanswered.get(op._token, 0) + 1
            return
        if aloud or not self.silent or _RESULTS[answer]:
            self._records.append((op._token | ANSWER, _RESULTS[answer], 0))
        if answer is Answer.CANCELS:
            self._emit(op, Completion(-errno.ECANCELED, 0, b""))
        self.wake()

    def pinned(self, op: Operation[Any]) -> bool:
        """Whether the memory of an operation is still kept."""
        memory = self._memory.get(op._token)
        return memory is not None and memory() is not None

    # The Carrier

    def fileno(self) -> int:
        """See Carrier."""
        if self._file is None:
            self._file = _File()
            self._file.ring()  # for what is there already
        return self._file.number

    def alarm(self) -> float | None:
        """See Carrier: there is nothing of its own."""
        return None

    def prepare(self, op: Operation[Any], *args: Any) -> None:
        """See Carrier."""
        name = op.name
        shots = op._items is not None
        if (f"{name}_multishot" if shots else name) not in self.verbs:
            raise errors.feature_unavailable(name, "", f"{name}: this scripted engine was made without it")
        if shots and name == "recv":
            self._chunks[op._token] = deque()
        memory = Memory([], writable=True)
        if not shots:
            memory = self._lend(op, args)
        op._pins = memory
        self._memory[op._token] = weakref.ref(memory)

    def _lend(self, op: Operation[Any], args: tuple[Any, ...]) -> Memory:
        name = op.name
        if name in _WRITABLE or name == "readv":
            return Memory(args[0] if name == "readv" else [args[0]], writable=True)
        if name in _READABLE:
            return Memory([args[0]], writable=False)
        if name in ("writev", "sendmsg"):
            return Memory(args[0], writable=False)
        if name == "recvmsg":
            room = bytearray(args[0])
            op._value = lambda _op, res: (bytes(room[:res]), [], 0, None)
            return Memory([room], writable=True)
        return Memory([], writable=True)

    def batch(self, ops: Sequence[Operation[Any]]) -> ScriptedBatch:
        """See Carrier."""
        return ScriptedBatch(ops, self.seen)

    def go(self, batch: Any, wait: bool, timeout: float | None) -> None:
        """See Carrier."""
        if self._file is not None and not wait:
            self._file.clear()  # before the look: what comes behind it rings again
        step = self.goes.popleft() if self.goes else Step(None, None, None)
        for op in () if batch is None else batch.ops[: step.taken]:
            self._take(op)
        if step.act is not None:
            step.act()
        if step.error is not None:
            raise step.error
        if wait and step == (None, None, None) and (self.holding or not self._records):
            self._wait(timeout)

    def _take(self, op: Operation[Any]) -> None:
        if not self.pinned(op) or op._engine._ledger.flight.get(op._token) is not op:
            raise ScriptError(f"{op!r} is handed over, and not in the ledger with its memory")
        self.flight[op._token] = op
        self.seen[op._token] = op
        for completion in self._early.pop(op._token, ()):
            self._end(op, completion)

    def _wait(self, timeout: float | None) -> None:
        if self.acts:
            self.acts.popleft()()
            return
        if self._wake.acquire(blocking=False):
            self._idle = 0.0
            return
        by_myself = alone()
        clock = current_clock()
        if by_myself and timeout is not None and clock is not None:
            clock.advance(timeout)
            return
        if by_myself and timeout is None:
            raise Deadlock(
                f"nothing will come: no completion is scripted, there is no other thread, and "
                f"{list(self.flight.values())} are in flight"
            )
        self._sleep(timeout)

    def _sleep(self, timeout: float | None) -> None:
        room = max(0.0, self.limit - self._idle)
        before = time.monotonic()
        try:
            with self.changed:
                self.waiting += 1
                self.changed.notify_all()
            woken = self._wake.acquire(timeout=room if timeout is None else min(room, timeout))
        finally:
            with self.changed:
                self.waiting -= 1
                self.changed.notify_all()
        self._idle = 0.0 if woken else self._idle + time.monotonic() - before
        if self._idle >= self.limit:
            self._idle = 0.0
            raise Deadlock(f"nothing came for {self.limit} s, with {list(self.flight.values())} in flight")

    def cancel(self, ops: Sequence[Operation[Any]]) -> None:
        """See Carrier."""
        if len(ops) > MOST_CANCELS:
            raise ScriptError(f"{len(ops)} cancels in one go: {MOST_CANCELS} at most")
        step = self.sendings.popleft() if self.sendings else Step(None, None, None)
        for op in ops[: step.taken]:
            if op._token not in self.seen:
                raise ScriptError(f"{op!r} is cancelled, and was never handed over")
            self.cancels.append(op)
            queue = self.answers.get(op._token)
            self._reply(op, queue.popleft() if queue else self.default, aloud=False)
        if step.act is not None:
            step.act()
        if step.error is not None:
            raise step.error

    def records(self) -> list[Record]:
        """See Carrier."""
        return [] if self.holding else list(self._records)

    def forget(self, many: int) -> None:
        """See Carrier. One step: an interrupted one would let a multishot's value come twice."""
        del self._records[:many]

    def stop(self, op: Operation[Any]) -> bool:  # noqa: ARG002
        """See Carrier: only who waits cancels here."""
        return False

    def wake(self) -> None:
        """See Carrier."""
        if self._file is not None:
            self._file.ring()
        try:
            self._wake.release()
        except RuntimeError:  # it was woken before, and has not looked yet
            return

    def failure(self, op: Operation[Any]) -> OSError:
        """See Carrier."""
        number = -op._res
        return OSError(number, f"{os.strerror(number)}: {op.name}")

    def supports(self, name: str) -> bool:
        """See Carrier."""
        return name in self.verbs

    def reach(self, name: str) -> Reach:
        """See Carrier."""
        return self.reaches.get(name, Reach.TOTAL)

    def patience(self, op: Operation[Any]) -> float:  # noqa: ARG002
        """See Carrier."""
        return self._patience

    def own(self, token: int, res: int) -> None:
        """See Carrier; this one has nothing of its own."""
        raise ScriptError(f"a record that is nobody's: {token:#x}, {res}")

    def multishot(self, engine: Any, verb: str, args: tuple[Any, ...]) -> Any:  # noqa: ARG002
        """See Repeating."""
        return Shots(engine, verb, self._chunks)

    def close(self, timeout: float | None, left: Sequence[Operation[Any]]) -> bool:  # noqa: ARG002
        """See Carrier: safe where the system has nothing any more."""
        self.closed = True
        if self._file is not None:
            self._file.close()
        self._kept += [op._pins for op in left]
        return not self.flight

    def forked(self) -> None:
        """See Carrier."""
        self.closed = True
        if self._file is not None:
            self._file.close()
        self.flight.clear()


class Shots:
    """A verb's multishot form: what the script completes with `more=True` are its values."""

    def __init__(self, engine: Any, verb: str, chunks: dict[int, deque[bytes]]) -> None:
        self._engine, self._verb, self._chunks = engine, verb, chunks
        self._token = -1

    def start(self, fd: Any) -> Operation[Any]:
        """Prepare it."""
        op: Operation[Any] = self._engine._on(KINDS[self._verb], fd)
        op._items = {}
        op._special = True
        self._engine._start(op, self)
        self._token = op._token
        return op

    def value(self, res: int, flags: int) -> Any:  # noqa: ARG002
        """What one completion has brought: bytes, or the number that the script gave."""
        return self._chunks[self._token].popleft() if self._verb == "recv" else res

    def give_back(self, flags: int) -> None:
        """There are no buffers to give back."""

    def done(self) -> None:
        """It has ended, and everything was taken."""
        self._chunks.pop(self._token, None)
