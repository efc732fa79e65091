"""`lio_listio`: many control blocks in one call.

Facts that this rests on:

- lio_listio(LIO_WAIT) of glibc that a signal interrupts (EINTR) leaves pointers to its dead stack frame in
  the requests, and the C library writes there when they end. So LIO_WAIT is LIO_NOWAIT here, and a wait
  for each: no signal does harm, and handlers run.
- What musl does of a list's notification is not used: see csrc/posix_aio_musl.c.
"""

import errno
import os
from collections.abc import Iterable

from iocancel._native import ffi, lib
from iocancel.posix_aio.block import Aiocb, current, prepare
from iocancel.posix_aio.calls import refusal
from iocancel.posix_aio.flags import LioMode, LioOpcode
from iocancel.posix_aio.ledger import Request, control_blocks, launch, too_many, wait
from iocancel.posix_aio.notify import SigEvent

__all__ = ["lio_listio"]


def lio_listio(mode: LioMode, aiocbs: Iterable[Aiocb | None], sigevent: SigEvent | None = None) -> None:
    """Start several operations at once, each by its `lio_opcode`, and perhaps wait for all.

    Args:
        mode: `LioMode.WAIT` or `LioMode.NOWAIT`.
        aiocbs: control blocks; None and those of `LioOpcode.NOP` are passed over.
        sigevent: how the end of all of them is told, once, with NOWAIT (each may have its own besides).
            Cancelled ones count as ended.

    Raises:
        OSError: EIO (WAIT): one at least has failed or was cancelled: ask each by `aio_return`; or, in
            both modes, another errno for which some or all were not started: `aio_error` of such a one says
            so, or raises RuntimeError; the others are in progress, or have ended.
        QueueFull: EAGAIN: no thread or no memory, for some or all. With a `sigevent`, it may also be that
            all run and only their common end won't be told.
        EngineUnavailable: in a forked child.
        ValueError: an unknown mode; an Aiocb that is in the list twice or has no `lio_opcode`; a sigevent
            with WAIT; a list that doesn't fit the thread's stack, where glibc puts it; a bad buffer.
        TypeError: something of a wrong type.
        RuntimeError: one is in progress.

    Handlers of signals run while it waits; when one raises, the operations go on. POSIX, glibc 2.1, musl
    1.1.9; man page: lio_listio(3).
    """
    waits = _mode(mode) is LioMode.WAIT
    if sigevent is not None and not isinstance(sigevent, SigEvent):
        raise TypeError(f"lio_listio: sigevent must be a SigEvent or None, not {type(sigevent).__name__}")
    if sigevent is not None and waits:
        raise ValueError("lio_listio: a sigevent is for LioMode.NOWAIT: after LIO_WAIT, all have ended")
    pairs = _members(aiocbs, sigevent)
    requests = [request for _, request in pairs]
    array, group = control_blocks(requests), ffi.NULL if sigevent is None else sigevent._c
    result = launch(pairs, lambda: lib.ioc_aio_lio(array, len(requests), group))
    started = [request for request in requests if request.error() != lib.IOC_AIO_NEVER]
    if result == -errno.E2BIG:
        raise too_many("lio_listio", len(requests))
    if waits:
        _wait_for_all(started, len(requests))
    if result:
        raise refusal(result, f"lio_listio of {len(requests)} control blocks ({_states(requests)})")


def _mode(mode: object) -> LioMode:
    if isinstance(mode, int) and mode in set(LioMode):
        return LioMode(mode)
    raise ValueError(f"lio_listio: mode must be LioMode.WAIT or LioMode.NOWAIT, not {mode!r}")


def _members(aiocbs: Iterable[Aiocb | None], sigevent: SigEvent | None) -> list[tuple[Aiocb, Request]]:
    """The blocks to start, each with a new request."""
    if isinstance(aiocbs, Aiocb):
        raise TypeError("lio_listio: a list of control blocks is needed: lio_listio(mode, [aiocb])")
    members = [aiocb for aiocb in aiocbs if aiocb is not None]
    for position, aiocb in enumerate(members):
        current(aiocb, "lio_listio")
        if aiocb.lio_opcode is None:
            raise ValueError(
                f"lio_listio: block {position} has no lio_opcode: set LioOpcode.READ, WRITE or NOP"
            )
    if len({id(aiocb) for aiocb in members}) < len(members):
        raise ValueError("lio_listio: a control block is in the list twice: use one for each operation")
    return [
        (aiocb, prepare(aiocb, "lio_listio", aiocb.lio_opcode, sigevent))
        for aiocb in members
        if aiocb.lio_opcode is not None and aiocb.lio_opcode is not LioOpcode.NOP
    ]


def _wait_for_all(requests: list[Request], asked: int) -> None:
    for request in requests:
        wait([request], "lio_listio", None)
    failed = sum(request.error() != 0 for request in requests)
    if failed:
        raise OSError(
            errno.EIO,
            f"{os.strerror(errno.EIO)}: lio_listio: {failed} of {asked} have failed or were cancelled "
            f"({_states(requests)}): ask each by aio_return",
        )


def _states(requests: list[Request]) -> str:
    """How many have which errno, for messages."""
    names = {0: "done", lib.IOC_AIO_NEVER: "not started", lib.IOC_AIO_FORKED: "not started"}
    counts: dict[str, int] = {}
    for request in requests:
        error = request.error()
        name = names.get(error) or errno.errorcode.get(error, str(error))
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{count} {name}" for name, count in counts.items())
