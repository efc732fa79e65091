"""One submission entry: its 64 bytes, and what has to live as long as the kernel may use it.

An entry is filled here, in Python's memory, and moved into the ring when it is submitted; so an entry
that was half filled when something went wrong never reaches the kernel. The layout is the kernel's ABI
(`struct io_uring_sqe`); csrc/uring.c asserts it against the header, and a test compares every request's
bytes with liburing's own.
"""

from __future__ import annotations

import operator
import struct
from typing import TYPE_CHECKING, Any

from iocancel.uring.flags import SqeFlags, bits

if TYPE_CHECKING:
    from iocancel.uring.ring import Ring

# opcode flags ioprio fd off addr len op_flags user_data buf_index personality file_index addr3 pad
_LAYOUT = struct.Struct("=BBHiQQIIQHHIQQ")
_NAMES = [
    "opcode",
    "flags",
    "ioprio",
    "fd",
    "off",
    "addr",
    "len",
    "op_flags",
    "user_data",
    "buf_index",
    "personality",
    "file_index",
    "addr3",
    "pad",
]
_USER_DATA = struct.Struct("=Q")
_FLAGS_AT, _USER_DATA_AT, _GROUP_AT, _PERSONALITY_AT = 1, 32, 40, 42
_U16 = struct.Struct("=H")
MASK64 = (1 << 64) - 1


