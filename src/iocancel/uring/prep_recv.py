"""Receives, and what a multishot recvmsg leaves in its buffers."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from iocancel._native import lib
from iocancel.uring import memory
from iocancel.uring.flags import RecvSendFlags
from iocancel.uring.memory import MsgHdr
from iocancel.uring.prep_help import Fd, Requests, checked, limited, newest
from iocancel.uring.prep_rw import picked

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_SELECT = lib.IOSQE_BUFFER_SELECT
_POLL_FIRST, _BUNDLE = lib.IORING_RECVSEND_POLL_FIRST, lib.IORING_RECVSEND_BUNDLE
_MULTISHOT = lib.IORING_RECV_MULTISHOT


def message_flags(flags: int) -> int:
    """The MSG_* flags of a send or receive; the top bit is the kernel's own (another layout of msghdr)."""
    return limited(flags, "flags", 31)


class PrepRecv(Requests):
    """Receives.

    Where these have the arguments, they mean: `sockfd`, `fd` the socket (see `Requests`); `flags` the
    MSG_* of recv(2); `ioprio` how io_uring goes about it (`RecvSendFlags.POLL_FIRST`, Linux 5.19, and
    with a group of buffers BUNDLE, Linux 6.10); `buf_group` the group that the kernel picks a buffer of
    (`Cqe.buffer_id` says which; sets `SqeFlags.BUFFER_SELECT`); `nbytes` beside it how much at most, in
    bytes, 0 for what the picked buffer holds.

    Completion: how many bytes came, 0 at the end of a stream; -ENOBUFS where the group is empty. With
    `CqeFlags.SOCK_NONEMPTY` there was more to read.
    """

    __slots__ = ()

    def prep_recv(
        self,
        sockfd: Fd,
        buf: WriteableBuffer | None,
        flags: int = 0,
        *,
        ioprio: int = 0,
        nbytes: int | None = None,
        buf_group: int | None = None,
    ) -> None:
        """Receive into a buffer (io_uring_prep_recv(3)). Linux 5.6; `buf_group` 5.7.

        Args:
            buf: a writable buffer; None where the kernel is to pick one of a group.
            sockfd, flags, ioprio, nbytes, buf_group: see the class.

        Raises:
            TypeError: neither or both of a buffer and a group; a read-only buffer.
            ValueError: BUNDLE without a group; another flag than POLL_FIRST and BUNDLE.
        """
        if buf_group is not None or buf is None or nbytes is not None:
            length, group = picked(buf, nbytes, buf_group)
            self._select("io_uring_prep_recv", lib.IORING_OP_RECV, sockfd, 0, length, flags, ioprio, group, 0)
            return
        if ioprio:
            ioprio = checked(RecvSendFlags, ioprio, "ioprio", _POLL_FIRST)
        pin = memory.writable(buf)
        self._on(
            "io_uring_prep_recv",
            lib.IORING_OP_RECV,
            sockfd,
            0,
            memory.address(pin),
            len(pin),
            message_flags(flags),
            ioprio=ioprio,
            pins=(pin,),
            feature=newest(RecvSendFlags, ioprio),
        )

    def prep_recv_multishot(
        self, sockfd: Fd, buf_group: int, flags: int = 0, *, nbytes: int = 0, ioprio: int = 0
    ) -> None:
        """Receive again and again into buffers of a group (io_uring_prep_recv_multishot(3)). Linux 6.0.

        Completion: one for each receive, `Cqe.more` set until the last.
        """
        self._select(
            "io_uring_prep_recv_multishot",
            lib.IORING_OP_RECV,
            sockfd,
            0,
            limited(nbytes, "nbytes"),
            flags,
            ioprio,
            buf_group,
            _MULTISHOT,
        )

    def prep_recvmsg(
        self, fd: Fd, msg: MsgHdr, flags: int = 0, *, ioprio: int = 0, buf_group: int | None = None
    ) -> None:
        """Receive a message with its address and ancillary data (io_uring_prep_recvmsg(3)). Linux 5.3.

        Args:
            msg: where to; its `name`, `flags` and `controllen` tell the rest once it has completed. One
                `MsgHdr` belongs to one request at a time. With `buf_group` it names one buffer at most,
                whose length is how much is received at most; the data goes to the picked buffer.
            fd, flags, ioprio, buf_group: see the class; no BUNDLE.

        Raises:
            TypeError: a message with a read-only buffer.
        """
        message, pins = _message(msg)
        if buf_group is not None:
            self._select(
                "io_uring_prep_recvmsg",
                lib.IORING_OP_RECVMSG,
                fd,
                message,
                1,
                flags,
                ioprio,
                buf_group,
                0,
                pins,
            )
            return
        ioprio = checked(RecvSendFlags, ioprio, "ioprio", _POLL_FIRST)
        self._on(
            "io_uring_prep_recvmsg",
            lib.IORING_OP_RECVMSG,
            fd,
            0,
            message,
            1,
            message_flags(flags),
            ioprio=ioprio,
            pins=pins,
            feature=newest(RecvSendFlags, ioprio),
        )

    def prep_recvmsg_multishot(
        self, fd: Fd, msg: MsgHdr, buf_group: int, flags: int = 0, *, ioprio: int = 0
    ) -> None:
        """Receive messages again and again (io_uring_prep_recvmsg_multishot(3)). Linux 6.0.

        Address, ancillary data and payload all go to the picked buffer: `RecvmsgOut` takes it apart.

        Args:
            msg: its address and ancillary buffer say only how much room each message sets aside for them
                (`MsgHdr([], name=SockAddr(), control=bytearray(64))`); it names one buffer at most,
                which stays as it is.
            fd, flags, ioprio, buf_group: see the class; no BUNDLE.

        Completion: one for each message, `Cqe.more` set until the last (an empty message may be); the
        result is how much of the picked buffer is filled.
        """
        message, pins = _message(msg)
        self._select(
            "io_uring_prep_recvmsg_multishot",
            lib.IORING_OP_RECVMSG,
            fd,
            message,
            1,
            flags,
            ioprio,
            buf_group,
            _MULTISHOT,
            pins,
        )

    def _select(
        self,
        call: str,
        opcode: int,
        fd: Fd,
        addr: int,
        length: int,
        flags: int,
        ioprio: int,
        buf_group: int,
        multishot: int,
        pins: tuple[Any, ...] = (),
    ) -> None:
        """A receive whose buffer the kernel picks."""
        allowed = _POLL_FIRST if opcode == lib.IORING_OP_RECVMSG else _POLL_FIRST | _BUNDLE
        ioprio = checked(RecvSendFlags, ioprio, "ioprio", allowed | multishot) | multishot
        self._on(
            call,
            opcode,
            fd,
            0,
            addr,
            length,
            message_flags(flags),
            ioprio=ioprio,
            buf_index=buf_group,
            implied=_SELECT,
            pins=pins,
            feature=newest(RecvSendFlags, ioprio),
        )


