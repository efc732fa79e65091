"""The constants of <aio.h> and <signal.h> that POSIX AIO takes and gives; the values are the compiler's."""

import enum

from iocancel._native import lib

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
    "CancelStatus",
    "LioMode",
    "LioOpcode",
    "Notify",
]


class CancelStatus(enum.IntEnum):
    """What `aio_cancel` answers. The spelling is C's. It says nothing of how an operation ended."""

    CANCELED = lib.AIO_CANCELED
    """All that was asked for had not been started, and was taken out of the queue."""
    NOTCANCELED = lib.AIO_NOTCANCELED
    """One at least runs and is not interrupted (glibc): its buffer is in use until it ends by itself."""
    ALLDONE = lib.AIO_ALLDONE
    """Nothing was there to cancel: all had ended, or was never started."""


class LioOpcode(enum.IntEnum):
    """What `lio_listio` does with a control block."""

    READ = lib.LIO_READ
    """As `aio_read`."""
    WRITE = lib.LIO_WRITE
    """As `aio_write`."""
    NOP = lib.LIO_NOP
    """Nothing: the control block is passed over."""


class LioMode(enum.IntEnum):
    """Whether `lio_listio` waits."""

    WAIT = lib.LIO_WAIT
    """Until every operation of the list has ended."""
    NOWAIT = lib.LIO_NOWAIT
    """It comes back once all are started."""


class Notify(enum.IntEnum):
    """How the end of an operation is told (the `sigev_notify` of sigevent(3type))."""

    NONE = lib.SIGEV_NONE
    """Not at all."""
    SIGNAL = lib.SIGEV_SIGNAL
    """By a signal that is queued to the process."""
    THREAD = lib.SIGEV_THREAD
    """By a thread of the C library's, which here adds 1 to an eventfd."""


AIO_CANCELED, AIO_NOTCANCELED, AIO_ALLDONE = CancelStatus
LIO_READ, LIO_WRITE, LIO_NOP = LioOpcode
LIO_WAIT, LIO_NOWAIT = LioMode
SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD = Notify
