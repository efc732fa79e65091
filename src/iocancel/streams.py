"""Streams of bytes and listeners that own their file, and keep what came late for the next call.

A verb of `iocancel.blocking` that a signal's handler cuts short has its value on the exception. These keep it
instead: the next call returns it first. So nothing is lost whatever ends a call, and nobody has to look.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from iocancel.engines import ready
from iocancel.engines.ready import NOT_READY
from iocancel.errors import check
from iocancel.operation.core import expiry
from iocancel.transfers import Have, Incoming, Outgoing, Owned, Side, Use

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from iocancel.operation.verbs import File

T = TypeVar("T", bound="Closable")
_MOST = ready.ROOM


class Closable:
    """What owns files."""

    _owned: Owned

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._owned.closing

    def close(self) -> None:
        """End the calls that wait in it, which raise ValueError, and close it.

        From any thread, any number of times. In a signal's handler that has interrupted one of the calls it
        only ends that, and the call then closes it.
        """
        self._owned.close()

    def __enter__(self: T) -> T:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def __del__(self) -> None:
        owned = getattr(self, "_owned", None)  # none where __init__ has raised
        if owned is not None:
            owned.forgotten(self)


class Stream(Closable):
    """A connected socket, a pipe's end, a tty, a device: bytes that come and go, in trio's words.

        with iocancel.Stream(sock) as stream:
            stream.send_all(b"hello", timeout=1)
            data = stream.receive_some(4096, timeout=1)

    Args:
        file: a number or an object with `fileno()`, which is closed with the stream.
        writer: another one to write to, where that is not the same.

    One thread may receive and another one send; two that receive get a RuntimeError.

    Each call ends at its `timeout` (seconds, None for ever: TimeoutError), by a scope around it (Cancelled),
    by an exception of a signal's handler, or when another thread closes the stream (ValueError). Bytes that
    had come by then are kept, and returned first by the next call.
    """

    address: Any = None
    """The peer's, where a `Listener` has accepted it."""

    def __init__(self, file: File, *, writer: File | None = None) -> None:
        two = writer is not None and writer is not file
        owned = self._prepare(file, writer if two else file, two)
        owned.own(file)
        if two:
            owned.own(writer)
        self._owned = owned  # last: until then the files are still the caller's

    def _prepare(self, file: File, writer: File, two: bool) -> Owned:
        owned = Owned(type(self).__name__)
        self._incoming = Incoming(owned, file)
        self._outgoing = Outgoing(owned, writer)
        self._two = two
        return owned

    @property
    def file(self) -> Any:
        """What it was given."""
        return self._incoming.file

    def fileno(self) -> int:
        """The number of the file that it reads; -1 when it is closed."""
        return self._incoming.number() if self._owned.is_open else -1

    def receive_some(self, max_bytes: int | None = None, *, timeout: float | None = None) -> bytes:
        """Wait for bytes, and return those that there are.

        Args:
            max_bytes: at most so many, >= 1; None: as many as there is room for.
            timeout: seconds, >= 0; 0 takes what is ready; None waits for ever.

        Returns:
            The bytes; b"" at the end.

        Raises:
            TimeoutError: nothing came in time.
            Cancelled: a scope around it was cancelled.
            OSError: recv(2) or read(2) failed.
            ValueError: the stream is closed, or was meanwhile.
            RuntimeError: another call is receiving.
            CancelTooLate: the time is over and the system can't stop the request; what it brings is the
                next call's.
        """
        if max_bytes is not None and (isinstance(max_bytes, bool) or not isinstance(max_bytes, int)):
            raise TypeError(f"max_bytes takes an int, not {type(max_bytes).__name__}")
        room = _MOST if max_bytes is None else max_bytes
        if room < 1:
            raise ValueError(f"max_bytes takes a number >= 1, not {max_bytes}")
        if timeout is not None:
            expiry(timeout)  # says what is wrong with it
        incoming = self._incoming

        def body(use: Use) -> bytes:
            have = incoming.have
            if have.start == have.end and not have.ended:
                have = incoming.bring(use, room, timeout)
            data, after = incoming.take(have, room)
            return incoming.commit(use, after, data)

        return incoming.using(body)

    def send_all(self, data: ReadableBuffer, *, timeout: float | None = None) -> None:
        """Send all of it.

        Args:
            data: a buffer.
            timeout: seconds for all of it, None for ever.

        Raises:
            As `receive_some`. The exception's `sent` says how many bytes went out before.
        """
        until = math.inf if timeout is None else expiry(timeout)

        def left() -> float | None:
            return None if until == math.inf else max(0.0, until - time.monotonic())

        self._outgoing.run(data, left, whole=True)

    def send_eof(self) -> None:
        """Let the peer read its end: nothing can be sent any more. Bytes still can come.

        Raises:
            ValueError: the file is neither a socket, nor was a `writer` of its own given; or it is closed.
            RuntimeError: another call is sending.
        """
        outgoing = self._outgoing

        def body(use: Use) -> None:
            if outgoing.is_socket:
                file = outgoing.file
                if isinstance(file, socket.socket):
                    file.shutdown(socket.SHUT_WR)
                else:
                    same = socket.socket.__new__(socket.socket)
                    try:
                        same.__init__(fileno=outgoing.number())  # type: ignore[misc]
                        same.shutdown(socket.SHUT_WR)
                    finally:
                        same.detach()
            elif self._two:
                outgoing.ended = True
                self._owned.close_last(left=1)
            else:
                raise ValueError(
                    "a file that is no socket ends when it is closed: give its other end as writer"
                )
            outgoing.commit(use, Have({}), None)

        return outgoing.using(body)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'closed' if self.closed else f'fd={self.fileno()}'}>"


