"""liburing, one to one, in Python: rings, entries, completions, flags, and everything about cancelling.

    from iocancel.uring import Ring

    with Ring() as ring:
        sqe = ring.get_sqe()
        sqe.prep_read(fd, buffer)
        sqe.user_data = 1
        ring.submit()
        sqe = ring.get_sqe()
        sqe.prep_cancel64(1)
        ring.submit()
        for cqe in ring.wait(2):
            ...

Names are the C library's, less their prefix. Results are what the kernel answers; `Cqe.check()` turns a
negated errno into an exception.
"""

from iocancel.uring.closing import CLOSE_TIMEOUT
from iocancel.uring.cqe import Cqe
from iocancel.uring.flags import (
    AcceptFlags,
    CancelFlags,
    CqeFlags,
    Features,
    FsyncFlags,
    MsgRingFlags,
    PollFlags,
    RecvSendFlags,
    SetupFlags,
    SqeFlags,
    TimeoutFlags,
)
from iocancel.uring.memory import MsgHdr, SockAddr
from iocancel.uring.opcodes import Opcode
from iocancel.uring.probe import Probe, cancel_flags
from iocancel.uring.registered import BufRing
from iocancel.uring.ring import Ring
from iocancel.uring.sqe import Sqe

IORING_ASYNC_CANCEL_ALL = CancelFlags.ALL
IORING_ASYNC_CANCEL_FD = CancelFlags.FD
IORING_ASYNC_CANCEL_ANY = CancelFlags.ANY
IORING_ASYNC_CANCEL_FD_FIXED = CancelFlags.FD_FIXED
IORING_ASYNC_CANCEL_USERDATA = CancelFlags.USERDATA
IORING_ASYNC_CANCEL_OP = CancelFlags.OP

__all__ = [
    "CLOSE_TIMEOUT",
    "IORING_ASYNC_CANCEL_ALL",
    "IORING_ASYNC_CANCEL_ANY",
    "IORING_ASYNC_CANCEL_FD",
    "IORING_ASYNC_CANCEL_FD_FIXED",
    "IORING_ASYNC_CANCEL_OP",
    "IORING_ASYNC_CANCEL_USERDATA",
    "AcceptFlags",
    "BufRing",
    "CancelFlags",
    "Cqe",
    "CqeFlags",
    "Features",
    "FsyncFlags",
    "MsgHdr",
    "MsgRingFlags",
    "Opcode",
    "PollFlags",
    "Probe",
    "RecvSendFlags",
    "Ring",
    "SetupFlags",
    "SockAddr",
    "Sqe",
    "SqeFlags",
    "TimeoutFlags",
    "cancel_flags",
]
