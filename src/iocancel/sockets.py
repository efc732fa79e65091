"""A socket that fits the standard library, with blocking calls that can be ended: see iocancel.files."""

from __future__ import annotations

import errno
import io
import os
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from iocancel import blocking
from iocancel.errors import OperationTimedOut
from iocancel.files import BufferedReader, RawFile
from iocancel.operation.core import expiry

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class _Pair(io.BufferedIOBase):
    """A reader and a writer of one socket."""

    def __init__(self, reader: BufferedReader, writer: io.BufferedWriter) -> None:
        super().__init__()
        self._reader, self._writer = reader, writer
        self.read, self.read1, self.peek = reader.read, reader.read1, reader.peek  # type: ignore[method-assign]
        self.readinto, self.readinto1 = reader.readinto, reader.readinto1  # type: ignore[method-assign]
        self.readline, self.readlines = reader.readline, reader.readlines  # type: ignore[method-assign]
        self.fileno, self.isatty = reader.fileno, reader.isatty  # type: ignore[method-assign]

    def write(self, data: ReadableBuffer, /) -> int:
        """See io.BufferedWriter."""
        return self._writer.write(data)

    def flush(self) -> None:
        """See io.BufferedWriter."""
        if not self._writer.closed:
            self._writer.flush()

    def readable(self) -> bool:
        """It is."""
        return True

    def writable(self) -> bool:
        """It is."""
        return True

    def __next__(self) -> bytes:
        """The next line."""
        return self._reader.__next__()

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._writer.closed

    def close(self) -> None:
        """Flush, and close."""
        try:
            self._writer.close()
        finally:
            self._reader.close()


class _SocketFile(RawFile):
    """The raw file of a socket's `makefile`: the socket is closed when both are."""

    def __init__(self, sock: Any, mode: str) -> None:
        super().__init__(sock, mode, closefd=False)
        self._sock = sock
        self._sock._io_refs += 1

    @property
    def timeout(self) -> float | None:
        """The socket's."""
        seconds: float | None = self._sock.gettimeout()
        return seconds

    @timeout.setter
    def timeout(self, value: float | None) -> None:
        if value is not None:
            raise ValueError("the socket's settimeout() is for that")

    def close(self) -> None:
        """Close it, and the socket if that was only waiting for it."""
        if self.closed:
            return
        super().close()
        sock = getattr(self, "_sock", None)
        if sock is not None:
            sock._decref_socketios()


