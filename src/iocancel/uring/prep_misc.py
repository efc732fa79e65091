"""Buffers for groups, messages to rings, block devices, and nothing at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iocancel._native import lib
from iocancel.uring import memory
from iocancel.uring.flags import MsgRingFlags, bits
from iocancel.uring.prep_help import (
    FILE_INDEX_ALLOC,
    Fd,
    Requests,
    limited,
    newest,
    pair32,
    signed32,
    slot,
    wrapped,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_SKIP, _PASS = lib.IORING_MSG_RING_CQE_SKIP, lib.IORING_MSG_RING_FLAGS_PASS
_MOST_BUFFERS = 1 << 16  # their numbers have 16 bits


class PrepMisc(Requests):
    """Buffers for groups, messages to rings, block devices, and nothing at all.

    Where these have the arguments, they mean: `ring` where a message goes: a `Ring` of this process, or
    any ring's fd; `data` and `length` what its completion there has as user_data and result.
    """

    __slots__ = ()

    def prep_nop(self) -> None:
        """Do nothing (io_uring_prep_nop(3)). Linux 5.1.

        Completion: 0.
        """
        self._put("io_uring_prep_nop", lib.IORING_OP_NOP)

    def prep_provide_buffers(
        self, buf: WriteableBuffer, nbytes: int, bgid: int, bid: int = 0, *, nr: int | None = None
    ) -> None:
        """Give buffers to a group, for requests that pick one (io_uring_prep_provide_buffers(3)). Linux 5.7.

        A ring of buffers (`Ring`'s registration) does the same with less work, from Linux 5.19 on.

        Args:
            buf: writable memory for all of them, one after the other. It belongs to the kernel from the
                request's submission until the ring is closed.
            nbytes: the size of each, in bytes.
            bgid: the group, 0 to 65535.
            bid: the number of the first, 0 to 65535; the others follow.
            nr: how many, 1 to 65536; as many as `buf` holds where None.

        Raises:
            ValueError: a buffer too small for so many, or for one; numbers beyond 65535.

        Completion: 0 or more; -EEXIST where the group is a ring of buffers.
        """
        self._live()
        pin = memory.writable(buf)
        size, first, group = limited(nbytes, "nbytes", 31), limited(bid, "bid", 16), limited(bgid, "bgid", 16)
        if size == 0:
            raise ValueError("nbytes takes 1 and more")
        many = len(pin) // size if nr is None else limited(nr, "nr", 31)
        if not 1 <= many <= _MOST_BUFFERS - first:
            raise ValueError(
                f"{many} buffers from number {first} on: there can be 1 to {_MOST_BUFFERS - first}"
            )
        memory.at_least(pin, many * size, "buf")
        self._put(
            "io_uring_prep_provide_buffers",
            lib.IORING_OP_PROVIDE_BUFFERS,
            many,
            first,
            memory.address(pin),
            size,
            buf_index=group,
            pins=(pin,),
        )
        # The request ends at once, the kernel's use of the memory does not.
        self._ring._provide(pin)  # type: ignore[union-attr]

    def prep_remove_buffers(self, nr: int, bgid: int) -> None:
        """Take buffers out of a group (io_uring_prep_remove_buffers(3)). Linux 5.7.

        Args:
            nr: how many at most, 1 to 65536.
            bgid: the group, 0 to 65535.

        Completion: how many there were; -ENOENT for no such group.
        """
        self._put("io_uring_prep_remove_buffers", lib.IORING_OP_REMOVE_BUFFERS, nr, buf_index=bgid)

    def prep_msg_ring(self, ring: Fd, length: int, data: int, flags: int = 0) -> None:
        """Make a completion in another ring (io_uring_prep_msg_ring(3)). Linux 5.18.

        Args:
            length: its result, 32 bits; a negative one as C converts it.
            flags: 0; `MsgRingFlags` has none for this without FLAGS_PASS.
            ring, data: see the class.

        Completion, here: 0; -EBADFD for an fd that is no ring.
        """
        self._message_to("io_uring_prep_msg_ring", ring, length, data, bits(MsgRingFlags, flags, "flags"), 0)

    def prep_msg_ring_cqe_flags(self, ring: Fd, length: int, data: int, flags: int, cqe_flags: int) -> None:
        """As `prep_msg_ring`, with the completion's flags (io_uring_prep_msg_ring_cqe_flags(3)). Linux 6.3.

        Args:
            cqe_flags: what the completion there has as flags, 32 bits.
            ring, length, data, flags: as for `prep_msg_ring`.
        """
        number = bits(MsgRingFlags, flags, "flags") | _PASS
        self._message_to(
            "io_uring_prep_msg_ring_cqe_flags", ring, length, data, number, limited(cqe_flags, "cqe_flags")
        )

    def prep_msg_ring_fd(self, ring: Fd, source_fd: int, target_fd: int, data: int, flags: int = 0) -> None:
        """Send a registered file to another ring (io_uring_prep_msg_ring_fd(3)). Linux 6.0.

        Args:
            source_fd: its slot in this ring's registered files.
            target_fd: the slot for it there; FILE_INDEX_ALLOC (or -1) for a free one.
            flags: `MsgRingFlags.CQE_SKIP` for no completion there.
            ring, data: see the class.

        Completion, here: 0, or the slot that was picked; -EBADF for an empty slot here, -ENXIO for a ring
        without registered files.
        """
        self._message_fd("io_uring_prep_msg_ring_fd", ring, source_fd, target_fd, data, flags)

    def prep_msg_ring_fd_alloc(self, ring: Fd, source_fd: int, data: int, flags: int = 0) -> None:
        """As `prep_msg_ring_fd`, to a free slot there (io_uring_prep_msg_ring_fd_alloc(3)). Linux 6.0."""
        self._message_fd("io_uring_prep_msg_ring_fd_alloc", ring, source_fd, FILE_INDEX_ALLOC, data, flags)

    def prep_cmd_discard(self, fd: Fd, offset: int, nbytes: int) -> None:
        """Throw away a part of a block device's data (io_uring_prep_cmd_discard(3)). Linux 6.12.

        Args:
            fd: the block device, see `Requests`.
            offset, nbytes: which part, in bytes, in whole sectors.

        Completion: 0; -EOPNOTSUPP for a device, or a file, that can't.
        """
        self._on(
            "io_uring_prep_cmd_discard",
            lib.IORING_OP_URING_CMD,
            fd,
            pair32(lib.BLOCK_URING_CMD_DISCARD, 0),
            wrapped(offset, "offset"),
            addr3=wrapped(nbytes, "nbytes"),
            feature="BLOCK_URING_CMD_DISCARD",
        )

    def _message_to(self, call: str, ring: Fd, length: int, data: int, flags: int, cqe_flags: int) -> None:
        data = limited(data, "data", 64)
        self._on(
            call,
            lib.IORING_OP_MSG_RING,
            ring,
            data,
            0,
            length,
            flags,
            file_index=cqe_flags,
            feature=newest(MsgRingFlags, flags),
            message=(_target(ring), data),
        )

    def _message_fd(self, call: str, ring: Fd, source_fd: int, target_fd: int, data: int, flags: int) -> None:
        number, data = bits(MsgRingFlags, flags, "flags"), limited(data, "data", 64)
        self._on(
            call,
            lib.IORING_OP_MSG_RING,
            ring,
            data,
            lib.IORING_MSG_SEND_FD,
            0,
            number,
            file_index=slot(target_fd)[0],
            addr3=limited(signed32(source_fd, "source_fd"), "source_fd", 31),
            feature=newest(MsgRingFlags, number) or "IORING_MSG_SEND_FD",
            message=None if number & _SKIP else (_target(ring), data),
        )


def _target(ring: Any) -> Any:
    """Where a message goes, as the ring wants to know it: a `Ring`, or the number of a file."""
    from iocancel.uring.ring import Ring  # it imports this module

    return ring if isinstance(ring, Ring) else memory.file_number(ring)
