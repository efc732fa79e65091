"""What verbs take, looked at, and what the kernel's numbers become."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING, Any

from iocancel.operation.rooms import Room, spare

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from iocancel.operation.operation import Operation

File = Any
"""A file's number, or an object with `fileno()`."""
Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]
_FOUR_GIB = 1 << 32
_LARGE = 1 << 22  # bytes of room that are made at once, where a file may have less


def file_of(fd: File) -> tuple[int, Any]:
    """The number of a file, and the object to ask again, if it is one."""
    if isinstance(fd, int):
        return int(fd), None
    fileno = getattr(fd, "fileno", None)
    if fileno is None:
        raise TypeError(f"a file is an int or an object with fileno(), not {type(fd).__name__}")
    return int(fileno()), fd


def second_file(op: Operation[Any], fd: File) -> int:
    """The number of a further file of an operation; an object is asked for it again at the submit."""
    number, file = file_of(fd)
    if file is not None:
        op._others = ((file, number),)
    return number


def whole(value: int, what: str) -> int:
    """A number that C has as unsigned."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} takes an int, not {type(value).__name__}")
    if not 0 <= value < 1 << 32:
        raise ValueError(f"{what} takes 0 to 2**32 - 1, not {value}")
    return int(value)


def room(op: Operation[Any], into: int | WriteableBuffer) -> WriteableBuffer:
    """Where to read to: the caller's buffer, or one of our own, which makes the value bytes."""
    if isinstance(into, int):
        many = into if into.__class__ is int and 0 <= into < _FOUR_GIB else whole(into, "into")
        try:
            found = spare[many].pop()
        except (KeyError, IndexError):
            found = Room(many)
        op._value = received
        op._buffer = found
        return found.buffer
    return into


def received(op: Operation[Any], res: int) -> bytes:
    """The value of a read to a buffer of our own, where the kernel does not write any more."""
    found: Room = op._buffer
    buffer = found.buffer
    many = len(buffer)
    return bytes(buffer) if res == many else bytes(memoryview(buffer)[:res])


def no_fds(_op: Operation[Any], _res: int) -> int:
    """What becomes of a result that is no fd: nothing to close."""
    return 0


def nothing(_op: Operation[Any], _res: int) -> None:
    """The value of what has none."""


def accepted(op: Operation[Any], fd: int) -> tuple[socket.socket, Any]:
    """The value of an accept: `_address` is what the carrier knows of the peer."""
    # In two steps: an exception from a signal handler must not leave an object that closes the fd.
    conn = socket.socket.__new__(socket.socket)
    try:
        conn.__init__(fileno=fd)  # type: ignore[misc]
        address = op._address
        value = conn, (address() if address is not None else peer(conn))
        op._value, op._claimed = value, True
    except BaseException:
        conn.detach()
        op._value, op._claimed = accepted, False
        raise
    return value


def peer(conn: socket.socket) -> Any:
    """The peer's address; None where it is gone already."""
    try:
        return conn.getpeername()
    except OSError:
        return None


def number_of(fd: File) -> int:
    """A file's number."""
    if isinstance(fd, int):
        return fd
    fileno = getattr(fd, "fileno", None)
    if fileno is None:
        raise TypeError(f"a file is an int or an object with fileno(), not {type(fd).__name__}")
    return int(fileno())


def sensible(number: int, many: int, offset: int) -> int:
    """How many bytes to make room for, where so many were asked for.

    As many as there can be: what is left of a disk's file, or what a pipe, a socket or a terminal may have at
    once. Room for gigabytes that do not come takes seconds, in which nothing can be ended.
    """
    if many <= _LARGE:
        return many
    try:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            return many if stat.S_ISBLK(status.st_mode) else _LARGE
        at = os.lseek(number, 0, os.SEEK_CUR) if offset < 0 else offset
    except OSError:  # the request says what is wrong
        return many
    return min(many, max(_LARGE, status.st_size - at))
