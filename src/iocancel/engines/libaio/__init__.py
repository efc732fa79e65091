"""The engine on Linux AIO (libaio)."""

from sys import audit

from iocancel.engines.libaio.carrier import LibaioCarrier
from iocancel.operation import Verbs


class LibaioEngine(Verbs):
    """Operations carried by Linux AIO. Linux 4.19 and later.

    Linux AIO by itself can cancel polls, and what USB gadgets' endpoints read and write, and nothing else.
    So here a disk's files and such endpoints are read and written by it, and for everything else it waits,
    by a poll, until the file is ready; the thread that leads then makes a call that does not wait. Until
    that call is made nothing has happened, and the operation can be cancelled. The file's own O_NONBLOCK is
    never touched.

    What that means for a program:

    - At its own position (offset -1) a disk's file is read and written by the thread that submits, at once
      and in order: Linux AIO has no position. What is cancelled before it is submitted does not move it. Any
      other transfer of such a file, too, is waited for by the thread that submits unless the file was
      opened with O_DIRECT, and none of them can be cancelled. Pipes and sockets ignore an offset.
    - The number is looked up again for the call. If it names another file by then the operation fails
      with EBADF. (Files without an inode of their own, as eventfds, can't be told apart.)
    - Three calls can't be told not to wait: accept on a blocking socket, a read of some blocking devices (a
      pseudoterminal's master; others that know neither RWF_NOWAIT nor a second open), and an eventfd's
      write. They are made right after a look that says "ready"; if another process or thread takes what
      was there in between, the call waits for the next. Where several accept from one socket, make it
      non-blocking: then this can't be.
    - An unfinished connect that is cancelled is taken back (the socket is disconnected).
    - `recvmsg` and `sendmsg` with MSG_WAITALL move what they can at once; `recv` and `send` move all.
    - `waitid` waits for one process (P_PID, P_PIDFD) to exit; other waits need io_uring.
    - What io_uring has and this does not: `openat` (an open can't be made not to wait), `futex_wait`,
      `send_zc`.

    Args:
        nr_events: for how many operations at once there is room in the beginning, 1 or more. It grows, for as
            long as the sysctl fs.aio-max-nr allows; operations that find no room wait for it.
        pooled: for one thread that waits for one operation at a time: woken by a pipe that
            `signal.set_wakeup_fd` can have. It does not grow: what would ring in a further context is an
            eventfd.

    Raises:
        EngineUnavailable: Linux AIO can't be had here; `.reason` and `.remedy` say why and what helps.
    """

    _carrier: LibaioCarrier

    def __init__(self, nr_events: int = 1024, *, pooled: bool = False) -> None:
        audit("iocancel.open_engine", "libaio")  # before there is anything to close
        self._quiet = pooled
        super().__init__(LibaioCarrier(nr_events, pooled))
        self._carrier.attach(self)


__all__ = ["LibaioCarrier", "LibaioEngine"]
