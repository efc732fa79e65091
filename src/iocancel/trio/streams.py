"""Streams, listeners and multishot verbs of trio: see iocancel.awaiting.streams, listeners, multishot.

Streams and listeners raise trio's exceptions.
"""

from __future__ import annotations

import errno

import trio
from trio.lowlevel import Abort, Task

from iocancel import errors
from iocancel.awaiting import anyio, listeners, streams
from iocancel.awaiting.multishot import Multishot, Multishots
from iocancel.awaiting.owning import Closable
from iocancel.trio.hub import Hub, current, protected

# The system lacks something; the connection has nothing.
_OURS = (errors.EngineUnavailable, errors.FeatureUnavailable, errors.QueueFull, errors.OperationCancelled)
for _made in (Closable, streams.Stream, listeners.Listener, anyio.Bytes, Multishot):
    protected(_made)


@anyio.known_as("ByteStream")
class Stream(streams.Stream, trio.abc.HalfCloseableStream):
    """See iocancel.awaiting.streams."""

    _here = staticmethod(current)
    closed_type = trio.ClosedResourceError
    busy_type = trio.BusyResourceError
    broken_type = trio.BrokenResourceError

    async def _checkpoint(self) -> None:
        await trio.lowlevel.checkpoint()

    def _failed(self, error: OSError) -> Exception:
        if isinstance(error, _OURS):
            return error
        kind = trio.ClosedResourceError if error.errno == errno.EBADF else trio.BrokenResourceError
        made: Exception = kind(str(error))
        made.__cause__ = error
        return made


@anyio.known_as("Listener")
class Listener(listeners.Listener[Stream], trio.abc.Listener[Stream]):
    """See iocancel.awaiting.listeners."""

    _here = staticmethod(current)
    _stream = Stream
    closed_type = trio.ClosedResourceError
    busy_type = trio.BusyResourceError

    async def _checkpoint(self) -> None:
        await trio.lowlevel.checkpoint()


class Bell:
    """See iocancel.awaiting.multishot."""

    __slots__ = ("_task",)

    def __init__(self, hub: Hub) -> None:  # noqa: ARG002
        self._task: Task | None = None

    def wake(self) -> None:
        """See Bell."""
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    async def wait(self) -> None:
        """See Bell."""
        self._task = trio.lowlevel.current_task()

        def abort(_: object) -> Abort:
            self._task = None
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)


multishots = protected(Multishots)(current, Bell)

__all__ = ["Bell", "Listener", "Stream", "multishots"]
