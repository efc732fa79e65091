"""Files of each kind, with O_NONBLOCK and without: a read waits for what comes, a cancelled one leaves it.

Terminals, inotify and the like know no call that never waits (RWF_NOWAIT): what reads them is a request,
which a worker of the kernel's may have in hand when the cancel comes.
"""

from __future__ import annotations

import abc
import contextlib
import ctypes
import os
import pty
import select
import socket
import termios
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from iocancel.awaiting import hub as awaiting

from ...blocking.case import WORD, drain
from .loops import CAME, PAIRS, STOPPED, Started, World, same
from .moments import first_ready, settled, unseen, waking

_libc = ctypes.CDLL(None, use_errno=True)
_CLOCK_MONOTONIC = 1
_IN_CREATE = 0x100


class Kind(abc.ABC):
    """A file that has nothing to be read, until `ready`."""

    fd = -1

    def __init__(self, stack: contextlib.ExitStack, folder: Path) -> None:
        self.stack, self.folder = stack, folder
        self.set()

    def own(self, fd: int) -> int:
        assert fd >= 0, os.strerror(ctypes.get_errno())
        self.stack.callback(os.close, fd)
        return fd

    @abc.abstractmethod
    def set(self) -> None: ...

    @abc.abstractmethod
    def ready(self) -> None: ...

    def right(self, value: bytes) -> bool:
        return value == WORD

    def call(self) -> Awaitable[Any]:
        found: Awaitable[Any] = self.api.read(self.fd, 100)
        return found

    api: Any = None

    def left(self) -> None:
        """What has come is there for a plain read, once."""
        assert self.right(drain(self.fd)), "lost"
        assert not select.select([self.fd], [], [], 0)[0], "it was there twice"


class Pipe(Kind):
    def set(self) -> None:
        self.fd, self.peer = map(self.own, os.pipe())

    def ready(self) -> None:
        os.write(self.peer, WORD)


class Fifo(Pipe):
    def set(self) -> None:
        path = self.folder / "fifo"
        os.mkfifo(path)
        nonblocking = self.own(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        self.peer = self.own(os.open(path, os.O_WRONLY))
        self.fd = self.own(os.open(path, os.O_RDONLY))
        assert nonblocking >= 0


class Pair(Pipe):
    def set(self) -> None:
        a, b = socket.socketpair()
        self.fd, self.peer = self.own(a.detach()), self.own(b.detach())


class Datagrams(Pipe):
    def set(self) -> None:
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.fd, self.peer = self.own(a.detach()), self.own(b.detach())


class Tcp(Pipe):
    def set(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            a = socket.create_connection(server.getsockname())
            b, _ = server.accept()
        self.fd, self.peer = self.own(a.detach()), self.own(b.detach())


class Terminal(Pipe):
    """The side of a program, which reads by lines."""

    def set(self) -> None:
        self.peer, self.fd = map(self.own, pty.openpty())

    def ready(self) -> None:
        os.write(self.peer, WORD + b"\n")

    def right(self, value: bytes) -> bool:
        return value == WORD + b"\n"


class RawTerminal(Pipe):
    """The same, each byte for itself."""

    def set(self) -> None:
        self.peer, self.fd = map(self.own, pty.openpty())
        now = termios.tcgetattr(self.fd)
        now[3] &= ~(termios.ICANON | termios.ECHO)
        termios.tcsetattr(self.fd, termios.TCSANOW, now)


class Emulator(Pipe):
    """The other side of a terminal."""

    def set(self) -> None:
        self.fd, self.peer = map(self.own, pty.openpty())


class Eventfd(Kind):
    def set(self) -> None:
        self.fd = self.own(os.eventfd(0))

    def ready(self) -> None:
        os.eventfd_write(self.fd, 7)

    def right(self, value: bytes) -> bool:
        return int.from_bytes(value, "little") == 7


class Timerfd(Kind):
    def set(self) -> None:
        self.fd = self.own(_libc.timerfd_create(_CLOCK_MONOTONIC, os.O_CLOEXEC))

    def ready(self) -> None:
        times = (ctypes.c_long * 4)(0, 0, 0, 1)  # once, in a nanosecond
        assert _libc.timerfd_settime(self.fd, 0, times, None) == 0
        assert select.select([self.fd], [], [])[0]

    def right(self, value: bytes) -> bool:
        return int.from_bytes(value, "little") == 1


class Inotify(Kind):
    def set(self) -> None:
        self.fd = self.own(_libc.inotify_init1(os.O_CLOEXEC))
        assert _libc.inotify_add_watch(self.fd, os.fsencode(self.folder), _IN_CREATE) >= 0
        self.made = 0

    def ready(self) -> None:
        self.made += 1
        (self.folder / f"new{self.made}").touch()

    def right(self, value: bytes) -> bool:
        return value.count(b"new") == 1 and f"new{self.made}".encode() in value


KINDS: dict[str, type[Kind]] = {
    "pipe": Pipe,
    "fifo": Fifo,
    "pair": Pair,
    "datagrams": Datagrams,
    "tcp": Tcp,
    "terminal": Terminal,
    "raw_terminal": RawTerminal,
    "emulator": Emulator,
    "eventfd": Eventfd,
    "timerfd": Timerfd,
    "inotify": Inotify,
}
worlds = pytest.mark.parametrize(
    "world",
    [row for row in PAIRS if row[0] != "debug"],
    ids="-".join,
    indirect=True,
)
BY_WORKERS = ("terminal", "raw_terminal", "emulator", "inotify")
"""A request reads them; one that no worker has begun with can still be cancelled after the poll."""
MOMENTS = {"first_ready": first_ready, "unseen": unseen, "settled": settled, "waking": waking}


@worlds
@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "nonblocking"])
@pytest.mark.parametrize("kind", KINDS)
def test_files_of_each_kind(world: World, kind: str, blocking: bool, tmp_path: Path) -> None:
    async def main(world: World) -> None:
        with contextlib.ExitStack() as stack:
            case = KINDS[kind](stack, tmp_path)
            case.api = world.verbs
            os.set_blocking(case.fd, blocking)

            # What is there is taken at once.
            case.ready()
            assert case.right(await case.call())

            # It is waited for.
            started = world.start(case.call)
            await world.waits(started)
            case.ready()
            assert await world.ended(started) is CAME, f"{started.error!r}"
            assert case.right(started.value)

            # A cancel takes nothing.
            started = world.start(case.call)
            await world.waits(started)
            started.cancel()
            assert await world.ended(started) is STOPPED
            case.ready()
            case.left()

            for act in MOMENTS.values():
                started = world.start(case.call)
                op = await world.waits(started)
                happened = act(world, case, op, started)
                await world.ended(started)
                assert happened()
                same(world, started, first=act is not first_ready and kind not in BY_WORKERS)
                if started.ending is CAME:
                    assert case.right(started.value), "what had come is returned"
                else:
                    case.left()
            assert os.get_blocking(case.fd) is blocking

    world.run(main)


