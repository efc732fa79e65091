"""A context: the queue that requests are submitted to, and their events reaped from.

The kernel's own words on cancelling differ from what it does, on all kernels from 5.10 to 7.2:
io_cancel(2) promises 0, the event copied out, and EAGAIN for what can't be cancelled. In truth

- success is **-EINPROGRESS**, and the event comes by io_getevents like any other, a little later;
- everything else is **-EINVAL**: no such request, ended already, cancelled before, not of a kind that can be
  cancelled (only polls and USB gadgets' endpoints are), another context's. The kernel doesn't tell which.

libaio's io_getevents looks into the ring in user space first, and so reads freed memory when another
thread has destroyed the context. Here the system call is made.
"""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterable
from types import TracebackType

from iocancel import _record, errors
from iocancel._native import lib
from iocancel.libaio.event import Event
from iocancel.libaio.flags import Opcode, whole
from iocancel.libaio.iocb import Iocb
from iocancel.libaio.kernel import Kernel, after, sweep, unclosed
from iocancel.libaio.ledger import Batch, records
from iocancel.libaio.refusal import refused
from iocancel.libaio.request import claims

__all__ = ["Context"]

_INT_MAX = (1 << 31) - 1
_cancel = lib.ioc_laio_cancel
_COLLECTED = 1.0  # seconds that the finalizer of a context that nobody closed may take


