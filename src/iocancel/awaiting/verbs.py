"""The verbs, awaited: the same for asyncio and trio.

What is ready is taken at once, by one system call that never waits. Else the task waits for a poll of the
engine's, and takes it by such a call when it goes on: so a cancel consumes nothing, and "cancelled" means
that nothing was read, written or accepted. Only what no poll tells of (a disk's file, a connect, an open ...)
is done by a request of its own, whose ending is awaited at a cancel.

`abandon_on_cancel=True` (trio's word) lets a cancel end the wait for such a request at once, where the memory
is the library's own: for what no kernel can stop, as a hung server's file. The request goes on in the
engine's ledger (`engine().orphans` counts them), and an fd that it brings is closed.

A file is a number or an object with `fileno()`; O_NONBLOCK does not matter. Whoever gives a number keeps it
open meanwhile; an object that is closed meanwhile, or whose number has changed, fails with EBADF. `close_fd`
ends the verbs that wait on a file before it is closed.
"""

from __future__ import annotations

import errno
import functools
import math
import os
import select
import socket
import stat
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from iocancel import errors
from iocancel.engines import ready
from iocancel.engines.ready import NOT_READY, ROOM
from iocancel.operation.values import whole
from iocancel.uring import memory

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from iocancel.awaiting.hub import Hub
    from iocancel.operation import Operation
    from iocancel.operation.verbs import File, Path

_IN, _OUT = select.POLLIN, select.POLLOUT
_LARGE = 1 << 22  # bytes of room that are made at once, where a file may have less
_PAUSE, _LONGEST_PAUSE = 0.001, 0.05  # seconds between two looks at what is ready, and does not go
_LONGEST = 1e9  # seconds, 31 years: what is longer is this long
_TRIES = 10  # so often others may be first before there is such a pause
_read, _recv, _read_to, _recv_to = ready.read, ready.recv, ready.read_to, ready.recv_to
_from_buffer, _release, _BYTES = ready.from_buffer, ready.release, ready.BYTES
_NO_BUFFER = (TypeError, ValueError, BufferError)
_Attempt = Callable[[int], int]
_Request = Callable[[Any], "Operation[Any]"]
# Plain numbers: an enum's `&` takes a microsecond.
_ALL, _DONTWAIT = int(socket.MSG_WAITALL), int(socket.MSG_DONTWAIT)
_ERRORS = int(socket.MSG_ERRQUEUE)
# What can't be cancelled without loss, tells of more bytes than it gives, is no input, or does not wait.
_SPECIAL = _ALL | int(socket.MSG_TRUNC) | _ERRORS | _DONTWAIT


