"""What anyio asks of streams and listeners, in its own words and exceptions.

anyio is no dependency: who calls these has it. They are no subclasses of its classes, since it may be
imported later, or never; `tell` has it count them among its own (`isinstance(stream, anyio.abc.ByteStream)`)
as soon as one is made, or used in its way, with anyio loaded.
"""

from __future__ import annotations

import errno
import importlib
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

_NONE = object()
unknown = True
"""Whether anyio has yet to be told of these classes."""
_ours: list[tuple[type, str]] = []


def known_as(name: str) -> Callable[[type], type]:
    """A class decorator: its instances are one of anyio.abc's."""

    def note(made: type) -> type:
        _ours.append((made, name))
        return made

    return note


def tell() -> None:
    """Have anyio know these classes, where it is loaded."""
    global unknown
    abc = sys.modules.get("anyio.abc")
    if abc is not None and hasattr(abc, "ByteStream") and hasattr(abc, "Listener"):
        for made, name in _ours:
            getattr(abc, name).register(made)
        unknown = False


def _anyio() -> Any:
    found = importlib.import_module("anyio")
    if unknown:
        tell()
    return found


class Extra:
    """`extra`, as of anyio.TypedAttributeProvider."""

    file: Any
    address: Any
    closed_type: type[Exception]
    busy_type: type[Exception]
    broken_type: type[Exception]

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The attributes of anyio.abc.SocketAttribute, where it is a socket."""
        _anyio()
        sock = self.file
        if not isinstance(sock, socket.socket):
            return {}
        attribute: Any = importlib.import_module("anyio.abc").SocketAttribute
        found: dict[Any, Callable[[], Any]] = {
            attribute.raw_socket: lambda: sock,
            attribute.family: lambda: sock.family,
            attribute.local_address: sock.getsockname,
        }
        peer = _peer(sock)
        if peer is not None:
            found[attribute.remote_address] = lambda: peer
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            found[attribute.local_port] = lambda: sock.getsockname()[1]
            if peer is not None:
                found[attribute.remote_port] = lambda: peer[1]
        return found

    def extra(self, attribute: Any, default: Any = _NONE) -> Any:
        """The value of an attribute.

        Args:
            attribute: of anyio.abc.SocketAttribute, say.
            default: what to return where there is no such one.

        Raises:
            anyio.TypedAttributeLookupError: there is none, and no default.
        """
        found = self.extra_attributes.get(attribute)
        if found is not None:
            return found()
        if default is _NONE:
            raise _anyio().TypedAttributeLookupError("Attribute not found")
        return default

    def _in_its_words(self, error: Exception) -> Exception:
        """anyio's exception for one of ours."""
        found = _anyio()
        if isinstance(error, self.closed_type):
            made: Exception = found.ClosedResourceError()
        elif isinstance(error, self.busy_type):
            made = found.BusyResourceError("using")
        else:
            made = found.BrokenResourceError()
        return made


class Bytes(Extra):
    """An anyio.abc.ByteStream's methods, of what has trio's."""

    receive_some: Callable[..., Awaitable[bytes]]
    send_all: Callable[[Any], Awaitable[None]]

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """`receive_some` for anyio.

        Raises:
            anyio.EndOfStream: at the end.
            anyio.ClosedResourceError: the stream is closed, or was meanwhile.
            anyio.BusyResourceError: another task is receiving.
            anyio.BrokenResourceError: recv(2) or read(2) failed; the OSError is its cause.
        """
        try:
            data = await self.receive_some(max_bytes)
        except (self.closed_type, self.busy_type, self.broken_type) as error:
            raise self._in_its_words(error) from error
        if not data:
            raise _anyio().EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        """`send_all` of `item` for anyio; raises as `receive`."""
        try:
            await self.send_all(item)
        except (self.closed_type, self.busy_type, self.broken_type) as error:
            raise self._in_its_words(error) from error

    def __aiter__(self) -> Any:
        """Iterate over what is received."""
        return self

    async def __anext__(self) -> bytes:
        """The next bytes, until the end."""
        data = await self.receive_some()
        if not data:
            raise StopAsyncIteration
        return data


def _peer(sock: socket.socket) -> Any:
    try:
        return sock.getpeername()
    except OSError as error:
        if error.errno not in (errno.ENOTCONN, errno.EINVAL):
            raise
        return None


__all__ = ["Bytes", "Extra", "known_as", "tell", "unknown"]
