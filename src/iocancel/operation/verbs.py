"""The verbs: what can be asked of an engine, whichever system carries it.

They look at their arguments as far as that needs no library, and leave the rest to the carrier's `prepare`.
Where a verb has `timeout`, it is the operation's own deadline, in seconds from the call: the kernel itself
keeps it on io_uring (a link timeout; but not while a worker thread executes the request), on other
engines whoever waits or reaps does. A `wait(timeout)` has a deadline of its own.

A file is a number or an object with `fileno()`. The kernel looks it up when the operation is submitted:
whoever passes a bare number keeps it open until then; an object is asked again, and if it was closed or has
another number the operation fails with EBADF and nothing is submitted.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from iocancel.operation.kinds import (
    FSYNC,
    READ,
    READV,
    RECV,
    RECVMSG,
    SEND,
    SEND_ZC,
    SENDMSG,
    SPLICE,
    TEE,
    WRITE,
    WRITEV,
)
from iocancel.operation.model import Reach
from iocancel.operation.multishot import Multishot
from iocancel.operation.operation import FdOperation, Operation
from iocancel.operation.values import File, accepted, no_fds, nothing, room, second_file, whole
from iocancel.operation.waits import Waits

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from iocancel.operation.carrier import Carrier
    from iocancel.operation.stats import Stats


class Verbs(Waits):
    """What can be asked of an engine.

    Args:
        carrier: the system that carries it.
    """

    def __init__(self, carrier: Carrier) -> None:
        super().__init__(carrier)

    @property
    def name(self) -> str:
        """Which system: "uring", "libaio", "posix_aio"."""
        return self._carrier.name

    def supports(self, name: str) -> bool:
        """Whether this engine has a verb here, on this kernel.

        Args:
            name: the verb, as "read".
        """
        return self._carrier.supports(name)

    def reach(self, name: str) -> Reach | None:
        """How far operations of the verb `name` can be cancelled here once they run; None without it."""
        return self._carrier.reach(name) if self._carrier.supports(name) else None

    def stats(self) -> Stats:
        """What this engine has done so far: outcomes, verdicts, how long cancels took.

        Only an engine that counts has numbers: `open_engine(stats=True)`, or IOCANCEL_STATS=1 in the
        environment when it is opened. The others do not pay for it. From any thread, also in a signal
        handler, and of a closed engine.

        Raises:
            RuntimeError: this engine does not count.
        """
        raise RuntimeError(
            "this engine does not count: open it by open_engine(stats=True), or set IOCANCEL_STATS=1 in the "
            "environment before it is opened"
        )

    # Bytes

    def read(
        self, fd: File, into: int | WriteableBuffer, offset: int = -1, *, timeout: float | None = None
    ) -> Operation[Any]:
        """Read from a file, a pipe, a device or a socket (read(2), pread(2)). io_uring: Linux 5.6.

        Args:
            fd: the file.
            into: how many bytes at most; or a writable buffer, which can't be resized until the ending.
            offset: where in the file, in bytes; -1 is the file's own position, which then moves.
            timeout: seconds from the call until it is cancelled by itself; None for never.

        Returns:
            An operation; its value is the bytes that came (b"" at the end), or how many where a buffer was
            given.
        """
        op: Operation[Any] = self._on(READ, fd)
        return self._start(op, room(op, into), offset, timeout=timeout)

    def write(
        self, fd: File, data: ReadableBuffer, offset: int = -1, *, timeout: float | None = None
    ) -> Operation[int]:
        """Write to a file, a pipe, a device or a socket (write(2), pwrite(2)). io_uring: Linux 5.6.

        Args:
            fd, offset, timeout: as for `read`.
            data: a buffer, not to be changed until the ending.

        Returns:
            An operation; its value is how many bytes were written, possibly fewer than given.
        """
        return self._start(self._on(WRITE, fd), data, offset, timeout=timeout)

    def readv(
        self,
        fd: File,
        buffers: Sequence[WriteableBuffer],
        offset: int = -1,
        *,
        timeout: float | None = None,
    ) -> Operation[int]:
        """Read into several buffers (readv(2), preadv(2)); otherwise as `read`. io_uring: Linux 5.1."""
        return self._start(self._on(READV, fd), list(buffers), offset, timeout=timeout)

    def writev(
        self,
        fd: File,
        buffers: Sequence[ReadableBuffer],
        offset: int = -1,
        *,
        timeout: float | None = None,
    ) -> Operation[int]:
        """Write several buffers (writev(2), pwritev(2)); otherwise as `write`. io_uring: Linux 5.1."""
        return self._start(self._on(WRITEV, fd), list(buffers), offset, timeout=timeout)

    def fsync(self, fd: File, *, datasync: bool = False, timeout: float | None = None) -> Operation[None]:
        """Have a file's data and metadata reach the disk (fsync(2)). io_uring: Linux 5.1.

        Args:
            fd, timeout: as for `read`.
            datasync: only what is needed to read the data again (fdatasync(2)).
        """
        op: Operation[None] = self._on(FSYNC, fd)
        op._value = nothing
        return self._start(op, datasync, timeout=timeout)

    def splice(
        self,
        src: File,
        dst: File,
        count: int,
        offset_src: int = -1,
        offset_dst: int = -1,
        *,
        flags: int = 0,
        timeout: float | None = None,
    ) -> Operation[int]:
        """Move bytes between a pipe and another file, without copying (splice(2)). io_uring: Linux 5.7.

        Args:
            src, dst: the files; one at least is a pipe.
            count: how many bytes at most.
            offset_src, offset_dst: where in a file that is no pipe, in bytes; -1 is its own position.
            flags: `os.SPLICE_F_MOVE` ...
            timeout: as for `read`.

        Returns:
            An operation; its value is how many bytes were moved.
        """
        op: Operation[int] = self._on(SPLICE, dst)
        op._files = (second_file(op, src),)
        return self._start(op, src, count, offset_src, offset_dst, flags, timeout=timeout)

    def tee(
        self, src: File, dst: File, count: int, *, flags: int = 0, timeout: float | None = None
    ) -> Operation[int]:
        """Copy bytes from one pipe to another and leave them in the first (tee(2)). io_uring: Linux 5.8.

        Args and value are as for `splice`.
        """
        op: Operation[int] = self._on(TEE, dst)
        op._files = (second_file(op, src),)
        return self._start(op, src, count, flags, timeout=timeout)

    # Sockets

    def recv(
        self, sock: File, into: int | WriteableBuffer, flags: int = 0, *, timeout: float | None = None
    ) -> Operation[Any]:
        """Receive from a socket (recv(2)). io_uring: Linux 5.6.

        Args:
            sock: the socket.
            into: how many bytes at most, or a writable buffer.
            flags: `socket.MSG_PEEK`, MSG_WAITALL ... A cancelled MSG_WAITALL gives what had come by then;
                before Linux 6.0 that would be lost, and io_uring does not offer it.
            timeout: as for `read`.

        Returns:
            An operation; its value is the bytes, or how many where a buffer was given.
        """
        op: Operation[Any] = self._on(RECV, sock)
        return self._start(op, room(op, into), flags, timeout=timeout)

    def send(
        self, sock: File, data: ReadableBuffer, flags: int = 0, *, timeout: float | None = None
    ) -> Operation[int]:
        """Send to a connected socket (send(2)); never zero-copy. io_uring: Linux 5.6.

        Args:
            sock, flags, timeout: as for `recv`.
            data: a buffer, not to be changed until the ending.

        Returns:
            An operation; its value is how many bytes were sent, possibly fewer than given.
        """
        return self._start(self._on(SEND, sock), data, flags, timeout=timeout)

    def send_zc(
        self, sock: File, data: ReadableBuffer, flags: int = 0, *, timeout: float | None = None
    ) -> Operation[int]:
        """Send without copying (io_uring_prep_send_zc(3)). Linux 6.0, only io_uring.

        Args and value are as for `send`. The operation is done at its result; `memory_released` tells when
        the buffer may be changed, which may be much later: when the peer has taken all.
        """
        op: Operation[int] = self._on(SEND_ZC, sock)
        op._zero_copy = op._special = True
        return self._start(op, data, flags, timeout=timeout)

    def recvmsg(
        self, sock: File, bufsize: int, ancbufsize: int = 0, flags: int = 0, *, timeout: float | None = None
    ) -> Operation[tuple[bytes, list[tuple[int, int, bytes]], int, Any]]:
        """Receive a message with its address and ancillary data (recvmsg(2)). io_uring: Linux 5.3.

        Args:
            sock, flags, timeout: as for `recv`.
            bufsize, ancbufsize: room for the message and for ancillary data, in bytes.

        Returns:
            An operation; its value is what `socket.recvmsg` returns: (data, ancdata, msg_flags, address).
        """
        op: FdOperation[Any] = self._on(RECVMSG, sock, FdOperation)
        op._dispose = no_fds  # its result is no fd; the carrier knows of those that came with it
        return self._start(
            op, whole(bufsize, "bufsize"), whole(ancbufsize, "ancbufsize"), flags, timeout=timeout
        )

    def sendmsg(
        self,
        sock: File,
        buffers: Sequence[ReadableBuffer],
        ancdata: Sequence[tuple[int, int, ReadableBuffer]] = (),
        flags: int = 0,
        address: Any = None,
        *,
        timeout: float | None = None,
    ) -> Operation[int]:
        """Send a message, perhaps with ancillary data and an address (sendmsg(2)). io_uring: Linux 5.3.

        Args:
            sock: the socket, or its number.
            buffers: what to send, one after the other.
            ancdata: ancillary data, as `socket.sendmsg` takes it: (level, type, data).
            flags: the MSG_* of sendmsg(2).
            address: where to; in Python's form it needs a socket object.
            timeout: seconds, as for `read`.

        Returns:
            How many bytes were sent.
        """
        op: Operation[int] = self._on(SENDMSG, sock)
        return self._start(op, list(buffers), list(ancdata), flags, address, timeout=timeout)

    # Multishot

    def accept_multishot(self, sock: File) -> Multishot[tuple[socket.socket, Any]]:
        """Accept connection after connection (io_uring_prep_multishot_accept(3)). io_uring: Linux 5.19.

        Args:
            sock: bound, and listening.

        Returns:
            A context manager of an iterator: `with engine.accept_multishot(s) as conns: for conn, address in
            conns:`. Leaving the block cancels and drains; connections that came and were not taken are in
            `leftovers` then. Where the system has no multishot accept, one accept follows the other.
        """
        return Multishot(self, "accept", sock, ())

    def recv_multishot(
        self, sock: File, nbytes: int = 4096, *, buffers: int = 16, flags: int = 0
    ) -> Multishot[bytes]:
        """Receive chunk after chunk, until the peer closes (io_uring_prep_recv_multishot(3)). Linux 6.0.

        Args:
            sock: the socket.
            nbytes: the longest chunk, in bytes.
            buffers: how many chunks the kernel may be ahead, a power of two up to 32768.
            flags: as for `recv`.

        Returns:
            As `accept_multishot`; of bytes.
        """
        return Multishot(self, "recv", sock, (whole(nbytes, "nbytes"), whole(buffers, "buffers"), flags))

    def poll_multishot(self, fd: File, mask: int) -> Multishot[int]:
        """Be told each time that a file gets ready (io_uring_prep_poll_multishot(3)). io_uring: Linux 5.13.

        It does not repeat for data that were left unread; where the system has no multishot poll, one poll
        follows the other, and it does.

        Args:
            fd: the file.
            mask: what to wait for, `select.POLLIN` ...

        Returns:
            As `accept_multishot`; of masks.
        """
        return Multishot(self, "poll", fd, (whole(mask, "mask"),))


__all__ = ["File", "Verbs", "accepted", "whole"]
