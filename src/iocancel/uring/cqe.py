"""One completion."""

from __future__ import annotations

import errno
from typing import Any

from iocancel import errors
from iocancel._native import lib
from iocancel.uring.flags import CqeFlags

_MORE, _NOTIF, _BUFFER = lib.IORING_CQE_F_MORE, lib.IORING_CQE_F_NOTIF, lib.IORING_CQE_F_BUFFER
_SHIFT = lib.IORING_CQE_BUFFER_SHIFT
_LOW = (1 << _SHIFT) - 1


class Cqe:
    """What the kernel reported of a request (io_uring(7), io_uring_wait_cqe(3)).

    Attributes:
        user_data (int): the number that the request was submitted with.
        res (int): the result, `>= 0`, or a negated errno.
        flags (int): `CqeFlags`, and a buffer's number in the upper 16 bits.
        data: the object that was set as `Sqe.data`, where the ring knows it.
        call (str): the C name of what prepared the request, where the ring knows it: it does not where
            requests of several kinds, or none, are in flight with that user_data.

    A ring makes them, and gives them the `feature` that the request needed, for `check`.
    """

    __slots__ = ("_feature", "_given_back", "call", "data", "flags", "res", "user_data")

    def __init__(
        self,
        user_data: int,
        res: int,
        flags: int = 0,
        data: Any = None,
        call: str = "",
        feature: tuple[str, str] = ("", ""),
    ) -> None:
        self.user_data = user_data
        self.res = res
        self.flags = flags
        self.data = data
        self.call = call
        self._feature = feature
        self._given_back = False  # its buffer: see BufRing

    def check(self) -> int:
        """The result, or the exception for it.

        Returns:
            `res`, when it is `>= 0`.

        Raises:
            OSError: with the true errno; its type goes by `call` (see `iocancel.errors`), and is plain
                OSError where the call is not known and the errno is ambiguous. A timeout that ran out
                (-ETIME) is one, too: that is how it succeeds.
        """
        if self.res >= 0:
            return self.res
        if self.res == -errno.ETIME and "timeout" in self.call and "remove" not in self.call:
            raise errors.plain(errno.ETIME, self.call)
        return errors.check(self.res, self.call, feature=self._feature[0], since=self._feature[1])

    @property
    def more(self) -> bool:
        """Whether the request goes on: another completion of it will come."""
        return bool(self.flags & _MORE)

    @property
    def notification(self) -> bool:
        """Whether this is a zero-copy send giving its memory back, and no result."""
        return bool(self.flags & _NOTIF)

    @property
    def buffer_id(self) -> int | None:
        """The number of the buffer that the kernel picked, or None."""
        return self.flags >> _SHIFT if self.flags & _BUFFER else None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Cqe):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash((self.user_data, self.res, self.flags))

    def _key(self) -> tuple[Any, ...]:
        return self.user_data, self.res, self.flags, self.data, self.call

    def __repr__(self) -> str:
        res = f"{self.res}" if self.res >= 0 else f"-{errno.errorcode.get(-self.res, str(-self.res))}"
        flags = f" {CqeFlags(self.flags & _LOW).name}" if self.flags & _LOW else ""
        picked = f" buffer_id={self.buffer_id}" if self.buffer_id is not None else ""
        call = f" {self.call.removeprefix('io_uring_')}" if self.call else ""
        return f"<Cqe{call} user_data={self.user_data} res={res}{flags}{picked}>"
