"""What the requests share: files by number or object, slots of the file table, what a kernel may lack."""

from __future__ import annotations

import operator
import struct
from enum import IntFlag
from typing import Any, Protocol

from iocancel._native import lib
from iocancel.uring import memory
from iocancel.uring.entry import MASK64, Entry
from iocancel.uring.flags import AcceptFlags, MsgRingFlags, PollFlags, RecvSendFlags, TimeoutFlags, bits

AT_FDCWD: int = lib.AT_FDCWD
"""As a directory's fd: the working directory, which relative paths start from."""
FILE_INDEX_ALLOC: int = lib.IORING_FILE_INDEX_ALLOC
"""As a slot of the registered files: a free one, which the completion names (Linux 5.19). -1 is the same."""

DIRECT = "a slot of the registered files as target (sqe.file_index)"
BIG_ADVICE = "an advice for more than 4 GiB (64-bit length)"
SEND_TO = "an address in a send (sqe.addr2)"
SEND_SELECT = "a send from a group of buffers"

FEATURE_SINCE: dict[str, str] = {
    "IORING_TIMEOUT_UPDATE": "5.11",
    "IORING_POLL_ADD_MULTI": "5.13",
    "IORING_POLL_UPDATE_EVENTS": "5.13",
    "IORING_POLL_UPDATE_USER_DATA": "5.13",
    DIRECT: "5.15",
    "IORING_LINK_TIMEOUT_UPDATE": "5.15",
    "IORING_TIMEOUT_BOOTTIME": "5.15",
    "IORING_TIMEOUT_REALTIME": "5.15",
    "IORING_TIMEOUT_ETIME_SUCCESS": "5.16",
    "IORING_ACCEPT_MULTISHOT": "5.19",
    "IORING_FILE_INDEX_ALLOC": "5.19",
    "IORING_RECVSEND_POLL_FIRST": "5.19",
    "IORING_MSG_RING_CQE_SKIP": "6.0",
    "IORING_MSG_SEND_FD": "6.0",
    "IORING_POLL_ADD_LEVEL": "6.0",
    "IORING_RECVSEND_FIXED_BUF": "6.0",
    "IORING_RECV_MULTISHOT": "6.0",
    SEND_TO: "6.1",
    "IORING_SEND_ZC_REPORT_USAGE": "6.2",
    "IORING_MSG_RING_FLAGS_PASS": "6.3",
    "IORING_TIMEOUT_MULTISHOT": "6.4",
    "SOCKET_URING_OP_SIOCINQ": "6.5",
    "SOCKET_URING_OP_SIOCOUTQ": "6.5",
    "SOCKET_URING_OP_GETSOCKOPT": "6.7",
    "SOCKET_URING_OP_SETSOCKOPT": "6.7",
    "IORING_ACCEPT_DONTWAIT": "6.10",
    "IORING_ACCEPT_POLL_FIRST": "6.10",
    "IORING_RECVSEND_BUNDLE": "6.10",
    SEND_SELECT: "6.10",
    BIG_ADVICE: "6.11",
    "BLOCK_URING_CMD_DISCARD": "6.12",
    "IORING_RECVSEND_FIXED_BUF in sendmsg": "6.15",
    "SOCKET_URING_OP_GETSOCKNAME": "6.19",
}
"""The first mainline kernel of what a request may need beyond its opcode."""

_PREFIXES: dict[type[IntFlag], tuple[str, ...]] = {
    AcceptFlags: ("IORING_ACCEPT_",),
    MsgRingFlags: ("IORING_MSG_RING_",),
    PollFlags: ("IORING_POLL_",),
    RecvSendFlags: ("IORING_RECVSEND_", "IORING_", "IORING_SEND_"),
    TimeoutFlags: ("IORING_TIMEOUT_", "IORING_LINK_TIMEOUT_", "IORING_"),
}


def _version(name: str) -> list[int]:
    return [int(part) for part in FEATURE_SINCE[name].split(".")]