class Listener(Closable):
    """A listening socket, each of whose connections is a `Stream`.

    Args:
        sock: bound, and listening; it is closed with the listener.

    A connection that came when a signal's handler raised is kept for the next call, and closed with the
    listener if none comes.
    """

    def __init__(self, sock: socket.socket) -> None:
        owned = Owned(type(self).__name__)
        if not isinstance(sock, socket.socket):
            raise TypeError(f"a Listener takes a socket, not {type(sock).__name__}")
        self._side = _Connections(owned, sock)
        owned.own(sock)
        owned.own(self._side)
        self._owned = owned

    @property
    def file(self) -> socket.socket:
        """What it was given."""
        sock: socket.socket = self._side.file
        return sock

    def fileno(self) -> int:
        """The socket's number; -1 when it is closed."""
        return self._side.number()

    def accept(self, *, timeout: float | None = None) -> Stream:
        """Wait for a connection.

        Args:
            timeout: seconds, >= 0; 0 takes what is there; None waits for ever.

        Returns:
            A `Stream`; its `address` is the peer's, in Python's form.

        Raises:
            As `Stream.receive_some`.
        """
        if timeout is not None:
            expiry(timeout)  # says what is wrong with it
        side = self._side
        owned: Owned | None = None

        def body(use: Use) -> Stream:
            nonlocal owned
            have = side.have if side.have.kept else side.bring(use, timeout)
            conn, address = have.kept[0].result()
            stream = Stream.__new__(Stream)
            owned = stream._owned = stream._prepare(conn, conn, two=False)
            stream.address = address
            owned.own(conn)
            return side.commit(use, Have({}, have.kept[1:]), stream)

        try:
            return side.using(body)
        except BaseException:
            if owned is not None:
                owned.disown()  # the connection is kept
            raise

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'closed' if self.closed else f'fd={self.fileno()}'}>"


class _Connections(Side):
    """What has come to a listening socket: operations whose values nobody was given."""

    def __init__(self, owner: Owned, sock: socket.socket) -> None:
        super().__init__(owner, sock, "accepting")
        self.have = Have({}, ())

    def begin(self, use: Use) -> None:
        """See Side."""
        super().begin(use)
        self.settle()

    def bring(self, use: Use, timeout: float | None) -> Have:
        """Wait for a connection."""
        transfer = self.call(use, timeout, "accept")
        self.have = self.have._replace(source=transfer)
        number = self.number()
        many = transfer.attempt(ready.accept, number)
        if many == NOT_READY:
            transfer.wait(
                lambda engine, file: engine.accept(file), number, select.POLLIN, self.owner.closed_error
            )
        elif many < 0:
            self.have = self.have._replace(source=None)
            check(many, "accept")
        return self.settle()

    def settle(self) -> Have:
        """Put what a call has brought behind what is kept."""
        have = self.have
        source = have.source
        if source is None:
            return have
        op = source.accepted(self.number())
        kept = have.kept if op is None else (*have.kept, op)
        fresh = self.have = Have(have.claims, kept)
        source.give_back()
        return fresh

    def close(self) -> None:
        """Close the connections that nobody has asked for."""
        with contextlib.suppress(OSError):  # it still runs: what it brings is closed when it is collected
            self.settle()
        for op in self.have.kept:
            op.result()[0].close()
        self.have = self.have._replace(kept=())


__all__ = ["Listener", "Stream"]
