"""The verbs that wait for something else than bytes, or move them within the kernel."""

from __future__ import annotations

import errno
import math
import os
import select
import socket
import time
from typing import TYPE_CHECKING, Any

from iocancel import errors
from iocancel.awaiting.taking import (
    Base,
    connection,
    pause,
    when_ready,
)
from iocancel.engines import ready
from iocancel.engines.ready import NOT_READY
from iocancel.operation.values import number_of, whole

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from iocancel.operation.values import File, Path

_IN, _OUT = select.POLLIN, select.POLLOUT
_LONGEST = 1e9  # seconds, 31 years: what is longer is this long
_read, _recv, _read_to, _recv_to = ready.read, ready.recv, ready.read_to, ready.recv_to


class Waits(Base):
    """Connections, readiness, time, processes, files."""

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
            found = await when_ready(
                hub, sock, number, _IN, attempt, lambda engine: engine.accept(sock), whole_value=True
            )
            if isinstance(found, tuple):
                return found
            many = found
        else:
            hub.credit -= hub.credit > 0
        if hub.checkpoints and not waited:
            op = connection(errors.check(many, "accept"), number)
            await hub.cancel_shielded_checkpoint()
            pair: tuple[socket.socket, Any] = op.result()
            return pair
        value: tuple[socket.socket, Any] = connection(errors.check(many, "accept"), number).result()
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
        wait = hub.until_ready(sock, number_of(sock), _OUT)
        await wait
        hub.waited(wait)
        with socket.socket(fileno=os.dup(number_of(sock))) as same:
            number = same.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, f"{os.strerror(number)}: connect")

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
            wait = hub.until_ready(fd, number_of(fd), mask)
            await wait
            return hub.waited(wait)
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
        """Let time pass until a time, `deadline`, in `time.monotonic()` seconds; otherwise as `sleep`."""
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
                await pause(hub, tries)
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
            abandon_on_cancel: as for `read`; an fd that comes late is closed.

        Returns:
            The fd.

        Raises:
            OSError: it failed.
            The loop's cancellation: nothing is open; what was opened all the same is closed with the
                exception's `operation`.
        """
        hub = await self._begun()
        return int(await hub.value(hub.engine.openat(path, flags, mode, dir_fd=dir_fd), abandon_on_cancel))

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


__all__ = ["Waits"]
