"""The kernel's own multishot requests: one request, many completions."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import socket
from typing import Any

from iocancel._native import lib
from iocancel.engines.uring.entries import Loose, made
from iocancel.operation import Operation
from iocancel.operation.kinds import KINDS
from iocancel.operation.values import peer
from iocancel.uring import Cqe, Ring

NAMES = frozenset(["accept_multishot", "recv_multishot", "poll_multishot"])
_BUFFER = lib.IORING_CQE_F_BUFFER


class Accepts(Operation[Any]):
    """Its results are fds: those that nobody can take any more are closed."""

    def __del__(self) -> None:
        items = getattr(self, "_items", None)
        while items:
            fd, _ = items.popitem()[1]
            with contextlib.suppress(OSError):
                os.close(fd)


class Native:
    """A verb's multishot form, and the buffers that it fills."""

    def __init__(self, carrier: Any, engine: Any, verb: str, args: tuple[Any, ...]) -> None:
        self._carrier, self._engine, self._verb, self._args = carrier, engine, verb, args
        self._group: Any = None
        if verb == "recv":
            nbytes, many, _ = args
            self._group = carrier.ring.register_buf_ring(many, nbytes, carrier.next_group())

    def start(self, fd: Any) -> Operation[Any]:
        """Prepare it."""
        make = Accepts if self._verb == "accept" else Operation
        op: Operation[Any] = self._engine._on(KINDS[self._verb], fd, make)
        op._items = {}
        op._special = True
        self._engine._start(op, self)
        return op

    def fill(self, op: Operation[Any]) -> None:
        """Make the entry."""
        sqe = Loose()
        if self._verb == "accept":
            sqe.prep_multishot_accept(op._fd, None, os.O_CLOEXEC)
        elif self._verb == "poll":
            sqe.prep_poll_multishot(op._fd, self._args[0])
        else:
            sqe.prep_recv_multishot(op._fd, self._group.bgid, self._args[2])
        made(op, sqe)
        op._pins = (op._pins, self._group)

    def value(self, res: int, flags: int) -> Any:
        """What one completion has brought."""
        if self._verb == "accept":
            # In two steps: an exception from a signal handler must not leave an object that closes the fd.
            conn = socket.socket.__new__(socket.socket)
            try:
                conn.__init__(fileno=res)  # type: ignore[misc]
                return conn, peer(conn)
            except BaseException:
                conn.detach()
                raise
        if self._verb == "poll":
            return res
        return bytes(self._group.view(Cqe(0, res, flags)))

    def give_back(self, flags: int) -> None:
        """Let the kernel have a buffer again whose bytes were copied."""
        if flags & _BUFFER:
            self._group.recycle(Cqe(0, 0, flags))

    def done(self) -> None:
        """It has ended, and everything was taken."""
        if self._group is not None:
            self._carrier.ring.release_group(self._group.bgid)


@functools.cache
def works(name: str) -> bool:
    """Whether this kernel has it: found by trying, once."""
    with contextlib.ExitStack() as stack:
        try:
            ring = stack.enter_context(Ring(8))
            left, right = map(stack.enter_context, socket.socketpair())
            sqe = ring.get_sqe()
            if name == "accept_multishot":
                listener = stack.enter_context(socket.socket(socket.AF_UNIX))
                listener.bind("")  # any free abstract address
                listener.listen(1)
                sqe.prep_multishot_accept(listener.fileno())
            elif name == "poll_multishot":
                sqe.prep_poll_multishot(left.fileno(), select.POLLIN)
            else:
                ring.register_buf_ring(1, 16, 1)
                sqe.prep_recv_multishot(left.fileno(), 1)
            ring.submit()
            del right
            return not ring.peek()  # refused at once, or waiting
        except OSError:
            return False
