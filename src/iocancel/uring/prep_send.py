"""Sends."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from iocancel._native import lib
from iocancel.uring import memory
from iocancel.uring.flags import RecvSendFlags
from iocancel.uring.memory import MsgHdr
from iocancel.uring.prep_help import SEND_SELECT, SEND_TO, Fd, Requests, checked, limited, newest, pair16
from iocancel.uring.prep_recv import message_flags
from iocancel.uring.prep_rw import picked

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_SELECT = lib.IOSQE_BUFFER_SELECT
_POLL_FIRST, _BUNDLE = lib.IORING_RECVSEND_POLL_FIRST, lib.IORING_RECVSEND_BUNDLE
_FIXED, _REPORT = lib.IORING_RECVSEND_FIXED_BUF, lib.IORING_SEND_ZC_REPORT_USAGE
_ADDR_AT, _ADDR_LEN_AT = 8, 44
_Q, _I = struct.Struct("=Q"), struct.Struct("=I")


class PrepSend(Requests):
    """Sends.

    Where these have the arguments, they mean: `sockfd`, `fd` the socket (see `Requests`); `buf` what is
    sent (below 4 GiB); `msg` the same as a `MsgHdr`, with its address and ancillary data; `flags` the
    MSG_* of send(2); `ioprio`, `zc_flags` how io_uring goes about it (`RecvSendFlags.POLL_FIRST`, Linux
    5.19; for zero-copy sends also SEND_ZC_REPORT_USAGE, Linux 6.2); `buf_index` which of the registered
    buffers the memory lies in.

    Completion: how many bytes were sent, possibly fewer than given; with MSG_WAITALL the kernel goes on
    until all are sent. A zero-copy send has a second completion once the kernel has let go of the memory
    (`Cqe.notification`), which lasts as long as the peer has not read (and may need the peer to close);
    the first one has `Cqe.more` set if it will come.
    """

    __slots__ = ()

    def prep_send(
        self,
        sockfd: Fd,
        buf: ReadableBuffer | None,
        flags: int = 0,
        *,
        ioprio: int = 0,
        nbytes: int | None = None,
        buf_group: int | None = None,
    ) -> None:
        """Send a buffer (io_uring_prep_send(3)). Linux 5.6.

        Args:
            buf: the data; None where the kernel is to pick a buffer of a group.
            nbytes: beside `buf_group`: how much at most, in bytes; 0 for all that the buffer holds.
            buf_group: the group to pick a buffer of; sets `SqeFlags.BUFFER_SELECT`. Linux 6.10.
            sockfd, flags, ioprio: see the class.

        Raises:
            TypeError: neither or both of a buffer and a group.
        """
        if buf_group is not None or buf is None or nbytes is not None:
            length, group = picked(buf, nbytes, buf_group)
            self._picked_send("io_uring_prep_send", sockfd, length, flags, ioprio, group, 0)
            return
        ioprio = checked(RecvSendFlags, ioprio, "ioprio", _POLL_FIRST)
        self._plain_send("io_uring_prep_send", lib.IORING_OP_SEND, sockfd, buf, flags, ioprio)

    def prep_send_bundle(
        self, sockfd: Fd, length: int, flags: int, buf_group: int, *, ioprio: int = 0
    ) -> None:
        """Send several buffers of a group at once (io_uring_prep_send_bundle(3)). Linux 6.10.

        Args:
            length: 0: all that the group has ready. (Man page: others are refused; kernels take them as
                a limit for each round.)
            buf_group: the group, one of a buffer ring.
            sockfd, flags, ioprio: see the class.

        Completion: as for all sends; `Cqe.buffer_id` is the first buffer that was sent. Where `Cqe.more` is
        set, the kernel looks for more buffers; -ENOBUFS is then the last.
        """
        length = limited(length, "length")
        self._picked_send("io_uring_prep_send_bundle", sockfd, length, flags, ioprio, buf_group, _BUNDLE)

    def prep_sendto(self, sockfd: Fd, buf: ReadableBuffer, flags: int, addr: Any) -> None:
        """Send a buffer to an address (io_uring_prep_sendto(3)). Linux 6.1.

        Args:
            addr: a `SockAddr`, the bytes of a `struct sockaddr`, or beside a socket object Python's form.
            sockfd, buf, flags: see the class.

        Raises:
            ValueError: not an address of the socket's family.
        """
        pin, size = _address(addr, sockfd)
        self._plain_send(
            "io_uring_prep_sendto",
            lib.IORING_OP_SEND,
            sockfd,
            buf,
            flags,
            0,
            off=memory.address(pin),
            file_index=pair16(size, 0),
            pins=(pin,),
            feature=SEND_TO,
        )

    def prep_send_set_addr(self, addr: Any) -> None:
        """Give the send that this entry holds an address (io_uring_prep_send_set_addr(3)).

        For `prep_send` (Linux 6.1), `prep_send_zc` and `prep_send_zc_fixed` (Linux 6.0), before it is
        submitted.

        Args:
            addr: a `SockAddr`, or the bytes of a `struct sockaddr`.

        Raises:
            ValueError: the entry holds no send.
        """
        self._live()
        if self.opcode not in (lib.IORING_OP_SEND, lib.IORING_OP_SEND_ZC):
            raise ValueError("prep_send_set_addr: prepare a send, or a zero-copy send, first")
        pin, size = _address(addr, None)
        _Q.pack_into(self._bytes, _ADDR_AT, memory.address(pin))
        _I.pack_into(self._bytes, _ADDR_LEN_AT, pair16(size, 0))
        self._pins = (*self._pins, pin)
        self._feature = self._feature or (SEND_TO if self.opcode == lib.IORING_OP_SEND else "")

    def prep_send_zc(self, sockfd: Fd, buf: ReadableBuffer, flags: int = 0, zc_flags: int = 0) -> None:
        """Send a buffer without copying it (io_uring_prep_send_zc(3)). Linux 6.0.

        Completion: two, see the class; with SEND_ZC_REPORT_USAGE the notification's result has
        IORING_NOTIF_USAGE_ZC_COPIED set where the data was copied after all.
        """
        zc_flags = checked(RecvSendFlags, zc_flags, "zc_flags", _POLL_FIRST | _REPORT)
        self._plain_send("io_uring_prep_send_zc", lib.IORING_OP_SEND_ZC, sockfd, buf, flags, zc_flags)

    def prep_send_zc_fixed(
        self, sockfd: Fd, buf: ReadableBuffer, flags: int = 0, zc_flags: int = 0, buf_index: int = 0
    ) -> None:
        """Send (a part of) a registered buffer, not copied (io_uring_prep_send_zc_fixed(3)). Linux 6.0.

        Completion: two, see the class; -EFAULT where `buf` lies outside of that registered buffer.
        """
        zc_flags = checked(RecvSendFlags, zc_flags, "zc_flags", _POLL_FIRST | _REPORT | _FIXED) | _FIXED
        self._plain_send(
            "io_uring_prep_send_zc_fixed",
            lib.IORING_OP_SEND_ZC,
            sockfd,
            buf,
            flags,
            zc_flags,
            buf_index=buf_index,
        )

    def prep_sendmsg(self, fd: Fd, msg: MsgHdr, flags: int = 0, *, ioprio: int = 0) -> None:
        """Send a message: buffers, address, ancillary data (io_uring_prep_sendmsg(3)). Linux 5.3."""
        self._send_message(
            "io_uring_prep_sendmsg", lib.IORING_OP_SENDMSG, fd, msg, flags, ioprio, _POLL_FIRST
        )

    def prep_sendmsg_zc(self, fd: Fd, msg: MsgHdr, flags: int = 0, *, ioprio: int = 0) -> None:
        """Send a message without copying it (io_uring_prep_sendmsg_zc(3)). Linux 6.1.

        Completion: two, see the class.
        """
        self._send_message(
            "io_uring_prep_sendmsg_zc",
            lib.IORING_OP_SENDMSG_ZC,
            fd,
            msg,
            flags,
            ioprio,
            _POLL_FIRST | _REPORT,
        )

    def prep_sendmsg_zc_fixed(
        self, fd: Fd, msg: MsgHdr, flags: int = 0, buf_index: int = 0, *, ioprio: int = 0
    ) -> None:
        """Send a message of parts of one registered buffer (io_uring_prep_sendmsg_zc(3)). Linux 6.15.

        Completion: two, see the class; -EFAULT where a buffer lies outside of that registered buffer.
        """
        allowed = _POLL_FIRST | _REPORT | _FIXED
        ioprio = checked(RecvSendFlags, ioprio, "ioprio", allowed) | _FIXED
        self._send_message(
            "io_uring_prep_sendmsg_zc_fixed",
            lib.IORING_OP_SENDMSG_ZC,
            fd,
            msg,
            flags,
            ioprio,
            allowed,
            buf_index=buf_index,
            feature="IORING_RECVSEND_FIXED_BUF in sendmsg",
        )

    def _plain_send(
        self,
        call: str,
        opcode: int,
        sockfd: Fd,
        buf: ReadableBuffer,
        flags: int,
        ioprio: int,
        *,
        off: int = 0,
        pins: tuple[Any, ...] = (),
        **more: Any,
    ) -> None:
        pin = memory.readable(buf)
        more.setdefault("feature", newest(RecvSendFlags, ioprio))
        self._on(
            call,
            opcode,
            sockfd,
            off,
            memory.address(pin),
            len(pin),
            message_flags(flags),
            ioprio=ioprio,
            pins=(pin, *pins),
            **more,
        )

    def _picked_send(
        self, call: str, sockfd: Fd, length: int, flags: int, ioprio: int, buf_group: int, bundle: int
    ) -> None:
        ioprio = checked(RecvSendFlags, ioprio, "ioprio", _POLL_FIRST | _BUNDLE) | bundle
        self._on(
            call,
            lib.IORING_OP_SEND,
            sockfd,
            0,
            0,
            length,
            message_flags(flags),
            ioprio=ioprio,
            buf_index=buf_group,
            implied=_SELECT,
            feature="IORING_RECVSEND_BUNDLE" if ioprio & _BUNDLE else SEND_SELECT,
        )

    def _send_message(
        self, call: str, opcode: int, fd: Fd, msg: MsgHdr, flags: int, ioprio: int, allowed: int, **more: Any
    ) -> None:
        message, pins = memory.message(msg, write=False)
        ioprio = checked(RecvSendFlags, ioprio, "ioprio", allowed)
        more.setdefault("feature", newest(RecvSendFlags, ioprio))
        self._on(
            call,
            opcode,
            fd,
            0,
            memory.address(message),
            1,
            message_flags(flags),
            ioprio=ioprio,
            pins=tuple(pins),
            **more,
        )


def _address(addr: Any, sock: Any) -> tuple[Any, int]:
    """The pinned address of a send, and its length in bytes."""
    storage, length = memory.pin_sockaddr(memory.socket_address(addr, sock))
    return storage, min(length[0], len(storage))
