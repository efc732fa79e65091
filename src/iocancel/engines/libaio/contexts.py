"""The contexts of one engine: the first, and further ones twice as large each, when it is full.

A thread waits in the first one only. What ends in another one also writes the engine's wake-up eventfd, by
the kernel's own hand (IOCB_FLAG_RESFD), which the first one polls. For an event loop, which watches that
eventfd, what ends in the first one does so, too. The kernel writes it when the event is there: whoever reads
the eventfd and looks for events behind that misses none. Nothing of the memory is kept here: that is done by
`iocancel.libaio`'s ledger, by rule 2.
"""

from __future__ import annotations

import errno
import weakref
from collections.abc import Sequence
from typing import Any

from iocancel import _record, errors
from iocancel._native import ffi, lib
from iocancel.libaio import Iocb
from iocancel.libaio.kernel import Kernel, after, sweep
from iocancel.libaio.ledger import Batch

_cancel_each = lib.ioc_laio_cancel_each
_ROOM = 1024  # events that one call reaps
_COLLECTED = 1.0  # seconds that a finalizer may take


class EngineKernel(Kernel):
    """A context whose events the engine takes itself: they stay in `ledger.ready` until then."""

    __slots__ = ("engine", "full", "nr")

    def __init__(self, nr: int) -> None:
        super().__init__()
        self.nr = nr
        self.full = False  # the kernel has said so; until the next event
        self.engine: weakref.ref[Any] | None = None
        res, call = self.open(nr + 2)  # and the context's own wake-up, and the poll of the bell
        if res == -errno.EINVAL and call == "io_setup":
            raise ValueError(f"nr_events={nr}: no kernel takes more than some millions")
        errors.check(res, call, feature="IOCB_CMD_POLL" if call == "io_submit" else "", since="4.19")

    def __del__(self) -> None:
        # Nobody got hold of it: an interruption when it was made. What an engine has, that closes: of what is
        # collected together any may be the first.
        if not self.done and self.leaving is None and self.engine is None:
            self.shut(after(_COLLECTED))

    def _at_exit(self) -> None:
        engine = None if self.engine is None else self.engine()
        if engine is not None:
            engine._at_exit()  # which closes this, too
        super()._at_exit()


class Contexts:
    """See the module."""

    def __init__(self, nr: int, bell: int) -> None:
        sweep()
        self._bell = bell
        self.rings = False  # whether events of the first one, too, ring
        self.all: list[EngineKernel] = [EngineKernel(nr)]
        self._engine: weakref.ref[Any] | None = None
        self._refused = False  # no room for another context; until an event comes
        self._under_way: list[tuple[EngineKernel, Batch]] = []

    def attach(self, engine: Any) -> None:
        """Whose they are: at the interpreter's end that goes first."""
        self._engine = self.all[0].engine = weakref.ref(engine)

    @property
    def first(self) -> EngineKernel:
        """The one that is waited in."""
        return self.all[0]

    def room(self) -> tuple[EngineKernel, int] | None:
        """A context with room, and for how many; None where there is none, and none to be had."""
        for kernel in self.all:
            free = kernel.nr - len(kernel.ledger.flight)
            if free > 0 and not kernel.full:
                return kernel, free
        if self._refused or self.first.leaving is not None:
            return None
        size = 2 * self.all[-1].nr
        while size > 1:
            try:
                kernel = EngineKernel(size)
            except (OSError, ValueError) as error:
                if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                    break
                size //= 2  # fs.aio-max-nr is near
                continue
            kernel.engine = self._engine
            self.all.append(kernel)
            return kernel, size
        self._refused = True
        return None

    def push(self, kernel: EngineKernel, iocbs: list[Iocb]) -> int:
        """Submit; returns how many were taken, or a negated errno for the first one.

        Their events ring where nobody would hear of them otherwise; the bell's, which has no data, does not.
        Those that were taken are in flight (`Iocb.in_flight`). After an interruption in here that is so
        once `settle` was called.
        """
        if self.rings or kernel is not self.first:
            for iocb in iocbs:
                if iocb._data is not None:
                    iocb.set_eventfd(self._bell)
        batch = Batch(iocbs)
        self._under_way.append((kernel, batch))
        entries = batch.fill()
        kernel.ledger.fly(batch)
        res = lib.ioc_laio_submit(kernel.c, batch.memory, entries, len(iocbs), batch.first, batch.state)
        self.settle()
        return int(res)

    def settle(self) -> None:
        """Find out what the kernel took of submissions that a signal handler's exception has cut short."""
        while self._under_way:
            kernel, batch = self._under_way[0]
            kernel.ledger.settle(batch)
            del self._under_way[0]

    def cancel(self, kernel: EngineKernel, iocbs: Sequence[Iocb]) -> list[int]:
        """io_cancel of each: -EINPROGRESS for accepted, -EINVAL for anything else."""
        blocks = [None if each._batch is None else each._batch.block(each) for each in iocbs]
        found = [block for block in blocks if block is not None]
        answers = ffi.new("int[]", len(found))
        _cancel_each(kernel.c, found, len(found), answers)
        given = iter(answers)
        return [-errno.EINVAL if block is None else int(next(given)) for block in blocks]

    def reap(self, wait: bool, timeout: float | None) -> None:
        """Let what has ended come into the ledgers' `ready`; wait for the first one, in the first context."""
        first = self.first
        first.ledger.catch_up()
        wait = wait and not any(kernel.ledger.ready for kernel in self.all)
        room, res = first.reap(1 if wait else 0, _ROOM, after(timeout) if wait else 0)
        self._reaped(first, res)
        if res == room:
            self._reap_all(first)
        for kernel in self.all[1:]:
            kernel.ledger.catch_up()
            self._reap_all(kernel)

    def _reap_all(self, kernel: EngineKernel) -> None:
        """All that is there: nothing rings for what is left."""
        while kernel.ledger.flight:
            room, res = kernel.reap(0, _ROOM, 0)
            self._reaped(kernel, res)
            if res < room:
                return

    def _reaped(self, kernel: EngineKernel, res: int) -> None:
        if res > 0:
            kernel.full = self._refused = False
        elif res < 0 and res != -errno.EINTR and kernel.leaving is None:
            errors.check(res, "io_getevents")

    def starved(self) -> bool:
        """Whether no event may come that makes room (memory is short, or nothing is in flight)."""
        return any(each.full for each in self.all) or all(len(each.ledger.flight) < 2 for each in self.all)

    def close(self, timeout: float | None) -> bool:
        """Cancel, reap, destroy; past the time a context is kept, with its memory. Whether none was."""
        deadline = after(timeout)
        self.settle()
        safe = True
        for kernel in self.all:
            if not kernel.done and not kernel.shut(deadline):
                kernel.abandon()
                safe = False
        return safe


_record.join(globals(), _cancel_each="io_cancel_many")
