"""POSIX AIO, one to one with the C library's: control blocks, start, ask, wait, cancel.

It is made of threads inside the C library, not by the kernel; how far it goes is the library's affair:

- *glibc* serves each descriptor number by one thread at a time, at most 20 numbers at once (`aio_init`).
  What still waits in a queue can be cancelled; what runs is never interrupted, not by closing either.
- *musl* has a thread for each operation, can cancel a running read, and cancels all when the descriptor
  is closed. It has no `aio_init`.

What an operation did is said by `aio_error` and `aio_return` alone; `aio_cancel` only says what it tried.
Whatever is in progress keeps its memory (see `Aiocb`). Nothing of it survives a fork: once a process has
used it, its forked children can't, and every call there raises `EngineUnavailable`. At the interpreter's
end what is queued is cancelled, and what runs is waited for, a second at most.

    block = Aiocb(fd, bytearray(4096))
    aio_read(block)
    if not aio_suspend([block], timeout=0.5):
        aio_cancel(fd, block)           # CANCELED, or NOTCANCELED: then it goes on
    ...
    if aio_error(block) != errno.EINPROGRESS:
        n = aio_return(block)           # OperationCancelled, when it was cancelled
"""

from iocancel.posix_aio.block import Aiocb
from iocancel.posix_aio.calls import (
    aio_cancel,
    aio_error,
    aio_fsync,
    aio_init,
    aio_read,
    aio_return,
    aio_suspend,
    aio_write,
)
from iocancel.posix_aio.flags import (
    AIO_ALLDONE,
    AIO_CANCELED,
    AIO_NOTCANCELED,
    LIO_NOP,
    LIO_NOWAIT,
    LIO_READ,
    LIO_WAIT,
    LIO_WRITE,
    SIGEV_NONE,
    SIGEV_SIGNAL,
    SIGEV_THREAD,
    CancelStatus,
    LioMode,
    LioOpcode,
    Notify,
)
from iocancel.posix_aio.ledger import in_progress
from iocancel.posix_aio.listio import lio_listio
from iocancel.posix_aio.notify import SigEvent

__all__ = [
    "AIO_ALLDONE",
    "AIO_CANCELED",
    "AIO_NOTCANCELED",
    "LIO_NOP",
    "LIO_NOWAIT",
    "LIO_READ",
    "LIO_WAIT",
    "LIO_WRITE",
    "SIGEV_NONE",
    "SIGEV_SIGNAL",
    "SIGEV_THREAD",
    "Aiocb",
    "CancelStatus",
    "LioMode",
    "LioOpcode",
    "Notify",
    "SigEvent",
    "aio_cancel",
    "aio_error",
    "aio_fsync",
    "aio_init",
    "aio_read",
    "aio_return",
    "aio_suspend",
    "aio_write",
    "in_progress",
    "lio_listio",
]
