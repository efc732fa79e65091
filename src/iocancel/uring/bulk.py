"""Many requests in one call: those that need no memory, filled in C."""

from __future__ import annotations

import errno
import os
import struct
import sys
from array import array
from collections.abc import Iterable
from typing import Any

from iocancel import _record, errors
from iocancel._native import ffi, lib
from iocancel.uring.core import RingCore
from iocancel.uring.flags import CancelFlags, SqeFlags, bits

_ENTRY = struct.Struct("=BBHiQQIIQHHIQQ")
_SKIP = lib.IOSQE_CQE_SKIP_SUCCESS
_BY_USER_DATA = lib.IORING_ASYNC_CANCEL_ALL | lib.IORING_ASYNC_CANCEL_USERDATA
_LITTLE = sys.byteorder == "little"
# Looked up once: these are the hot paths.
_poll_one, _cancel_one, _NULL = lib.ioc_poll_one, lib.ioc_cancel_one, ffi.NULL
_push_many = lib.ioc_push_many
_CANCEL_FIRST, _TARGET_FIRST, _ECANCELED = lib.IOC_CANCEL_FIRST, lib.IOC_TARGET_FIRST, -errno.ECANCELED
_POLL_ADD, _ASYNC_CANCEL = lib.IORING_OP_POLL_ADD, lib.IORING_OP_ASYNC_CANCEL