@worlds
@pytest.mark.parametrize("seen", [True, False], ids=["seen_by_waiting", "seen_late"])
@pytest.mark.parametrize("kind", [name for name in KINDS if name not in ("pipe", "pair", "tcp")])
def test_a_cancel_while_a_worker_reads_it(
    world: World, kind: str, seen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker reads it, which a look does not show yet: no cancel comes between."""
    if not seen and not world.delivers:
        # The loop stands still until it is seen: asyncio has no place for what would come later.
        return
    monkeypatch.setattr(awaiting, "_MOMENT", 20.0 if seen else 0.0)

    async def main(world: World) -> None:
        hub: Any = world.verbs._verbs._hub()
        carrier = world.engine._carrier
        real_now, real_drained = hub.now, hub.drained
        real_records, real_go = carrier.records, carrier.go
        hidden = False

        def records() -> Any:
            return [] if hidden else real_records()

        def go(batch: Any, wait: bool, timeout: float | None) -> None:
            nonlocal hidden
            if wait and hidden:  # some of it is here already
                wait, timeout = False, 0
                hidden = False
            real_go(batch, wait, timeout)

        def drained(op: Any) -> Any:
            nonlocal hidden
            hidden = False
            started.cancel()
            return real_drained(op)

        async def now(op: Any) -> Any:
            nonlocal hidden
            hidden = True
            try:
                return await real_now(op)
            finally:
                hidden = False

        monkeypatch.setattr(hub, "now", now)
        monkeypatch.setattr(hub, "drained", drained)
        monkeypatch.setattr(carrier, "records", records)
        monkeypatch.setattr(carrier, "go", go)
        with contextlib.ExitStack() as stack:
            case = KINDS[kind](stack, tmp_path)
            case.api = world.verbs
            for ready_first in (True, False):
                if ready_first:
                    case.ready()
                started: Started = world.start(case.call)
                if not ready_first:
                    await world.waits(started)
                    case.ready()
                await world.ended(started)
                if started.ending is CAME:
                    assert case.right(started.value)
                else:
                    assert started.ending is STOPPED
                    case.left()

    world.run(main)
