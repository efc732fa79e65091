"""Operations to Linux AIO and back.

An operation that was handed over is a job in `_jobs`, and in one place more:

1. `_fresh`: its batch was handed over, and not looked at yet;
2. `_try`: its call, which never waits, is to be made (csrc/attempt.c);
3. `_want`: the call could do nothing yet: a poll is to be submitted. Or it is for a disk's file or an
   endpoint: the very request is to be submitted. Here it waits where no context has room;
4. the kernel has its iocb (`Iocb.in_flight`). A poll's event leads back to 2;
5. `_alarms`: it waits for a time (a timeout; a connect that nothing tells when to try again).

Interruptions: a signal handler's exception may come between any two opcodes. A call keeps its result in C
(`done`), events stay in the context's ledger and records in `_records` until they were dealt with, and
each step can be run again.

Facts that this rests on (docs/kernel-facts.md has more):

- io_cancel answers -EINPROGRESS for "accepted" and -EINVAL for everything else. A cancelled poll's event has
  res 0, one that fired its mask (200,000 races: no mixed pair), and may come a moment after the answer.
  A cancelled endpoint's has -ECONNRESET.
- A read from an empty pipe would block inside io_submit: only disks' files and endpoints are given to it.
- io_submit refuses the poll of a FIFO that is open for both and of a pseudoterminal's master, but takes that
  of an epoll set with such a file in it.
- The kernel looks for what to cancel from the oldest request on.
- A poll stays at its file when the number is closed, and may be used for another file by the time it fires.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import os
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from iocancel import errors
from iocancel._native import ffi, lib
from iocancel.engines.libaio.contexts import Contexts
from iocancel.engines.libaio.jobs import DISK, POLL, REACH, TABLE, Job, lacking
from iocancel.libaio import Event, Iocb, PollEvents
from iocancel.libaio.flags import whole
from iocancel.operation import ANSWER, FdOperation, Operation, Reach

_PATIENCE = 5.0  # seconds for a disk to end what can't be cancelled, once its deadline has passed
_SOON = 0.001  # seconds until something is tried again that nothing announces
_LATEST = 0.05  # and the longest that this becomes
_LOST = 16  # so often others may be faster before there is such a pause
_LEAST = 64
_UNASKED = int(PollEvents.ERR | PollEvents.HUP)
_MANY = 1024  # iocbs that one call submits


class LibaioBatch:
    """Operations on their way in: all of them are taken, at once."""

    __slots__ = ("_fresh", "given", "jobs", "ops")

    def __init__(self, ops: Sequence[Operation[Any]], fresh: deque[LibaioBatch]) -> None:
        self.ops = ops
        self.jobs: dict[int, Job] = {op._token: op._entry for op in ops}
        self.given = False
        self._fresh = fresh

    def taken(self) -> int:
        """See Batch."""
        return len(self.ops) if self.given or self in self._fresh else 0


class LibaioCarrier:
    """See iocancel.operation.carrier."""

    name = "libaio"
    keeps_deadlines = False
    alarms = True
    oldest_first = True  # bulk cancels are linear only this way

    def __init__(self, nr_events: int, pooled: bool = False) -> None:
        nr = whole(nr_events, "nr_events", 1, 1 << 24)
        wake = lib.ioc_wake_new(pooled)
        if wake == ffi.NULL:
            errors.check(-ffi.errno, "eventfd")
        self._wake = ffi.gc(wake, lib.ioc_wake_free)
        self._contexts = Contexts(nr, self._wake.fd)
        self._bell: Iocb | None = None  # the poll of the wake-up
        self._pooled = pooled
        self._watched = False  # by an event loop, which polls the wake-up itself
        self._deaf = False  # and something may be in flight from before, which does not ring
        self._look_at: float | None = None  # when to look, for what nothing announces; where it is watched
        self._jobs: dict[int, Job] = {}
        self._fresh: deque[LibaioBatch] = deque()
        self._try: dict[int, Job] = {}
        self._want: dict[int, Job] = {}
        self._alarms: list[tuple[float, int]] = []
        self._records: list[tuple[int, int, int]] = []

    def attach(self, engine: Any) -> None:
        """The engine that this belongs to: at the interpreter's end it goes first."""
        self._contexts.attach(engine)

    def fileno(self) -> int:
        """See Carrier: the wake-up, which every event rings then."""
        if self._pooled:
            raise RuntimeError("a pooled engine is for a thread that waits: an event loop opens its own")
        if not self._watched:
            self._watched = self._contexts.rings = self._deaf = True
            self.wake()  # events may be there, which did not ring
        return int(self._wake.fd)

    def alarm(self) -> float | None:
        """See Carrier."""
        soonest = self._look_at
        for when, _ in self._alarms[:1]:
            if soonest is None or when < soonest:
                soonest = when
        return soonest

    # In

    def prepare(self, op: Operation[Any], *args: Any) -> None:
        """See Carrier."""
        name = op._kind.name
        op._entry = TABLE.get(name, lacking(name))(op, *args)

    def batch(self, ops: Sequence[Operation[Any]]) -> LibaioBatch:
        """See Carrier."""
        return LibaioBatch(ops, self._fresh)

    def go(self, batch: Any, wait: bool, timeout: float | None) -> None:
        """See Carrier."""
        if batch is not None:
            self._fresh.append(batch)
        if self._watched and not wait:
            lib.ioc_wake_clear(self._wake)  # before the look: what comes behind that rings again
        self._advance()
        wait = wait and not self._records and not self._rung()
        if wait:
            if self._bell is None:
                self._arm()
            timeout = self._next_alarm(timeout)
        self._contexts.reap(wait, timeout)
        if self._rung():
            lib.ioc_wake_clear(self._wake)
            if self._watched or len(self._contexts.all) > 1:  # an event may have rung before that, and come
                self._contexts.reap(False, 0)  # behind the look
            self._bell = None
        self._advance()
        if self._watched:
            self._set_look()

    def _rung(self) -> bool:
        """Whether the bell has fired."""
        return self._bell is not None and not self._bell.in_flight

    def _set_look(self) -> None:
        """When to look for what does not ring."""
        if self._deaf:
            given = [job.iocb for job in self._jobs.values() if job.iocb is not None]
            self._deaf = any(iocb.in_flight and iocb._eventfd is None for iocb in given)
        if self._want and self._contexts.starved():
            self._look_at = time.monotonic() + _SOON * 10
        else:
            self._look_at = time.monotonic() + _LATEST if self._deaf else None

    def _advance(self) -> None:
        """All that can be done without waiting."""
        self._contexts.settle()
        self._begin()
        self._take_events()
        if self._alarms:
            self._ring()
        if self._try:
            self._attempt()
        if self._want:
            self._submit()

    def _begin(self) -> None:
        fresh = self._fresh
        while fresh:
            batch = fresh[0]
            batch.given = True
            self._jobs.update(batch.jobs)
            self._try.update(batch.jobs)
            fresh.popleft()

    def _attempt(self) -> None:
        """Make the calls."""
        jobs = list(self._try.values())
        calls = [job.c for job in jobs if job.c is not None]
        if len(calls) > 1:
            lib.ioc_attempt_many(calls, len(calls))
        for job in jobs:
            if job.c is not None:
                # One that has not been done is tried twice here, which does no harm.
                self._tried(job, job.c.res if job.c.done or len(calls) > 1 else lib.ioc_attempt(job.c))
            elif job.seconds >= 0:
                self._alarm(job, job.seconds)
            else:
                self._to_disk(job)

    def _tried(self, job: Job, res: int) -> None:
        """What a call has said."""
        if res == DISK:
            self._to_disk(job)
        elif res != -errno.EAGAIN or job.c.done:
            self._end(job, res)
        elif job.accepted:  # cancelled, and yet the poll had fired
            self._end(job, lib.ioc_attempt_stop(job.c))
        elif job.c.wait_fd < 0 or job.lost >= _LOST:
            # The pause grows: a file may be "ready" for ever for a call that does not go (a datagram to who
            # has no room). From now on there is one before each further poll.
            self._alarm(job, min(_SOON * (1 << job.pauses), _LATEST))
            job.pauses = min(job.pauses + 1, 10)
            job.lost = min(job.lost, _LOST - 1)
        else:
            try:
                job.iocb = job.poll() if job.epoll is None else job.poll_by_epoll()
            except OSError as error:  # no fd is left for another epoll set
                self._end(job, -(error.errno or errno.EMFILE))
                return
            self._want[job.token] = job
            self._try.pop(job.token, None)

    def _to_disk(self, job: Job) -> None:
        assert job.make is not None
        job.disk = True
        try:
            job.iocb = job.make(job)
        except (ValueError, BufferError, TypeError):  # the memory was taken back: its owner has been closed
            self._end(job, -errno.EFAULT)
            return
        self._want[job.token] = job
        self._try.pop(job.token, None)

    def _submit(self) -> None:
        """Give iocbs to the kernel, as far as there is room."""
        contexts, want = self._contexts, self._want
        while want:
            if contexts.first.leaving is not None:  # the interpreter ends
                for job in list(want.values()):
                    self._end(job, -errno.ECANCELED)
                return
            found = contexts.room()
            if found is None:
                return
            kernel, free = found
            jobs = list(itertools.islice(want.values(), min(free, _MANY)))
            for job in jobs:
                if job.iocb.in_flight:  # this was interrupted just before it was noted
                    want.pop(job.token, None)
                else:
                    job.kernel = kernel
            jobs = [job for job in jobs if not job.iocb.in_flight]
            if not jobs:
                continue
            res = contexts.push(kernel, [job.iocb for job in jobs])
            for job in jobs[: max(0, res)]:
                want.pop(job.token, None)
            if res == -errno.EAGAIN:
                kernel.full = True
            elif res < 0:
                self._refused(jobs[0], res)

    def _refused(self, job: Job, res: int) -> None:
        """The kernel does not take this one."""
        if res == -errno.EINVAL and not job.disk and job.epoll is None:
            try:
                job.iocb = job.poll_by_epoll()
            except OSError as error:
                res = -(error.errno or errno.EINVAL)
            else:
                return
        self._end(job, res)

    # Time

    def _alarm(self, job: Job, seconds: float) -> None:
        job.iocb = None
        heapq.heappush(self._alarms, (time.monotonic() + seconds, job.token))
        self._try.pop(job.token, None)
        if len(self._alarms) > 2 * len(self._jobs) + _LEAST:  # most of them are of operations that have ended
            alive = [each for each in self._alarms if each[1] in self._jobs]
            heapq.heapify(alive)
            self._alarms = alive

    def _ring(self) -> None:
        """Deal with those whose time has come."""
        alarms = self._alarms
        now = time.monotonic()
        while alarms and (alarms[0][0] <= now or alarms[0][1] not in self._jobs):
            job = self._jobs.get(alarms[0][1])
            if job is not None and job.c is None:
                self._end(job, -errno.ETIME)
            elif job is not None:
                self._try[job.token] = job
            heapq.heappop(alarms)

    def _next_alarm(self, timeout: float | None) -> float | None:
        """For how long to wait."""
        soonest = timeout
        if self._alarms:
            left = max(0.0, self._alarms[0][0] - time.monotonic())
            soonest = left if soonest is None else min(left, soonest)
        if self._want and self._contexts.starved():
            soonest = _SOON * 10 if soonest is None else min(_SOON * 10, soonest)
        return soonest

    # Out

    def _take_events(self) -> None:
        for kernel in self._contexts.all:
            ready = kernel.ledger.ready
            events = ready.copy()
            for event in events:
                self._one(event)
            del ready[: len(events)]

    def _one(self, event: Event) -> None:
        """What the kernel says of one iocb. Run again for the same event it changes nothing."""
        job = event.data
        if job is None:  # the bell: see go
            return
        if job.token not in self._jobs or event.iocb is not job.iocb:
            return  # dealt with
        res = event.res
        if job.disk:
            # An endpoint's; on a disk nothing is reset by a cancel.
            self._end(job, -errno.ECANCELED if res == -errno.ECONNRESET and job.asked else res)
        elif res == 0:
            self._end(job, lib.ioc_attempt_stop(job.c))
        elif res < 0:
            self._end(job, res)
        elif job.c.kind == POLL and job.epoll is None:
            # The event may have bits that nobody asked for, as the file's wake-up had them (POLLRDNORM).
            self._end(job, res & (job.c.flags | _UNASKED))
        else:
            job.lost += 1
            self._tried(job, lib.ioc_attempt(job.c))

    def _end(self, job: Job, res: int) -> None:
        if res < 0 and job.c is not None and job.c.got:
            res = int(job.c.got)  # an error behind a part of a MSG_WAITALL: the part is told, as by recv(2)
        self._records.append((job.token, res, 0))
        self._jobs.pop(job.token, None)
        self._try.pop(job.token, None)
        self._want.pop(job.token, None)
        job.over()

    def records(self) -> list[tuple[int, int, int]]:
        """See Carrier."""
        return self._records

    def forget(self, many: int) -> None:
        """See Carrier."""
        del self._records[:many]

    # Cancelling

    def cancel(self, ops: Sequence[Operation[Any]]) -> None:
        """See Carrier."""
        contexts = self._contexts
        self._begin()
        contexts.settle()
        held: dict[Any, list[Job]] = {}
        for op in ops:
            job: Job = op._entry
            if job.token not in self._jobs:
                self._records.append((job.token | ANSWER, -errno.ENOENT, 0))  # its ending is on its way
            elif job.accepted:
                continue  # once is enough: a second one would not be found
            elif job.iocb is not None and job.iocb.in_flight:
                held.setdefault(job.kernel, []).append(job)
            elif job.iocb is not None and job.token not in self._want and job.token not in self._try:
                # Its event is there, and was not dealt with.
                self._records.append((job.token | ANSWER, -errno.ENOENT, 0))
            else:
                self._end(job, -errno.ECANCELED if job.c is None else lib.ioc_attempt_stop(job.c))
        for kernel, jobs in held.items():
            for job in jobs:
                job.asked = True  # before the kernel is: an interruption may come behind that
            answers = contexts.cancel(kernel, [job.iocb for job in jobs])
            for job, answer in zip(jobs, answers, strict=True):
                if answer == -errno.EINPROGRESS:
                    job.accepted = True
                else:
                    self._records.append((job.token | ANSWER, -errno.ENOENT, 0))
        contexts.reap(False, 0)
        self._take_events()

    def stop(self, op: Operation[Any]) -> bool:  # noqa: ARG002
        """See Carrier: only who waits cancels here."""
        return False

    def wake(self) -> None:
        """See Carrier."""
        lib.ioc_wake_set(self._wake)

    @property
    def bell(self) -> Any:
        """The wake-up: see iocancel.engines.bell."""
        return self._wake

    def _arm(self) -> None:
        """Have the first context poll the wake-up."""
        bell = Iocb.poll(self._wake.fd, PollEvents.IN)
        self._bell = bell
        errors.check(self._contexts.push(self._contexts.first, [bell]), "io_submit")

    # About

    def failure(self, op: Operation[Any]) -> OSError:
        """See Carrier."""
        try:
            errors.check(op._res, f"libaio {op._kind.call}")
        except OSError as error:
            return error
        raise AssertionError(op._res)

    def supports(self, name: str) -> bool:
        """See Carrier."""
        return name in TABLE

    def reach(self, name: str) -> Reach:
        """See Carrier."""
        return REACH.get(name, Reach.TOTAL)

    def patience(self, op: Operation[Any]) -> float:  # noqa: ARG002
        """See Carrier."""
        return _PATIENCE

    def own(self, token: int, res: int) -> None:
        """See Carrier: there are none."""

    # The end

    def close(self, timeout: float | None, left: Sequence[Operation[Any]] = ()) -> bool:
        """See Carrier."""
        try:
            safe = self._contexts.close(timeout)
            self._give_back(left)
        finally:
            lib.ioc_wake_close(self._wake)
        return safe

    def _give_back(self, left: Sequence[Operation[Any]]) -> None:
        """What came for operations that nobody will hear of: their fds are closed, also an epoll set's."""
        by_token = {op._token: op for op in left}
        for token, res, _ in self._records:
            op = by_token.get(token)
            if op is None or res < 0:
                continue
            if op._dispose is not None:
                op._dispose(op, res)
            elif isinstance(op, FdOperation):
                os.close(res)
        for job in list(self._jobs.values()):
            job.over()

    def forked(self) -> None:
        """See Carrier. The contexts hear of the fork by themselves."""
        lib.ioc_wake_close(self._wake)
