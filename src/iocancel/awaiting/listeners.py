"""Listening sockets whose connections are streams, awaited: the same for asyncio and trio."""

from __future__ import annotations

import errno
import importlib
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from iocancel.awaiting import anyio
from iocancel.awaiting.owning import Closable, through
from iocancel.awaiting.streams import Stream
from iocancel.engines import ready
from iocancel.engines.ready import NOT_READY
from iocancel.operation.operation import RELEASING

if TYPE_CHECKING:
    from iocancel.operation import Operation

S = TypeVar("S", bound=Stream)
_IN = select.POLLIN
_GONE = -errno.ECONNABORTED


class Listener(Closable, anyio.Extra, Generic[S]):
    """A listening socket, whose connections are `Stream`s.

        async with Listener(sock) as listener:
            stream = await listener.accept()

    Args:
        sock: bound, and listening; it is closed with the listener.

    A connection that came when its task was cancelled is kept for the next call, and closed with the listener
    if none comes. It is also an `anyio.abc.Listener`.
    """

    _stream: Callable[[socket.socket], S]

    def __init__(self, sock: socket.socket) -> None:
        if not isinstance(sock, socket.socket):
            raise TypeError(f"a Listener takes a socket, not {type(sock).__name__}")
        self._sock = sock
        self._accepting = False
        self._op: Operation[Any] | None = None  # what it brings, or has brought, is the next call's
        if anyio.unknown:
            anyio.tell()
        super().__init__(sock)

    @property
    def file(self) -> Any:
        """What it was given."""
        return self._sock

    def fileno(self) -> int:
        """The socket's number; -1 when it is closed."""
        return self._sock.fileno()

    def _pending(self) -> list[Operation[Any]]:
        return [] if self._op is None else [self._op]

    def _close_files(self) -> None:
        super()._close_files()
        if not self._accepting:
            self._discard()

    def _discard(self) -> None:
        """Close a connection that nobody has asked for."""
        op = self._op
        if op is not None and op._state >= RELEASING:
            self._op = None
            if op._kind.name == "accept" and op.exception() is None:  # it did not still run
                op.result()[0].close()

    async def accept(self) -> S:
        """Wait for a connection.

        Returns:
            A `Stream`; its `address` is the peer's, in Python's form.

        Raises:
            ValueError: the listener is closed, or was meanwhile (in trio ClosedResourceError).
            RuntimeError: another task is accepting (BusyResourceError).
            OSError: accept4(2) failed; not for a connection that was gone again (ECONNABORTED).
            The loop's cancellation: a connection that came late is the next call's.
        """
        hub = self._here()
        if hub.checkpoints:
            await hub.checkpoint_if_cancelled()
        if self._accepting or self._closing:
            self._refuse("accepting")
        self._accepting = True
        try:
            if self._op is None and hub.credit:
                number = self._sock.fileno()
                many = ready.accept(hub.attempt.told, number)
                if many >= 0:
                    hub.credit -= 1
                    self._op = ready.taken("accept", number, many)
                    ready.mine(self._op)
                elif many != NOT_READY:
                    self._raise(many, "accept")
            while True:
                op, old = self._op, True
                if op is None:
                    self._go_on("accepting")
                    op = self._op = hub.engine.accept(self._sock.fileno())
                    old = False
                await through(hub, op)
                self._op = None
                if op._kind.name == "accept":
                    if op._res >= 0:
                        conn, address = op.result()
                        stream = self._stream(conn)
                        stream.address = address
                        return stream
                    if op._res == NOT_READY:  # O_NONBLOCK, which some kernels (5.10) take for "don't wait"
                        self._go_on("accepting")
                        self._op = hub.engine.poll(self._sock.fileno(), _IN)
                        continue
                    if op._res == _GONE:
                        continue
                elif op._res >= 0:
                    continue
                self._give_up(op, old, "accepting")
        finally:
            self._accepting = False
            if self._closing:
                self._discard()

    async def serve(self, handler: Callable[[Any], Any], task_group: Any = None) -> None:
        """Accept connections for ever, and have each handled by a task of its own. This needs anyio.

        Args:
            handler: an async function of a stream, which closes it.
            task_group: anyio's; one of its own where none is given.

        Raises:
            anyio.ClosedResourceError: the listener is closed, or was meanwhile.
            anyio.BusyResourceError: another task is accepting.
            anyio.BrokenResourceError: accept4(2) failed; the OSError is its cause.
        """
        if task_group is None:
            async with importlib.import_module("anyio").create_task_group() as task_group:
                await self.serve(handler, task_group)
            return
        while True:
            try:
                stream = await self.accept()
            except (self.closed_type, self.busy_type, self.broken_type) as error:
                raise self._in_its_words(error) from error
            task_group.start_soon(handler, stream)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'closed' if self.closed else f'fd={self.fileno()}'}>"


__all__ = ["Listener"]