# For each kind of flags: its bits with the C name, the newest first.
_NAMED: dict[type[IntFlag], list[tuple[int, str]]] = {
    kind: sorted(
        (
            (flag.value, name)
            for flag in kind
            for name in (f"{prefix}{flag.name}" for prefix in prefixes)
            if name in FEATURE_SINCE
        ),
        key=lambda row: _version(row[1]),
        reverse=True,
    )
    for kind, prefixes in _PREFIXES.items()
}
_NAMED[TimeoutFlags] += [(lib.IORING_LINK_TIMEOUT_UPDATE, "IORING_LINK_TIMEOUT_UPDATE")]

_PAIR32, _PAIR16 = struct.Struct("=II"), struct.Struct("=HH")
_Q, _I = struct.Struct("=Q"), struct.Struct("=I")


class HasFileno(Protocol):
    """A file, a socket, or whatever else has a file's number."""

    def fileno(self) -> int:
        """The file's number."""
        ...


Fd = int | HasFileno


def newest(kind: type[IntFlag], number: int) -> str:
    """The C name of the newest among these flags, "" where every kernel has them all."""
    return next((name for flag, name in _NAMED[kind] if number & flag), "") if number else ""


def checked(kind: type[IntFlag], value: int, argument: str, allowed: int = -1) -> int:
    """The number behind a flags argument of a request that takes only some of the kind's flags."""
    number = bits(kind, value, argument)
    if number & ~allowed:
        raise ValueError(f"{argument}: {kind(number & ~allowed)!r} is not for this request")
    return number


def limited(value: int, what: str, width: int = 32) -> int:
    """A number that C has as unsigned, in a field that is wider, or that is sent on in halves."""
    number = operator.index(value)
    if not 0 <= number < 1 << width:
        raise OverflowError(f"{what} takes 0 to 2**{width} - 1, not {number}")
    return number


def wrapped(value: int, what: str) -> int:
    """A signed 64-bit number as C converts it to the entry's unsigned field."""
    number = operator.index(value)
    if not -(1 << 63) <= number <= MASK64:
        raise OverflowError(f"{what}: {number} does not fit into 64 bits")
    return number & MASK64


def pair32(first: int, second: int) -> int:
    """Two 32-bit fields that lie where another request has one of 64 bits."""
    return int(_Q.unpack(_PAIR32.pack(first & 0xFFFFFFFF, second & 0xFFFFFFFF))[0])


def pair16(first: int, second: int) -> int:
    """Two 16-bit fields that lie where another request has one of 32 bits."""
    return int(_I.unpack(_PAIR16.pack(first, second))[0])


def signed32(value: int, what: str) -> int:
    """A C int."""
    number = operator.index(value)
    if not -(1 << 31) <= number < 1 << 31:
        raise OverflowError(f"{what} takes a C int, not {number}")
    return number


def slot(file_index: int) -> tuple[int, str]:
    """A slot of the registered files as the entry has it (0 means none there), and what that needs."""
    index = operator.index(file_index)
    if index in (-1, FILE_INDEX_ALLOC):
        return FILE_INDEX_ALLOC, "IORING_FILE_INDEX_ALLOC"
    return fixed_slot(index) + 1, DIRECT


def fixed_slot(file_index: int) -> int:
    """A slot of the registered files that has to be named: "any free one" makes no sense."""
    index = operator.index(file_index)
    if not 0 <= index < 1 << 31:
        raise OverflowError(f"file_index takes 0 to 2**31 - 1, not {index}")
    return index


def directory(dfd: Fd | None) -> tuple[int, tuple[Any, ...]]:
    """The number of a directory that a path starts from (None: the working directory), and its pin."""
    if dfd is None:
        return AT_FDCWD, ()
    return memory.file_number(dfd, "dfd"), () if type(dfd) is int else (dfd,)


class Requests(Entry):
    """What each family of requests builds on.

    A file is given by its number, by an object with `fileno()` (which is kept until the request has
    ended), or with `SqeFlags.FIXED_FILE` by its index among the registered files.
    """

    __slots__ = ()

    def _on(
        self,
        call: str,
        opcode: int,
        fd: Fd,
        off: int = 0,
        addr: int = 0,
        length: int = 0,
        op_flags: int = 0,
        *,
        pins: tuple[Any, ...] = (),
        **more: Any,
    ) -> None:
        """`_put` for a request on a file."""
        if type(fd) is not int:
            pins = (*pins, fd)
        self._put(call, opcode, memory.file_number(fd), off, addr, length, op_flags, pins=pins, **more)
