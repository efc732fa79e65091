"""A submission entry with all the requests that it can hold.

One method a request, by liburing's name less the prefix; the parameters are C's, in C's order, with a
buffer object where C has a pointer and a length. Left out of what liburing 2.15 has:

- `prep_uring_cmd`, `prep_uring_cmd128`, `prep_nop128`: a raw command's payload can hold any address, so
  it can't be made safe in memory, and rings with entries of 128 bytes are not offered. The commands
  with a known payload are there: `prep_cmd_sock`, `prep_cmd_getsockname`, `prep_cmd_discard`.
- Receiving without copying (IORING_OP_RECV_ZC, for which liburing has no function either): it needs a
  queue of a network device, set up by more than a ring.
- `prep_rw`, which is a part of the others.
- Sends of iovecs by IORING_SEND_VECTORIZED: `prep_sendmsg` does the same.
"""

from __future__ import annotations

from iocancel.uring.prep_cancel import PrepCancel
from iocancel.uring.prep_data import PrepData
from iocancel.uring.prep_files import PrepFiles
from iocancel.uring.prep_help import FEATURE_SINCE
from iocancel.uring.prep_misc import PrepMisc
from iocancel.uring.prep_net import PrepNet
from iocancel.uring.prep_paths import PrepPaths
from iocancel.uring.prep_recv import PrepRecv
from iocancel.uring.prep_rw import PrepReadWrite
from iocancel.uring.prep_send import PrepSend
from iocancel.uring.prep_time import PrepTime
from iocancel.uring.prep_wait import PrepWait

__all__ = ["FEATURE_SINCE", "Sqe"]


class Sqe(
    PrepReadWrite,
    PrepRecv,
    PrepSend,
    PrepNet,
    PrepTime,
    PrepCancel,
    PrepFiles,
    PrepPaths,
    PrepData,
    PrepWait,
    PrepMisc,
):
    """One submission entry (io_uring_sqe(3)). `Ring.get_sqe()` makes them; a fresh one is a NOP.

    A `prep_*` replaces what the entry held, but for its `user_data`, `data`, `flags` and `personality`.
    Everything that it is given by address is kept alive, and can't be resized, until the request has
    ended. A request's result is its completion's `Cqe.res`, a negated errno where it failed; -ECANCELED
    where it was cancelled, -EINVAL where the kernel is older than the one named (`Cqe.check` tells these
    apart and raises).

    All `prep_*` raise TypeError for an argument of another type (also for a read-only or not contiguous
    buffer where the kernel writes), OverflowError for a number that its C type does not hold, and
    ValueError for an entry that was submitted already, a path with a NUL byte, flags of no known
    meaning, and what each says beside. The entry then stays as it was.
    """

    __slots__ = ()
