"""What io_submit means by refusing a request."""

from __future__ import annotations

import errno

from iocancel import errors
from iocancel.libaio.flags import Opcode
from iocancel.libaio.iocb import Iocb

_HINTS = {
    errno.EAGAIN: "the context has no room for another request: reap events first",
    errno.EBADF: "its fd, or its eventfd, is not open (or not for this)",
    errno.EOPNOTSUPP: "the kernel, or the file, does not support its rw_flags",
    errno.EPERM: "its I/O priority needs a privilege (CAP_SYS_NICE), or io_submit is forbidden here",
}


def refused(res: int, iocb: Iocb) -> OSError:
    """The exception for the first request of a submission."""
    hint = _HINTS.get(-res, "")
    if res == -errno.EINVAL and iocb.opcode is Opcode.POLL:
        hint = "a poll of this file needs more than one wait queue (a FIFO open for both, a pty's master)"
    elif res == -errno.EINVAL:
        hint = "the file can't do this, or offset, length, alignment (O_DIRECT) or priority is wrong"
    try:
        errors.check(res, "io_submit")
    except OSError as error:
        return type(error)(-res, f"{error.strerror}: {iocb!r}" + (f": {hint}" if hint else ""))
    raise AssertionError(res)
