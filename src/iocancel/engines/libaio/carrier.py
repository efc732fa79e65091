"""Operations to Linux AIO and back: what an engine asks for. How they move meanwhile is in moving.py.

Facts that this rests on (docs/kernel-facts.md has more):

- io_cancel answers -EINPROGRESS for "accepted" and -EINVAL for everything else. A cancelled poll's event has
  res 0, one that fired its mask (200,000 races: no mixed pair), and may come a moment after the answer.
  A cancelled endpoint's has -ECONNRESET.
- The kernel looks for what to cancel from the oldest request on.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence
from typing import Any

from iocancel import errors
from iocancel._native import ffi, lib
from iocancel.engines.libaio.contexts import Contexts
from iocancel.engines.libaio.jobs import REACH, TABLE, Job, lacking
from iocancel.engines.libaio.moving import LATEST, SOON, LibaioBatch, Moving
from iocancel.libaio import Iocb, PollEvents
from iocancel.libaio.flags import whole
from iocancel.operation import ANSWER, FdOperation, Operation, Reach
from iocancel.operation.operation import RELEASING

_PATIENCE = 5.0  # seconds for a disk to end what can't be cancelled, once its deadline has passed


class LibaioCarrier(Moving):
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
        super().__init__(Contexts(nr, self._wake.fd))
        self._bell: Iocb | None = None  # the poll of the wake-up
        self._pooled = pooled
        self._closed = False
        self._watched = False  # by an event loop, which polls the wake-up itself
        self._deaf = False  # and something may be in flight from before, which does not ring
        self._look_at: float | None = None  # when to look, for what nothing announces; where it is watched

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
        if self._closed:
            raise ValueError("the engine is closed")
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
            self._look_at = time.monotonic() + SOON * 10
        else:
            self._look_at = time.monotonic() + LATEST if self._deaf else None

    def _next_alarm(self, timeout: float | None) -> float | None:
        """For how long to wait."""
        soonest = timeout
        if self._alarms:
            left = max(0.0, self._alarms[0][0] - time.monotonic())
            soonest = left if soonest is None else min(left, soonest)
        if self._want and self._contexts.starved():
            soonest = SOON * 10 if soonest is None else min(SOON * 10, soonest)
        return soonest

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
        self._closed = True
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
            # One that has ended has this already.
            if isinstance(op, FdOperation) and res >= 0 and op._state < RELEASING:
                op._throw_away(res)
        for job in list(self._jobs.values()):
            job.over()

    def forked(self) -> None:
        """See Carrier. The contexts hear of the fork by themselves."""
        lib.ioc_wake_close(self._wake)
