"""Reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from iocancel._native import lib
from iocancel.uring import memory
from iocancel.uring.prep_help import Fd, Requests, limited

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_SELECT = lib.IOSQE_BUFFER_SELECT


class PrepReadWrite(Requests):
    """Reads and writes of files, pipes, devices and sockets.

    Where these have the arguments, they mean: `fd` the file (see `Requests`); `buf`, `buffers` the
    memory, whose length is how much is transferred at most (bytes, below 4 GiB a buffer); `offset`
    where in the file, in bytes, -1 for the file's own position, which then moves; `flags` the RWF_* of
    preadv2(2) (`os.RWF_NOWAIT` ...); `buf_index` which of the registered buffers the memory lies in.

    Completion: how many bytes were transferred, possibly fewer than asked for; 0 for a read at the
    file's end.
    """

    __slots__ = ()

    def prep_read(
        self,
        fd: Fd,
        buf: WriteableBuffer | None,
        offset: int = -1,
        *,
        nbytes: int | None = None,
        buf_group: int | None = None,
    ) -> None:
        """Read into a buffer (io_uring_prep_read(3)). Linux 5.6.

        Args:
            fd, offset: see the class.
            buf: a writable buffer; None where the kernel is to pick one of a group.
            nbytes: beside `buf_group`: how much at most, in bytes; 0 for what the picked buffer holds.
            buf_group: the group to pick a buffer of; `Cqe.buffer_id` says which was taken. Sets
                `SqeFlags.BUFFER_SELECT`. Linux 5.7.

        Raises:
            TypeError: neither or both of a buffer and a group; a read-only buffer.
        """
        if buf_group is not None or buf is None or nbytes is not None:
            length, group = picked(buf, nbytes, buf_group)
            self._on(
                "io_uring_prep_read",
                lib.IORING_OP_READ,
                fd,
                offset,
                0,
                length,
                buf_index=group,
                implied=_SELECT,
            )
            return
        pin = memory.writable(buf)
        self._on(
            "io_uring_prep_read", lib.IORING_OP_READ, fd, offset, memory.address(pin), len(pin), pins=(pin,)
        )

    def prep_write(self, fd: Fd, buf: ReadableBuffer, offset: int = -1) -> None:
        """Write a buffer (io_uring_prep_write(3)). Linux 5.6."""
        pin = memory.readable(buf)
        self._on(
            "io_uring_prep_write", lib.IORING_OP_WRITE, fd, offset, memory.address(pin), len(pin), pins=(pin,)
        )

    def prep_read_multishot(self, fd: Fd, nbytes: int, offset: int, buf_group: int) -> None:
        """Read again and again into buffers of a group (io_uring_prep_read_multishot(3)). Linux 6.7.

        Args:
            fd: a file that can be polled (a pipe, a device, a tty; not a regular file: -EBADFD).
            nbytes: how much at most each time, in bytes; 0 for what the picked buffer holds.
            offset: 0 or -1 for what has no position.
            buf_group: the group to pick buffers of.

        Completion: one for each read, `Cqe.more` set until the last; -ENOBUFS where the group is empty.
        """
        self._on(
            "io_uring_prep_read_multishot",
            lib.IORING_OP_READ_MULTISHOT,
            fd,
            offset,
            0,
            nbytes,
            buf_index=buf_group,
            implied=_SELECT,
        )

    def prep_readv(self, fd: Fd, buffers: Sequence[WriteableBuffer], offset: int = -1) -> None:
        """Read into several buffers, one after the other (io_uring_prep_readv(3)). Linux 5.1."""
        self._vector("io_uring_prep_readv", lib.IORING_OP_READV, True, fd, buffers, offset)

    def prep_readv2(
        self, fd: Fd, buffers: Sequence[WriteableBuffer], offset: int = -1, flags: int = 0
    ) -> None:
        """Read into several buffers, with flags (io_uring_prep_readv2(3)). Linux 5.1."""
        self._vector("io_uring_prep_readv2", lib.IORING_OP_READV, True, fd, buffers, offset, flags)

    def prep_writev(self, fd: Fd, buffers: Sequence[ReadableBuffer], offset: int = -1) -> None:
        """Write several buffers, one after the other (io_uring_prep_writev(3)). Linux 5.1."""
        self._vector("io_uring_prep_writev", lib.IORING_OP_WRITEV, False, fd, buffers, offset)

    def prep_writev2(
        self, fd: Fd, buffers: Sequence[ReadableBuffer], offset: int = -1, flags: int = 0
    ) -> None:
        """Write several buffers, with flags (io_uring_prep_writev2(3)). Linux 5.1."""
        self._vector("io_uring_prep_writev2", lib.IORING_OP_WRITEV, False, fd, buffers, offset, flags)

    def prep_readv_fixed(
        self,
        fd: Fd,
        buffers: Sequence[WriteableBuffer],
        offset: int = -1,
        flags: int = 0,
        buf_index: int = 0,
    ) -> None:
        """Read into several parts of one registered buffer (io_uring_prep_readv(3)). Linux 6.15."""
        self._vector(
            "io_uring_prep_readv_fixed",
            lib.IORING_OP_READV_FIXED,
            True,
            fd,
            buffers,
            offset,
            flags,
            buf_index,
        )

    def prep_writev_fixed(
        self,
        fd: Fd,
        buffers: Sequence[ReadableBuffer],
        offset: int = -1,
        flags: int = 0,
        buf_index: int = 0,
    ) -> None:
        """Write several parts of one registered buffer (io_uring_prep_writev(3)). Linux 6.15."""
        self._vector(
            "io_uring_prep_writev_fixed",
            lib.IORING_OP_WRITEV_FIXED,
            False,
            fd,
            buffers,
            offset,
            flags,
            buf_index,
        )

    def prep_read_fixed(self, fd: Fd, buf: WriteableBuffer, offset: int = -1, buf_index: int = 0) -> None:
        """Read into a registered buffer, or a part of one (io_uring_prep_read_fixed(3)). Linux 5.1.

        Completion: as for all reads; -EFAULT where `buf` lies outside of that registered buffer.
        """
        pin = memory.writable(buf)
        self._on(
            "io_uring_prep_read_fixed",
            lib.IORING_OP_READ_FIXED,
            fd,
            offset,
            memory.address(pin),
            len(pin),
            buf_index=buf_index,
            pins=(pin,),
        )

    def prep_write_fixed(self, fd: Fd, buf: ReadableBuffer, offset: int = -1, buf_index: int = 0) -> None:
        """Write a registered buffer, or a part of one (io_uring_prep_write_fixed(3)). Linux 5.1.

        Completion: as for all writes; -EFAULT where `buf` lies outside of that registered buffer.
        """
        pin = memory.readable(buf)
        self._on(
            "io_uring_prep_write_fixed",
            lib.IORING_OP_WRITE_FIXED,
            fd,
            offset,
            memory.address(pin),
            len(pin),
            buf_index=buf_index,
            pins=(pin,),
        )

    def _vector(
        self,
        call: str,
        opcode: int,
        write: bool,
        fd: Fd,
        buffers: Sequence[ReadableBuffer],
        offset: int,
        flags: int = 0,
        buf_index: int = 0,
    ) -> None:
        vector, pins = memory.iovecs(buffers, write)
        self._on(
            call,
            opcode,
            fd,
            offset,
            memory.address(vector),
            len(pins) - 1,
            flags,
            buf_index=buf_index,
            pins=tuple(pins),
        )


def picked(buf: object, nbytes: int | None, buf_group: int | None) -> tuple[int, int]:
    """The length and the group of a request whose buffer the kernel picks."""
    if buf is not None or buf_group is None:
        raise TypeError("give a buffer, or None with buf_group= (and nbytes=): not both, not neither")
    return limited(nbytes or 0, "nbytes"), limited(buf_group, "buf_group", 16)
