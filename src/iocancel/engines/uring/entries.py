"""The entries of the verbs: which kind of request each is, and how its 64 bytes are made.

The five that programs live on are packed here; the others are made by `iocancel.uring.Sqe`, so by the same
code that the bindings have.
"""

from __future__ import annotations

import contextlib
import operator
import os
import socket
import stat
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from iocancel._native import ffi, lib
from iocancel.operation import OTHER, Operation, Reach
from iocancel.operation.rooms import Room
from iocancel.uring import MsgHdr, SockAddr, Sqe, memory
from iocancel.uring.prep_recv import control_messages
from iocancel.uring.prep_wait import child_state

# opcode (flags ioprio) fd off addr len op_flags user_data (buf_index personality file_index addr3 pad)
_pack = struct.Struct("=B3xiQQIIQ24x").pack
_from_buffer, _cast = ffi.from_buffer, ffi.cast
_UINTPTR = ffi.typeof("uintptr_t")
_BYTES = ffi.typeof("uint8_t[]")
_READ, _WRITE, _RECV, _SEND = (
    lib.IORING_OP_READ,
    lib.IORING_OP_WRITE,
    lib.IORING_OP_RECV,
    lib.IORING_OP_SEND,
)
_POLL = lib.IORING_OP_POLL_ADD
# Plain numbers: an enum's `&` takes a microsecond.
_PEEK = int(socket.MSG_PEEK)
_WAITALL = int(socket.MSG_WAITALL)
_LITTLE = struct.pack("=I", 1) == b"\1\0\0\0"
_CURRENT = (1 << 64) - 1  # the file's own position
_TOO_FAR = 1 << 63
_LINK = lib.IOSQE_IO_LINK
_TIMER = OTHER | 1 << 60  # in the user_data of link timeouts
_CMSG = struct.Struct("@Nii")
_INT = struct.Struct("@i")
_WORD = struct.calcsize("@N")
_CLOEXEC_FDS = 0x40000000  # MSG_CMSG_CLOEXEC


class Loose(Sqe):
    """An entry of no ring: the engine keeps what it points to."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(_NO_RING)


_NO_RING: Any = object()


def made(op: Operation[Any], sqe: Sqe) -> None:
    """Takes over what a `prep_` has made."""
    raw = sqe._bytes
    raw[32:40] = op._token.to_bytes(8, memory._ENDIAN)
    op._entry = bytes(raw)
    op._pins = sqe._pins
    op._feature = sqe._feature


def link_timeout(op: Operation[Any]) -> None:
    """Puts a link timeout behind an operation's entry; the kernel copies its time when it is submitted."""
    sqe = Loose()
    sqe.prep_link_timeout(max(0.0, (op._expires or 0.0) - time.monotonic()))
    raw = sqe._bytes
    raw[32:40] = (op._token | _TIMER).to_bytes(8, memory._ENDIAN)
    head = bytearray(op._entry)
    head[1] |= _LINK
    op._entry = bytes(head + raw)
    op._pins = (op._pins, sqe._pins)


def renew(op: Operation[Any], same: Any) -> None:
    """Makes what the kernel has given back ready to be handed over again, on a duplicate of its fd."""
    raw = bytearray(op._entry[:64])
    raw[1] &= ~_LINK
    if same is not None:
        raw[4:8] = _INT.pack(same[0])
        # What was given to it is kept, and no longer asked for its number: it may be closed by now.
        op._pins = (op._pins, op._file, same)
        op._file = None
    op._entry = bytes(raw)
    if op._expires is not None:
        link_timeout(op)


# The hot ones


_NO_BUFFER = (TypeError, ValueError, BufferError)


def _position(offset: int) -> int:
    if offset == -1:
        return _CURRENT
    number = operator.index(offset)
    if not 0 <= number < _TOO_FAR:
        raise ValueError(f"offset takes -1 or 0 to 2**63 - 1, not {offset}")
    return number


_MOST = 0x7FFFF000  # what read(2) and its like move at most; an entry's length ends at 2**32 - 1


