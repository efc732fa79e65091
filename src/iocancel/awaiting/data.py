"""The verbs that move bytes."""

from __future__ import annotations

import functools
import os
import select
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from iocancel import errors
from iocancel.awaiting.files import on_disk, same_file
from iocancel.awaiting.taking import (
    ALL,
    DONTWAIT,
    SPECIAL,
    Base,
    all_of,
    by_request,
    events,
    much,
    ours,
    out,
    until_read,
    waits_for_all,
    when_ready,
)
from iocancel.engines import ready
from iocancel.engines.ready import NOT_READY, ROOM
from iocancel.operation.values import number_of, sensible

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from iocancel.awaiting.hub import Hub
    from iocancel.operation.verbs import File

_IN, _OUT = select.POLLIN, select.POLLOUT
_LONGEST = 1e9  # seconds, 31 years: what is longer is this long
_read, _recv, _read_to, _recv_to = ready.read, ready.recv, ready.read_to, ready.recv_to


class Data(Base):
    """Bytes of files, pipes, devices and sockets."""

    async def read(
        self, fd: File, into: int | WriteableBuffer, offset: int = -1, *, abandon_on_cancel: bool = False
    ) -> Any:
        """Read from a file, a pipe, a device or a socket (read(2), pread(2)).

        Args:
            fd: the file: a number, or an object with `fileno()`.
            into: how many bytes at most; or a writable buffer.
            offset: where in the file, in bytes; -1 is the file's own position, which then moves. A cancelled
                read has not moved it.
            abandon_on_cancel: go on at a cancel at once, though the request may not have ended (`Verbs`); not
                with a buffer of the caller's.

        Returns:
            The bytes that came (b"" at the end), or how many where a buffer was given.

        Raises:
            OSError: it failed.
            The loop's cancellation: nothing was read.
        """
        hub = self._hub()
        if hub.checkpoints:
            await hub.checkpoint_if_cancelled()
        if not hub.credit:
            await hub.give_way()
        number = fd if fd.__class__ is int else number_of(fd)
        if not isinstance(into, int) or not 0 <= into <= ROOM:
            return await self._read_much(hub, fd, number, into, offset, abandon_on_cancel)
        now = hub.attempt
        many = _read(now.told, number, into, offset)
        if many == NOT_READY:
            if offset >= 0 or on_disk(number):
                if offset >= 0:
                    os.lseek(number, 0, os.SEEK_CUR)  # raises: io_uring would read from a pipe all the same
                return await self._from_disk(hub, fd, number, into, offset, abandon_on_cancel)
            wait = hub.until_ready(fd, number, _IN)
            await wait
            hub.waited(wait)
            same_file(fd, number)
            many = _read(now.told, number, into, -1)
            if many == NOT_READY:
                return await until_read(
                    hub, fd, number, lambda n: _read(now.told, n, into, -1), lambda e: e.read(fd, into)
                )
        else:
            hub.credit -= hub.credit > 0
            if hub.checkpoints:
                data = now.data[: max(0, many)]
                await hub.cancel_shielded_checkpoint()
                return data if many >= 0 else errors.check(many, "read")
        if many < 0:
            errors.check(many, "read")
        return now.data[:many]

    async def _read_much(self, hub: Hub, fd: File, number: int, into: Any, offset: int, abandon: bool) -> Any:
        """Into the caller's buffer, or more than an attempt has room for."""
        if abandon:
            ours(into, "read")
        if offset >= 0:
            os.lseek(number, 0, os.SEEK_CUR)  # as in `read`
        if offset >= 0 or on_disk(number):
            return await self._from_disk(hub, fd, number, into, offset, abandon)
        return await much(hub, fd, number, into, (_read_to, -1), lambda e, to: e.read(fd, to), "read")

    async def _from_disk(self, hub: Hub, fd: File, number: int, into: Any, offset: int, abandon: bool) -> Any:
        """A disk's file, or what has positions: what no poll tells of."""
        room = sensible(number, into, offset) if isinstance(into, int) else into
        op = hub.engine.read(fd, room, offset)
        try:
            await hub.ended(op, abandon)
        except BaseException as error:
            if offset < 0 and op.done() and op._res > 0 and not hub.delivers:
                os.lseek(number, -op._res, os.SEEK_CUR)  # it came too late: a cancelled read has not moved it
            error.operation = op  # type: ignore[attr-defined]
            raise
        return op.result()

    async def write(
        self, fd: File, data: ReadableBuffer, offset: int = -1, *, abandon_on_cancel: bool = False
    ) -> int:
        """Write to a file, a pipe, a device or a socket (write(2), pwrite(2)).

        Args:
            fd, offset: as for `read`.
            data: a buffer, not to be changed meanwhile.
            abandon_on_cancel: as for `read`; only with `bytes`, which nobody can change.

        Returns:
            How many bytes were written: as many as there was room for (see `write_all`).

        Raises:
            OSError: it failed.
            The loop's cancellation: nothing was written; but on a disk's file it may have been, which
                its `operation` tells.
        """
        hub = self._hub()
        if hub.checkpoints:
            await hub.checkpoint_if_cancelled()
        if not hub.credit:
            await hub.give_way()
        number = fd if fd.__class__ is int else number_of(fd)
        if abandon_on_cancel and not isinstance(data, bytes):
            raise TypeError(f"abandon_on_cancel takes bytes to write, not {type(data).__name__}: see `write`")
        many = out(hub, ready.write, number, data, offset)
        if many == NOT_READY:
            if offset >= 0 or on_disk(number):
                return int(await hub.value(hub.engine.write(fd, data, offset), abandon_on_cancel))
            many = await when_ready(
                hub,
                fd,
                number,
                _OUT,
                lambda n: out(hub, ready.write, n, data, -1),
                lambda engine: engine.write(fd, data),
            )
        else:
            hub.credit -= hub.credit > 0
            if hub.checkpoints:
                await hub.cancel_shielded_checkpoint()
        return errors.check(many, "write")

    async def write_all(self, fd: File, data: ReadableBuffer) -> None:
        """Write all of it, in as many parts as it takes.

        Args:
            fd, data: as for `write`.

        Raises:
            As `write`; the exception's `sent` says how many bytes went out before.
        """
        await all_of(self.write, fd, data)

    async def readv(self, fd: File, buffers: Sequence[WriteableBuffer], offset: int = -1) -> int:
        """Read into several buffers (readv(2), preadv(2)); otherwise as `read`.

        Returns:
            How many bytes came.
        """
        hub = self._hub()
        if hub.checkpoints:
            await hub.checkpoint_if_cancelled()
        number = number_of(fd)
        parts = list(buffers)
        if offset >= 0:
            os.lseek(number, 0, os.SEEK_CUR)  # as in `read`
        if offset >= 0 or on_disk(number):
            op = hub.engine.readv(fd, parts, offset)
            try:
                await hub.ended(op)
            except BaseException as error:
                if offset < 0 and op._res > 0 and not hub.delivers:
                    os.lseek(number, -op._res, os.SEEK_CUR)
                error.operation = op  # type: ignore[attr-defined]
                raise
            return int(op.result())
        return int(await by_request(hub, fd, number, _IN, lambda engine: engine.readv(fd, parts)))

    async def writev(self, fd: File, buffers: Sequence[ReadableBuffer], offset: int = -1) -> int:
        """Write several buffers (writev(2), pwritev(2)); otherwise as `write`."""
        hub = self._hub()
        if hub.checkpoints:
            await hub.checkpoint_if_cancelled()
        number = number_of(fd)
        parts = list(buffers)
        if offset >= 0 or on_disk(number):
            return int(await hub.value(hub.engine.writev(fd, parts, offset)))
        return int(await by_request(hub, fd, number, _OUT, lambda engine: engine.writev(fd, parts)))

    async def recv(self, sock: File, into: int | WriteableBuffer, flags: int = 0) -> Any:
        """Receive from a socket (recv(2)).

        Args:
            sock: the socket, or its number.
            into: how many bytes at most, or a writable buffer.
            flags: `socket.MSG_PEEK` ...; not MSG_WAITALL, which can't be cancelled without loss: a `Stream`'s
                `receive_exactly` can.

        Returns, raises: as `read`.
        """
        hub = self._hub()
        if hub.checkpoints:
            await hub.checkpoint_if_cancelled()
        if not hub.credit:
            await hub.give_way()
        number = sock if sock.__class__ is int else number_of(sock)
        if flags & SPECIAL or not isinstance(into, int) or not 0 <= into <= ROOM:
            return await much(
                hub, sock, number, into, (_recv_to, flags), lambda e, to: e.recv(sock, to, flags), "recv"
            )
        now = hub.attempt
        many = _recv(now.told, number, into, flags)
        if many == NOT_READY:
            wait = hub.until_ready(sock, number, _IN)
            await wait
            hub.waited(wait)
            same_file(sock, number)
            many = _recv(now.told, number, into, flags)
            if many == NOT_READY:
                return await until_read(
                    hub,
                    sock,
                    number,
                    lambda n: _recv(now.told, n, into, flags),
                    lambda e: e.recv(sock, into, flags),
                )
        else:
            hub.credit -= hub.credit > 0
            if hub.checkpoints:
                data = now.data[: max(0, many)]
                await hub.cancel_shielded_checkpoint()
                return data if many >= 0 else errors.check(many, "recv")
        if many < 0:
            errors.check(many, "recv")
        return now.data[:many]

    async def recv_into(self, sock: File, buffer: WriteableBuffer, flags: int = 0) -> int:
        """Receive into a buffer (recv(2)); returns how many bytes came, otherwise as `recv`."""
        if isinstance(buffer, int):
            raise TypeError("buffer takes a writable buffer, not int")
        return int(await self.recv(sock, buffer, flags))

    async def send(self, sock: File, data: ReadableBuffer, flags: int = 0) -> int:
        """Send to a connected socket (send(2)), never zero-copy.

        Args:
            sock, flags: as for `recv`.
            data: a buffer.

        Returns:
            How many bytes were sent: as many as there was room for (see `sendall`).

        Raises:
            OSError: it failed.
            The loop's cancellation: nothing was sent.
        """
        hub = self._hub()
        if hub.checkpoints:
            await hub.checkpoint_if_cancelled()
        if not hub.credit:
            await hub.give_way()
        number = sock if sock.__class__ is int else number_of(sock)
        waits = not flags & DONTWAIT
        many = out(hub, ready.send, number, data, flags)
        if many == NOT_READY and waits:
            many = await when_ready(
                hub,
                sock,
                number,
                _OUT,
                lambda n: out(hub, ready.send, n, data, flags),
                lambda engine: engine.send(sock, data, flags),
            )
        else:
            hub.credit -= hub.credit > 0
            if hub.checkpoints:
                await hub.cancel_shielded_checkpoint()
        return errors.check(many, "send")

    async def sendall(self, sock: File, data: ReadableBuffer, flags: int = 0) -> None:
        """Send all of it, in as many parts as it takes.

        Args:
            sock, data, flags: as for `send`.

        Raises:
            As `send`; the exception's `sent` says how many bytes went out before.
        """
        await all_of(functools.partial(self.send, flags=flags), sock, data)

    async def recvmsg(
        self, sock: File, bufsize: int, ancbufsize: int = 0, flags: int = 0
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        """Receive a message with its address and ancillary data (recvmsg(2)).

        Args:
            sock, flags: as for `recv`.
            bufsize, ancbufsize: room for the message and for ancillary data, in bytes.

        Returns:
            As `socket.recvmsg`: (data, ancdata, msg_flags, address).

        Raises: as `read`.
        """
        hub = await self._begun()
        if flags & ALL:
            raise waits_for_all("recvmsg")
        number = number_of(sock)
        value: tuple[bytes, list[tuple[int, int, bytes]], int, Any] = await by_request(
            hub,
            sock,
            number,
            events(flags),
            lambda engine: engine.recvmsg(sock, bufsize, ancbufsize, flags),
            flags,
        )
        return value

    async def sendmsg(
        self,
        sock: File,
        buffers: Sequence[ReadableBuffer],
        ancdata: Sequence[tuple[int, int, ReadableBuffer]] = (),
        flags: int = 0,
        address: Any = None,
    ) -> int:
        """Send a message, perhaps with ancillary data and an address (sendmsg(2)).

        Args:
            sock: the socket, or its number.
            buffers: what to send, one after the other.
            ancdata: ancillary data, as `socket.sendmsg` takes it: (level, type, data).
            flags: the MSG_* of sendmsg(2).
            address: where to; in Python's form it needs a socket object.

        Returns:
            How many bytes were sent.

        Raises: as `send`.
        """
        hub = await self._begun()
        parts, more = list(buffers), list(ancdata)
        return int(
            await by_request(
                hub,
                sock,
                number_of(sock),
                _OUT,
                lambda engine: engine.sendmsg(sock, parts, more, flags, address),
                flags,
            )
        )


__all__ = ["Data"]
