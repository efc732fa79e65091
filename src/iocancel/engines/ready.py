"""What is ready is taken without an engine: one call of C, that never waits (csrc/ready.c)."""

from __future__ import annotations

import errno
from typing import Any

from iocancel import errors
from iocancel._native import ffi, lib
from iocancel.operation import FdOperation, Kind, Operation, Reach, State
from iocancel.operation.verbs import accepted

ROOM: int = lib.IOC_ROOM
"""Bytes that an attempt has room for."""

read, write, recv, send = lib.ioc_ready_read, lib.ioc_ready_write, lib.ioc_ready_recv, lib.ioc_ready_send
read_to, recv_to = lib.ioc_ready_read_to, lib.ioc_ready_recv_to
accept, poll = lib.ioc_ready_accept, lib.ioc_ready_poll
from_buffer, release, BYTES = ffi.from_buffer, ffi.release, ffi.typeof("char[]")
NOT_READY = -errno.EAGAIN
_new = ffi.new_allocator(should_clear_after_alloc=False)


class Attempt:
    """Where C leaves its result, and bytes. One call at a time: who makes one counts it in `calls` before."""

    __slots__ = ("calls", "data", "told")

    def __init__(self) -> None:
        self.told: Any = _new("struct ioc_ready *")
        self.told.calls = 0
        self.data = ffi.buffer(self.told.room)
        self.calls = 0

    def came(self) -> int:
        """What the call has brought, seen from behind an exception; -1: nothing, or it was not made."""
        told = self.told
        return int(told.res) if told.calls == self.calls and told.res >= 0 else -1


class Duplicate:
    """A further number of a file, closed when this is collected: the first may become another file's."""

    __slots__ = ("_own", "value")

    def __init__(self, fd: int) -> None:
        # C stores the number where its destructor finds it: no signal's exception comes between.
        self._own = ffi.gc(ffi.new("int *", -1), lib.ioc_dup_close)
        self._open(fd)
        self.value: int = self._own[0]

    def _open(self, number: int) -> None:
        errors.check(lib.ioc_dup(number, self._own), "dup")


class PidFd(Duplicate):
    """A file that is readable when a process has ended (pidfd_open(2), Linux 5.3), closed when collected."""

    __slots__ = ()

    def _open(self, number: int) -> None:
        errors.check(lib.ioc_pidfd(number, self._own), "pidfd_open")


class _Direct:
    """In an engine's place, for what was done without one."""

    name = "direct"
    _answered = 0

    @staticmethod
    def _reach_of(_op: Operation[Any]) -> Reach:
        return Reach.TOTAL


_DIRECT: Any = _Direct()


def taken(name: str, fd: int, res: int, value: Any = None) -> Operation[Any]:
    """An operation that has ended: what an attempt has brought, where its call could not return it.

    Args:
        name: the verb's.
        fd: the file's number.
        res: what C has returned.
        value: what the verb would have; None where it is `res`, or for an accept what is made of it.
    """
    make = FdOperation if name == "accept" else Operation
    op: Operation[Any] = make(_DIRECT, Kind(name, name), fd)
    op._res = res
    if name == "accept":
        op._claimed = True  # it closes nothing before whoever asked has it: see `mine`
        op._value = accepted
    elif value is not None:
        op._value = lambda _op, _res: value
    op._state = int(State.ENDED)
    return op


def mine(op: Operation[Any]) -> None:
    """Have it close an accepted connection that nobody takes; run again it changes nothing."""
    if op._value is accepted:
        op._claimed = False


__all__ = [
    "BYTES",
    "NOT_READY",
    "ROOM",
    "Attempt",
    "Duplicate",
    "PidFd",
    "accept",
    "from_buffer",
    "mine",
    "poll",
    "read",
    "read_to",
    "recv",
    "recv_to",
    "release",
    "send",
    "taken",
    "write",
]