def _fill(op: Operation[Any], opcode: int, pin: Any, offset: int, flags: int) -> None:
    """Make the entry of a request with one buffer: of one of more than 2 GiB its first part, as read(2).

    The pin is made by each of the four that call this: one more call makes `engine.send` slower by 1 to 4 %.
    """
    op._pins = pin
    many = len(pin)
    where = int(_cast(_UINTPTR, pin))
    op._entry = _pack(opcode, op._fd, offset, where, many if many <= _MOST else _MOST, flags, op._token)


def _export(found: Room) -> None:
    pin = _from_buffer(_BYTES, found.buffer, True)
    found.where = int(_cast(_UINTPTR, pin))
    found.pin = pin  # behind the address


def _fill_room(op: Operation[Any], found: Room, opcode: int, offset: int, flags: int) -> None:
    """The same to memory of our own, whose export and address are known from its last use."""
    if found.pin is None:
        _export(found)
    op._pins = found.pin
    many = len(found.buffer)
    op._entry = _pack(opcode, op._fd, offset, found.where, many if many <= _MOST else _MOST, flags, op._token)


def read(op: Operation[Any], buf: Any, offset: int) -> None:
    """IORING_OP_READ."""
    found = op._buffer
    if found is not None:
        if offset.__class__ is not int or not 0 <= offset < _TOO_FAR:
            offset = _position(offset)
        _fill_room(op, found, _READ, offset, 0)
        return
    try:
        pin = _from_buffer(_BYTES, buf, True)
    except _NO_BUFFER:
        pin = memory.writable(buf)  # says what is wrong
    if offset.__class__ is not int or not 0 <= offset < _TOO_FAR:
        offset = _position(offset)
    _fill(op, _READ, pin, offset, 0)


def write(op: Operation[Any], data: Any, offset: int) -> None:
    """IORING_OP_WRITE."""
    try:
        pin = _from_buffer(_BYTES, data)
    except _NO_BUFFER:
        pin = memory.readable(data)  # says what is wrong
    if offset.__class__ is not int or not 0 <= offset < _TOO_FAR:
        offset = _position(offset)
    _fill(op, _WRITE, pin, offset, 0)
    if offset == _CURRENT and len(pin) > 1 and _blocks(op._fd):
        raw = bytearray(op._entry)
        raw[1] |= lib.IOSQE_ASYNC
        op._entry = bytes(raw)


def _blocks(fd: int) -> bool:
    """Whether a write would block the submitting thread itself, in io_uring_enter.

    What has no FMODE_NOWAIT the kernel polls (6.18), and when that says "writable" it calls write; a
    terminal's then waits until all is written. In a worker it can be cancelled, and tells how much was.
    """
    try:
        return stat.S_ISCHR(os.fstat(fd).st_mode)
    except OSError:  # the request says so
        return False


def _whole(op: Operation[Any], flags: int) -> int:
    """MSG_WAITALL only where it means something.

    The kernel goes on behind what it has with the same flags (6.18): a MSG_PEEK sees the same bytes again,
    and two records of a SOCK_SEQPACKET become one.
    """
    if flags & _PEEK:
        return flags & ~_WAITALL
    try:
        with socket.socket(fileno=os.dup(op._fd)) as same:
            stream = same.type == socket.SOCK_STREAM
    except OSError:  # it is no socket: the request says so
        return flags
    return flags if stream else flags & ~_WAITALL


def recv(op: Operation[Any], buf: Any, flags: int) -> None:
    """IORING_OP_RECV."""
    if flags & _WAITALL:
        flags = _whole(op, flags)
    found = op._buffer
    if found is not None:
        _fill_room(op, found, _RECV, 0, flags)
        return
    try:
        pin = _from_buffer(_BYTES, buf, True)
    except _NO_BUFFER:
        pin = memory.writable(buf)  # says what is wrong
    _fill(op, _RECV, pin, 0, flags)


def send(op: Operation[Any], data: Any, flags: int) -> None:
    """IORING_OP_SEND. No SIGPIPE, as Python has it for sockets and files alike."""
    try:
        pin = _from_buffer(_BYTES, data)
    except _NO_BUFFER:
        pin = memory.readable(data)  # says what is wrong
    _fill(op, _SEND, pin, 0, flags | _NOSIGNAL)


def poll(op: Operation[Any], mask: int) -> None:
    """IORING_OP_POLL_ADD."""
    op._entry = poll_entry(op._fd, mask, op._token)


