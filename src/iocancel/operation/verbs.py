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

import errno
import os
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from iocancel.operation.closing import Closing
from iocancel.operation.model import Reach
from iocancel.operation.multishot import Multishot
from iocancel.operation.operation import STOPPED, FdOperation, Kind, Operation
from iocancel.operation.values import File, accepted, file_of, no_fds, nothing, room, second_file, whole

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from iocancel.operation.carrier import Carrier
    from iocancel.operation.stats import Stats

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]

_READ, _WRITE = Kind("read", "read"), Kind("write", "write")
_RECV, _SEND, _SEND_ZC = Kind("recv", "recv"), Kind("send", "send"), Kind("send_zc", "send_zc")
_POLL = Kind("poll", "poll")
_READV, _WRITEV, _FSYNC = Kind("readv", "readv"), Kind("writev", "writev"), Kind("fsync", "fsync")
_RECVMSG, _SENDMSG = Kind("recvmsg", "recvmsg"), Kind("sendmsg", "sendmsg")
_ACCEPT, _CONNECT = Kind("accept", "accept"), Kind("connect", "connect")
_TIMEOUT = Kind("timeout", "timeout", frozenset([-errno.ETIME]))
_OPENAT, _CLOSE = Kind("openat", "openat"), Kind("close", "close")
_SPLICE, _TEE = Kind("splice", "splice"), Kind("tee", "tee")
_WAITID, _FUTEX_WAIT = Kind("waitid", "waitid"), Kind("futex_wait", "futex_wait")

KINDS = {"accept": _ACCEPT, "recv": _RECV, "poll": _POLL, "read": _READ}
"""Of the verbs that have a multishot form, and of reads."""

VERBS = frozenset(
    [
        *("read", "write", "readv", "writev", "fsync", "splice", "tee", "openat", "close"),
        *("recv", "send", "send_zc", "recvmsg", "sendmsg", "accept", "connect"),
        *("poll", "timeout", "waitid", "futex_wait"),
        *("accept_multishot", "recv_multishot", "poll_multishot"),
    ]
)
"""The verbs that there are; an engine `supports` some or all of them."""


