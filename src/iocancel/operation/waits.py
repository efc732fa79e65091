"""The verbs that wait for something else than bytes, and those that open and close: see verbs.py."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from iocancel.operation.closing import Closing
from iocancel.operation.kinds import ACCEPT, CLOSE, CONNECT, FUTEX_WAIT, OPENAT, POLL, TIMEOUT, WAITID, Kind
from iocancel.operation.operation import FdOperation, Operation
from iocancel.operation.values import File, Path, accepted, file_of, nothing, second_file, whole

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Waits(Closing):
    """What can be waited for, and files."""

    # Connections

    def accept(self, sock: File, *, timeout: float | None = None) -> Operation[tuple[socket.socket, Any]]:
        """Accept a connection (accept4(2) with SOCK_CLOEXEC). io_uring: Linux 5.5.

        Args:
            sock: a listening socket.
            timeout: as for `read`.

        Returns:
            An operation; its value is (socket, address), as of `socket.accept`. A connection that came, and
            that nobody asks for by `result()`, is closed when the operation is collected.
        """
        op: FdOperation[Any] = self._on(ACCEPT, sock, FdOperation)
        op._value = accepted
        return self._start(op, timeout=timeout)

    def connect(self, sock: File, address: Any, *, timeout: float | None = None) -> Operation[None]:
        """Connect a socket (connect(2)). io_uring: Linux 5.5.

        Args:
            sock, timeout: as for `recv`.
            address: in Python's form (a numeric host; beside a socket object), or the bytes of a sockaddr.
        """
        op: Operation[None] = self._on(CONNECT, sock)
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
        return self._start(self._on(POLL, fd), whole(mask, "mask"), timeout=timeout)

    def timeout(self, seconds: float) -> Operation[None]:
        """Let time pass (io_uring_prep_timeout(3)). io_uring: Linux 5.4.

        Args:
            seconds: how long, from its submission on.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise TypeError(f"seconds takes a float or int, not {type(seconds).__name__}")
        if not 0 <= seconds < 1 << 63:  # the kernel's own limit; an int of any size is compared as it is
            raise ValueError(f"seconds takes 0 to 2**63 - 1, not {seconds}")
        op: Operation[None] = Operation(self, TIMEOUT)
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
        return self._start(Operation(self, WAITID), idtype, id, options, timeout=timeout)

    def futex_wait(
        self, futex: WriteableBuffer, val: int, *, timeout: float | None = None
    ) -> Operation[None]:
        """Wait until a futex is woken (io_uring_prep_futex_wait(3)). Linux 6.7, only io_uring.

        Args:
            futex: 4 bytes, aligned.
            val: the value that it has to have for the wait to begin; with another one it fails with EAGAIN.
            timeout: as for `read`.
        """
        op: Operation[None] = Operation(self, FUTEX_WAIT)
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
        op: FdOperation[int] = FdOperation(self, OPENAT)
        if dir_fd is not None:
            second_file(op, dir_fd)
        return self._start(op, path, flags | os.O_CLOEXEC, mode, dir_fd, timeout=timeout)

    def close_later(self, fd: int) -> Operation[None]:
        """Close a file when its turn comes (io_uring_prep_close(3)). Linux 5.6, only io_uring.

        It cancels nothing that is pending on the file: `close_fd` does.

        Args:
            fd: the file's number.
        """
        op: Operation[None] = self._on(CLOSE, fd)
        op._value = nothing
        return self._start(op)

    # Helpers

    def _on(self, kind: Kind, fd: File, make: Callable[..., Any] = Operation) -> Any:
        """An operation on a file."""
        if fd.__class__ is int:
            return make(self, kind, fd)
        number, file = file_of(fd)
        op = make(self, kind, number)
        op._file = file
        return op
