"""How far a request can be cancelled: what a cancel's answer and the request's end say together.

A request that was cancelled while it waited ends with -ECANCELED; one that a worker thread was running ends
with -EINTR or what leaks in its place: both did not happen ("total"). One that had begun ends with what it
had done by then ("partial"). One that can't be stopped ends as if nobody had asked ("none").
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

from iocancel.doctor.live import Live, NotHere, Prepare, code, stopped
from iocancel.doctor.report import Reach, Seen, Wrong
from iocancel.uring import Cqe

__all__ = ["blocked", "buffers", "end", "fill", "multishot", "tcp", "until_begun"]

_BIG = 1 << 20
_GROUP = 78
_ATTEMPTS = 50


def end(answer: int, cqe: Cqe, whole: int = 0) -> Seen:
    """What a cancel and an ending say about a kind of request.

    Args:
        answer: the cancel's.
        cqe: the target's last completion.
        whole: how many bytes were asked for; fewer are a part.
    """
    res = cqe.res
    reach: Reach = "none"
    if stopped(res):
        reach = "total"
    elif 0 <= res < whole:
        reach = "partial"
    elif res < 0:
        cqe.check()
    return Seen(f"cancel {code(answer)}, then {code(res)}", reach)


def until_begun(attempt: Callable[[], Seen]) -> Seen:
    """Tries what may be cancelled while it still waits for a worker, until one of them had begun."""
    seen = attempt()
    for _ in range(_ATTEMPTS):
        if seen.reach != "total":
            break
        seen = attempt()
    return seen


def blocked(live: Live, prepare: Prepare, flags: int = 0, *, fd: bool = False, whole: int = 0) -> Seen:
    """Starts a request that blocks, and cancels it."""
    number = live.start(prepare, flags, fd=fd)
    early = live.early(number)
    if early is None:
        return end(*live.cancel(number), whole)
    early.check()
    raise Wrong(f"it was to block, and ended at once with {code(early.res)}")


def multishot(live: Live, prepare: Prepare, event: Callable[[], object], *, fd: bool = False) -> Seen:
    """Starts a request that goes on, has it tell one event, and cancels it."""
    number = live.start(prepare, fd=fd)
    if (early := live.early(number)) is None:
        event()
        first = live.first(number)
        if first.more:
            seen = end(*live.cancel(number))
            return Seen(f"one event, then {seen.text}", seen.reach)
        early = first
    early.check()
    raise Wrong(f"it ended after its first event, with {code(early.res)}")


@contextlib.contextmanager
def buffers(live: Live) -> Iterator[int]:
    """A group of buffers to pick from."""
    live.ring.register_buf_ring(8, 64, _GROUP)
    try:
        yield _GROUP
    finally:
        live.finish()
        live.ring.unregister_buf_ring(_GROUP)


@contextlib.contextmanager
def tcp() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection over TCP to this machine."""
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname()) as here,
            server.accept()[0] as there,
        ):
            yield here, there
    except ConnectionError as error:
        raise NotHere(f"TCP on 127.0.0.1 ({error})") from None


def fill(sock: socket.socket) -> None:
    """Sends until no more fits."""
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(_BIG))
    sock.setblocking(True)