class Context:
    """A Linux AIO context (io_setup(2), io_submit(2), io_cancel(2), io_getevents(2)). Linux 4.19.

    Any thread may use it. In a forked child its methods raise RuntimeError, and `close` only forgets it.

    Args:
        nr_events: for how many requests there must be room, 1 or more. The kernel rounds up, and counts
            the sum of all contexts against the sysctl fs.aio-max-nr.

    Raises:
        TypeError: when `nr_events` is not an int.
        ValueError: when it is not positive, or more than the kernel takes of anybody.
        EngineUnavailable: when the kernel has no room (EAGAIN: fs.aio-max-nr), or forbids or lacks Linux AIO.
        OSError: EMFILE, when there is no fd left (a context needs one).
    """

    __slots__ = ("__weakref__", "_kernel", "_nr_events")

    def __init__(self, nr_events: int = 128) -> None:
        if getattr(self, "_kernel", None) is not None:
            raise RuntimeError(f"{self!r} is there already: make another one")
        self._nr_events = whole(nr_events, "nr_events", 1, _INT_MAX)
        sweep()
        self._kernel = Kernel()
        res, call = self._kernel.open(min(self._nr_events + 1, _INT_MAX))  # one more for the wake-up poll
        if res == -errno.EINVAL and call == "io_setup":
            raise ValueError(f"nr_events={nr_events}: no kernel takes more than some millions")
        errors.check(res, call, feature="IOCB_CMD_POLL" if call == "io_submit" else "", since="4.19")

    @property
    def nr_events(self) -> int:
        """For how many requests room was asked; the kernel may have made more."""
        return self._nr_events

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._kernel.leaving is not None

    @property
    def in_flight(self) -> int:
        """How many requests were submitted and have not been reaped yet."""
        return len(self._kernel.ledger.flight)

    def submit(self, iocbs: Iterable[Iocb]) -> int:
        """Submit requests, in one system call (io_submit(2)).

        It blocks for as long as a request can't be queued: a read from a blocking pipe that is empty is
        waited for *in here* (other threads run on). Requests whose fd has O_NONBLOCK, or RWF_NOWAIT,
        end with -EAGAIN instead.

        Args:
            iocbs: the requests; each is in flight until its event has been reaped.

        Returns:
            How many were submitted, the first ones: fewer than given, when a later one was refused or the
            context is full. The rest is not in flight; submitting it again tells why.

        Raises:
            QueueFull: when there is no room for the first one (EAGAIN).
            OSError: when the first one is refused: EBADF, EINVAL, EFAULT, EOPNOTSUPP ...
            TypeError: for anything but Iocbs.
            ValueError: for a request that is in flight, or given twice; when the context is closed.
            RuntimeError: in a forked child.
        """
        try:
            there = iter(iocbs)
        except TypeError:
            raise TypeError(f"iocbs takes several Iocbs, as a list, not {type(iocbs).__name__}") from None
        listed = list(there)
        for iocb in listed:
            _one(iocb)
        kernel = self._kernel
        if not listed:
            self._still_open("io_submit")
            return 0
        token = self._enter("io_submit")
        try:
            batch = Batch(listed)
            try:
                entries = batch.fill()
                kernel.ledger.fly(batch)
                many = len(listed)
                res = lib.ioc_laio_submit(kernel.c, batch.memory, entries, many, batch.first, batch.state)
            finally:
                kernel.ledger.settle(batch)
        finally:
            kernel.users.pop(token, None)
            kernel.left()
        if res < 0:
            self._still_open("io_submit")
            raise refused(res, listed[0])
        return res

    def cancel(self, iocb: Iocb) -> Event | None:
        """Cancel a request that is in flight here (io_cancel(2), which tells it otherwise).

        Args:
            iocb: the request.

        Returns:
            None: it is cancelled, and its event will come by `getevents`, soon but perhaps not yet (a
            poll's with `res` 0). An event, where the kernel hands it over at once: none does since 3.10.

        Raises:
            CancelNotFound: (EINVAL) it was never submitted, or has ended, or was cancelled before, or is in
                flight elsewhere, or is of a kind that can't be cancelled; the kernel does not tell these
                apart, the message does as far as the context knows. It does not mean that the
                request has ended: its event alone does.
            CancelTooLate: (EAGAIN) by the man page; no kernel from 5.10 to 7.2 says it.
            OSError: for any other refusal.
            TypeError: for anything but an Iocb.
            ValueError: when the context is closed.
            RuntimeError: in a forked child.
        """
        _one(iocb)
        kernel = self._kernel
        ledger = kernel.ledger
        token = self._enter("io_cancel")
        try:
            batch = iocb._batch
            block = None if batch is None else batch.block(iocb)
            res = -errno.EINVAL
            if block is not None:
                record = records(1)
                try:
                    res = _cancel(kernel.c, block, record)
                    if res == 0:
                        ledger.absorb(record)
                except BaseException:
                    ledger.late += [record]
                    raise
        finally:
            kernel.users.pop(token, None)
            kernel.left()
        if res == -errno.EINPROGRESS:
            return None
        if res == 0:
            return ledger.take_of(iocb)
        self._still_open("io_cancel")
        if res == -errno.EINVAL:
            text = f"{os.strerror(errno.EINVAL)}: io_cancel: {iocb!r}: {self._why_not_found(iocb)}"
            raise errors.CancelNotFound(errno.EINVAL, text)
        errors.check(res, "io_cancel")
        raise AssertionError(res)

    def getevents(self, min_nr: int = 1, nr: int | None = None, timeout: float | None = None) -> list[Event]:
        """Reap the events of requests that have ended (io_getevents(2)).

        Signal handlers run meanwhile, and the wait goes on; if one raises, nothing that was reaped is
        lost: the next call returns it.

        Args:
            min_nr: for how many events to wait; 0 takes what is there.
            nr: how many to take at most, `min_nr` or more; None takes all.
            timeout: seconds to wait at most; None waits for ever (also when nothing is in flight: another
                thread may submit).

        Returns:
            The events; fewer than `min_nr` only when the time was up.

        Raises:
            ValueError: for numbers out of range; when the context is closed, also while waiting.
            TypeError: for arguments that are not numbers.
            OSError: for what else the kernel refuses.
            RuntimeError: in a forked child.
        """
        least = whole(min_nr, "min_nr", 0, _INT_MAX)
        deadline = after(timeout)
        kernel = self._kernel
        ledger = kernel.ledger
        if nr is None:
            most = max(least, 1, len(ledger.flight) + len(ledger.ready))
        else:
            most = whole(nr, "nr", least, _INT_MAX)
        while True:
            token = self._enter("io_getevents")
            try:
                time_is_up, res = self._wait(least, most, deadline)
            finally:
                kernel.users.pop(token, None)
                kernel.left()
            # Last of all, so that nothing can go wrong behind it: what is taken is returned.
            taken = ledger.take(0 if time_is_up else least, most)
            if taken is not None:
                return taken
            if res < 0:
                self._still_open("io_getevents")
                errors.check(res, "io_getevents")

    def _wait(self, least: int, most: int, deadline: int) -> tuple[bool, int]:
        """Reap until there is enough; returns whether the time is up before, and a negated errno or 0."""
        kernel = self._kernel
        ready = kernel.ledger.ready
        while True:
            kernel.ledger.catch_up()
            have = len(ready)
            if have >= most:
                return False, 0
            short = max(least - have, 0)
            room, res = kernel.reap(short, most - have, deadline)
            if res == room:
                continue  # there may be more
            if len(ready) >= least:
                return False, 0
            if kernel.leaving is not None:
                return False, -errno.EINVAL
            if res >= 0:
                return res < short, 0  # enough, but another thread has taken some: wait again
            if res != -errno.EINTR:
                return False, res

    def close(self, timeout: float | None = 5.0) -> list[Event]:
        """Cancel what can be cancelled, wait for all endings, and destroy the context (io_destroy(2)).

        A thread that waits in `getevents` is woken, and gets ValueError. What can't be cancelled (a read
        of a disk or of a network file system) is waited for. When time is up, nothing is destroyed:
        io_destroy would block. The context and all memory in flight are kept, with a ResourceWarning;
        when a later context is made, what has ended by then is freed.

        Args:
            timeout: seconds to wait at most; None for ever.

        Returns:
            The events that nobody had taken, those of the cancelled requests among them; empty when the
            context was closed before, and in a forked child.

        Raises:
            TypeError, ValueError: for a wrong timeout.
        """
        deadline = after(timeout)
        kernel = self._kernel
        if kernel.foreign():
            if not kernel.forked:
                kernel.disown()
            return []
        if not kernel.done and not kernel.shut(deadline):
            kernel.abandon()
            warnings.warn(f"{self!r} could not be closed in time: it is kept", ResourceWarning, stacklevel=2)
        return kernel.ledger.take(0, _INT_MAX) or []

    def __enter__(self) -> Context:
        """The context itself; it is closed when the block is left."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close, as `close()` does."""
        self.close()

    def __del__(self) -> None:
        kernel: Kernel | None = getattr(self, "_kernel", None)
        if kernel is None or kernel.done:
            return
        if kernel.foreign():
            kernel.disown()
            return
        try:
            if kernel.leaving is None:
                unclosed(kernel)
        finally:
            if not kernel.shut(after(_COLLECTED)):
                kernel.abandon()

    def __reduce__(self) -> str:
        raise TypeError("a Context can't be copied or pickled: there is one in the kernel")

    def __repr__(self) -> str:
        return repr(self._kernel)

    def _enter(self, call: str) -> object:
        token = self._kernel.enter()
        if token is None:
            self._still_open(call)
        return token

    def _still_open(self, call: str) -> None:
        kernel = self._kernel
        if kernel.foreign():
            raise RuntimeError(f"{call}: after a fork the context is the parent's alone: make another one")
        if kernel.leaving is not None:
            raise ValueError(f"{call}: the context is closed")

    def _why_not_found(self, iocb: Iocb) -> str:
        serial = claims.get(iocb._number)
        if serial is None:
            return "its event was reaped already" if iocb._reaped else "it was never submitted"
        if serial not in self._kernel.ledger.flight:
            return "it is in flight in another context"
        why = "it has ended or was cancelled, and its event is to be reaped"
        if iocb.opcode is Opcode.POLL:
            return why
        return f"only polls, and what USB gadgets' endpoints do, can be cancelled; or {why}"


def _one(iocb: object) -> None:
    if not isinstance(iocb, Iocb):
        raise TypeError(f"an Iocb is wanted (Iocb.poll(), Iocb.pread() ...), not {type(iocb).__name__}")


_record.join(globals(), _cancel="io_cancel")