def poll_entry(fd: int, mask: int, token: int) -> bytes:
    """The entry of a poll."""
    bits = mask if _LITTLE else (mask >> 16 | mask << 16) & 0xFFFFFFFF
    return _pack(_POLL, fd, 0, 0, 0, bits, token)


def stream_entry(fd: int, found: Room, many: int, token: int, socket: bool) -> bytes:
    """The entry of a stream's read of its file, of at most so many bytes, to memory of our own."""
    if found.pin is None:
        _export(found)
    if socket:
        return _pack(_RECV, fd, 0, found.where, many, 0, token)
    return _pack(_READ, fd, _CURRENT, found.where, many, 0, token)


_NOSIGNAL = 0x4000  # MSG_NOSIGNAL

# The others


def _by(prepare: Callable[..., None]) -> Callable[..., None]:
    """An entry that a `prep_` makes, on the operation's own file."""

    def make(op: Operation[Any], *args: Any) -> None:
        sqe = Loose()
        prepare(sqe, op._fd, *args)
        made(op, sqe)

    return make


def send_zc(op: Operation[Any], data: Any, flags: int) -> None:
    """IORING_OP_SEND_ZC."""
    sqe = Loose()
    sqe.prep_send_zc(op._fd, data, flags | _NOSIGNAL)
    made(op, sqe)


def fsync(op: Operation[Any], datasync: bool) -> None:
    """IORING_OP_FSYNC."""
    sqe = Loose()
    sqe.prep_fsync(op._fd, lib.IORING_FSYNC_DATASYNC if datasync else 0)
    made(op, sqe)


def splice(op: Operation[Any], src: Any, count: int, off_src: int, off_dst: int, flags: int) -> None:
    """IORING_OP_SPLICE; it is keyed by its output."""
    sqe = Loose()
    sqe.prep_splice(memory.file_number(src), off_src, op._fd, off_dst, count, flags)
    made(op, sqe)


def tee(op: Operation[Any], src: Any, count: int, flags: int) -> None:
    """IORING_OP_TEE."""
    sqe = Loose()
    sqe.prep_tee(memory.file_number(src), op._fd, count, flags)
    made(op, sqe)


def accept(op: Operation[Any]) -> None:
    """IORING_OP_ACCEPT."""
    sqe = Loose()
    address = SockAddr()
    sqe.prep_accept(op._fd, address, os.O_CLOEXEC)
    made(op, sqe)
    op._address = lambda: address.value


def connect(op: Operation[Any], address: Any) -> None:
    """IORING_OP_CONNECT."""
    sqe = Loose()
    sqe.prep_connect(op._fd, memory.socket_address(address, op._file))
    made(op, sqe)


def timeout(op: Operation[Any], seconds: float) -> None:
    """IORING_OP_TIMEOUT."""
    sqe = Loose()
    sqe.prep_timeout(seconds)
    made(op, sqe)


def openat(op: Operation[Any], path: Any, flags: int, mode: int, dir_fd: Any) -> None:
    """IORING_OP_OPENAT, in a worker, unless it is not to block: only there a FIFO's open is open(2)."""
    sqe = Loose()
    sqe.prep_openat(dir_fd, path, flags, mode)
    if not flags & os.O_NONBLOCK:
        sqe._bytes[1] |= lib.IOSQE_ASYNC
    made(op, sqe)


def close(op: Operation[Any]) -> None:
    """IORING_OP_CLOSE."""
    sqe = Loose()
    sqe.prep_close(op._fd)
    made(op, sqe)


def waitid(op: Operation[Any], idtype: int, number: int, options: int) -> None:
    """IORING_OP_WAITID."""
    sqe = Loose()
    info = bytearray(lib.IOC_SIZEOF_SIGINFO)
    sqe.prep_waitid(idtype, number, options, info)
    made(op, sqe)
    op._value = lambda _op, _res: child_state(info)


def futex_wait(op: Operation[Any], futex: Any, val: int) -> None:
    """IORING_OP_FUTEX_WAIT."""
    sqe = Loose()
    sqe.prep_futex_wait(futex, val)
    made(op, sqe)


