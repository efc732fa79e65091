"""The engine on the C library's POSIX AIO: for where neither io_uring nor Linux AIO is to be had."""

from sys import audit

from iocancel.engines.posix_aio.carrier import PosixAioCarrier
from iocancel.operation import Verbs


class PosixAioEngine(Verbs):
    """Operations carried by the C library's threads: read, write, fsync and timeout. Any kernel.

    What waits for its turn can be cancelled, always. What a thread of the C library's runs can't on glibc:
    a cancel of it gets the verdict TOO_LATE, and `wait(timeout)` raises CancelTooLate at its deadline; the
    operation goes on with its memory. musl interrupts what runs, but for files of a disk and syncs.

    Order: of each file, one operation runs at a time, in the order of their submission; of pipes, sockets,
    terminals and devices one in each direction. glibc runs operations of at most 20 files at a time: twenty
    reads that block hold up everything else of the process that uses POSIX AIO.

    Files: of a pipe, a socket or a device the engine keeps a duplicate until the ending, so closing it or
    giving its number to another file does no harm. A regular file has none (closing a duplicate would drop
    the process's fcntl locks on it): keep its number open until the ending. An operation whose turn comes
    when its number is another file's fails with EBADF.

    A position of -1 in a file that can seek: the file's own position is looked up when the operation's turn
    comes, and set when it has ended. So operations of this engine follow one another; whoever moves the
    position meanwhile, by other calls, gets what such a race gives.

    Args:
        pooled: for one thread that waits for one operation at a time: woken by a pipe that
            `signal.set_wakeup_fd` can have.

    Raises:
        EngineUnavailable: an ancestor of this process used POSIX AIO before the fork; no fd is left.
    """

    _carrier: PosixAioCarrier

    def __init__(self, *, pooled: bool = False) -> None:
        audit("iocancel.open_engine", "posix_aio")  # before there is anything to close
        self._quiet = pooled
        super().__init__(PosixAioCarrier(pooled))


__all__ = ["PosixAioCarrier", "PosixAioEngine"]
