"""Operations that bring one value after another, awaited: the same for asyncio and trio.

A task that waits for the next value waits for a bell, and not for the operation: a cancel of the task ends
that wait at once and reaches nothing else. What comes then is the next `__anext__`'s, or is in `leftovers`
when the block has been left. That holds also where the system has no multishot form, and one single operation
follows the other.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from iocancel.operation.multishot import Multishot as Single
from iocancel.operation.operation import RELEASING
from iocancel.operation.values import whole

if TYPE_CHECKING:
    import socket

    from iocancel.awaiting.hub import Hub
    from iocancel.operation import Operation
    from iocancel.operation.verbs import File

T = TypeVar("T")


class Bell(Protocol):
    """What one task waits for, and a turn rings."""

    def wake(self) -> None:
        """Have the task go on. Not within a turn."""
        ...

    async def wait(self) -> None:
        """Wait for it; a cancel of the task is raised at once."""
        ...


class _InLoop(Single[T]):
    """One whose operations go with the loop's turns."""

    def __init__(self, hub: Hub, verb: str, fd: Any, args: tuple[Any, ...]) -> None:
        super().__init__(hub.engine, verb, fd, args)
        self._hub = hub

    def _submit(self) -> None:
        self._hub.soon()


class Multishot(Generic[T]):
    """Values that come one after the other: `async with` it, and iterate in its block by `async for`.

    Leaving the block cancels and drains, also when the task was cancelled.
    """

    def __init__(self, worlds: Multishots, verb: str, fd: File, args: tuple[Any, ...] = ()) -> None:
        self._worlds = worlds
        self._what = (verb, fd, args)
        self._hub: Any = None
        self._inner: Any = None

    @property
    def leftovers(self) -> list[T]:
        """What came and was not taken, once the block has been left."""
        found: list[T] = [] if self._inner is None else self._inner.leftovers
        return found

    async def __aenter__(self) -> Multishot[T]:
        """Begin."""
        if self._inner is not None:
            raise RuntimeError("this block was entered already: make another one")
        hub = self._hub = self._worlds.here()
        if hub.checkpoints:
            await hub.checkpoint_if_cancelled()
        inner: _InLoop[T] = _InLoop(hub, *self._what)
        try:
            inner.__enter__()
        except BaseException:  # nobody leaves the block
            inner._inside = False
            if inner._native is not None:
                inner._native.done()
            raise
        self._inner = inner
        if hub.checkpoints:
            await hub.cancel_shielded_checkpoint()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel, drain, keep what was not taken."""
        await self.aclose()

    def __aiter__(self) -> Multishot[T]:
        """Itself."""
        self._check()
        return self

    def _check(self) -> None:
        if self._inner is None or not self._inner._inside:
            raise RuntimeError("iterate inside of the block: `async with accept_multishot(...) as conns:`")

    async def __anext__(self) -> T:
        """Wait for the next value.

        Raises:
            OSError: it failed.
            RuntimeError: outside of the block.
            The loop's cancellation: no value was taken.
        """
        self._check()
        hub, inner = self._hub, self._inner
        if hub.checkpoints:
            await hub.checkpoint_if_cancelled()
        waited = False
        while True:
            self._check()
            found = inner.ready()
            if found:
                if hub.checkpoints and not waited:
                    await hub.cancel_shielded_checkpoint()
                return cast("T", found[0])
            op = inner._op
            if op._state >= RELEASING and not op._items:
                try:
                    inner._over()
                except StopIteration:
                    raise StopAsyncIteration from None
                continue
            waited = True
            await self._rung(op)

    async def _rung(self, op: Operation[Any]) -> None:
        """Wait until it brings something, or ends."""
        bell = self._worlds.bell(self._hub)
        waking = self._hub.waking

        def ring(_: object) -> None:  # within a turn
            waking.append(bell)

        op._special = True  # its ending is told to hooks, also where it is a single operation's
        op._item_hooks = (*op._item_hooks, ring)
        try:
            await bell.wait()
        finally:
            op._item_hooks = tuple(hook for hook in op._item_hooks if hook is not ring)

    def cancel(self) -> bool:
        """Ask for its end: the iteration stops when what has come is taken.

        Returns:
            False outside of the block, else True.
        """
        if self._inner is None or not self._inner.cancel():
            return False
        self._hub.soon()
        return True

    async def aclose(self) -> None:
        """As leaving the block. A cancel of the task is raised when it is drained."""
        inner, hub = self._inner, self._hub
        if inner is None or not inner._inside:
            return
        op = inner._op
        inner._stopped = True
        try:
            if op._state < RELEASING:
                hub.cancel(op)
                await hub.drained(op)
            elif hub.checkpoints:
                await hub.cancel_shielded_checkpoint()
        finally:
            inner._inside = False
            if op._state >= RELEASING:  # else its task was dropped
                inner._finish()


class Multishots:
    """The multishot verbs of one world.

    Args:
        here: what returns the running loop's hub.
        bell: what makes a bell.
    """

    def __init__(self, here: Callable[[], Hub], bell: Callable[[Any], Bell]) -> None:
        self.here = here
        self.bell = bell

    def accept_multishot(self, sock: File) -> Multishot[tuple[socket.socket, Any]]:
        """Accept connection after connection (io_uring_prep_multishot_accept(3); io_uring: Linux 5.19).

            async with accept_multishot(sock) as conns:
                async for conn, address in conns: ...

        Args:
            sock: a listening socket.

        Returns:
            An asynchronous context manager and iterator. Connections that came and were not taken are in its
            `leftovers` when the block was left. Where the system has no such form, one accept follows the
            other.
        """
        return Multishot(self, "accept", sock)

    def recv_multishot(
        self, sock: File, nbytes: int = 4096, *, buffers: int = 16, flags: int = 0
    ) -> Multishot[bytes]:
        """Receive chunk after chunk, until the peer closes (io_uring_prep_recv_multishot(3); Linux 6.0).

        Args:
            sock: the socket.
            nbytes: the longest chunk, in bytes.
            buffers: how many chunks the kernel may be ahead, a power of two up to 32768.
            flags: as for `recv`.

        Returns:
            As `accept_multishot`; of bytes.
        """
        return Multishot(self, "recv", sock, (whole(nbytes, "nbytes"), whole(buffers, "buffers"), flags))

    def poll_multishot(self, fd: File, mask: int) -> Multishot[int]:
        """Be told each time that a file gets ready (io_uring_prep_poll_multishot(3); io_uring: Linux 5.13).

        It does not repeat for data that were left unread; where the system has no such form it does.

        Args:
            fd: the file.
            mask: `select.POLLIN` ...

        Returns:
            As `accept_multishot`; of masks.
        """
        return Multishot(self, "poll", fd, (whole(mask, "mask"),))


__all__ = ["Bell", "Multishot", "Multishots"]