class Bulk(RingCore):
    """The bulk forms of `Ring`."""

    def prep_nop_many(self, user_data: Iterable[int]) -> int:
        """Prepares a NOP for each user_data; returns their number. All or none: QueueFull."""
        return self._push_many(lib.IORING_OP_NOP, user_data, fd=-1, call="prep_nop_many")

    def prep_poll_add_many(self, fds: Iterable[int], poll_mask: int, user_data: Iterable[int]) -> int:
        """Prepares a poll for each fd (io_uring_prep_poll_add(3)).

        Args:
            fds: file numbers.
            poll_mask: what to wait for, `select.POLLIN` ...
            user_data: as many numbers.

        Returns:
            How many were prepared: all, or none and QueueFull.
        """
        mask = (
            poll_mask if _LITTLE else (poll_mask >> 16 | poll_mask << 16) & 0xFFFFFFFF
        )  # as the kernel's ABI
        return self._push_many(_POLL_ADD, user_data, fds=fds, op_flags=mask, call="prep_poll_add_many")

    def prep_cancel64_many(
        self, targets: Iterable[int], user_data: int | Iterable[int], flags: int = 0, *, sqe_flags: int = 0
    ) -> int:
        """Prepares a cancel by user_data for each target (io_uring_prep_cancel64(3)).

        Newest first, at most 1,024 at a time, each batch reaped before the next, with
        `sqe_flags=SqeFlags.CQE_SKIP_SUCCESS`: so the cost of one does not grow with their number.

        Args:
            targets: the user_data of the requests to cancel.
            user_data: the cancels' own numbers: one for all, or as many.
            flags: `CancelFlags`: 0, ALL or USERDATA.
            sqe_flags: `SqeFlags` of the cancels.

        Returns:
            How many were prepared: all, or none and QueueFull.
        """
        number = _simple(flags) if flags else 0
        return self._push_many(
            lib.IORING_OP_ASYNC_CANCEL,
            user_data,
            fd=-1,
            addrs=targets,
            op_flags=number,
            sqe_flags=bits(SqeFlags, sqe_flags, "sqe_flags"),
            call="prep_cancel64_many",
        )

    # One request without memory, in one call

    def submit_poll_add(self, fd: int, poll_mask: int, user_data: int) -> int:
        """Submits one poll at once (io_uring_prep_poll_add(3)), behind what is prepared.

        Args:
            fd: a file number.
            poll_mask: what to wait for, `select.POLLIN` ...
            user_data: its number.

        Returns:
            1; QueueFull and the other errors are as for `submit()`.
        """
        if self._owner or self._staged:
            self._flush_first()
        res = _poll_one(self._handle, fd, poll_mask, user_data)
        return res if res > 0 else self._took(res, "io_uring_submit")

    def submit_cancel64(
        self, target: int, user_data: int, flags: int = 0, *, n: int = 0
    ) -> list[tuple[int, int, int]]:
        """Submits one cancel by user_data at once and reaps (io_uring_prep_cancel64(3)).

        Args:
            target: the user_data of the request to cancel.
            user_data: the cancel's own number.
            flags: `CancelFlags`: 0, ALL or USERDATA.
            n: how many completions to wait for; 0 takes what is there. Two for a cancel and a target
                of which nothing was reaped before.

        Returns:
            (user_data, res, flags) of each completion; errors are as for `submit_and_reap()`.
        """
        if self._owner or self._staged or self._undelivered is not None or n != 2:
            return self._submit_cancel(target, user_data, flags, n)
        if self._reaper:  # no bytecode between this and the store lets another thread run
            raise self._busy()
        self._reaper = -1
        try:
            seen = self._seen
            how = _simple(flags) << 16 | 2 if flags else 2
            count = _cancel_one(self._handle, target, user_data, how, seen)
            if count == _CANCEL_FIRST:
                self._seen = seen ^ 1
                return [(user_data, 0, 0), (target, _ECANCELED, 0)]
            if count == _TARGET_FIRST:
                self._seen = seen ^ 1
                return [(target, _ECANCELED, 0), (user_data, 0, 0)]
            return self._cancelled(count, 2, 2)
        finally:
            self._reaper = 0

    def _submit_cancel(self, target: int, user_data: int, flags: int, n: int) -> list[tuple[int, int, int]]:
        """The same, where there is more to it."""
        self._flush_first()
        self._start_reaping()
        try:
            left = self._wanted(n)
            if self._undelivered is not None:  # of an interrupted call: they count, and come first
                self._stash()
                left = max(0, n - self._pending())
            how = _simple(flags) << 16 | left if flags else left
            count = _cancel_one(self._handle, target, user_data, how, self._seen)
            return self._cancelled(count, n, left)
        finally:
            self._reaper = 0

    def _cancelled(self, count: int, n: int, left: int) -> list[tuple[int, int, int]]:
        """What a cancel's call has brought, and what is still to come of `n`."""
        if count < 0 and count != -errno.EINTR:
            self._took(count, "io_uring_submit")
        if self._out.n < left:
            self._fetch(n, None, submit=False)
        return self._take()

    def _flush_first(self) -> None:
        """What was prepared goes first; a single issuer's ring is its thread's."""
        self._check_open()
        if self._staged:
            self._took(self._enter(0, -1, _NULL), "io_uring_submit")

    def _push_many(
        self,
        opcode: int,
        user_data: int | Iterable[int],
        *,
        fd: int = -1,
        fds: Iterable[int] | None = None,
        addrs: Iterable[int] | None = None,
        op_flags: int = 0,
        sqe_flags: int = 0,
        call: str,
    ) -> int:
        self._check_open()
        address_column = _column("Q", addrs, "targets")
        fd_column = _column("i", fds, "fds")
        one = user_data if isinstance(user_data, int) else None
        names = None if isinstance(user_data, int) else _column("Q", user_data, "user_data")
        # From here on they can't be resized (another thread, a handler), and the memory says its own length.
        name_pin = _pointer("uint64_t[]", names)
        address_pin, fd_pin = _pointer("uint64_t[]", address_column), _pointer("int32_t[]", fd_column)
        lengths = {len(pin) for pin in (name_pin, address_pin, fd_pin) if pin is not _NULL}
        if len(lengths) != 1:
            raise ValueError(f"{call}: the columns are not of one length")
        (count,) = lengths
        try:
            entry = _ENTRY.pack(opcode, sqe_flags, 0, fd, 0, 0, 0, op_flags, one or 0, 0, 0, 0, 0, 0)
        except struct.error as error:
            raise OverflowError(f"{call}: {error}") from None
        if self._staged:  # they were first
            self._took(self._enter(0, -1, ffi.NULL), "io_uring_submit")
        if sqe_flags & _SKIP:
            self._ledger.skip_bare(names if names is not None else [one or 0])
        res = _push_many(
            self._handle,
            entry,
            count,
            name_pin,
            address_pin,
            fd_pin,
        )
        self._backlog = self._ask(lib.ioc_sq_ready)
        if res == -errno.EAGAIN:
            raise errors.QueueFull(
                errno.EAGAIN,
                f"{os.strerror(errno.EAGAIN)}: {call}: {count} entries do not fit into what is left of "
                f"{self._sq_entries}: submit() first, or fewer at a time",
            )
        return self._took(res, call)


def _simple(flags: int) -> int:
    """The flags of a cancel by user_data that names nothing else."""
    number = bits(CancelFlags, flags, "flags")
    if number & ~_BY_USER_DATA:
        raise ValueError(f"a cancel by user_data in bulk takes ALL and USERDATA, not {CancelFlags(number)!r}")
    return number


def _column(code: str, values: Iterable[int] | None, what: str) -> array[int] | None:
    """A column of numbers as C takes it; an array of the right kind is taken as it is."""
    if values is None or (isinstance(values, array) and values.typecode == code):
        return values
    try:
        return array(code, values)
    except OverflowError as error:
        raise OverflowError(f"{what}: {error}") from None
    except TypeError as error:
        raise TypeError(f"{what} takes numbers: {error}") from None


def _pointer(kind: str, column: array[int] | None) -> Any:
    return _NULL if column is None else ffi.from_buffer(kind, column)


_record.join(globals(), _cancel_one="cancel_one", _push_many="push_many")
