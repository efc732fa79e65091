"""One operation, and the files that operations wait in line for.

Facts that this rests on (docs/kernel-facts.md, 6):

- glibc runs one request of each fd *number* at a time, in order. Cancelling a queued one that is the first
  of its number strands those behind it, for ever. So the C library gets one request of a number at a time;
  the rest wait here, where a cancel stops all of them, costs little, and strands nobody.
- close() ends nothing that runs, and what is started on the number's next file waits behind that. So each
  line has a number of its own, a duplicate, which is also what makes an fd be looked up at submit. The
  two directions of a socket are two lines: a read that blocks does not hold up a write.
- Closing any descriptor of a file drops the process's POSIX locks on it (fcntl(2)). So regular files and
  block devices, which are what is locked, and which don't block, are used by the caller's number.
"""

from __future__ import annotations

import fcntl
import operator
import os
import stat
from collections import deque
from typing import Any

from iocancel import _lifetime, errors
from iocancel._native import ffi, lib
from iocancel.posix_aio import Aiocb

NEVER = int(lib.IOC_AIO_NEVER)
BY_NUMBER, TO_READ, TO_WRITE = range(3)  # which line of a file

Identity = tuple[int, int]
"""A regular file: st_dev, st_ino."""


class Row:
    """What the carrier knows of one operation."""

    __slots__ = (
        "aiocb",
        "at",
        "buffer",
        "error",
        "fd",
        "identity",
        "line",
        "name",
        "offset",
        "res",
        "seconds",
        "sync",
        "taken",
        "token",
    )

    def __init__(self, token: int, name: str, fd: int) -> None:
        self.token, self.name, self.fd = token, name, fd
        self.buffer: Any = None  # from when it was taken on, until it is over
        self.offset = 0  # -1: the file's own position
        self.at = 0  # where it was started, in that case
        self.sync = 0  # of an fsync: O_SYNC or O_DSYNC
        self.seconds = 0.0  # of a timeout
        self.taken = False
        self.res: int | None = None  # its ending
        self.line: Line | None = None
        self.identity: Identity | None = None
        self.aiocb: Aiocb | None = None
        self.error: Exception | None = None  # why it could not be started

    @property
    def over(self) -> bool:
        """Whether it has ended, by being stored once."""
        return self.res is not None

    def state(self) -> int:
        """NEVER, EINPROGRESS, or its errno (0: it went well)."""
        return NEVER if self.aiocb is None else self.aiocb._request.error()


class Line:
    """The operations that take turns on one number. The first may be the C library's, the others are not."""

    __slots__ = ("_dead", "_own", "key", "number", "queue")

    def __init__(self, key: tuple[int, int]) -> None:
        self.key = key
        self.number = key[0]
        self.queue: deque[Row] = deque()
        self._own: Any = None
        self._dead = 0  # about how many in the queue are over

    def one_gone(self) -> None:
        """Somebody in it was cancelled: those that are go when they are more than half."""
        self._dead += 1
        if self._dead > 64 and 2 * self._dead > len(self.queue):
            self.queue = deque(row for row in self.queue if not row.over)
            self._dead = 0

    def duplicate(self) -> None:
        """Have a number of its own.

        Raises:
            OSError: EBADF; EMFILE: none is left.
        """
        self._own = ffi.gc(ffi.new("int *", -1), lib.ioc_dup_close)
        errors.check(lib.ioc_dup(self.key[0], self._own), "duplicating the file for POSIX AIO")
        self.number = self._own[0]

    def same(self) -> bool:
        """Whether the caller's number still is this line's file."""
        return self._own is None or lib.ioc_same_file(self.key[0], self.number) == 1

    def give_back(self) -> None:
        """Close the number of its own."""
        if self._own is not None:
            ffi.release(self._own)  # twice does no harm
            self._own = None


def which(fd: int, name: str) -> tuple[int, Identity | None]:
    """Which line of a file an operation belongs to, and how to know the file again.

    Raises:
        OSError: EBADF.
    """
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode) or stat.S_ISDIR(status.st_mode):
        return BY_NUMBER, (status.st_dev, status.st_ino)
    return (TO_READ if name == "read" else TO_WRITE), None


def unchanged(row: Row) -> bool:
    """Whether the number of a regular file still is that file's."""
    if row.identity is None:
        return True
    try:
        status = os.fstat(row.fd)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == row.identity


def appends(number: int) -> bool:
    """Whether what is written goes to the end of the file (O_APPEND)."""
    return bool(fcntl.fcntl(number, fcntl.F_GETFL) & os.O_APPEND)


def position(number: int) -> int:
    """A file's own position; -1 where it has none, as a pipe."""
    try:
        return os.lseek(number, 0, os.SEEK_CUR)
    except OSError:
        return -1


def export(data: Any, call: str, writable: bool) -> Any:
    """A live export of a buffer: it can't be resized meanwhile.

    Raises:
        TypeError: it is no buffer, not contiguous, or read-only where it is to be written.
    """
    try:
        if writable:
            return ffi.from_buffer("char[]", data, require_writable=True)
        return ffi.from_buffer("char[]", data)
    except (TypeError, ValueError, BufferError) as error:
        wanted = "writable, contiguous buffer (a bytearray, an mmap ...)" if writable else "contiguous buffer"
        raise TypeError(f"{call}: a {wanted} is needed, not this {type(data).__name__}: {error}") from None


def checked(offset: int) -> int:
    """An offset, or -1."""
    number = operator.index(offset)
    if not -1 <= number < 1 << 63:
        raise ValueError(f"offset takes -1 or 0 to 2**63 - 1, not {offset}")
    return number


# What still ran when its engine was closed: its memory, and its number, until it ends. If it never does,
# for ever: at the interpreter's end the bindings put it out of everybody's reach.
_left: deque[tuple[Aiocb, Line]] = deque()


def leave(aiocb: Aiocb, line: Line) -> None:
    """Keep what the C library still runs, when nobody else will ask about it any more."""
    _left.append((aiocb, line))


def sweep() -> int:
    """Let go of what has ended by now; returns how many operations of closed engines still run."""
    for _ in range(len(_left)):
        aiocb, line = _left.popleft()
        if aiocb._request.running():
            _left.append((aiocb, line))
        else:
            line.give_back()
    return len(_left)


class _Leftovers:
    """In a forked child nothing of this runs: its copies of the numbers are closed."""

    def _forked(self) -> None:
        while _left:
            _, line = _left.pop()
            line.give_back()

    def _at_exit(self) -> None:
        sweep()


_owner = _Leftovers()
_lifetime.register(_owner)
