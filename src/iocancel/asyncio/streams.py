"""Streams, listeners and multishot verbs of asyncio: see iocancel.awaiting.streams, listeners, multishot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iocancel.asyncio.awaited import Awaited
from iocancel.asyncio.hub import current
from iocancel.awaiting import anyio, listeners, streams
from iocancel.awaiting.multishot import Multishots
from iocancel.operation import Operation
from iocancel.operation.kinds import KINDS
from iocancel.operation.rooms import Room

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Generator

    from iocancel.asyncio.hub import Hub
    from iocancel.operation import Kind


class Receive(Awaited[bytes]):
    """A stream's read of its file, used again and again: see iocancel.asyncio.awaited."""

    __slots__ = ("_make", "_room", "_view", "many")

    def __init__(self, hub: Hub, kind: Kind, entry: Any) -> None:
        super().__init__(hub, kind)
        self.many = streams.WAITING
        self._room = Room(self.many)
        self._view = memoryview(self._room.buffer)
        self._make = entry

    def begin(self, number: int, many: int, is_socket: bool) -> None:
        """Stage it."""
        self._exception = None  # of its last use
        token = self._name(number, number)
        found = self._room
        self._entry = self._make(number, found, many, token, is_socket)
        self._pins = found.pin
        self._stage(token)
        hub = self._hub
        if not hub.turning:
            hub.soon()

    def __await__(self) -> Generator[Any, Any, None]:
        """Wait."""
        self._asyncio_future_blocking = True
        yield self

    __iter__ = __await__

    def exception(self) -> BaseException | None:
        """As of an operation: the next call asks, also where a cancel of the last one came too late."""
        return Operation.exception(self)

    def data(self) -> bytes:
        """What it has brought."""
        return self._view[: self._res].tobytes()


@anyio.known_as("ByteStream")
class Stream(streams.Stream):
    """See iocancel.awaiting.streams."""

    _here = staticmethod(current)
    _spare: Receive | None = None

    def _request(self, hub: Any, room: int) -> Operation[Any]:
        op = self._spare
        if op is None or op._hub is not hub or op._why:  # the answer to a cancel may still name it
            entry = getattr(hub.engine._carrier, "stream_entry", None)
            if entry is None or self._least != streams.WAITING:
                return super()._request(hub, room)
            op = self._spare = Receive(hub, KINDS["recv" if self._is_socket else "read"], entry)
        op.begin(self._fileno(), room if room < op.many else op.many, self._is_socket)
        return op

    def _until(self, hub: Any, op: Operation[Any]) -> Awaitable[object]:
        wait: Awaitable[object] = op if isinstance(op, Receive) else hub.ended(op)
        return wait

    def _bytes(self, op: Operation[Any]) -> bytes:
        return op.data() if isinstance(op, Receive) else super()._bytes(op)


@anyio.known_as("Listener")
class Listener(listeners.Listener[Stream]):
    """See iocancel.awaiting.listeners."""

    _here = staticmethod(current)
    _stream = Stream


class Bell:
    """See iocancel.awaiting.multishot."""

    __slots__ = ("_future",)

    def __init__(self, hub: Hub) -> None:
        self._future: asyncio.Future[None] = hub.loop.create_future()

    def wake(self) -> None:
        """See Bell."""
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        """See Bell."""
        await self._future


multishots = Multishots(current, Bell)

__all__ = ["Bell", "Listener", "Receive", "Stream", "multishots"]