class Entry:
    """What `Sqe` is without its requests."""

    __slots__ = (
        "__weakref__",
        "_bytes",
        "_call",
        "_data",
        "_entered",
        "_feature",
        "_flags",
        "_gives_fd",
        "_implied",
        "_message",
        "_pins",
        "_ring",
        "_user_data",
    )

    _ring: Ring | None
    _data: Any
    _pins: tuple[Any, ...]
    _message: tuple[Any, int] | None

    def __init__(self, ring: Ring) -> None:
        self._ring = ring  # None once it is submitted
        self._bytes = bytearray(64)  # zeroes: a NOP
        self._bytes[4:8] = b"\xff\xff\xff\xff"  # fd -1, as liburing's NOP
        self._user_data = -1  # none set
        self._data = None
        self._pins = ()
        self._call = "io_uring_prep_nop"
        self._feature = ""
        self._flags = self._implied = 0
        self._gives_fd = False
        self._entered = False  # in the ring's ledger
        self._message = None  # (ring or None for our own, user_data): a completion that no entry of ours has

    def _live(self) -> None:
        if self._ring is None:
            raise ValueError("this entry was submitted already: get a new one from Ring.get_sqe()")

    def _put(
        self,
        call: str,
        opcode: int,
        fd: int = -1,
        off: int = 0,
        addr: int = 0,
        length: int = 0,
        op_flags: int = 0,
        *,
        ioprio: int = 0,
        buf_index: int = 0,
        file_index: int = 0,
        addr3: int = 0,
        implied: int = 0,
        pins: tuple[Any, ...] = (),
        gives_fd: bool = False,
        feature: str = "",
        message: tuple[Any, int] | None = None,
    ) -> None:
        """Fills the entry; user_data, the user's own flags and personality stay.

        The numbers are checked by their width: OverflowError names the one that does not fit. Signed
        offsets and 32-bit values may be given negative, as C converts them.
        """
        self._live()
        old = self._bytes
        new = bytearray(64)
        fields = (
            opcode,
            self._flags | implied,
            ioprio,
            fd,
            off if off >= 0 else _two(off, 64, "off"),
            addr,
            length if length >= 0 else _two(length, 32, "len"),
            op_flags if op_flags >= 0 else _two(op_flags, 32, "op_flags"),
            0,
            buf_index,
            0,
            file_index if file_index >= 0 else _two(file_index, 32, "file_index"),
            addr3,
            0,
        )
        try:
            _LAYOUT.pack_into(new, 0, *fields)
        except struct.error:
            raise _misfit(call, fields) from None
        if self._ring is None:  # an argument's __index__, or another thread, has submitted it meanwhile
            self._live()
        new[_USER_DATA_AT : _USER_DATA_AT + 8] = old[_USER_DATA_AT : _USER_DATA_AT + 8]
        new[_PERSONALITY_AT : _PERSONALITY_AT + 2] = old[_PERSONALITY_AT : _PERSONALITY_AT + 2]
        self._bytes, self._pins, self._implied = new, pins, implied
        self._call, self._gives_fd, self._feature, self._message = call, gives_fd, feature, message

    @property
    def user_data(self) -> int:
        """The number that names the request to the kernel, 0 to 2**64 - 1; a new one where none was set."""
        if self._user_data < 0:
            self._live()
            self.user_data = self._ring._unique()  # type: ignore[union-attr]
        return self._user_data

    @user_data.setter
    def user_data(self, value: int) -> None:
        if type(value) is not int:
            try:
                value = operator.index(value)  # once: what the kernel gets is what the ledger has
            except TypeError:
                raise TypeError(f"user_data takes an int, not {type(value).__name__}") from None
        self._live()
        try:
            _USER_DATA.pack_into(self._bytes, _USER_DATA_AT, value)
        except struct.error:
            raise OverflowError(f"user_data takes 0 to 2**64 - 1, not {value}") from None
        self._user_data = value

    @property
    def data(self) -> Any:
        """Any Python object; its completion brings it back as `Cqe.data`, and `prep_cancel` finds it."""
        return self._data

    @data.setter
    def data(self, value: Any) -> None:
        self._live()
        self._data = value

    @property
    def flags(self) -> SqeFlags:
        """How the request is handled: those set here, and those that its kind needs."""
        return SqeFlags(self._flags | self._implied)

    @flags.setter
    def flags(self, value: int) -> None:
        self._live()
        self._flags = bits(SqeFlags, value, "flags")
        self._bytes[_FLAGS_AT] = self._flags | self._implied

    @property
    def buf_group(self) -> int:
        """The group that the kernel picks a buffer from, with `SqeFlags.BUFFER_SELECT`."""
        return int(_U16.unpack_from(self._bytes, _GROUP_AT)[0])

    @buf_group.setter
    def buf_group(self, value: int) -> None:
        self._live()
        self._u16(_GROUP_AT, value, "buf_group")

    @property
    def personality(self) -> int:
        """The registered credentials that the request runs with, 0 for one's own."""
        return int(_U16.unpack_from(self._bytes, _PERSONALITY_AT)[0])

    @personality.setter
    def personality(self, value: int) -> None:
        self._live()
        self._u16(_PERSONALITY_AT, value, "personality")

    def _u16(self, at: int, value: int, what: str) -> None:
        try:
            _U16.pack_into(self._bytes, at, value)
        except struct.error:
            if not isinstance(value, int):
                raise TypeError(f"{what} takes an int, not {type(value).__name__}") from None
            raise OverflowError(f"{what} takes 0 to 65535, not {value}") from None

    @property
    def opcode(self) -> int:
        """The kind of request, an `Opcode`'s number."""
        return self._bytes[0]

    def __repr__(self) -> str:
        state = "submitted" if self._ring is None else "prepared"
        name = self._call.removeprefix("io_uring_")
        return f"<Sqe {name} user_data={self._user_data if self._user_data >= 0 else None} {state}>"


def _two(value: int, width: int, what: str) -> int:
    """A negative number as C stores it in an unsigned field."""
    if value < -(1 << (width - 1)):
        raise OverflowError(f"{what}: {value} does not fit into {width} bits")
    return value & ((1 << width) - 1)


def _misfit(call: str, fields: tuple[Any, ...]) -> Exception:
    """The exception for the field that does not fit."""
    for name, code, value in zip(_NAMES, "BBHiQQIIQHHIQQ", fields, strict=True):
        try:
            struct.pack(f"={code}", value)
        except struct.error as error:
            if not hasattr(value, "__index__"):
                return TypeError(f"{call}: {name} takes an int, not {type(value).__name__}")
            return OverflowError(f"{call}: {name}={value} does not fit ({error})")
    raise AssertionError(fields)