def recvmsg(op: Operation[Any], bufsize: int, ancbufsize: int, flags: int) -> None:
    """IORING_OP_RECVMSG."""
    if flags & _WAITALL:
        flags = _whole(op, flags)
    buffer, control = bytearray(bufsize), bytearray(ancbufsize)
    message = MsgHdr([buffer], name=SockAddr(), control=control if ancbufsize else None)
    sqe = Loose()
    sqe.prep_recvmsg(op._fd, message, flags | _CLOEXEC_FDS)
    made(op, sqe)

    def ancillary() -> list[tuple[int, int, bytes]]:
        return control_messages(control[: message.controllen])

    op._value = lambda _op, res: (
        bytes(buffer[:res]),
        ancillary(),
        message.flags & ~_CLOEXEC_FDS,
        message.name,
    )
    op._dispose = lambda _op, _res: close_rights(ancillary())


def close_rights(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
    """Close the fds that came in a message that nobody has taken; returns how many."""
    many = 0
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            for (fd,) in struct.iter_unpack("i", data[: len(data) // 4 * 4]):
                many += 1
                with contextlib.suppress(OSError):
                    os.close(fd)
    return many


def control_bytes(ancdata: Sequence[tuple[int, int, Any]]) -> bytes:
    """Ancillary data as CMSG(3) lays it out."""
    parts = []
    for level, kind, data in ancdata:
        raw = memory.copied(data, "ancdata")
        size = _CMSG.size + len(raw)
        parts.append(_CMSG.pack(size, level, kind) + raw + bytes(-size % _WORD))
    return b"".join(parts)


def sendmsg(op: Operation[Any], buffers: list[Any], ancdata: list[Any], flags: int, address: Any) -> None:
    """IORING_OP_SENDMSG."""
    name = None if address is None else memory.socket_address(address, op._file)
    control = control_bytes(ancdata) if ancdata else None
    sqe = Loose()
    sqe.prep_sendmsg(op._fd, MsgHdr(buffers, name=name, control=control), flags | _NOSIGNAL)
    made(op, sqe)


TABLE: dict[str, tuple[int, str, Callable[..., None]]] = {
    "read": (_READ, "5.6", read),
    "write": (_WRITE, "5.6", write),
    "recv": (_RECV, "5.6", recv),
    "send": (_SEND, "5.6", send),
    "poll": (_POLL, "5.1", poll),
    "send_zc": (lib.IORING_OP_SEND_ZC, "6.0", send_zc),
    "readv": (lib.IORING_OP_READV, "5.1", _by(Sqe.prep_readv)),
    "writev": (lib.IORING_OP_WRITEV, "5.1", _by(Sqe.prep_writev)),
    "fsync": (lib.IORING_OP_FSYNC, "5.1", fsync),
    "splice": (lib.IORING_OP_SPLICE, "5.7", splice),
    "tee": (lib.IORING_OP_TEE, "5.8", tee),
    "accept": (lib.IORING_OP_ACCEPT, "5.5", accept),
    "connect": (lib.IORING_OP_CONNECT, "5.5", connect),
    "recvmsg": (lib.IORING_OP_RECVMSG, "5.3", recvmsg),
    "sendmsg": (lib.IORING_OP_SENDMSG, "5.3", sendmsg),
    "timeout": (lib.IORING_OP_TIMEOUT, "5.4", timeout),
    "openat": (lib.IORING_OP_OPENAT, "5.6", openat),
    "close": (lib.IORING_OP_CLOSE, "5.6", close),
    "waitid": (lib.IORING_OP_WAITID, "6.7", waitid),
    "futex_wait": (lib.IORING_OP_FUTEX_WAIT, "6.7", futex_wait),
}
"""verb -> its opcode, the first kernel, what makes its entry"""

# Once it runs. Reads and writes of a disk's files run to their end; in a pipe or a socket they wait.
REACH = {
    "read": Reach.PARTIAL,
    "readv": Reach.PARTIAL,
    "write": Reach.PARTIAL,
    "writev": Reach.PARTIAL,
    "send": Reach.PARTIAL,
    "sendmsg": Reach.PARTIAL,
    "send_zc": Reach.PARTIAL,
    "recv": Reach.PARTIAL,
    "recvmsg": Reach.PARTIAL,
    "splice": Reach.PARTIAL,
    "tee": Reach.PARTIAL,
    "connect": Reach.PARTIAL,
    "fsync": Reach.NONE,
    "close": Reach.NONE,
}
