"""What every kind of request has: its number, its settings, what it pins.

The class methods that make requests, with all the documentation, are in `iocb.py`.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final, Self

from iocancel.libaio import memory
from iocancel.libaio.flags import Opcode, PollEvents, RwFlags, bits, whole
from iocancel.libaio.memory import file_number

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

_OFF_MIN, _OFF_MAX = -(1 << 63), (1 << 63) - 1
_TRANSFERS: Final = frozenset((Opcode.PREAD, Opcode.PWRITE, Opcode.PREADV, Opcode.PWRITEV))
_READS: Final = frozenset((Opcode.PREAD, Opcode.PREADV))
_VECTORS: Final = frozenset((Opcode.PREADV, Opcode.PWRITEV))
_CALLS: Final = {op: op.name.lower() for op in Opcode} | {Opcode.FDSYNC: "fdatasync"}
_numbers = itertools.count(1)

claims: dict[int, int] = {}
"""Who is in flight, in whichever context: the number of an Iocb -> the serial number of its submission."""


class Request:
    """One request, of whatever kind."""

    __slots__ = (
        "__weakref__",
        "_batch",
        "_buffers",
        "_data",
        "_eventfd",
        "_events",
        "_file",
        "_ioprio",
        "_number",
        "_offset",
        "_opcode",
        "_reaped",
        "_rw_flags",
    )

    _batch: Any  # the submission that it is in flight in, a ledger.Batch
    _buffers: tuple[Any, ...]
    _data: Any
    _eventfd: FileDescriptorLike | None
    _events: PollEvents
    _file: FileDescriptorLike
    _ioprio: int  # -1: none
    _number: int  # its own, for ever
    _offset: int
    _opcode: Opcode
    _reaped: bool  # it was in flight, and its event was reaped
    _rw_flags: RwFlags

    def __init__(self) -> None:
        """Not to be called.

        Raises:
            TypeError: always.
        """
        raise TypeError("make an Iocb by one of its class methods: Iocb.pread(), Iocb.poll() ...")

    @classmethod
    def _make(
        cls,
        opcode: Opcode,
        fd: FileDescriptorLike,
        buffers: tuple[Any, ...] = (),
        offset: int = 0,
        events: int = 0,
        rw_flags: int = 0,
        ioprio: int | None = None,
        data: Any = None,
    ) -> Self:
        self = cls.__new__(cls)
        self._number = next(_numbers)
        self._batch = None
        self._reaped = False
        self._opcode = opcode
        self._file = fd
        file_number(fd, "fd")
        self._buffers = buffers
        self._offset = whole(offset, "offset", _OFF_MIN, _OFF_MAX)
        self._events = bits(PollEvents, events, "events")
        self._eventfd = None
        self._data = data
        self._rw_flags = bits(RwFlags, rw_flags, "rw_flags")
        self._ioprio = -1 if ioprio is None else whole(ioprio, "ioprio", 0, 0xFFFF)
        self._pin()  # a wrong buffer is refused here, not at submit; nothing stays exported
        return self

    def set_eventfd(self, fd: FileDescriptorLike | None) -> None:
        """Let the ending add 1 to an eventfd, also that of a cancelled request (io_set_eventfd(3)).

        Args:
            fd: the eventfd, a number or an object with a `fileno()`, which is kept; None for none.
                What is not an eventfd is refused with EINVAL or EBADF at submit.

        Raises:
            TypeError: for anything else.
            ValueError: for a negative number, or while the request is in flight.
        """
        self._resting("set_eventfd")
        if fd is not None and file_number(fd, "fd") < 0:
            raise ValueError(f"fd takes an eventfd's number or None, not {fd}")
        self._eventfd = fd

    @property
    def data(self) -> Any:
        """Any object; the event gives it back. Not to be set while in flight (ValueError)."""
        return self._data

    @data.setter
    def data(self, value: Any) -> None:
        self._resting("data")
        self._data = value

    @property
    def rw_flags(self) -> RwFlags:
        """How the read or write is done; can't be set while in flight, nor for other kinds (ValueError)."""
        return self._rw_flags

    @rw_flags.setter
    def rw_flags(self, value: int) -> None:
        self._resting("rw_flags", transfer=True)
        self._rw_flags = bits(RwFlags, value, "rw_flags")

    @property
    def ioprio(self) -> int | None:
        """The I/O priority, or None; can't be set while in flight, nor for other kinds (ValueError)."""
        return None if self._ioprio < 0 else self._ioprio

    @ioprio.setter
    def ioprio(self, value: int | None) -> None:
        self._resting("ioprio", transfer=True)
        self._ioprio = -1 if value is None else whole(value, "ioprio", 0, 0xFFFF)

    @property
    def opcode(self) -> Opcode:
        """What the request asks for."""
        return self._opcode

    @property
    def call(self) -> str:
        """The name of the call that does the same, for messages: "pread", "poll" ..."""
        return _CALLS[self._opcode]

    @property
    def in_flight(self) -> bool:
        """Whether the request was submitted and its event not yet reaped."""
        return self._number in claims

    def _resting(self, what: str, *, transfer: bool = False) -> None:
        if self._number in claims:
            raise ValueError(f"{what}: {self!r} can't be changed before its event has been reaped")
        if transfer and self._opcode not in _TRANSFERS:
            raise ValueError(f"{what}: only reads and writes have it, not {self._opcode.name}")

    def _pin(self) -> tuple[int, int, Any]:
        """The address, the length, and what has to live (and stays exported) until the event."""
        if self._opcode not in _TRANSFERS:
            return int(self._events), 0, None
        return memory.pin(self._buffers, self._opcode in _READS, self._opcode in _VECTORS)

    def _packed(self) -> tuple[tuple[int, ...], Any]:
        """The fields of a `struct ioc_laio_entry`, and what has to live until the event."""
        address, length, pins = self._pin()
        fields = (
            address,
            length,
            self._offset,
            file_number(self._file, "fd"),
            int(self._rw_flags),
            self._resfd(),
            self._ioprio,
            int(self._opcode),
            0,
        )
        return fields, (pins, self._file, self._eventfd)

    def _resfd(self) -> int:
        if self._eventfd is None:
            return -1
        number = file_number(self._eventfd, "the eventfd")
        if number < 0:  # -1 would mean that there is none, and nobody would hear of the ending
            raise ValueError(f"the eventfd of {self!r} is closed")
        return number

    def __reduce__(self) -> str:
        raise TypeError("an Iocb can't be copied or pickled: the kernel knows the original alone")

    def __repr__(self) -> str:
        more = " in flight" if self._number in claims else ""
        if self._opcode is Opcode.POLL:
            more = f" events={self._events.name or 0}{more}"
        elif self._opcode in _TRANSFERS:
            more = f" offset={self._offset}{more}"
        return f"<Iocb {self.call} fd={self._file!r}{more}>"
