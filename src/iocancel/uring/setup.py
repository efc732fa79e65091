"""The set-up of a ring: what may be asked for, and what a refusal means."""

from __future__ import annotations

import errno
import time
from typing import Any

from iocancel import errors
from iocancel._native import lib
from iocancel.uring import probe as _probe
from iocancel.uring.flags import SetupFlags, bits

_NOT_OFFERED = (
    SetupFlags.SQE128
    | SetupFlags.CQE32
    | SetupFlags.NO_MMAP
    | SetupFlags.REGISTERED_FD_ONLY
    | SetupFlags.CQE_MIXED
    | SetupFlags.SQE_MIXED
    | SetupFlags.SQ_REWIND
    | SetupFlags.NO_SQARRAY  # liburing before 2.6 would write its index array over the ring
)
# The set-up flags that a kernel of these days may lack, the newest first.
_SETUP_SINCE = {
    SetupFlags.HYBRID_IOPOLL: "6.13",
    SetupFlags.DEFER_TASKRUN: "6.1",
    SetupFlags.SINGLE_ISSUER: "6.0",
    SetupFlags.TASKRUN_FLAG: "5.19",
    SetupFlags.COOP_TASKRUN: "5.19",
    SetupFlags.SUBMIT_ALL: "5.18",
}
_PAUSES = (0.001, 0.004, 0.016, 0.064, 0.256)  # seconds between tries where memory is short


def setup_flags(entries: int, flags: int, cq_entries: int | None, sq_thread_idle: int, attached: bool) -> int:
    """The set-up flags of a ring, its arguments checked; those that an argument implies are set."""
    number = bits(SetupFlags, flags, "flags")
    if number & _NOT_OFFERED:
        raise ValueError(f"set-up flags that are not offered: {SetupFlags(number) & _NOT_OFFERED!r}")
    _positive(entries, "entries", 32768 if not number & SetupFlags.CLAMP else 1 << 31)
    if cq_entries is not None:
        _positive(cq_entries, "cq_entries", 65536 if not number & SetupFlags.CLAMP else 1 << 31)
        number |= SetupFlags.CQSIZE
    elif number & SetupFlags.CQSIZE:
        raise ValueError("SetupFlags.CQSIZE needs cq_entries=")
    if not 0 <= sq_thread_idle < 1 << 32:
        raise ValueError(f"sq_thread_idle takes 0 to 2**32 - 1 milliseconds, not {sq_thread_idle}")
    if attached:
        number |= SetupFlags.ATTACH_WQ
    elif number & SetupFlags.ATTACH_WQ:
        raise ValueError("SetupFlags.ATTACH_WQ needs attach=")
    return number


def set_up(handle: Any, entries: int, flags: int, cq_entries: int, idle: int, wq_fd: int) -> None:
    """Sets the ring up; where memory is short, again: what closed rings held is given back late."""
    pauses = iter(_PAUSES)
    while True:
        res = lib.ioc_ring_setup(handle, entries, flags, cq_entries, idle, wq_fd)
        pause = next(pauses, None)
        if res != -errno.ENOMEM or pause is None:
            break
        time.sleep(pause)
    if res == -errno.EINVAL:
        for flag, since in _SETUP_SINCE.items():
            if flags & flag and not _flag_works(flag):
                raise errors.feature_unavailable(f"IORING_SETUP_{flag.name}", since, "io_uring_setup")
    errors.check(res, "io_uring_queue_init_params")


def _positive(value: int, what: str, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} takes an int, not {type(value).__name__}")
    if not 1 <= value <= most:
        raise ValueError(f"{what} takes 1 to {most}, not {value}")


def _flag_works(flag: SetupFlags) -> bool:
    """Whether the kernel knows a set-up flag: tried on a ring of its own, with what the flag needs."""
    needs = {
        SetupFlags.HYBRID_IOPOLL: SetupFlags.IOPOLL,
        SetupFlags.DEFER_TASKRUN: SetupFlags.SINGLE_ISSUER,
        SetupFlags.TASKRUN_FLAG: SetupFlags.COOP_TASKRUN,
    }
    return _probe.setup_works(int(flag | needs.get(flag, SetupFlags(0))))
