"""The requests that cancel others.

What the kernel answers, as seen from 5.10 to 7.2 (docs/kernel-facts.md has the whole table):

- By user_data, by FD or by OP, one match: res 0, and the target's own completion comes (-ECANCELED);
  none: -ENOENT. With ALL, or ANY: the number of matches, 0 where there are none, never -ENOENT; and 0
  as well for a request that runs in a worker and was interrupted, 1 for one FUTEX_WAIT or WAITID.
- -EALREADY: it runs in a worker; it ends by itself, perhaps with -EINTR.
- -ENOENT does not mean "has ended": direct I/O in flight is not found either, nor is a request that
  waits behind IO_DRAIN or in a link.
- Only the target's own completion says what became of it.
"""

from __future__ import annotations

from typing import Any

from iocancel._native import lib
from iocancel.uring import memory
from iocancel.uring.entry import MASK64, Entry
from iocancel.uring.flags import CancelFlags, bits
from iocancel.uring.opcodes import Opcode
from iocancel.uring.probe import require_cancel_flags

_ALL, _FD, _ANY = lib.IORING_ASYNC_CANCEL_ALL, lib.IORING_ASYNC_CANCEL_FD, lib.IORING_ASYNC_CANCEL_ANY
_FD_FIXED, _USERDATA = lib.IORING_ASYNC_CANCEL_FD_FIXED, lib.IORING_ASYNC_CANCEL_USERDATA
_OP = lib.IORING_ASYNC_CANCEL_OP

_SINCE = ((_OP | _USERDATA, "6.6"), (_FD_FIXED, "6.0"), (_ALL | _FD | _ANY, "5.19"))


def cancel_feature(flags: int) -> str:
    """What a cancel with these flags needs of the kernel, as names; "" for what all kernels have."""
    return " | ".join(f"IORING_ASYNC_CANCEL_{flag.name}" for flag in CancelFlags if flags & flag)


def cancel_since(flags: int) -> str:
    """The first mainline kernel that knows all of these flags."""
    return next((since for group, since in _SINCE if flags & group), "5.5")


def cancel_opcode(opcode: int | None, flags: int) -> tuple[int, int]:
    """The opcode to match, and the flags with OP in them where one was given."""
    if opcode is None:
        if flags & _OP:
            raise ValueError("CancelFlags.OP needs opcode=, the kind of request to cancel")
        return 0, flags
    if isinstance(opcode, bool) or not isinstance(opcode, int):
        raise TypeError(f"opcode takes an Opcode or int, not {type(opcode).__name__}")
    if not 0 <= opcode <= 255:
        raise ValueError(f"opcode takes 0 to 255, not {opcode}")
    return int(opcode), flags | _OP


