"""Which thread has submitted a request, and what becomes of it when that thread ends.

The kernel cancels what a thread has submitted when the thread is gone: at once, or when the file is next
ready (docs/kernel-facts.md). In an engine that threads share, the leader submits for all. So what nobody
asked to cancel is handed over again by whoever leads then: nothing has happened by it, and the one who waits
for it never hears of it.

But the number of its file may be another file's by now. So it is handed over again where that can't be: it
has no file; it is on a pipe or a socket, and that has the same inode as when it was submitted; or it was
given one of Python's own files, which still has that number. A duplicate of the fd is what is looked at and
handed over, so nobody can close it in between. All else fails, and says why.
"""

from __future__ import annotations

import io
import os
import threading
from typing import TYPE_CHECKING, Any

from iocancel import errors
from iocancel._native import ffi, lib
from iocancel.engines.uring.entries import renew
from iocancel.operation.core import number_of

if TYPE_CHECKING:
    from iocancel.operation import Operation

_identify = lib.ioc_identify


class Submitter:
    """A thread that submits."""

    __slots__ = ("ended",)

    def __init__(self) -> None:
        self.ended = False
        """Whether it is over, as far as Python knows: it is before the kernel cancels anything."""


class _Until:
    """Goes with its thread."""

    __slots__ = ("submitter",)

    def __init__(self) -> None:
        self.submitter = Submitter()

    def __del__(self) -> None:
        self.submitter.ended = True


class _Here(threading.local):
    submitter: Submitter | None = None
    until: _Until | None = None

    def __init__(self) -> None:  # once in each thread
        if threading.get_ident() != threading.main_thread().ident:
            self.until = _Until()
            self.submitter = self.until.submitter


_here = _Here()


def this_thread() -> Submitter | None:
    """Who submits here; None for the main thread, which no operation outlives."""
    return _here.submitter


class Origin:
    """Where some requests come from, which were submitted together."""

    __slots__ = ("_ids", "_raw", "submitter")

    def __init__(self, submitter: Submitter, raw: bytes) -> None:
        self.submitter = submitter
        self._raw = raw
        many = len(raw) // 64
        self._ids = ffi.new("uint64_t[]", 2 * many)
        _identify(raw, many, self._ids)

    def again(self, op: Operation[Any]) -> bool:
        """Make what ended and did nothing ready to be handed over again, if its thread has ended.

        Asked about operations whose cancel nobody asked for, when a record says that they were cancelled.

        Returns:
            False where that is its end.
        """
        if not self.submitter.ended or op._files:
            return False
        same = None
        if op._fd >= 0:
            same = self._same_file(op)
            if same is None:
                return False
        renew(op, same)
        return True

    def _same_file(self, op: Operation[Any]) -> Any:
        """A duplicate of the very file that an operation was submitted on; None where that can't be told."""
        try:
            same = duplicate(op._fd)
            identity = self._identity(op)
            if identity == (0, 0):  # an object of another kind may have opened another file at this number
                return same if isinstance(op._file, io.IOBase) and number_of(op._file) == op._fd else None
            status = os.fstat(same[0])
        except OSError:  # it was closed; or no fd is left
            return None
        return same if (status.st_dev, status.st_ino) == identity else None

    def _identity(self, op: Operation[Any]) -> tuple[int, int]:
        """Device and inode of the pipe or socket that it was submitted on; zeros on other files."""
        raw, mine = self._raw, op._entry[32:40]  # its user_data
        at = 0
        while raw[at + 32 : at + 40] != mine:
            at += 64
        return self._ids[at // 32], self._ids[at // 32 + 1]


def duplicate(fd: int) -> Any:
    """A number of one's own for a file, as `int *`, which is closed when nobody needs it any more."""
    # C stores the number: a signal's exception can't come between that and its being known.
    own = ffi.gc(ffi.new("int *", -1), lib.ioc_dup_close)
    errors.check(lib.ioc_dup(fd, own), "dup")
    return own