def _message(msg: MsgHdr) -> tuple[int, tuple[Any, ...]]:
    message, pins = memory.message(msg, write=True)
    return memory.address(message), tuple(pins)


_OUT = struct.Struct("=IIII")
_HEAD = struct.Struct("@Nii")  # struct cmsghdr
_WORD = struct.calcsize("@N")


class RecvmsgOut:
    """What a multishot recvmsg left in the buffer that the kernel picked (io_uring_recvmsg_out(3)).

    Args:
        buf: the buffer, of which the first `Cqe.res` bytes are filled: `view[:cqe.res]`. Everything is
            copied out of it: it may be given back to its group afterwards.
        msg: the `MsgHdr` that the request was prepared with.

    Raises:
        ValueError: a buffer that is too short for what `msg` set aside.
        TypeError: something else than a buffer and a `MsgHdr`.

    Attributes:
        name: the sender's address in Python's form, or None.
        control (bytes): the ancillary data, for `control_messages`.
        payload (bytes): the message itself.
        payloadlen (int): how long the message was; more than `len(payload)` where it was cut.
        flags (int): MSG_TRUNC, MSG_CTRUNC ... of recvmsg(2).
    """

    __slots__ = ("control", "flags", "name", "payload", "payloadlen")

    def __init__(self, buf: ReadableBuffer, msg: MsgHdr) -> None:
        if not isinstance(msg, MsgHdr):
            raise TypeError(f"msg takes a MsgHdr, not {type(msg).__name__}")
        raw = memory.copied(buf)
        name_room, control_room = msg._room()
        start = _OUT.size + name_room + control_room
        if len(raw) < start:
            raise ValueError(f"the buffer has {len(raw)} bytes, the message's head alone takes {start}")
        namelen, controllen, self.payloadlen, self.flags = _OUT.unpack_from(raw)
        control = _OUT.size + name_room
        self.name = memory.python_address(raw[_OUT.size : _OUT.size + min(namelen, name_room)])
        self.control = raw[control : control + min(controllen, control_room)]
        self.payload = raw[start:]


def control_messages(control: ReadableBuffer) -> list[tuple[int, int, bytes]]:
    """Ancillary data taken apart, as `socket.recvmsg` does it (cmsg(3)).

    Args:
        control: the bytes that were filled: `RecvmsgOut.control`, or a `MsgHdr`'s buffer up to its
            `controllen`.

    Returns:
        (level, type, data) of each; one that was cut short by a small buffer has what there is of it.

    Raises:
        TypeError: something else than a buffer.
    """
    raw, at, found = memory.copied(control, "control"), 0, []
    while at + _HEAD.size <= len(raw):
        size, level, kind = _HEAD.unpack_from(raw, at)
        if size < _HEAD.size:
            break
        found.append((level, kind, raw[at + _HEAD.size : at + size]))
        at += (size + _WORD - 1) & -_WORD
    return found
