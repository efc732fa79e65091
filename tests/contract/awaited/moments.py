"""When a cancel comes, to the order: and what is there to be looked at by plain system calls behind it."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable
from typing import Any

from iocancel import Operation

from ...blocking.case import WORD, drain, fill
from ...support import until
from .loops import Started, World

# What is left


def _bytes(case: Any) -> None:
    assert drain(case.fd) == WORD, "lost, or there twice"


def _moved(case: Any) -> None:
    """The bytes are in one of the two pipes, once."""
    assert drain(case.fd) + drain(case.end) == WORD


def _copied(case: Any) -> None:
    assert drain(case.fd) == WORD
    assert drain(case.end) in (b"", WORD)


def _connection(case: Any) -> None:
    with socket.socket(fileno=os.dup(case.fd)) as listener:
        listener.setblocking(False)
        with listener.accept()[0] as conn:
            assert conn.getpeername() == case.client.getsockname()
        with contextlib.suppress(BlockingIOError):
            listener.accept()[0].close()
            raise AssertionError("there were two")
        listener.setblocking(True)


def _child(case: Any) -> None:
    def state() -> Any:
        return os.waitid(os.P_PID, case.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)

    until(state, "the child has ended, and its state is there")
    assert state().si_status == 0


def _unwritten(case: Any) -> None:
    assert (case.got + drain(case.peer)).strip(b"\0") == b"", "it was written all the same"
    fill(case.fd)


def _socket(case: Any) -> None:
    """It may go on connecting, as after connect(2)'s EINTR: it is of no use any more."""
    case.sock = case.socket()
    case.fill()


def _opened(case: Any) -> None:
    """That no fd is left is looked for at the end."""


def _woken(case: Any) -> None:
    """Whether the wake-up went to it is told by its operation: see `conserved`."""


LEFT: dict[str, Callable[[Any], None]] = {
    **dict.fromkeys(["read", "read_to", "readv", "recv", "recv_into", "recvmsg", "poll"], _bytes),
    **dict.fromkeys(["write", "write_all", "writev", "send", "sendall", "sendmsg"], _unwritten),
    "splice": _moved,
    "tee": _copied,
    "accept": _connection,
    "waitid": _child,
    "connect": _socket,
    "open": _opened,
    "futex_wait": _woken,
}
"""Of each case: that what `ready` has brought is there, exactly once, when its call was cancelled."""


def untouched(case: Any, started: Started | None = None) -> None:
    """A cancelled call whose file is ready by now has done nothing, by what plain system calls see.

    Args:
        case: the call.
        started: its task: what the kernel did all the same (a splice, a wake-up, an open) its error tells.
    """
    LEFT[case.name](case)
    if started is not None and started.op is not None and case.name in ("splice", "futex_wait"):
        done = not started.op.cancelled()
        assert not (case.name == "futex_wait" and case.woken and not done), "a wake-up was lost"


# When


def first_ready(world: World, case: Any, op: Any, started: Started) -> Callable[[], bool]:
    """What it waits for comes, and then the cancel, before the loop makes a pass."""
    case.ready()
    started.cancel()
    return lambda: True


def unseen(world: World, case: Any, op: Any, started: Started) -> Callable[[], bool]:
    """The kernel has completed it, the loop has not seen that, and the cancel comes."""
    case.ready()
    with contextlib.closing(select.epoll()) as epoll:
        epoll.register(world.engine.fileno(), select.EPOLLIN)
        until(lambda: epoll.poll(0), "the engine's file is readable")
    started.cancel()
    return lambda: True


def before_sending(world: World, case: Any, op: Any, started: Started) -> Callable[[], bool]:
    """It was cancelled, and what it waits for comes before the kernel hears of the cancel."""
    return _around(world, started, case.ready, None)


def after_sending(world: World, case: Any, op: Any, started: Started) -> Callable[[], bool]:
    """It comes when the kernel has been told of the cancel, in the very call that tells it."""
    return _around(world, started, None, case.ready)


def _around(
    world: World, started: Started, before: Callable[[], None] | None, after: Callable[[], None] | None
) -> Callable[[], bool]:
    carrier = world.engine._carrier
    real = carrier.cancel
    calls: list[Any] = []

    def cancel(ops: Any) -> Any:
        if not calls and before is not None:
            before()
        value = real(ops)
        if not calls and after is not None:
            after()
        calls.append(ops)
        return value

    carrier.cancel = cancel
    started.cancel()
    return lambda: bool(calls)


def settled(world: World, case: Any, op: Any, started: Started) -> Callable[[], bool]:
    """The engine has just seen its completion."""
    calls: list[Any] = []

    def act(_: Any) -> None:
        calls.append(1)
        started.cancel()

    Operation.add_done_callback(op, act)  # a wait of asyncio's has one of the same name
    case.ready()
    return lambda: bool(calls)


class _Shim:
    """In the place of a task's wait."""

    def __init__(self, real: Any, before: Callable[[], object], after: Callable[[], object]) -> None:
        self.real, self.before, self.after = real, before, after

    def wake(self) -> None:
        self.before()
        self.real.wake()
        self.after()


def _waking(op: Any, before: Callable[[], object], after: Callable[[], object]) -> None:
    op._awaited = _Shim(op._awaited, before, after)


def waking(world: World, case: Any, op: Any, started: Started) -> Callable[[], bool]:
    """The loop's pass is about to have the task go on."""
    calls: list[Any] = []

    def act() -> None:
        calls.append(1)
        started.cancel()

    _waking(op, act, lambda: None)
    case.ready()
    return lambda: bool(calls)


def woken(world: World, case: Any, op: Any, started: Started) -> Callable[[], bool]:
    """The loop's pass has just had the task go on."""
    calls: list[Any] = []

    def act() -> None:
        calls.append(1)
        started.cancel()

    _waking(op, lambda: None, act)
    case.ready()
    return lambda: bool(calls)


MOMENTS: dict[str, tuple[Callable[[World, Any, Any, Started], Callable[[], bool]], bool]] = {
    "first_ready": (first_ready, False),
    "unseen": (unseen, True),
    "before_sending": (before_sending, False),
    "after_sending": (after_sending, False),
    "settled": (settled, True),
    "waking": (waking, True),
    "woken": (woken, True),
}
"""Each with whether the operation has succeeded before the cancel."""
