"""Reads of a pipe by POSIX AIO, for the doctor and the demonstration."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from iocancel.doctor import props
from iocancel.doctor.live import LIMIT, Overdue
from iocancel.doctor.machine import is_glibc
from iocancel.posix_aio import Aiocb, CancelStatus, aio_cancel, aio_error, aio_read, aio_return, aio_suspend

__all__ = ["ended", "pipe", "reading", "running"]


def reading(fd: int) -> Aiocb:
    """A read that is in progress."""
    block = Aiocb(fd, bytearray(16))
    aio_read(block)
    return block


def running(fd: int) -> Aiocb:
    """A read that a thread has taken up: on glibc, one that answers NOTCANCELED."""
    deadline = time.monotonic() + LIMIT
    while True:
        block = reading(fd)
        if not is_glibc() or aio_cancel(fd, block) is CancelStatus.NOTCANCELED:
            return block
        if time.monotonic() > deadline:
            raise Overdue(f"no thread took a read up within {LIMIT:g} s")


def ended(block: Aiocb) -> int:
    """How an operation ended, waited for: its result, or a negated errno."""
    if not aio_suspend([block], LIMIT):
        raise Overdue(f"it has not ended within {LIMIT:g} s")
    error = aio_error(block)
    return -error if error else aio_return(block)


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe, on which nothing is in progress any more at the end: a byte for the read that still is."""
    with props.pipe() as (read_end, write_end):
        try:
            yield read_end, write_end
        finally:
            aio_cancel(read_end)
            os.write(write_end, b"x")
