"""The engine's ring: a plain one (no flags), whose ledger is the engine's.

Single-issuer rings refuse other threads, deferred-taskrun ones lose the wake-ups of synchronous cancels,
those with a polling thread can't reach what runs in a worker: so the engine's has none of these flags.
Entries are not kept in the queue: they wait in Python, and go in and out in one call, so a cancel always
finds room.
"""

from __future__ import annotations

import errno
from typing import Any

from iocancel import errors
from iocancel._native import ffi, lib
from iocancel.operation import Operation
from iocancel.uring import Ring

_SIZES = (1024, 256, 64, 8)
_OUT = 8192  # completions that one call brings: at least four times a batch of cancels
_FEW = 64  # where one thread waits for one operation


class Held:
    """What a ring's closing has to know of a request that is still in flight."""

    _gives_fd = False
    _message = None
    _data = None
    _call = ""
    _entered = True
    _flags = _implied = 0
    opcode = -1
    buf_group = -1

    def __init__(self, op: Operation[Any]) -> None:
        self._pins: tuple[Any, ...] = (op._pins, op)
        self._gives_fd = op.name in ("accept", "openat")


class EngineRing(Ring):
    """A ring that reaps for an engine: completions stay in C's memory until they are forgotten."""

    left = 0  # requests that were still running when it was closed
    engine: Any = None  # a weak reference

    def __init__(self, entries: int, out: int = _OUT) -> None:
        super().__init__(entries)
        self._records_array = ffi.new("struct ioc_cqe[]", out), ffi.new("unsigned[]", out)
        self.out = ffi.new("struct ioc_out *", (0, out, 0, 2, self._records_array[1], self._records_array[0]))
        self.view = memoryview(ffi.buffer(self._records_array[0]))

    @property
    def handle(self) -> Any:
        """What C takes."""
        return self._handle

    def took(self, res: int, call: str) -> int:
        """A C call's result, or its exception."""
        return self._took(res, call)

    def hold(self, ops: list[Operation[Any]]) -> None:
        """Before the closing: what is still in flight."""
        self._ledger.flight = {op._token: Held(op) for op in ops}

    def _exit(self, deadline: float | None) -> None:
        self.left = max(self.left, len(self._ledger.flight))
        super()._exit(deadline)

    def _at_exit(self) -> None:
        engine = None if self.engine is None else self.engine()
        if engine is not None:
            engine._at_exit()  # which closes this ring, too
        else:
            super()._at_exit()

    def __del__(self) -> None:
        # Of what is collected together any may be the first. What an engine has, that closes: it alone knows
        # what is in flight.
        if self.engine is None or self._state == "closed":
            super().__del__()

    def release_group(self, bgid: int) -> None:
        """Take back a group of buffers that no request in flight uses."""
        if self._state == "open":
            lib.ioc_unregister_buf_ring(self._handle, bgid)
            self._groups.pop(bgid, None)


def open_ring(entries: int | None, pooled: bool = False) -> EngineRing:
    """A ring, as large as can be had."""
    if pooled:
        return EngineRing(entries or _SIZES[-1], _FEW)
    if entries is not None:
        return EngineRing(entries)
    for size in _SIZES[:-1]:
        try:
            return EngineRing(size)
        except errors.EngineUnavailable as error:
            if error.errno != errno.ENOMEM:
                raise
    return EngineRing(_SIZES[-1])
