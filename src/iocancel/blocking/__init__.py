"""Blocking I/O for plain threads that a deadline, another thread or Ctrl-C can end.

Each verb does one thing, waits for it, and returns its value. It ends early

- at its `timeout`, in seconds from the call (TimeoutError), or the deadline of a `CancelScope` around it
  (`Cancelled`, which that scope catches): whichever is first;
- by `scope.cancel()`, from another thread or from a signal's handler;
- by an exception of a signal's handler, as Ctrl-C's KeyboardInterrupt. A value that had come when it came is
  its `operation`'s, an attribute of the exception: `error.operation.result()`.

In each case the kernel's request is gone before the exception is raised: nothing is read, written or accepted
afterwards, and no buffer touched. What came first is returned, and the next verb in a cancelled scope raises.
Only where the system can't stop a request (a disk's, a hung server's) `CancelTooLate` is raised after some
seconds: it has the operation, which goes on.

What is ready is taken at once, by one system call that never waits. Else an engine is borrowed from the
process's pool (`iocancel.pool`). What this machine's engine can't do raises `FeatureUnavailable`, which names
the engines that can.

A file is a number or an object with `fileno()`; O_NONBLOCK is left as it is, and does not matter.
"""

from iocancel.blocking.data import (
    read,
    readv,
    recv,
    recv_into,
    recvmsg,
    send,
    sendall,
    sendmsg,
    write,
    write_all,
    writev,
)
from iocancel.blocking.waits import (
    accept,
    connect,
    fsync,
    futex_wait,
    open,  # noqa: A004
    poll,
    sleep,
    sleep_forever,
    sleep_until,
    splice,
    tee,
    waitid,
)

__all__ = [
    "accept",
    "connect",
    "fsync",
    "futex_wait",
    "open",
    "poll",
    "read",
    "readv",
    "recv",
    "recv_into",
    "recvmsg",
    "send",
    "sendall",
    "sendmsg",
    "sleep",
    "sleep_forever",
    "sleep_until",
    "splice",
    "tee",
    "waitid",
    "write",
    "write_all",
    "writev",
]
