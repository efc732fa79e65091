"""From place to place, and to the kernel and back: how operations move on.

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

- A read from an empty pipe would block inside io_submit: only disks' files and endpoints are given to it.
- io_submit refuses the poll of a FIFO that is open for both and of a pseudoterminal's master, but takes that
  of an epoll set with such a file in it.
- A poll stays at its file when the number is closed, and may be used for another file by the time it fires.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from iocancel._native import lib
from iocancel.engines.libaio.contexts import Contexts
from iocancel.engines.libaio.jobs import DISK, POLL, Job
from iocancel.libaio import Event, PollEvents
from iocancel.operation import Operation

SOON = 0.001
"""Seconds until something is tried again that nothing announces."""
LATEST = 0.05
"""And the longest that this becomes."""
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


class Moving:
    """Which jobs there are, and where each of them is.

    Args:
        contexts: what the kernel has of them.
    """

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts
        self._jobs: dict[int, Job] = {}
        self._fresh: deque[LibaioBatch] = deque()
        self._try: dict[int, Job] = {}
        self._want: dict[int, Job] = {}
        self._alarms: list[tuple[float, int]] = []
        self._records: list[tuple[int, int, int]] = []

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
            self._alarm(job, min(SOON * (1 << job.pauses), LATEST))
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