class Socket(socket.socket):
    """A socket whose blocking calls end by its timeout, by a scope around them, and by Ctrl-C.

        conn = http.client.HTTPConnection(host)
        conn.sock = iocancel.create_connection((host, 80))
        with iocancel.fail_after(5):        # in all, however slowly bytes trickle
            conn.request("GET", "/")
            body = conn.getresponse().read()

    Args:
        family, type, proto, fileno: as for `socket.socket`; or make one of a socket by `Socket.adopt`.

    `settimeout` means what it means there: seconds
    for each call, whose end is a TimeoutError; no O_NONBLOCK is set for it. What `makefile` returns reads by
    `iocancel.BufferedReader`, and can be read on after a timeout.

    A signal's exception that leaves `recv` or `accept` may have a value on it (`error.operation`); `Stream`
    and `Listener` keep it instead. A call that waits is ended by `shutdown` from another thread, not by
    `close`. `ssl` does not call these methods.
    """

    _patience: float | None = None

    def __init__(
        self,
        family: int = -1,
        type: int = -1,  # noqa: A002
        proto: int = -1,
        fileno: int | None = None,
    ) -> None:
        super().__init__(family, type, proto, fileno)
        timeout = super().gettimeout()  # socket.setdefaulttimeout()'s
        if timeout is not None:
            super().setblocking(True)
            self._patience = timeout

    @classmethod
    def adopt(cls, sock: socket.socket) -> Socket:
        """Make one of a socket, which is closed to its user then.

        Args:
            sock: the socket; its timeout is kept.
        """
        timeout = sock.gettimeout()
        made = cls.__new__(cls)
        try:
            made.__init__(sock.family, sock.type, sock.proto, sock.fileno())  # type: ignore[misc]
            made._patience = timeout
            if timeout is not None:
                socket.socket.setblocking(made, True)
            sock.detach()
        except BaseException:
            if sock.fileno() >= 0:
                made.detach()  # one of them closes it
            raise
        return made

    # Timeouts: Python's own would set O_NONBLOCK

    def settimeout(self, value: float | None, /) -> None:
        """Seconds that each call may wait, None for ever; 0: none waits (BlockingIOError)."""
        if value is not None and value < 0:
            raise ValueError("Timeout value out of range")
        if value is not None:
            expiry(value)  # says what is wrong with it
        self._patience = value

    def gettimeout(self) -> float | None:
        """Seconds that each call may wait; None for ever."""
        return self._patience

    @property
    def timeout(self) -> float | None:
        """The same."""
        return self._patience

    def setblocking(self, flag: bool, /) -> None:
        """True: each call may wait for ever; False: none waits."""
        self._patience = None if flag else 0.0

    def getblocking(self) -> bool:
        """Whether calls wait."""
        return self._patience != 0

    def _done(self, call: Callable[..., Any], *args: Any, flags: int = 0) -> Any:
        timeout = self._patience
        if timeout != 0 and not flags & socket.MSG_DONTWAIT:
            return call(self, *args, timeout=timeout)
        try:
            return call(self, *args, timeout=0)
        except OperationTimedOut:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None

    # Calls that wait: see socket.socket's

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """See `socket.recv`."""
        if bufsize < 0:
            raise ValueError("negative buffersize in recv")
        data: bytes = self._done(blocking.recv, bufsize, flags, flags=flags)
        return data

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """See `socket.recv_into`."""
        return int(self._done(blocking.recv, _part(buffer, nbytes), flags, flags=flags))

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """See `socket.recvfrom`."""
        data, _, _, address = self._done(blocking.recvmsg, bufsize, 0, flags, flags=flags)
        return data, address

    def recvfrom_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """See `socket.recvfrom_into`."""
        view = _part(buffer, nbytes)
        data, address = self.recvfrom(len(view), flags)
        view[: len(data)] = data
        return len(data), address

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> Any:
        """See `socket.recvmsg`."""
        return self._done(blocking.recvmsg, bufsize, ancbufsize, flags, flags=flags)

    def recvmsg_into(self, buffers: Iterable[WriteableBuffer], ancbufsize: int = 0, flags: int = 0, /) -> Any:
        """See `socket.recvmsg_into`."""
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        data, ancillary, told, address = self.recvmsg(sum(map(len, views)), ancbufsize, flags)
        at = 0
        for view in views:
            part = data[at : at + len(view)]
            view[: len(part)] = part
            at += len(part)
        return len(data), ancillary, told, address

    def send(self, data: ReadableBuffer, flags: int = 0, /) -> int:
        """See `socket.send`."""
        return int(self._done(blocking.send, data, flags, flags=flags))

    def sendall(self, data: ReadableBuffer, flags: int = 0, /) -> None:
        """See `socket.sendall`; an exception's `sent` says how many bytes went out before."""
        self._done(blocking.sendall, data, flags, flags=flags)

    def sendto(self, data: ReadableBuffer, *args: Any) -> int:
        """See `socket.sendto`: (data, address), or (data, flags, address)."""
        if len(args) not in (1, 2):
            raise TypeError(f"sendto takes (data, address) or (data, flags, address), not {len(args) + 1}")
        flags = args[0] if len(args) == 2 else 0
        return self.sendmsg([data], (), flags, args[-1])

    def sendmsg(
        self, buffers: Iterable[ReadableBuffer], ancdata: Any = (), flags: int = 0, address: Any = None, /
    ) -> int:
        """See `socket.sendmsg`."""
        return int(self._done(blocking.sendmsg, list(buffers), list(ancdata), flags, address, flags=flags))

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """See `socket.sendfile`; by `send`."""
        own: Any = self
        return int(own._sendfile_use_send(file, offset, count))

    def accept(self) -> tuple[Socket, Any]:
        """See `socket.accept`."""
        conn, address = self._done(blocking.accept)
        sock = Socket.adopt(conn)
        sock._patience = socket.getdefaulttimeout()
        return sock, address

    def connect(self, address: Any, /) -> None:
        """See `socket.connect`. A name is resolved first, which nothing can end."""
        if self._patience != 0:
            self._done(blocking.connect, self._resolved(address))
            return
        try:
            super().setblocking(False)
            super().connect(address)  # BlockingIOError: it is under way
        finally:
            super().setblocking(True)

    def connect_ex(self, address: Any, /) -> int:
        """See `socket.connect_ex`."""
        try:
            self.connect(address)
        except TimeoutError:
            return errno.EAGAIN
        except OSError as error:
            if error.errno is None or isinstance(error, socket.gaierror):
                raise
            return error.errno
        return 0

    def _resolved(self, address: Any) -> Any:
        if self.family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(address, tuple):
            return address
        host, port, *more = address
        found = socket.getaddrinfo(host or None, port, self.family, self.type, self.proto)
        return (found[0][4][0], found[0][4][1], *(more or found[0][4][2:]))

    def makefile(
        self,
        mode: str = "r",
        buffering: int | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Any:
        """See `socket.makefile`. Its reads are those of `iocancel.BufferedReader`."""
        if not set(mode) <= set("rwb"):
            raise ValueError(f"invalid mode {mode!r} (only r, w, b allowed)")
        writes = "w" in mode
        reads = "r" in mode or not writes
        raw = _SocketFile(self, "r+b" if reads and writes else "rb" if reads else "wb")
        size = io.DEFAULT_BUFFER_SIZE if buffering is None or buffering < 0 else buffering
        if size == 0:
            if "b" not in mode:
                raw.close()
                raise ValueError("unbuffered streams must be binary")
            return raw
        file: Any
        if reads and writes:
            file = _Pair(BufferedReader(raw, size), io.BufferedWriter(raw, size))
        else:
            file = BufferedReader(raw, size) if reads else io.BufferedWriter(raw, size)
        return file if "b" in mode else io.TextIOWrapper(file, encoding, errors, newline)


def _part(buffer: WriteableBuffer, nbytes: int) -> memoryview:
    view = memoryview(buffer).cast("B")
    if nbytes < 0:
        raise ValueError("negative buffersize")
    if nbytes > len(view):
        raise ValueError("nbytes is greater than the length of the buffer")
    return view[:nbytes] if nbytes else view


def create_connection(
    address: tuple[str | None, int],
    timeout: float | None = None,
    source_address: tuple[str, int] | None = None,
) -> Socket:
    """Connect to a TCP server, as `socket.create_connection` does.

    Args:
        address: (host, port). A name is resolved first, by the C library, which nothing can end: neither
            `timeout` nor a scope; give a number where that matters.
        timeout: seconds for each address that the host has, and then the socket's own; None for ever.
        source_address: what to bind to.

    Returns:
        A `Socket`.

    Raises:
        OSError: the last address's error.
        Cancelled: a scope around it was cancelled.
    """
    host, port = address
    last: OSError | None = None
    for family, kind, proto, _, where in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
        sock = None
        try:
            sock = Socket(family, kind, proto)
            sock.settimeout(timeout)
            if source_address is not None:
                sock.bind(source_address)
            sock.connect(where)
            return sock  # noqa: TRY300 - inside, so that a Ctrl-C just here closes it
        except OSError as error:
            last = error
            if sock is not None:
                sock.close()
        except BaseException:
            if sock is not None:
                sock.close()
            raise
    raise last or OSError(f"no address of {host!r}")


__all__ = ["Socket", "create_connection"]
