"""How the verbs wait: for a poll, and then by a call that never waits, or a request that is tried once."""

from __future__ import annotations

import select
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from iocancel import errors
from iocancel.awaiting.files import same_file
from iocancel.engines import ready
from iocancel.engines.ready import NOT_READY
from iocancel.operation.values import sensible, whole
from iocancel.uring import memory

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from iocancel.awaiting.hub import Hub
    from iocancel.operation import Operation
    from iocancel.operation.verbs import File

_IN, _OUT = select.POLLIN, select.POLLOUT
_PAUSE, _LONGEST_PAUSE = 0.001, 0.05  # seconds between two looks at what is ready, and does not go
_TRIES = 10  # so often others may be first before there is such a pause
_from_buffer, _BYTES = ready.from_buffer, ready.BYTES
_NO_BUFFER = (TypeError, ValueError, BufferError)
_Attempt = Callable[[int], int]
_Request = Callable[[Any], "Operation[Any]"]
# Plain numbers: an enum's `&` takes a microsecond.
ALL, DONTWAIT = int(socket.MSG_WAITALL), int(socket.MSG_DONTWAIT)
_ERRORS = int(socket.MSG_ERRQUEUE)
SPECIAL = ALL | int(socket.MSG_TRUNC) | _ERRORS | DONTWAIT
"""What can't be cancelled without loss, tells of more bytes than it gives, is no input, or does not wait."""


class Base:
    """Whose verbs these are.

    Args:
        hub: what returns the running loop's.
    """

    def __init__(self, hub: Callable[[], Hub]) -> None:
        self._hub = hub

    async def _begun(self) -> Hub:
        hub = self._hub()
        if hub.checkpoints:
            await hub.checkpoint_if_cancelled()
        return hub


async def until_read(hub: Hub, file: File, number: int, attempt: _Attempt, request: _Request) -> Any:
    """Bytes that an attempt has room for, on a file that was ready, and another was first."""
    found = await when_ready(hub, file, number, _IN, attempt, request, whole_value=True, tries=1)
    if isinstance(found, bytes):
        return found
    return hub.attempt.data[: errors.check(found, "read")]


async def much(
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
    if flags & ALL:
        raise waits_for_all(name)
    room: Any = bytearray(sensible(number, whole(into, "into"), -1)) if isinstance(into, int) else into

    def attempt(n: int) -> int:
        try:
            pinned = _from_buffer(_BYTES, room, True)
        except _NO_BUFFER:
            pinned = memory.writable(room, "into")  # says what is wrong
        with pinned as pin:
            return int(call(hub.attempt.told, n, pin, len(pin), extra))

    waits = not flags & DONTWAIT
    found: Any = attempt(number)
    if found == NOT_READY and waits:
        found = await when_ready(
            hub, file, number, events(flags), attempt, lambda engine: request(engine, room)
        )
    else:
        hub.credit -= hub.credit > 0
        if hub.checkpoints:
            await hub.cancel_shielded_checkpoint()
    errors.check(found, name)
    # MSG_TRUNC tells of more bytes than there was room for.
    return bytes(memoryview(room)[:found]) if isinstance(into, int) else found


def events(flags: int) -> int:
    """What to wait for: a message of the error queue is no input, and POLLERR comes unasked."""
    return 0 if flags & _ERRORS else _IN


async def when_ready(
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
                await pause(hub, tries - _TRIES)
        tries += 1
        wait = hub.until_ready(file, number, events)
        await wait
        hub.waited(wait)
        same_file(file, number)
        many = attempt(number)
        if many != NOT_READY:
            return many


async def by_request(
    hub: Hub, file: File, number: int, events: int, request: _Request, flags: int = 0
) -> Any:
    """The same for what has no call of its own."""
    waits = not flags & DONTWAIT
    if not hub.credit:
        await hub.give_way()
        same_file(file, number)
    hub.credit -= hub.credit > 0
    op = request(hub.engine)
    if await hub.now(op) and (op._res != NOT_READY or not waits):
        if hub.checkpoints:
            await hub.cancel_shielded_checkpoint()
        return op.result()
    return await when_ready(hub, file, number, events, lambda _: NOT_READY, request, whole_value=True)


async def pause(hub: Hub, tries: int) -> None:
    """Ready, and it does not go: nothing tells when it will."""
    await hub.value(hub.engine.timeout(min(_PAUSE * 2 ** min(tries, 10), _LONGEST_PAUSE)))


async def all_of(call: Callable[[File, Any], Awaitable[int]], fd: File, data: ReadableBuffer) -> None:
    """All of the data, in parts; what is raised has `sent`."""
    sent = 0
    with memoryview(data) as whole_of, whole_of.cast("B") as view:
        try:
            done = False
            while True:
                if done:
                    return
                sent += await call(fd, view[sent:] if sent else view)
                done = sent >= len(view)
        except BaseException as error:
            late = getattr(error, "operation", None)
            error.sent = sent + (max(0, late._res) if late is not None else 0)  # type: ignore[attr-defined]
            raise


def out(hub: Hub, call: Any, number: int, data: Any, extra: int) -> int:
    """Try to write or send; NOT_READY, another negated errno, or how many bytes."""
    try:
        pinned = _from_buffer(_BYTES, data)
    except _NO_BUFFER:
        pinned = memory.readable(data, "data")  # says what is wrong
    with pinned as pin:
        return int(call(hub.attempt.told, number, pin, len(pin), extra))


def connection(fd: int, listener: int) -> Operation[Any]:
    """A connection that was accepted, as an operation's value: closed where nobody takes it."""
    op = ready.taken("accept", listener, fd)
    ready.mine(op)
    return op


def ours(into: Any, name: str) -> None:
    """Refuse to abandon a request that has memory of the caller's."""
    if not isinstance(into, int):
        raise TypeError(
            f"abandon_on_cancel needs the library's own memory: have {name} return bytes, not fill a buffer"
        )


def waits_for_all(name: str) -> ValueError:
    """What a MSG_WAITALL is told."""
    return ValueError(
        f"{name}: MSG_WAITALL can't be cancelled without losing what had come: use Stream.receive_exactly"
    )
