"""An engine in an event loop, which watches a file instead of waiting in the kernel."""

from __future__ import annotations

import threading
from typing import Any

from iocancel.operation.core import OPEN
from iocancel.operation.frames import LEADERS
from iocancel.operation.leading import Leading
from iocancel.operation.operation import Operation


class Looping(Leading):
    """What an event loop calls."""

    def fileno(self) -> int:
        """A file for an event loop to watch, level-triggered; then the engine need never wait by itself.

        The loop calls `reap(0)` when the file is readable, and when `alarm()` is over; and `submit()` or
        `reap(0)` for what was prepared. It is readable when something has ended, or the engine has to see to
        something; and when a cancel was asked for, also by another thread or in a signal's handler. It may be
        readable for nothing. It is the same file each time, belongs to the engine, and is closed with it.
        Nobody but the engine reads it.

        One thread reaps. While another one waits in this engine, that one settles what comes.

        Raises:
            ValueError: the engine is closed.
            RuntimeError: in a forked child; an engine on libaio that is pooled has none.
            OSError: no fd is left.
        """
        self._check_open()
        number = self._carrier.fileno()
        if not self._watched:
            self._watched = True
            if self._asked or self._cut:  # before this, when it rang for nobody
                self._carrier.wake()
        return number

    def alarm(self) -> float | None:
        """When an event loop has to call `reap(0)` though `fileno()` is not readable.

        It changes by what is called on the engine, `reap` and `submit` among that.

        Returns:
            In `time.monotonic()` seconds, None for never. A time that has passed is now. It may be too early.
        """
        if self._state is not OPEN:
            return None
        carrier = self._carrier
        soonest = carrier.alarm() if carrier.alarms else None
        if self._again and (soonest is None or self._again_at < soonest):
            soonest = self._again_at
        if self._staged:  # not submitted yet; or the system did not take all
            soonest = 0.0
        # Also where the system keeps deadlines: not of what a worker of io_uring executes.
        if (self._deadlines or self._fresh_deadlines) and self._ledger.flight:
            # Copies, each made in one step: another thread may lead.
            for when, _ in self._deadlines[:1] + list(self._fresh_deadlines):
                if soonest is None or when < soonest:
                    soonest = when
        return soonest

    def tick(self) -> list[Operation[Any]]:
        """A turn for an event loop: as `reap(0)`, in less time where nothing unusual is to be done.

        Returns:
            The operations that have ended, as `reap`.

        Raises: as `submit`.
        """
        mine, me = object(), threading.get_ident()
        try:
            # No call between the look and the stores.
            if self._lead is None and self._state is OPEN:
                self._lead = mine
                self._lead_thread = me
            if self._lead is not mine:
                return self.reap(0)  # which waits for its turn, or says why there is none
            self._wanted = False
            self._collect = True
            if self._asked or self._again or self._deadlines or self._fresh_deadlines or self._batch:
                self._turn(False, None)
            else:
                self._hand_over(self._ready() if self._staged else [], False, None)
                self._settle()
        except BaseException as error:
            self._cut = True  # see _turn
            if self._watched and not isinstance(error, OSError):
                self._carrier.wake()
            raise
        finally:
            # First of all, with no call between: a signal's exception must not leave the lead with nobody.
            if self._lead is mine:
                self._collect = False
                self._lead_thread = 0
                self._lead = None
                if self._wanted or self._followers:
                    self._left(True)
        ended, self._ended = self._ended, []
        return ended


LEADERS.add(Looping.tick.__code__)
