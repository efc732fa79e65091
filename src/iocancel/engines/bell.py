"""Signals and the wake-up of a pooled engine.

Python runs a signal's handler between two bytecodes. A signal that comes behind the last look and just before
its thread enters the kernel is seen when that wait ends, which may be never. `signal.set_wakeup_fd` closes
the gap: the C part of the handler, in whichever thread the kernel has chosen, writes a byte to the pipe that
the engine waits on.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from typing import Any

from iocancel._native import ffi

_set: Any = functools.partial(signal.set_wakeup_fd, warn_on_full_buffer=False)


class Ear:
    """Has the main thread's signals end an engine's waits. Only there, and for one wait at a time.

    Each step can be run again after an exception.
    """

    __slots__ = ("_bell", "_put", "_was")

    def __init__(self, engine: Any) -> None:
        self._bell = engine._carrier.bell
        self._put: int = self._bell.put  # remembered: a forked child has closed it
        self._was: list[int] = []

    def open(self) -> None:
        """From now on."""
        self._was.extend(map(_set, (self._put,)))  # in one step: what was there must not be lost

    def close(self) -> None:
        """Put back what was there, and pass on what it would have been told."""
        if not self._was:
            return
        was, bell = self._was[0], self._bell
        now = _set(was)
        if now not in (self._put, was):  # a handler has put another one there meanwhile: it stays
            _set(now)
        many, bell.signals = bell.signals, 0
        if many and was >= 0:
            with contextlib.suppress(BlockingIOError):  # it is full: whoever reads it is awake
                os.write(was, bytes(ffi.buffer(bell.numbers, many)))
        self._was.clear()


__all__ = ["Ear"]
