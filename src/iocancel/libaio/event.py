"""What the kernel reports of a request that has ended."""

from __future__ import annotations

from typing import Any, NamedTuple

from iocancel import errors
from iocancel.libaio.iocb import Iocb

__all__ = ["Event"]


class Event(NamedTuple):
    """One request's ending (io_getevents(2)): of which `iocb`, with its `data`.

    A poll that was cancelled ends with `res` 0 and `res2` 0, not with -ECANCELED as the man page of
    io_cancel has it; one that ended by itself has the events that it found, never 0. A cancelled
    request of a USB gadget's endpoint ends with -ECONNRESET.
    """

    iocb: Iocb
    """The request."""
    data: Any
    """The request's `data`."""
    res: int
    """Bytes read or written, a poll's `PollEvents`, 0 for a flush; or a negated errno."""
    res2: int
    """0, but for what a few drivers put there."""

    def check(self) -> int:
        """The result, or the exception for it.

        Returns:
            `res`, when it is `>= 0`: also the 0 of a poll that was cancelled.

        Raises:
            OSError: with the true errno, naming the request's kind (see `iocancel.errors`).
        """
        return errors.check(self.res, self.iocb.call)