class Verbs:
    """The verbs of one world.

    Args:
        hub: what returns the running loop's.
    """

    def __init__(self, hub: Callable[[], Hub]) -> None:
        self._hub = hub

    # Bytes

    async def read(
        self, fd: File, into: int | WriteableBuffer, offset: int = -1, *, abandon_on_cancel: bool = False
    ) -> Any:
        """Read from a file, a pipe, a device or a socket (read(2), pread(2)).

        Args:
            fd: the file: a number, or an object with `fileno()`.
            into: how many bytes at most; or a writable buffer.
            offset: where in the file, in bytes; -1 is the file's own position, which then moves. A cancelled
                read has not moved it.
            abandon_on_cancel: see the module; not with a buffer of the caller's.

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
            await hub.until_ready(fd, number, _IN)
            same_file(fd, number)
            many = _read(now.told, number, into, -1)
            if many == NOT_READY:
                return await _until_read(
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
            _ours(into, "read")
        if offset >= 0:
            os.lseek(number, 0, os.SEEK_CUR)  # as in `read`
        if offset >= 0 or on_disk(number):
            return await self._from_disk(hub, fd, number, into, offset, abandon)
        return await _much(hub, fd, number, into, (_read_to, -1), lambda e, to: e.read(fd, to), "read")

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
            abandon_on_cancel: see the module; only with `bytes`, which nobody can change.

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
        many = _out(hub, ready.write, number, data, offset)
        if many == NOT_READY:
            if offset >= 0 or on_disk(number):
                return int(await hub.value(hub.engine.write(fd, data, offset), abandon_on_cancel))
            many = await _when_ready(
                hub,
                fd,
                number,
                _OUT,
                lambda n: _out(hub, ready.write, n, data, -1),
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
        await _all_of(self.write, fd, data)

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
        return int(await _by_request(hub, fd, number, _IN, lambda engine: engine.readv(fd, parts)))

    async def writev(self, fd: File, buffers: Sequence[ReadableBuffer], offset: int = -1) -> int:
        """Write several buffers (writev(2), pwritev(2)); otherwise as `write`."""
        hub = self._hub()
        if hub.checkpoints:
            await hub.checkpoint_if_cancelled()
        number = number_of(fd)
        parts = list(buffers)
        if offset >= 0 or on_disk(number):
            return int(await hub.value(hub.engine.writev(fd, parts, offset)))
        return int(await _by_request(hub, fd, number, _OUT, lambda engine: engine.writev(fd, parts)))

    async def fsync(self, fd: File, *, datasync: bool = False, abandon_on_cancel: bool = False) -> None:
        """Have a file's data reach the disk (fsync(2)).

        Args:
            fd, abandon_on_cancel: as for `read`.
            datasync: only what is needed to read the data again.

        Raises: as `read`; what runs can't be stopped.
        """
        hub = await self._begun()
        await hub.value(hub.engine.fsync(fd, datasync=datasync), abandon_on_cancel)

    async def splice(
        self,
        src: File,
        dst: File,
        count: int,
        offset_src: int = -1,
        offset_dst: int = -1,
        *,
        flags: int = 0,
    ) -> int:
        """Move bytes between a pipe and another file, without copying (splice(2)).

        Args:
            src, dst: the files; one at least is a pipe.
            count: how many bytes at most.
            offset_src, offset_dst: where in a file that is no pipe, in bytes; -1 is its own position.
            flags: `os.SPLICE_F_MOVE` ...

        Returns:
            How many bytes were moved.

        Raises:
            As `read`. At a cancel they may have been moved: then they are in `dst`, and the exception's
            `operation` tells how many.
        """
        hub = await self._begun()
        return int(await hub.value(hub.engine.splice(src, dst, count, offset_src, offset_dst, flags=flags)))

    async def tee(self, src: File, dst: File, count: int, *, flags: int = 0) -> int:
        """Copy bytes from one pipe to another and leave them in the first (tee(2)); else as `splice`."""
        hub = await self._begun()
        return int(await hub.value(hub.engine.tee(src, dst, count, flags=flags)))

    # Sockets

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
        if flags & _SPECIAL or not isinstance(into, int) or not 0 <= into <= ROOM:
            return await _much(
                hub, sock, number, into, (_recv_to, flags), lambda e, to: e.recv(sock, to, flags), "recv"
            )
        now = hub.attempt
        many = _recv(now.told, number, into, flags)
        if many == NOT_READY:
            await hub.until_ready(sock, number, _IN)
            same_file(sock, number)
            many = _recv(now.told, number, into, flags)
            if many == NOT_READY:
                return await _until_read(
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
        waits = not flags & _DONTWAIT
        many = _out(hub, ready.send, number, data, flags)
        if many == NOT_READY and waits:
            many = await _when_ready(
                hub,
                sock,
                number,
                _OUT,
                lambda n: _out(hub, ready.send, n, data, flags),
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
        await _all_of(functools.partial(self.send, flags=flags), sock, data)

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
        if flags & _ALL:
            raise _waits_for_all("recvmsg")
        number = number_of(sock)
        value: tuple[bytes, list[tuple[int, int, bytes]], int, Any] = await _by_request(
            hub,
            sock,
            number,
            _events(flags),
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

        Args and value are as for `socket.sendmsg`; an address in Python's form needs a socket object.

        Raises: as `send`.
        """
        hub = await self._begun()
        parts, more = list(buffers), list(ancdata)
        return int(
            await _by_request(
                hub,
                sock,
                number_of(sock),
                _OUT,
                lambda engine: engine.sendmsg(sock, parts, more, flags, address),
                flags,
            )
        )

    async def accept(self, sock: File) -> tuple[socket.socket, Any]:
        """Accept a connection (accept4(2) with SOCK_CLOEXEC).

        Args:
            sock: a listening socket.

        Returns:
            (socket, address), as `socket.accept`.

        Raises:
            OSError: it failed.
            The loop's cancellation: no connection was taken.
        """
        hub = await self._begun()
        if not hub.credit:
            await hub.give_way()
        number = number_of(sock)

        def attempt(n: int) -> int:
            many: int = ready.accept(hub.attempt.told, n)
            return many

        many = attempt(number)
        waited = many == NOT_READY
        if waited:
            found = await _when_ready(
                hub, sock, number, _IN, attempt, lambda engine: engine.accept(sock), whole_value=True
            )
            if isinstance(found, tuple):
                return found
            many = found
        else:
            hub.credit -= hub.credit > 0
        if hub.checkpoints and not waited:
            op = _connection(errors.check(many, "accept"), number)
            await hub.cancel_shielded_checkpoint()
            pair: tuple[socket.socket, Any] = op.result()
            return pair
        value: tuple[socket.socket, Any] = _connection(errors.check(many, "accept"), number).result()
        return value

    async def connect(self, sock: File, address: Any) -> None:
        """Connect a socket (connect(2)).

        Args:
            sock: the socket.
            address: in Python's form, with a numeric host.

        Raises:
            OSError: it failed.
            The loop's cancellation: the socket is of no use any more: close it.
        """
        hub = await self._begun()
        op = hub.engine.connect(sock, address)
        try:
            await hub.value(op)
        except (BlockingIOError, InterruptedError) as error:
            if error.errno != errno.EINPROGRESS:
                raise
        else:
            return
        # O_NONBLOCK: it is under way.
        await hub.until_ready(sock, number_of(sock), _OUT)
        with socket.socket(fileno=os.dup(number_of(sock))) as same:
            number = same.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, f"{os.strerror(number)}: connect")

    # Readiness, time, processes

    async def poll(self, fd: File, mask: int) -> int:
        """Wait until a file is ready (poll(2)).

        Args:
            fd: as for `read`.
            mask: `select.POLLIN`, POLLOUT ...; POLLERR and POLLHUP are always reported.

        Returns:
            The mask of what is ready.

        Raises: as `read`.
        """
        hub = await self._begun()
        whole(mask, "mask")
        if not hub.credit:
            await hub.give_way()
        many = ready.poll(hub.attempt.told, number_of(fd), mask & 0x7FFF)
        if many == NOT_READY:
            return await hub.until_ready(fd, number_of(fd), mask)
        hub.credit -= hub.credit > 0
        if hub.checkpoints:
            await hub.cancel_shielded_checkpoint()
        return errors.check(many, "poll")

    async def sleep(self, seconds: float) -> None:
        """Let time pass, by the kernel's clock (io_uring_prep_timeout(3)).

        Args:
            seconds: how long, >= 0; `math.inf` until the task is cancelled.
        """
        hub = await self._begun()
        await hub.value(hub.engine.timeout(_LONGEST if seconds == math.inf else seconds))

    async def sleep_until(self, deadline: float) -> None:
        """Let time pass until a time, in `time.monotonic()` seconds; otherwise as `sleep`."""
        await self.sleep(max(0.0, deadline - time.monotonic()))

    async def waitid(self, idtype: int, id: int, options: int = os.WEXITED) -> Any:  # noqa: A002
        """Wait for a child to change its state (waitid(2)).

        Args:
            idtype: `os.P_PID`, P_PGID, P_ALL or P_PIDFD.
            id: the process, group or pidfd.
            options: `os.WEXITED`, WSTOPPED, WCONTINUED, WNOWAIT, WNOHANG.

        Returns:
            As `os.waitid`: an object with si_pid, si_uid, si_signo, si_status and si_code; with WNOHANG None
            where nothing has changed. On an engine without it (io_uring before Linux 6.7) a pidfd is polled,
            which tells of exits of one process only.

        Raises:
            OSError: it failed.
            The loop's cancellation: the child's state is still there to be asked for.
        """
        hub = await self._begun()
        found = os.waitid(idtype, id, options | os.WNOHANG)
        pidfd: ready.PidFd | None = None
        tries = 0
        while found is None and not options & os.WNOHANG:
            if hub.engine.supports("waitid"):
                # Only looked at: what is taken is taken when the task goes on.
                op = hub.engine.waitid(idtype, id, options | os.WNOWAIT)
            elif idtype in (os.P_PID, os.P_PIDFD) and options & os.WEXITED:
                if idtype == os.P_PID and pidfd is None:
                    pidfd = ready.PidFd(id)
                op = hub.engine.poll(id if pidfd is None else pidfd.value, _IN)
            else:
                op = hub.engine.waitid(idtype, id, options)  # raises FeatureUnavailable
            await hub.ended(op)
            op.result()
            found = os.waitid(idtype, id, options | os.WNOHANG)
            tries += 1
            if found is None:
                await _pause(hub, tries)
        else:
            if hub.checkpoints and not tries:
                await hub.cancel_shielded_checkpoint()
        return found

    async def futex_wait(self, futex: WriteableBuffer, val: int) -> None:
        """Wait until a futex is woken (futex(2)). Linux 6.7, only on io_uring.

        Args:
            futex: 4 bytes, aligned.
            val: the value that it has to have for the wait to begin; else BlockingIOError is raised.

        Raises:
            As `read`. On asyncio a wake-up may come together with a cancel: the exception's `operation`
            tells, and who passes one on to the next has to do so then.
        """
        hub = await self._begun()
        await hub.value(hub.engine.futex_wait(futex, val))

    # Files

    async def open(
        self,
        path: Path,
        flags: int = os.O_RDONLY,
        mode: int = 0o777,
        *,
        dir_fd: File | None = None,
        abandon_on_cancel: bool = False,
    ) -> int:
        """Open a file (openat(2)), with O_CLOEXEC: a FIFO's waits for its other end. Only on io_uring.

        Args:
            path, flags, mode, dir_fd: as for `os.open`.
            abandon_on_cancel: see the module.

        Returns:
            The fd.

        Raises:
            OSError: it failed.
            The loop's cancellation: nothing is open; what was opened all the same is closed with the
                exception's `operation`.
        """
        hub = await self._begun()
        return int(await hub.value(hub.engine.openat(path, flags, mode, dir_fd=dir_fd), abandon_on_cancel))

    # Around them

    async def close_fd(self, fd: File, *, abort: bool = False) -> None:
        """End the verbs that wait on a file, await their endings, and close it.

        They raise OperationCancelled. Closing alone would cancel nothing, and the number would be the next
        file's. A cancel of the task comes when it is closed.

        Args:
            fd: the number, or an object with `fileno()` and `close()`.
            abort: have the peer of a TCP connection see a reset.
        """
        hub = self._hub()
        if hub.checkpoints:
            await hub.checkpoint_if_cancelled()
        engine = hub.engine
        number = number_of(fd)
        pending = [op for op in engine._ledger.on_file(number) if not op.done()]
        error: BaseException | None = None
        for op in pending:
            hub.cancel(op)
        for op in pending:
            try:
                await hub.drained(op)
            except BaseException as late:  # noqa: BLE001 - raised when it is closed
                error = late
        engine.close_fd(fd, 0, abort=abort)
        if error is not None:
            raise error
        if hub.checkpoints and not pending:
            await hub.cancel_shielded_checkpoint()

    async def result(self, op: Operation[Any], *, abandon_on_cancel: bool = False) -> Any:
        """Wait for an operation of this loop's engine, and return its value.

            op = iocancel.asyncio.engine().read(fd, 4096, 0)
            data = await iocancel.asyncio.result(op)

        Args:
            op: an operation of `engine()`.
            abandon_on_cancel: see the module; its memory has to be the engine's own.

        Raises:
            As `Operation.result`.
            The loop's cancellation: when the operation has ended; its `operation` tells how.
        """
        hub = self._hub()
        if getattr(op, "_engine", None) is not hub.engine:
            raise ValueError(f"{op!r} is another engine's")
        try:
            await hub.ended(op, abandon_on_cancel)
        except BaseException as error:
            error.operation = op  # type: ignore[attr-defined]
            raise
        return op.result()

    def engine(self) -> Any:
        """The running loop's engine: for `supports`, `reach`, `orphans`, and for operations of one's own.

        It is the loop's: don't wait in it, and don't close it.
        """
        return self._hub().engine

    async def _begun(self) -> Hub:
        hub = self._hub()
        if hub.checkpoints:
            await hub.checkpoint_if_cancelled()
        return hub


