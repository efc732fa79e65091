"""Run a command where io_uring is forbidden, as in a container: python tools/wheel/no_uring.py COMMAND...

Docker's profile lets io_uring_setup, io_uring_enter and io_uring_register fail with EPERM, and so does the
filter here. What is run inherits it and can't take it off again. Nothing but the standard library is needed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

FORBIDDEN = (425, 426, 427)  # setup, enter, register: newer calls have one number on every architecture
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
PR_SET_NO_NEW_PRIVS = 38
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF
ALLOW, ERRNO = 0x7FFF0000, 0x00050000


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def program() -> list[bytes]:
    """Return the filter: the system call's number is the first word of what it is given."""
    code = [struct.pack("HBBI", LOAD_WORD, 0, 0, 0)]
    for left, number in zip(range(len(FORBIDDEN), 0, -1), FORBIDDEN, strict=True):
        code.append(struct.pack("HBBI", JUMP_IF_EQUAL, left, 0, number))
    code.append(struct.pack("HBBI", RETURN, 0, 0, ALLOW))
    code.append(struct.pack("HBBI", RETURN, 0, 0, ERRNO | errno.EPERM))
    return code


def forbid() -> None:
    """Forbid io_uring to this process and to what it starts, for ever.

    Raises:
        OSError: this kernel has no seccomp filters, or allows none.
    """
    code = program()
    given = Program(len(code), b"".join(code))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(given), 0, 0
    ):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl: {os.strerror(number)}: no seccomp filter can be installed here")


def main(command: list[str]) -> None:
    """Become the command."""
    if not command:
        raise SystemExit(__doc__)
    forbid()
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise SystemExit(f"no_uring: {command[0]}: {error.strerror}") from None


if __name__ == "__main__":
    main(sys.argv[1:])
