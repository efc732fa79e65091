"""What streams and listeners have in common: they own files, and keep what came late for the next call."""

from __future__ import annotations

import functools
import os
import socket
import stat
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from iocancel import errors
from iocancel.operation import Operation
from iocancel.operation.operation import CALLER, RELEASING

if TYPE_CHECKING:
    from iocancel.awaiting.hub import Hub
    from iocancel.operation.verbs import File

T = TypeVar("T", bound="Closable")


class Closed(ValueError):
    """The stream or listener is closed, or was meanwhile."""


class Busy(RuntimeError):
    """Another task is in such a call already."""


class Closable:
    """What owns files, and has operations on them."""

    _here: Callable[[], Hub]
    """What returns the running loop's hub."""
    closed_type: type[Exception] = Closed
    busy_type: type[Exception] = Busy
    broken_type: type[Exception] = OSError

    def __init__(self, *files: File) -> None:
        self._closing = False
        self._closers: list[Callable[[], object]] = [
            functools.partial(os.close, file) if isinstance(file, int) else file.close for file in files
        ]

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closing

    async def aclose(self) -> None:
        """End the calls that wait in it, await their endings, and close it.

        They raise as on what is closed. A cancel of the task that closes is raised when that is done. A
        second call does nothing.
        """
        self._closing = True
        error: BaseException | None = None
        pending = [op for op in self._pending() if op._state < RELEASING]
        try:
            if pending:  # else it takes no engine
                hub = self._here()
                for op in pending:
                    hub.cancel(op)
                for op in pending:
                    try:
                        end_elsewhere(hub, op)
                        await hub.drained(op)
                    except BaseException as late:  # noqa: BLE001 - raised when it is closed
                        error = error or late
        finally:
            self._close_files()
        try:
            if error is not None:
                raise error
        finally:
            del error
        if not pending:
            await self._checkpoint()

    async def _checkpoint(self) -> None:
        """Where the loop wants one."""

    if TYPE_CHECKING:  # who is built on this has it

        def _pending(self) -> list[Operation[Any]]: ...

    def _close_files(self) -> None:
        while self._closers:
            close = self._closers.pop()
            try:
                close()
            except BaseException:
                self._close_files()
                raise

    async def __aenter__(self: T) -> T:
        """Itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.aclose()

    def __del__(self) -> None:
        if getattr(self, "_closers", None):  # none where __init__ has raised
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self._closing = True
            for op in self._pending():
                op._ask(CALLER)  # of a task that was dropped; by whichever thread collects it
            self._close_files()

    def _refuse(self, doing: str) -> NoReturn:
        """A call that can't be."""
        name = type(self).__name__
        if self._closing:
            raise self.closed_type(f"{name}: closed")
        raise self.busy_type(f"{name}: another task is {doing} already")

    def _go_on(self, doing: str) -> None:
        """Before a further request: `aclose` has waited for the last one, and the number is another's."""
        if self._closing:
            self._refuse(doing)

    def _failed(self, error: OSError) -> Exception:
        """What to raise for a system call's failure."""
        return error

    def _give_up(self, op: Operation[Any], old: bool, doing: str) -> None:
        """Raise for an operation that has ended without success, where it is this call's concern."""
        if op.cancelled():
            if self._closing:
                self._refuse(doing)
            if old:  # whose task was dropped
                return
        error = op.exception()
        if isinstance(error, OSError):
            raise self._failed(error)

    def _raise(self, res: int, call: str) -> NoReturn:
        """Raise for a call's negated errno."""
        raise self._failed(failure(res, call))


def failure(res: int, call: str) -> OSError:
    """The exception for a call's negated errno."""
    try:
        errors.check(res, call)
    except OSError as error:
        return error
    raise AssertionError(res)


def end_elsewhere(hub: Hub, op: Operation[Any]) -> None:
    """End an operation that is another loop's: nobody would tell this loop's tasks of its ending.

    That loop is over, perhaps without having shut its generators down. This one stands still for a moment.
    """
    if op._engine is not hub.engine and op._state < RELEASING:
        op._ask(CALLER)  # not `cancel`: an operation that is a future tells its loop by that
        op.wait(1.0)


async def through(hub: Hub, op: Operation[Any]) -> None:
    """Wait for an operation's ending; it stays where it is kept."""
    end_elsewhere(hub, op)
    try:
        await hub.ended(op)
    except BaseException:
        if op._state < RELEASING:
            dropped(op)
        raise


def dropped(op: Operation[Any]) -> None:
    """Its task is, so nobody awaits its ending. The ledger keeps what the kernel may write to."""
    # Not by the hub: a collection in another thread may drop it; the engine's file wakes the loop.
    op._ask(CALLER)


def number_of(file: File) -> Callable[[], int]:
    """What returns a file's number; an object is asked for it each time, since it may have been closed."""
    if isinstance(file, int):
        return file.__index__
    fileno: Callable[[], int] | None = getattr(file, "fileno", None)
    if fileno is None:
        raise TypeError(f"a file is an int or an object with fileno(), not {type(file).__name__}")
    return fileno


def is_socket(number: int) -> bool:
    """Whether it is a socket's."""
    return stat.S_ISSOCK(os.fstat(number).st_mode)


def has_records(number: int, file: Any) -> bool:
    """Whether a read that has less room than a record may lose the rest: not of stream sockets and FIFOs."""
    mode = os.fstat(number).st_mode
    if not stat.S_ISSOCK(mode):
        return not stat.S_ISFIFO(mode)
    if isinstance(file, socket.socket):
        return file.type != socket.SOCK_STREAM
    same = socket.socket(fileno=number)
    try:
        return same.type != socket.SOCK_STREAM
    finally:
        same.detach()


def shut_down(file: Any, number: int) -> OSError | None:
    """End the sending half of a socket, however it was given; the error where that fails."""
    mine = isinstance(file, socket.socket)
    same: socket.socket = file if mine else socket.socket.__new__(socket.socket)
    try:
        if not mine:
            same.__init__(fileno=number)  # type: ignore[misc]
        same.shutdown(socket.SHUT_WR)
    except OSError as error:
        return error
    finally:
        if not mine:
            same.detach()
    return None


def at_least(least: int, value: object, what: str) -> int:
    """A number that is not less."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} takes an int, not {type(value).__name__}")
    if value < least:
        raise ValueError(f"{what} takes a number >= {least}, not {value}")
    return int(value)


__all__ = [
    "Busy",
    "Closable",
    "Closed",
    "at_least",
    "dropped",
    "end_elsewhere",
    "has_records",
    "is_socket",
    "number_of",
    "shut_down",
    "through",
]