# How they wait


async def _until_read(hub: Hub, file: File, number: int, attempt: _Attempt, request: _Request) -> Any:
    """Bytes that an attempt has room for, on a file that was ready, and another was first."""
    found = await _when_ready(hub, file, number, _IN, attempt, request, whole_value=True, tries=1)
    if isinstance(found, bytes):
        return found
    return hub.attempt.data[: errors.check(found, "read")]


async def _much(
    hub: Hub,
    file: File,
    number: int,
    into: Any,
    by: tuple[Any, int],
    request: Callable[[Any, Any], Operation[Any]],
    name: str,
) -> Any:
    """More bytes than an attempt has room for, such as have a buffer of the caller's, or flags."""
    call, extra = by
    flags = extra if name == "recv" else 0
    if flags & _ALL:
        raise _waits_for_all(name)
    room: Any = bytearray(sensible(number, whole(into, "into"), -1)) if isinstance(into, int) else into

    def attempt(n: int) -> int:
        try:
            pinned = _from_buffer(_BYTES, room, True)
        except _NO_BUFFER:
            pinned = memory.writable(room, "into")  # says what is wrong
        with pinned as pin:
            return int(call(hub.attempt.told, n, pin, len(pin), extra))

    waits = not flags & _DONTWAIT
    found: Any = attempt(number)
    if found == NOT_READY and waits:
        found = await _when_ready(
            hub, file, number, _events(flags), attempt, lambda engine: request(engine, room)
        )
    else:
        hub.credit -= hub.credit > 0
        if hub.checkpoints:
            await hub.cancel_shielded_checkpoint()
    errors.check(found, name)
    # MSG_TRUNC tells of more bytes than there was room for.
    return bytes(memoryview(room)[:found]) if isinstance(into, int) else found