class Verbs(Closing):
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
            timeout: see the module.

        Returns:
            An operation; its value is the bytes that came (b"" at the end), or how many where a buffer was
            given.
        """
        op: Operation[Any] = self._on(_READ, fd)
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
        return self._start(self._on(_WRITE, fd), data, offset, timeout=timeout)

    def readv(
        self,
        fd: File,
        buffers: Sequence[WriteableBuffer],
        offset: int = -1,
        *,
        timeout: float | None = None,
    ) -> Operation[int]:
        """Read into several buffers (readv(2), preadv(2)); otherwise as `read`. io_uring: Linux 5.1."""
        return self._start(self._on(_READV, fd), list(buffers), offset, timeout=timeout)

    def writev(
        self,
        fd: File,
        buffers: Sequence[ReadableBuffer],
        offset: int = -1,
        *,
        timeout: float | None = None,
    ) -> Operation[int]:
        """Write several buffers (writev(2), pwritev(2)); otherwise as `write`. io_uring: Linux 5.1."""
        return self._start(self._on(_WRITEV, fd), list(buffers), offset, timeout=timeout)

    def fsync(self, fd: File, *, datasync: bool = False, timeout: float | None = None) -> Operation[None]:
        """Have a file's data and metadata reach the disk (fsync(2)). io_uring: Linux 5.1.

        Args:
            fd, timeout: as for `read`.
            datasync: only what is needed to read the data again (fdatasync(2)).
        """
        op: Operation[None] = self._on(_FSYNC, fd)
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
        op: Operation[int] = self._on(_SPLICE, dst)
        op._files = (second_file(op, src),)
        return self._start(op, src, count, offset_src, offset_dst, flags, timeout=timeout)

    def tee(
        self, src: File, dst: File, count: int, *, flags: int = 0, timeout: float | None = None
    ) -> Operation[int]:
        """Copy bytes from one pipe to another and leave them in the first (tee(2)). io_uring: Linux 5.8.

        Args and value are as for `splice`.
        """
        op: Operation[int] = self._on(_TEE, dst)
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
            flags: `socket.MSG_PEEK`, MSG_WAITALL ... A cancelled MSG_WAITALL gives what had come by then (but
                Linux 5.10 loses it: don't use it there).
            timeout: as for `read`.

        Returns:
            An operation; its value is the bytes, or how many where a buffer was given.
        """
        op: Operation[Any] = self._on(_RECV, sock)
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
        return self._start(self._on(_SEND, sock), data, flags, timeout=timeout)

    def send_zc(
        self, sock: File, data: ReadableBuffer, flags: int = 0, *, timeout: float | None = None
    ) -> Operation[int]:
        """Send without copying (io_uring_prep_send_zc(3)). Linux 6.0, only io_uring.

        Args and value are as for `send`. The operation is done at its result; `memory_released` tells when
        the buffer may be changed, which may be much later: when the peer has taken all.
        """
        op: Operation[int] = self._on(_SEND_ZC, sock)
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
        op: FdOperation[Any] = self._on(_RECVMSG, sock, FdOperation)
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
        op: Operation[int] = self._on(_SENDMSG, sock)
        return self._start(op, list(buffers), list(ancdata), flags, address, timeout=timeout)

    def accept(self, sock: File, *, timeout: float | None = None) -> Operation[tuple[socket.socket, Any]]:
        """Accept a connection (accept4(2) with SOCK_CLOEXEC). io_uring: Linux 5.5.

        Args:
            sock: a listening socket.
            timeout: as for `read`.

        Returns:
            An operation; its value is (socket, address), as of `socket.accept`. A connection that came, and
            that nobody asks for by `result()`, is closed when the operation is collected.
        """
        op: FdOperation[Any] = self._on(_ACCEPT, sock, FdOperation)
        op._value = accepted
        return self._start(op, timeout=timeout)

    def connect(self, sock: File, address: Any, *, timeout: float | None = None) -> Operation[None]:
        """Connect a socket (connect(2)). io_uring: Linux 5.5.

        Args:
            sock, timeout: as for `recv`.
            address: in Python's form (a numeric host; beside a socket object), or the bytes of a sockaddr.
        """
        op: Operation[None] = self._on(_CONNECT, sock)
        op._value = nothing
        return self._start(op, address, timeout=timeout)

    # Readiness, time, processes

    def poll(self, fd: File, mask: int, *, timeout: float | None = None) -> Operation[int]:
        """Wait until a file is ready (poll(2)). io_uring: Linux 5.1.

        Args:
            fd, timeout: as for `read`.
            mask: `select.POLLIN`, POLLOUT ...; POLLERR and POLLHUP are always reported.

        Returns:
            An operation; its value is the mask of what is ready.
        """
        return self._start(self._on(_POLL, fd), whole(mask, "mask"), timeout=timeout)

    def timeout(self, seconds: float) -> Operation[None]:
        """Let time pass (io_uring_prep_timeout(3)). io_uring: Linux 5.4.

        Args:
            seconds: how long, from its submission on.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise TypeError(f"seconds takes a float or int, not {type(seconds).__name__}")
        if not 0 <= seconds < 1 << 63:  # the kernel's own limit; an int of any size is compared as it is
            raise ValueError(f"seconds takes 0 to 2**63 - 1, not {seconds}")
        op: Operation[None] = Operation(self, _TIMEOUT)
        op._value = nothing
        return self._start(op, seconds)

    def waitid(
        self,
        idtype: int,
        id: int,  # noqa: A002
        options: int = os.WEXITED,
        *,
        timeout: float | None = None,
    ) -> Operation[Any]:
        """Wait for a child to change its state (waitid(2)). io_uring: Linux 6.7.

        Args:
            idtype: `os.P_PID`, P_PGID, P_ALL or P_PIDFD.
            id: the process, group or pidfd.
            options: `os.WEXITED`, WSTOPPED, WCONTINUED, WNOWAIT.
            timeout: as for `read`.

        Returns:
            An operation; its value is (pid, uid, signo, status, code), in the order of `os.waitid`'s.
        """
        return self._start(Operation(self, _WAITID), idtype, id, options, timeout=timeout)

    def futex_wait(
        self, futex: WriteableBuffer, val: int, *, timeout: float | None = None
    ) -> Operation[None]:
        """Wait until a futex is woken (io_uring_prep_futex_wait(3)). Linux 6.7, only io_uring.

        Args:
            futex: 4 bytes, aligned.
            val: the value that it has to have for the wait to begin; with another one it fails with EAGAIN.
            timeout: as for `read`.
        """
        op: Operation[None] = Operation(self, _FUTEX_WAIT)
        op._value = nothing
        return self._start(op, futex, val, timeout=timeout)

    # Files

    def openat(
        self,
        path: Path,
        flags: int = os.O_RDONLY,
        mode: int = 0o777,
        *,
        dir_fd: File | None = None,
        timeout: float | None = None,
    ) -> Operation[int]:
        """Open a file (openat(2)), with O_CLOEXEC. io_uring: Linux 5.6.

        Without O_NONBLOCK it goes to a worker thread at once: only there does the opening of a FIFO wait for
        the other end, as open(2) does; and there it can be cancelled.

        Args:
            path, flags, mode: as for `os.open`.
            dir_fd: a directory that a relative path starts from.
            timeout: as for `read`.

        Returns:
            An operation; its value is the fd. One that nobody asks for by `result()` is closed when the
            operation is collected.
        """
        op: FdOperation[int] = FdOperation(self, _OPENAT)
        if dir_fd is not None:
            second_file(op, dir_fd)
        return self._start(op, path, flags | os.O_CLOEXEC, mode, dir_fd, timeout=timeout)

    def close_later(self, fd: int) -> Operation[None]:
        """Close a file when its turn comes (io_uring_prep_close(3)). Linux 5.6, only io_uring.

        It cancels nothing that is pending on the file: `close_fd` does.

        Args:
            fd: the file's number.
        """
        op: Operation[None] = self._on(_CLOSE, fd)
        op._value = nothing
        return self._start(op)

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

    # Helpers

    def _on(self, kind: Kind, fd: File, make: Callable[..., Any] = Operation) -> Any:
        """An operation on a file."""
        if fd.__class__ is int:
            return make(self, kind, fd)
        number, file = file_of(fd)
        op = make(self, kind, number)
        op._file = file
        return op


__all__ = ["STOPPED", "VERBS", "File", "Verbs", "accepted", "whole"]