class PrepCancel(Entry):
    """Requests that cancel requests of the same ring, in flight since before.

    Completion: 0 where one match was found, and -ENOENT where there was none; with ALL or ANY their number,
    0 where there was none. -EALREADY: it runs in a worker, and ends by itself. None of these says that the
    target has ended, nor how: only its own completion does. (-ENOENT also stands for what a disk has in hand
    or what waits behind IO_DRAIN or in a link; 0 with ALL or ANY also for one in a worker that was
    interrupted; 1 for one futex_wait or waitid.)
    """

    __slots__ = ()

    def prep_cancel(self, data: Any, flags: int = 0, *, opcode: int | None = None) -> None:
        """Cancel by object: the request whose `data` is this very object (io_uring_prep_cancel(3)).

        C does it by pointer. An object that no request of this ring has is looked for all the same, and
        the kernel answers -ENOENT.

        Args:
            data: the object that was set as `Sqe.data`.
            flags: `CancelFlags`: ALL for every request with that object; ANY for everything in the ring,
                whatever `data` is.
            opcode: match only (with USERDATA) or instead (without) this kind of request; sets OP.

        Raises:
            ValueError: a combination that no kernel takes (ANY with OP; FD: use `prep_cancel_fd`).
            TypeError: flags of another kind.
            FeatureUnavailable: OP or USERDATA where this kernel does not act on them as it should.

        Completion: as of all cancels. Linux 5.5; flags 5.19 and later.
        """
        self._live()
        user_data = self._ring._user_data_of(data)  # type: ignore[union-attr]
        self._cancel("io_uring_prep_cancel", user_data, flags, opcode)

    def prep_cancel64(self, user_data: int, flags: int = 0, *, opcode: int | None = None) -> None:
        """Cancel by user_data (io_uring_prep_cancel64(3)).

        Args:
            user_data: the number that the target was submitted with, 0 to 2**64 - 1.
            flags, opcode: as for `prep_cancel`.

        Raises, completion, since: as for `prep_cancel`; OverflowError for a number beyond 64 bits.
        """
        if isinstance(user_data, bool) or not isinstance(user_data, int):
            raise TypeError(
                f"user_data takes an int, not {type(user_data).__name__}: prep_cancel takes objects"
            )
        if not 0 <= user_data <= MASK64:
            raise OverflowError(f"user_data takes 0 to 2**64 - 1, not {user_data}")
        self._cancel("io_uring_prep_cancel64", user_data, flags, opcode)

    def prep_cancel_fd(
        self, fd: Any, flags: int = 0, *, user_data: int | None = None, opcode: int | None = None
    ) -> None:
        """Cancel by the open file that an fd refers to (io_uring_prep_cancel_fd(3)).

        The kernel compares open files, not numbers: a dup of the fd, or a registered file, matches; after
        `close(fd)` nothing does (-EBADF), and a number that was used again is another file. SPLICE goes
        by its output fd, a timeout by none.

        Args:
            fd: the file's number (or an object with `fileno()`); with FD_FIXED an index of the
                registered files.
            flags: `CancelFlags`; FD is set by itself. ALL for every request on that file.
            user_data: match only requests with this number, too; sets USERDATA.
            opcode: match only this kind of request, too; sets OP.

        Raises:
            ValueError: ANY, which no entry takes beside FD.
            TypeError, FeatureUnavailable: as for `prep_cancel`.

        Completion: as of all cancels; -EBADF for a bad fd or an empty slot. Linux 5.19; FD_FIXED 6.0.
        """
        number = bits(CancelFlags, flags, "flags") | _FD
        if number & _ANY:
            raise ValueError("FD and ANY: no kernel takes both in one entry (register_sync_cancel does)")
        if user_data is not None:
            if isinstance(user_data, bool) or not isinstance(user_data, int):
                raise TypeError(f"user_data takes an int, not {type(user_data).__name__}")
            if not 0 <= user_data <= MASK64:
                raise OverflowError(f"user_data takes 0 to 2**64 - 1, not {user_data}")
            number |= _USERDATA
        elif number & _USERDATA:
            raise ValueError("CancelFlags.USERDATA beside an fd needs user_data=")
        op, number = cancel_opcode(opcode, number)
        require_cancel_flags(number)
        self._put(
            "io_uring_prep_cancel_fd",
            lib.IORING_OP_ASYNC_CANCEL,
            memory.file_number(fd),
            addr=user_data or 0,
            length=op,
            op_flags=number,
            pins=() if type(fd) is int else (fd,),
        )

    def _cancel(self, call: str, user_data: int, flags: int, opcode: int | None) -> None:
        number = bits(CancelFlags, flags, "flags")
        if number & _FD:
            raise ValueError("CancelFlags.FD: use prep_cancel_fd, which takes the fd")
        op, number = cancel_opcode(opcode, number)
        if number & _ANY and number & _OP:
            raise ValueError("ANY and OP: no kernel takes both in one entry (register_sync_cancel does)")
        require_cancel_flags(number)
        self._put(
            call,
            lib.IORING_OP_ASYNC_CANCEL,
            addr=user_data,
            length=op,
            op_flags=number,
        )


def check_sync_flags(flags: int, fd: int, opcode: int | None) -> tuple[int, int]:
    """The flags and opcode of a synchronous cancel, checked and completed as the caller meant them."""
    number = bits(CancelFlags, flags, "flags")
    if fd >= 0:
        number |= _FD
    elif number & _FD:
        raise ValueError("CancelFlags.FD needs fd=")
    if opcode == 0 and not number & _OP:
        opcode = None  # 0 is "none given" here, but for OP (Opcode.NOP)
    return cancel_opcode(opcode, number)


__all__ = ["Opcode", "PrepCancel"]