def _events(flags: int) -> int:
    """What to wait for: a message of the error queue is no input, and POLLERR comes unasked."""
    return 0 if flags & _ERRORS else _IN


async def _when_ready(
    hub: Hub,
    file: File,
    number: int,
    events: int,
    attempt: _Attempt,
    request: _Request,
    whole_value: bool = False,
    tries: int = 0,
) -> Any:
    """Wait until a file is ready, and make a call that never waits, until it does something.

    Args:
        hub: the loop's.
        file, number: the file.
        events: what it is to be ready for.
        attempt: the call; NOT_READY, another negated errno, or what it did.
        request: the same as an operation, for files on which every call may wait (a terminal, a listening
            socket without O_NONBLOCK): the engine tries it once, and does not wait.
        whole_value: return the operation's value where that has done it, and not its number.
        tries: how often it was in vain already.
    """
    while True:
        if tries:
            op = request(hub.engine)
            if await hub.now(op) and op._res != NOT_READY:
                value = op.result()  # raises
                return value if whole_value else op._res
            if tries > _TRIES:
                await _pause(hub, tries - _TRIES)
        tries += 1
        await hub.until_ready(file, number, events)
        same_file(file, number)
        many = attempt(number)
        if many != NOT_READY:
            return many


async def _by_request(
    hub: Hub, file: File, number: int, events: int, request: _Request, flags: int = 0
) -> Any:
    """The same for what has no call of its own."""
    waits = not flags & _DONTWAIT
    if not hub.credit:
        await hub.give_way()
        same_file(file, number)
    hub.credit -= hub.credit > 0
    op = request(hub.engine)
    if await hub.now(op) and (op._res != NOT_READY or not waits):
        if hub.checkpoints:
            await hub.cancel_shielded_checkpoint()
        return op.result()
    return await _when_ready(hub, file, number, events, lambda _: NOT_READY, request, whole_value=True)


