"""The numbers of Linux AIO, one type per argument; every value comes from the C compiler.

Bits mean different things in different arguments (1 is `RWF_HIPRI`, and `POLLIN`), so an argument takes
its own type, or a plain `int`, and nothing else.
"""

from __future__ import annotations

import operator
from enum import IntEnum, IntFlag
from typing import TypeVar

from iocancel._native import lib

__all__ = ["IoprioClass", "Opcode", "PollEvents", "RwFlags", "ioprio"]


class Opcode(IntEnum):
    """What an `Iocb` asks for (io_submit(2)).

    libaio's IO_CMD_NOOP is not among them: no kernel from 5.10 to 7.2 takes it (-EINVAL).
    """

    PREAD = lib.IO_CMD_PREAD
    """Read at an offset into one buffer. Linux 2.6."""
    PWRITE = lib.IO_CMD_PWRITE
    """Write one buffer at an offset. Linux 2.6."""
    FSYNC = lib.IO_CMD_FSYNC
    """Flush data and metadata. Linux 4.18."""
    FDSYNC = lib.IO_CMD_FDSYNC
    """Flush data, and the metadata that reading it back needs. Linux 4.18."""
    POLL = lib.IO_CMD_POLL
    """Wait once until a file is ready; the one kind that can be cancelled on every file. Linux 4.19."""
    PREADV = lib.IO_CMD_PREADV
    """Read at an offset into several buffers. Linux 2.6.19."""
    PWRITEV = lib.IO_CMD_PWRITEV
    """Write several buffers at an offset. Linux 2.6.19."""


class RwFlags(IntFlag):
    """How one read or write is done: `rw_flags` (preadv2(2)). Linux 4.13.

    What the running kernel, or the file, does not know is refused at submit with EOPNOTSUPP.
    """

    HIPRI = lib.RWF_HIPRI
    """Poll the device for the end; O_DIRECT only. Linux 4.6."""
    DSYNC = lib.RWF_DSYNC
    """As if the file were open with O_DSYNC. Linux 4.7."""
    SYNC = lib.RWF_SYNC
    """As if the file were open with O_SYNC. Linux 4.7."""
    NOWAIT = lib.RWF_NOWAIT
    """Do not wait; the event has -EAGAIN where it would have had to. Linux 4.14."""
    APPEND = lib.RWF_APPEND
    """Write at the end, whatever the offset. Linux 4.16."""
    NOAPPEND = lib.RWF_NOAPPEND
    """Write at the offset though the file is open with O_APPEND. Linux 6.9."""
    ATOMIC = lib.RWF_ATOMIC
    """Write all or nothing, also when the power fails. Linux 6.11."""
    DONTCACHE = lib.RWF_DONTCACHE
    """Drop the pages from the cache when done. Linux 6.14."""
    NOSIGNAL = lib.RWF_NOSIGNAL
    """No SIGPIPE from a write to a pipe without readers. Linux 6.18."""


class PollEvents(IntFlag):
    """What a poll waits for, and what its event's `res` says (poll(2)).

    The kernel adds ERR and HUP to every poll, asked for or not.
    """

    IN = lib.POLLIN
    """There is something to read."""
    PRI = lib.POLLPRI
    """There is something exceptional, as out-of-band data."""
    OUT = lib.POLLOUT
    """There is room to write."""
    ERR = lib.POLLERR
    """There is an error; a pipe's reader has gone."""
    HUP = lib.POLLHUP
    """The other side has gone."""
    NVAL = lib.POLLNVAL
    """poll(2) says so of a bad fd; io_submit refuses that with EBADF."""
    RDNORM = lib.POLLRDNORM
    """As IN, mostly."""
    RDBAND = lib.POLLRDBAND
    """There is priority data to read."""
    WRNORM = lib.POLLWRNORM
    """As OUT, mostly."""
    WRBAND = lib.POLLWRBAND
    """There is room to write priority data."""
    RDHUP = lib.POLLRDHUP
    """The other side of a stream socket will send no more."""


class IoprioClass(IntEnum):
    """The classes of I/O priorities (ioprio_set(2))."""

    NONE = lib.IOPRIO_CLASS_NONE
    """No priority of its own: the process's."""
    RT = lib.IOPRIO_CLASS_RT
    """Real time; needs CAP_SYS_ADMIN or CAP_SYS_NICE (EPERM at submit)."""
    BE = lib.IOPRIO_CLASS_BE
    """Best effort, the usual class."""
    IDLE = lib.IOPRIO_CLASS_IDLE
    """Only when nobody else wants the disk."""


def ioprio(kind: IoprioClass, level: int = 0) -> int:
    """The number that `Iocb.ioprio` takes.

    Args:
        kind: the class.
        level: 0 (first) to 7 (last) within the class.

    Returns:
        The class and the level in one number.

    Raises:
        TypeError: for a class that is not an `IoprioClass`, or a level that is not an int.
        ValueError: for a level outside of 0 to 7.
    """
    if type(kind) is not IoprioClass:
        raise TypeError(f"kind takes an IoprioClass, not {type(kind).__name__}: {kind!r}")
    return kind << lib.IOPRIO_CLASS_SHIFT | whole(level, "level", 0, 7)


_Flag = TypeVar("_Flag", bound=IntFlag)
_ALL_BITS: dict[type[IntFlag], int] = {k: sum(m.value for m in k) for k in (RwFlags, PollEvents)}


def bits(kind: type[_Flag], value: int, argument: str) -> _Flag:
    """A flags argument as its own type, or the exception for a wrong one.

    Args:
        kind: the flag type that the argument takes.
        value: what was given.
        argument: the argument's name, for the message.

    Raises:
        TypeError: for anything but `kind` and a plain `int`: flags of another kind above all.
        ValueError: for bits that `kind` does not have.
    """
    if type(value) is not kind and type(value) is not int:
        raise TypeError(f"{argument} takes {kind.__name__} or int, not {type(value).__name__}: {value!r}")
    if value & ~_ALL_BITS[kind]:
        raise ValueError(f"{argument}: {value:#x} has bits that {kind.__name__} does not know")
    return kind(value)


def whole(value: object, argument: str, least: int, most: int) -> int:
    """An integer argument within its bounds, or the exception for a wrong one.

    Raises:
        TypeError: for what is not an integer.
        ValueError: for one out of bounds.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{argument} takes an int, not {type(value).__name__}") from None
    if not least <= number <= most:
        raise ValueError(f"{argument} takes {least} to {most}, not {number}")
    return number
