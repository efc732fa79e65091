"""One request, as the program describes it.

An `Iocb` is only the description: each submission makes a control block of its own for the kernel,
which lives at its address until the event has been reaped (the kernel finds what to cancel by that
address). The buffers are exported, and so can't be resized or freed, for just as long.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from iocancel.libaio.flags import Opcode, PollEvents
from iocancel.libaio.memory import pieces
from iocancel.libaio.request import Request

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike, ReadableBuffer, WriteableBuffer

__all__ = ["Iocb"]


class Iocb(Request):
    """A request: what to do, to which file, with which memory (io_submit(2)).

    Made by `pread`, `pwrite`, `preadv`, `pwritev`, `fsync`, `fdsync` and `poll`. It may be submitted
    again when its event has been reaped; while it is in flight it can't be submitted or changed.
    """

    __slots__ = ()

    @classmethod
    def pread(
        cls,
        fd: FileDescriptorLike,
        buffer: WriteableBuffer,
        offset: int = 0,
        *,
        rw_flags: int = 0,
        ioprio: int | None = None,
        data: Any = None,
    ) -> Iocb:
        """A read into one buffer (io_prep_pread(3), pread(2)).

        Only reads of files opened with O_DIRECT go on in the background. Any other read, also of a
        blocking pipe that is empty, is done inside `Context.submit`, which blocks until it has ended.

        Args:
            fd: the file: a number, or an object with a `fileno()`, which is kept and asked at submit.
            buffer: writable, contiguous memory; its whole length is asked for. Not resizable while in
                flight.
            offset: where in the file, in bytes; ignored by pipes and sockets.
            rw_flags: `RwFlags`.
            ioprio: the I/O priority, made by `ioprio()`; None for the process's own. Linux 4.18.
            data: any object; the event gives it back.

        Returns:
            The request; its event's `res` is the number of bytes, or a negated errno.

        Raises:
            TypeError: for an argument of a wrong type, a buffer that can't be written, flags of another kind.
            ValueError: for a number out of range.
        """
        return cls._make(Opcode.PREAD, fd, (buffer,), offset, 0, rw_flags, ioprio, data)

    @classmethod
    def pwrite(
        cls,
        fd: FileDescriptorLike,
        buffer: ReadableBuffer,
        offset: int = 0,
        *,
        rw_flags: int = 0,
        ioprio: int | None = None,
        data: Any = None,
    ) -> Iocb:
        """A write of one buffer (io_prep_pwrite(3), pwrite(2)).

        Args:
            fd: as for `pread`.
            buffer: contiguous memory, all of which is to be written. Not resizable while in flight; to
                change its bytes meanwhile is to write either.
            offset: where in the file, in bytes; ignored by pipes and sockets.
            rw_flags: `RwFlags`.
            ioprio: as for `pread`.
            data: any object; the event gives it back.

        Returns:
            The request; its event's `res` is the number of bytes, or a negated errno.

        Raises:
            TypeError: for an argument of a wrong type, or flags of another kind.
            ValueError: for a number out of range.
        """
        return cls._make(Opcode.PWRITE, fd, (buffer,), offset, 0, rw_flags, ioprio, data)

    @classmethod
    def preadv(
        cls,
        fd: FileDescriptorLike,
        buffers: Iterable[WriteableBuffer],
        offset: int = 0,
        *,
        rw_flags: int = 0,
        ioprio: int | None = None,
        data: Any = None,
    ) -> Iocb:
        """A read into several buffers, one after the other (io_prep_preadv(3), preadv2(2)).

        Args:
            fd: as for `pread`.
            buffers: pieces of writable, contiguous memory; at most 1024 (EINVAL at submit).
            offset: as for `pread`.
            rw_flags: `RwFlags`.
            ioprio: as for `pread`.
            data: any object; the event gives it back.

        Returns:
            The request; its event's `res` is the number of bytes, or a negated errno.

        Raises:
            TypeError: for an argument of a wrong type, a buffer that can't be written, flags of another kind.
            ValueError: for a number out of range.
        """
        return cls._make(Opcode.PREADV, fd, pieces(buffers), offset, 0, rw_flags, ioprio, data)

    @classmethod
    def pwritev(
        cls,
        fd: FileDescriptorLike,
        buffers: Iterable[ReadableBuffer],
        offset: int = 0,
        *,
        rw_flags: int = 0,
        ioprio: int | None = None,
        data: Any = None,
    ) -> Iocb:
        """A write of several buffers, one after the other (io_prep_pwritev(3), pwritev2(2)).

        Args:
            fd: as for `pread`.
            buffers: pieces of contiguous memory; at most 1024 (EINVAL at submit).
            offset: as for `pwrite`.
            rw_flags: `RwFlags`.
            ioprio: as for `pread`.
            data: any object; the event gives it back.

        Returns:
            The request; its event's `res` is the number of bytes, or a negated errno.

        Raises:
            TypeError: for an argument of a wrong type, or flags of another kind.
            ValueError: for a number out of range.
        """
        return cls._make(Opcode.PWRITEV, fd, pieces(buffers), offset, 0, rw_flags, ioprio, data)

    @classmethod
    def fsync(cls, fd: FileDescriptorLike, *, data: Any = None) -> Iocb:
        """A flush of a file's data and metadata (io_prep_fsync(3), fsync(2)). Linux 4.18.

        Args:
            fd: as for `pread`; what can't be flushed (a pipe) is refused with EINVAL at submit.
            data: any object; the event gives it back.

        Returns:
            The request; its event's `res` is 0 or a negated errno. It can't be cancelled.

        Raises:
            TypeError: for an argument of a wrong type.
            ValueError: for a number out of range.
        """
        return cls._make(Opcode.FSYNC, fd, data=data)

    @classmethod
    def fdsync(cls, fd: FileDescriptorLike, *, data: Any = None) -> Iocb:
        """A flush of a file's data (io_prep_fdsync(3), fdatasync(2)). Linux 4.18.

        Args:
            fd: as for `fsync`.
            data: any object; the event gives it back.

        Returns:
            The request; its event's `res` is 0 or a negated errno. It can't be cancelled.

        Raises:
            TypeError: for an argument of a wrong type.
            ValueError: for a number out of range.
        """
        return cls._make(Opcode.FDSYNC, fd, data=data)

    @classmethod
    def poll(cls, fd: FileDescriptorLike, events: int = PollEvents.IN, *, data: Any = None) -> Iocb:
        """A wait, once, until a file is ready (io_prep_poll(3), poll(2)). Linux 4.19.

        This is the request that can be cancelled on every file. A regular file is always ready, so
        that its poll ends at once. Two kinds of files are refused at submit with EINVAL unless they are
        ready: a FIFO opened for reading and writing, and a pseudoterminal's master. Closing the fd
        ends nothing: the poll stays armed.

        Args:
            fd: as for `pread`.
            events: `PollEvents`, or select.POLL* as an int; ERR and HUP come unasked.
            data: any object; the event gives it back.

        Returns:
            The request; its event's `res` is a `PollEvents` number, or 0 when it was cancelled.

        Raises:
            TypeError: for an argument of a wrong type, or flags of another kind.
            ValueError: for a number out of range, or bits that `PollEvents` lacks.
        """
        return cls._make(Opcode.POLL, fd, events=events, data=data)