async def _pause(hub: Hub, tries: int) -> None:
    """Ready, and it does not go: nothing tells when it will."""
    await hub.value(hub.engine.timeout(min(_PAUSE * 2 ** min(tries, 10), _LONGEST_PAUSE)))


async def _all_of(call: Callable[[File, Any], Awaitable[int]], fd: File, data: ReadableBuffer) -> None:
    """All of the data, in parts; what is raised has `sent`."""
    sent = 0
    with memoryview(data) as whole_of, whole_of.cast("B") as view:
        try:
            while True:
                sent += await call(fd, view[sent:] if sent else view)
                if sent >= len(view):
                    return
        except BaseException as error:
            late = getattr(error, "operation", None)
            error.sent = sent + (max(0, late._res) if late is not None else 0)  # type: ignore[attr-defined]
            raise


def _out(hub: Hub, call: Any, number: int, data: Any, extra: int) -> int:
    try:
        pinned = _from_buffer(_BYTES, data)
    except _NO_BUFFER:
        pinned = memory.readable(data, "data")  # says what is wrong
    with pinned as pin:
        return int(call(hub.attempt.told, number, pin, len(pin), extra))


def _connection(fd: int, listener: int) -> Operation[Any]:
    op = ready.taken("accept", listener, fd)
    ready.mine(op)
    return op


