"""Streams of bytes that own their file, awaited: the same for asyncio and trio.

What is ready is taken at once. Else the kernel has a request that takes it, and not a poll: the bytes come
with the completion. That is safe here, and only here, because all reads of the file are the stream's:

1. a call that waits keeps its operation in the stream;
2. at a cancel of the task the operation is asked to end, and its ending awaited;
3. if it brought something all the same, it stays in the stream, and the next call takes it from there.

So asyncio's cancels, which have no room for a value, lose nothing; nor does a task that is just dropped.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any

from iocancel.awaiting import anyio
from iocancel.awaiting.owning import (
    Closable,
    at_least,
    dropped,
    has_records,
    is_socket,
    number_of,
    shut_down,
    through,
)
from iocancel.engines import ready
from iocancel.engines.ready import NOT_READY
from iocancel.operation.operation import RELEASING
from iocancel.uring import memory

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from _typeshed import ReadableBuffer

    from iocancel.awaiting.hub import Hub
    from iocancel.operation import Operation
    from iocancel.operation.verbs import File

_IN, _OUT = select.POLLIN, select.POLLOUT
WAITING = 4096
"""Bytes that a request that waits has room for; an attempt has more. Records that are longer would be cut
off: what has such (a datagram socket, a device) gets the room of an attempt."""
_recv, _read, _send, _write = ready.recv, ready.read, ready.send, ready.write
_from_buffer, _BYTES = ready.from_buffer, ready.BYTES


class Stream(Closable, anyio.Bytes):
    """A connected socket, a pipe's end, a tty, a device: bytes that come and go, in trio's words.

        async with Stream(sock) as stream:
            await stream.send_all(b"hello")
            data = await stream.receive_some(4096)

    Args:
        file: a number or an object with `fileno()`, which is closed with the stream.
        writer: another one to write to, where that is not the same.

    One task may receive and another one send. A cancel of the task, a timeout or scope around a call, and
    `aclose` by another task end it; bytes that had come by then are kept, and returned first by the next
    call. It is also an `anyio.abc.ByteStream`.
    """

    address: Any = None
    """The peer's, where a `Listener` has accepted it."""

    def __init__(self, file: File, *, writer: File | None = None) -> None:
        two = writer is not None and writer is not file and not (isinstance(file, int) and writer == file)
        self._file = file
        self._writer = writer if two else file
        self._fileno = number_of(file)
        self._out = number_of(writer) if two and writer is not None else self._fileno
        self._is_socket = is_socket(self._fileno())
        self._out_is_socket = is_socket(self._out()) if two else self._is_socket
        self._two = two
        self._least = ready.ROOM if has_records(self._fileno(), file) else WAITING
        self._receiving = self._sending = False
        self._reading: Operation[Any] | None = None  # what it brings, or has brought, is the next call's
        self._writing: Operation[Any] | None = None
        self._kept = b""
        self._at_end = False  # the end has come, and was not told
        self._sent_eof = False
        if anyio.unknown:
            anyio.tell()
        super().__init__(*((file, writer) if two and writer is not None else (file,)))

    @property
    def file(self) -> Any:
        """What it was given."""
        return self._file

    def fileno(self) -> int:
        """The number of the file that it reads; -1 when it is closed."""
        return self._fileno() if self._closers else -1

    def _pending(self) -> list[Operation[Any]]:
        return [op for op in (self._reading, self._writing) if op is not None]

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes, and return those that there are.

        Args:
            max_bytes: at most so many, >= 1; None: as many as there is room for.

        Returns:
            The bytes; b"" at the end.

        Raises:
            ValueError: the stream is closed, or was meanwhile (in trio ClosedResourceError).
            RuntimeError: another task is receiving (BusyResourceError).
            OSError: recv(2) or read(2) failed (BrokenResourceError, from it).
            The loop's cancellation: bytes that came late are the next call's.
        """
        room = ready.ROOM if max_bytes is None else max_bytes
        if room.__class__ is not int or room < 1:
            room = at_least(1, room, "max_bytes")
        hub = self._here()
        if hub.checkpoints:
            await hub.checkpoint_if_cancelled()
        if self._receiving or self._closing:
            self._refuse("receiving")
        op: Operation[Any] | None = None
        if self._reading is None and not self._kept and not self._at_end:
            if hub.credit:
                now = hub.attempt
                number = self._fileno()
                if self._is_socket:
                    many = _recv(now.told, number, room, 0)
                else:
                    many = _read(now.told, number, room, -1)
                if many >= 0:
                    data: bytes = now.data[:many]
                    hub.credit -= 1
                    if hub.checkpoints:
                        await hub.cancel_shielded_checkpoint()
                    return data
                if many != NOT_READY:
                    self._raise(many, "recv" if self._is_socket else "read")
            op = self._reading = self._request(hub, room)
        self._receiving = True
        try:
            if op is not None:  # the common way of `_bring`
                try:
                    await self._until(hub, op)
                except BaseException:
                    if op._state < RELEASING:
                        dropped(op)
                    raise
                if op._res > 0:
                    data = self._bytes(op)
                    self._reading = None  # behind it: a KeyboardInterrupt leaves the bytes to the next call
                    return data
                await self._bring(hub, room, op)
            elif not self._kept and not self._at_end:
                await self._bring(hub, room)
            elif hub.checkpoints:
                await hub.cancel_shielded_checkpoint()
            return self._give(room)
        finally:
            self._receiving = False

    def _give(self, room: int) -> bytes:
        """Some of what is kept."""
        kept = self._kept
        if len(kept) <= room:
            self._kept = b""
            if not kept:
                self._at_end = False
            return kept
        self._kept = kept[room:]
        return kept[:room]

    # An adapter may have shorter ones

    def _request(self, hub: Hub, room: int) -> Operation[Any]:
        """Have the kernel read, when there is something."""
        least = min(room, self._least)
        if self._is_socket:
            op: Operation[Any] = hub.engine.recv(self._fileno(), least)
        else:
            op = hub.engine.read(self._fileno(), least)
        return op

    def _until(self, hub: Hub, op: Operation[Any]) -> Awaitable[object]:
        """Wait for the ending of what `_request` has just made."""
        return hub.ended(op)

    def _bytes(self, op: Operation[Any]) -> bytes:
        """What it has brought."""
        data: bytes = op.result()
        return data

    async def receive_exactly(self, many: int) -> bytes:
        """Wait for just so many bytes.

        Args:
            many: how many, >= 0.

        Raises:
            EOFError: the end came first. What came before it is kept for the next `receive_some`.
            As `receive_some`; what had come is kept, too.
        """
        if many.__class__ is not int or many < 0:
            many = at_least(0, many, "many")
        hub = self._here()
        if hub.checkpoints:
            await hub.checkpoint_if_cancelled()
        if self._receiving or self._closing:
            self._refuse("receiving")
        self._receiving = True
        waited = False
        parts = [self._kept]
        have = len(self._kept)
        try:
            while True:
                if have >= many:
                    break
                if self._at_end:
                    raise EOFError(f"{type(self).__name__}: it ended after {have} of {many} bytes")
                self._kept = b""
                if not self._take(hub, many - have):
                    waited = True
                    await self._bring(hub, many - have)
                parts.append(self._kept)
                have += len(self._kept)
        except BaseException:
            self._kept = b"".join(parts)
            raise
        else:
            data = b"".join(parts) if len(parts) > 1 else parts[0]
            self._kept = data[many:]
            if hub.checkpoints and not waited:
                await hub.cancel_shielded_checkpoint()
            return data[:many]
        finally:
            self._receiving = False

    def _take(self, hub: Hub, room: int) -> bool:
        """Put what is ready to what is kept, which is empty; whether there was something."""
        if self._reading is not None or not hub.credit or self._closing:
            return False
        hub.credit -= 1
        now = hub.attempt
        number = self._fileno()
        many = _recv(now.told, number, room, 0) if self._is_socket else _read(now.told, number, room, -1)
        if many == NOT_READY:
            return False
        if many < 0:
            self._raise(many, "recv" if self._is_socket else "read")
        self._kept = now.data[:many]
        self._at_end = not many
        return True

    async def _bring(self, hub: Hub, room: int, new: Operation[Any] | None = None) -> None:
        """Wait for bytes, or the end, and put them to what is kept, which is empty.

        Args:
            hub, room: as of the call.
            new: one that this call has made, and that has ended.
        """
        while True:
            op = self._reading
            if op is None:
                self._go_on("receiving")
                op = new = self._reading = self._request(hub, room)
            if op._state < RELEASING or op is not new:
                await through(hub, op)
            res = op._res
            if res >= 0 and op._kind.name != "poll":
                self._kept = self._bytes(op) if res else b""
                self._reading = None  # no call between these: see `receive_some`
                self._at_end = not res
                return
            self._reading = None
            if op._kind.name == "poll":
                if res >= 0:
                    continue
            elif res == NOT_READY:  # O_NONBLOCK, which some kernels (5.10) take for "don't wait"
                self._go_on("receiving")
                new = self._reading = hub.engine.poll(self._fileno(), _IN)
                continue
            self._give_up(op, op is not new, "receiving")

    async def send_all(self, data: ReadableBuffer) -> None:
        """Send all of it.

        Args:
            data: a buffer, not to be changed meanwhile.

        Raises:
            As `receive_some`. The exception's `sent` says how many bytes went out before.
        """
        hub = self._here()
        try:
            if hub.checkpoints:
                await hub.checkpoint_if_cancelled()
            self._can_send()
        except BaseException as error:
            error.sent = 0  # type: ignore[attr-defined]
            raise
        now, number = hub.attempt, self._out()
        if not hub.credit:
            await self._send_rest(hub, data, NOT_READY)
            return
        if isinstance(data, bytes):
            size = len(data)
            if self._out_is_socket:
                sent = _send(now.told, number, data, size, 0)
            else:
                sent = _write(now.told, number, data, size, -1)
        else:
            try:
                pinned = _from_buffer(_BYTES, data)
            except (TypeError, ValueError, BufferError):
                pinned = memory.readable(data, "data")  # says what is wrong
            with pinned as pin:
                size = len(pin)
                if self._out_is_socket:
                    sent = _send(now.told, number, pin, size, 0)
                else:
                    sent = _write(now.told, number, pin, size, -1)
        if sent == size:
            hub.credit -= 1
            if hub.checkpoints:
                await hub.cancel_shielded_checkpoint()
            return
        await self._send_rest(hub, data, sent)

    async def _send_rest(self, hub: Hub, data: ReadableBuffer, sent: int) -> None:
        """Wait until all is sent; a part is, or the attempt has failed."""
        self._sending = True
        try:
            if sent < 0:
                first, sent = sent, 0
                if first != NOT_READY:
                    self._raise(first, "send" if self._out_is_socket else "write")
            with memoryview(data) as whole, whole.cast("B") as view:
                while True:
                    if sent >= len(view):
                        break
                    self._go_on("sending")
                    sent += await self._send_part(hub, view[sent:])
        except BaseException as error:
            error.sent = sent + getattr(error, "sent", 0)  # type: ignore[attr-defined]
            raise
        finally:
            self._sending = False

    async def _send_part(self, hub: Hub, part: memoryview) -> int:
        """Send some of it; how much."""
        engine, number = hub.engine, self._out()
        op = self._writing = engine.send(number, part) if self._out_is_socket else engine.write(number, part)
        try:
            try:
                await through(hub, op)
            except BaseException as error:
                error.sent = max(0, op._res) if op.done() else 0  # type: ignore[attr-defined]
                raise
            if op._res >= 0:
                return int(op._res)
            if op._res == NOT_READY:  # see `_bring`
                self._go_on("sending")
                op = self._writing = engine.poll(number, _OUT)
                await through(hub, op)
                if op._res >= 0:
                    return 0
            self._give_up(op, False, "sending")
            raise AssertionError(op)
        finally:
            self._writing = None
            if op._state >= RELEASING:
                part.release()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room for something to be sent.

        Raises:
            As `send_all`.
        """
        hub = self._here()
        if hub.checkpoints:
            await hub.checkpoint_if_cancelled()
        self._can_send()
        if not hub.credit:
            await hub.give_way()
            self._can_send()
        if ready.poll(hub.attempt.told, self._out(), _OUT) != NOT_READY:
            hub.credit -= hub.credit > 0
            if hub.checkpoints:
                await hub.cancel_shielded_checkpoint()
            return
        self._sending = True
        try:
            op = self._writing = hub.engine.poll(self._out(), _OUT)
            await through(hub, op)
            if op._res < 0:
                self._give_up(op, False, "sending")
        finally:
            self._sending = False
            self._writing = None

    def _can_send(self) -> None:
        if self._sending or self._closing:
            self._refuse("sending")
        if self._sent_eof:
            raise self.closed_type(f"{type(self).__name__}: its end was sent")

    async def send_eof(self) -> None:
        """Let the peer read its end: nothing can be sent any more. Bytes still can come. Again: nothing.

        Raises:
            ValueError: the file is neither a socket, nor was a `writer` of its own given; or it is closed.
            RuntimeError: another task is sending.
        """
        hub = self._here()
        if hub.checkpoints:
            await hub.checkpoint_if_cancelled()
        if self._sending or self._closing:
            self._refuse("sending")
        if not self._sent_eof:
            if self._out_is_socket:
                error = shut_down(self._writer, self._out())
                if error is not None:
                    raise self._failed(error)
            elif not self._two:
                raise ValueError(
                    "a file that is no socket ends when it is closed: give its other end as writer"
                )
            self._sent_eof = True
            if self._two:
                self._closers.pop()()
        if hub.checkpoints:
            await hub.cancel_shielded_checkpoint()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'closed' if self.closed else f'fd={self.fileno()}'}>"


__all__ = ["WAITING", "Stream"]
