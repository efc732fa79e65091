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

from iocancel._native import ffi, lib

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
        _open.append(self)
        self._was.extend(map(_set, (self._put,)))  # in one step: what was there must not be lost

    def close(self) -> None:
        """Put back what was there, and pass on what it would have been told."""
        if self._was:
            was, bell = self._was[0], self._bell
            now = _put_back(was)
            if now not in (self._put, was):  # a handler has put another one there meanwhile: it stays
                _put_back(now)
            lib.ioc_wake_clear(bell)
            many, bell.signals = bell.signals, 0
            if many and was >= 0:
                with contextlib.suppress(OSError):  # it is full (whoever reads it is awake), or closed
                    os.write(was, bytes(ffi.buffer(bell.numbers, many)))
            self._was.clear()
        while self in _open:
            _open.remove(self)

    def _forked(self) -> None:
        self._bell.signals = 0  # they were the parent's


def _put_back(fd: int) -> int:
    """Have signals told to an fd, to nobody where it was closed meanwhile; what was there before."""
    try:
        return int(_set(fd))
    except (OSError, ValueError):
        return int(_set(-1))


_open: list[Ear] = []  # of the main thread; signals' handlers may open some inside of others


def _in_child() -> None:
    """A child has closed its copies of the bells: Python must not write to their numbers."""
    if _open and _open[0]._was:
        _put_back(_open[0]._was[0])
    for ear in _open:
        ear._forked()
    _open.clear()


os.register_at_fork(after_in_child=_in_child)

__all__ = ["Ear"]