def number_of(fd: File) -> int:
    """A file's number."""
    if isinstance(fd, int):
        return fd
    fileno = getattr(fd, "fileno", None)
    if fileno is None:
        raise TypeError(f"a file is an int or an object with fileno(), not {type(fd).__name__}")
    return int(fileno())


def same_file(file: File, number: int) -> None:
    """Raise where a file was closed while its task waited: its number may be another one's by now."""
    if not isinstance(file, int) and number_of(file) != number:
        raise OSError(errno.EBADF, f"{os.strerror(errno.EBADF)}: {file!r} was closed, or has another number")


def on_disk(number: int) -> bool:
    """Whether no poll tells anything of a file: a disk's are always "ready"."""
    mode = os.fstat(number).st_mode
    return stat.S_ISREG(mode) or stat.S_ISBLK(mode)


def sensible(number: int, many: int, offset: int) -> int:
    """How many bytes to make room for, where so many were asked for: as many as there can be."""
    if many <= _LARGE:
        return many
    try:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            return many if stat.S_ISBLK(status.st_mode) else _LARGE
        at = os.lseek(number, 0, os.SEEK_CUR) if offset < 0 else offset
    except OSError:  # the request says what is wrong
        return many
    return min(many, max(_LARGE, status.st_size - at))


def _ours(into: Any, name: str) -> None:
    if not isinstance(into, int):
        raise TypeError(
            f"abandon_on_cancel needs the library's own memory: have {name} return bytes, not fill a buffer"
        )


def _waits_for_all(name: str) -> ValueError:
    return ValueError(
        f"{name}: MSG_WAITALL can't be cancelled without losing what had come: use Stream.receive_exactly"
    )


__all__ = ["Verbs", "number_of", "on_disk", "same_file", "sensible"]
