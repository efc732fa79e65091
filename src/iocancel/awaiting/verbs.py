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

from typing import TYPE_CHECKING, Any

from iocancel.awaiting.data import Data
from iocancel.awaiting.waits import Waits
from iocancel.operation.values import number_of

if TYPE_CHECKING:
    from iocancel.operation import Operation
    from iocancel.operation.verbs import File


class Verbs(Data, Waits):
    """The verbs of one world."""

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
            abandon_on_cancel: as for `read`; its memory has to be the engine's own.

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


__all__ = ["Verbs"]
