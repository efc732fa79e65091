"""asyncio's own loop and uvloop: what they have themselves, or ours on them, by the same code.

`python -m benchmarks.loops {asyncio|uvloop} {own|ours}`: a process each (see works.py).
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import itertools
import os
import resource
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple

import iocancel.asyncio
from benchmarks.works import AT_ONCE, BLOCK, OFFSETS, READS, SIZE, TRIPS, Work, cached_file, serve

PENDING = 4000  # receives that are cancelled at once
FILES = 100  # that a process has open besides
AHEAD = 0.1  # seconds in which each of so many timeouts can be set; on a busy machine more
LONGEST = 10.0

Receive = Callable[[int], Awaitable[Any]]
Send = Callable[[bytes], Awaitable[Any]]
Read = Callable[[int], Awaitable[bytes]]
clock = time.perf_counter_ns


class Verbs(NamedTuple):
    """What is measured. Each is asked for within the loop."""

    recv: Callable[[socket.socket, int], Awaitable[bytes]]
    ends: dict[str, Callable[[socket.socket], tuple[Receive, Send]]]
    """By the work's name: how one end of a socketpair receives and sends."""
    reads: dict[str, Callable[[int], Read]]
    """By the work's name: how a file is read at an offset."""


def of_loop(loop: Any) -> Verbs:
    """The loop's own. It has none for files: its pool of threads reads them."""

    def end(sock: socket.socket) -> tuple[Receive, Send]:
        return partial(loop.sock_recv, sock), partial(loop.sock_sendall, sock)

    def reader(fd: int) -> Read:
        return partial(loop.run_in_executor, None, os.pread, fd, BLOCK)

    def bare(fd: int) -> Read:
        async def read(offset: int) -> bytes:
            await asyncio.sleep(0)
            return os.pread(fd, BLOCK, offset)

        return read

    return Verbs(loop.sock_recv, {"echo": end}, {"reads": reader, "reads-bare": bare})


def ours() -> Verbs:
    """Ours, on whichever loop runs. Without credit each read suspends; the engine's go through the ring.

    What is measured is io_uring: where it can't be had, the side says so.
    """
    os.environ["IOCANCEL_ENGINE"] = "uring"
    verbs: Any = iocancel.asyncio
    hub: Any = iocancel.asyncio.hub

    def end(sock: socket.socket) -> tuple[Receive, Send]:
        return partial(verbs.recv, sock), partial(verbs.sendall, sock)

    def stream_end(sock: socket.socket) -> tuple[Receive, Send]:
        stream = verbs.Stream(sock)
        return stream.receive_some, stream.send_all

    def with_credit(many: int, fd: int) -> Read:
        hub.INLINE = hub.current().credit = many
        return partial(verbs.read, fd, BLOCK)

    def ring(fd: int) -> Read:
        result, read = verbs.result, verbs.engine().read
        return lambda offset: result(read(fd, BLOCK, offset))

    ends: dict[str, Callable[[socket.socket], tuple[Receive, Send]]]
    ends = {"echo-verbs": end, "echo": stream_end if hasattr(verbs, "Stream") else end}
    how: dict[str, Callable[[int], Read]] = {
        "reads": partial(with_credit, 0),
        "reads-inline": partial(with_credit, 1 << 30),
        "reads-ring": ring,
    }
    return Verbs(verbs.recv, ends, how)


class Pending:
    """Receives from silent sockets, a task each, that are cancelled together; how long until all have ended.

    Args:
        runner: of the loop.
        recv: as `Verbs` has it.
        timeouts: each runs into a timeout of its own; else each task is cancelled.
    """

    def __init__(self, runner: asyncio.Runner, recv: Any, timeouts: bool) -> None:
        self._runner, self._recv, self._timeouts = runner, recv, timeouts
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._bounds: list[asyncio.Timeout] = []
        self._ended: asyncio.Task[Any] | None = None
        self._took = 0

    def _open(self) -> None:
        allow_files(2 * PENDING)
        self._pairs = [socket.socketpair() for _ in range(PENDING)]
        for left, _ in self._pairs:
            left.setblocking(False)

    def _prepare(self) -> None:
        if not self._pairs:
            self._open()
        self._runner.run(self._begin())

    async def _begin(self) -> None:
        one = self._bounded if self._timeouts else self._plain
        self._bounds.clear()
        self._tasks = [asyncio.create_task(one(left)) for left, _ in self._pairs]
        self._ended = asyncio.create_task(asyncio.wait(self._tasks))
        for _ in range(4):  # they begin, and what they ask for is asked of the kernel
            await asyncio.sleep(0)

    async def _plain(self, sock: socket.socket) -> None:
        await self._recv(sock, SIZE)

    async def _bounded(self, sock: socket.socket) -> None:
        async with asyncio.timeout(None) as bound:
            self._bounds.append(bound)
            await self._recv(sock, SIZE)

    async def _cancel(self) -> None:
        assert self._ended is not None
        start = clock()
        for task in self._tasks:
            task.cancel()
        await self._ended
        self._took = clock() - start

    async def _run_out(self) -> None:
        """All timeouts are set to one moment. The clock starts when it has passed, before the loop looks.

        So the timers' own way through the loop is timed for all alike, and neither how they are set nor how
        exactly a loop wakes up: uvloop's timers have milliseconds.
        """
        assert self._ended is not None
        ahead = AHEAD
        while True:
            when = asyncio.get_running_loop().time() + ahead
            for bound in self._bounds:
                bound.reschedule(when)
            if time.monotonic() < when:
                break
            ahead *= 2  # a busy machine; none has run out yet, as the loop has not looked
            if ahead > LONGEST:
                raise SystemExit(f"{PENDING} timeouts took longer to set than {LONGEST} s")
        while time.monotonic() < when + 0.002:
            pass
        start = clock()
        await self._ended
        self._took = clock() - start

    def _run(self) -> tuple[int, int]:
        gc.collect()  # as if they had waited for long: what is old is not looked at with what is new
        self._runner.run(self._run_out() if self._timeouts else self._cancel())
        return 0, 0

    def _counted(self) -> tuple[int, int]:
        """How many tasks have ended, and how many as they should."""
        ended = [task for task in self._tasks if task.done()]
        if self._timeouts:
            right = sum(not task.cancelled() and type(task.exception()) is TimeoutError for task in ended)
        else:
            right = sum(task.cancelled() for task in ended)
        return len(ended), right

    def close(self) -> None:
        """Close the sockets; the tasks have ended."""
        for sock in itertools.chain(*self._pairs):
            sock.close()
        self._pairs = []

    def work(self) -> Work:
        """One repetition."""
        wanted = PENDING, PENDING
        return Work(self._run, wanted, self._prepare, self._counted, took=lambda: self._took)


def allow_files(many: int) -> None:
    """Raise the process's limit of open files as far as it goes, where it is too low.

    Raises:
        SystemExit: that is not far enough; it says so.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = many + FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise SystemExit(f"it needs {wanted:,} open files, and {hard:,} are allowed here (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def echo(runner: asyncio.Runner, end: Callable[[socket.socket], tuple[Receive, Send]]) -> Work:
    """Two coroutines: one sends a few bytes, the other sends back what it has received."""
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    message = bytes(SIZE)
    made: list[tuple[Receive, Send]] = []

    async def back() -> None:
        receive, send = made[1]
        for _ in range(TRIPS):
            await send(await receive(SIZE))

    async def trips() -> tuple[int, int]:
        if not made:
            made.extend((end(left), end(right)))
        receive, send = made[0]
        other = asyncio.create_task(back())
        seen = total = 0
        for _ in range(TRIPS):
            await send(message)
            data = await receive(SIZE)
            seen += 1
            total += len(data)
        await other
        return seen, total

    return Work(lambda: runner.run(trips()), (TRIPS, TRIPS * SIZE))


def reads(run: Callable[[Coroutine[Any, Any, int]], int], fd: int, reader: Callable[[int], Read]) -> Work:
    """As many tasks as are to be in flight; each reads its share of the blocks, one after the other."""
    shares = [OFFSETS[at::AT_ONCE] for at in range(AT_ONCE)]
    seen = 0

    async def share(read: Read, offsets: list[int]) -> int:
        nonlocal seen
        total = 0
        for offset in offsets:
            data = await read(offset)
            seen += 1
            total += len(data)
        return total

    async def all_of_them() -> int:
        return sum(await asyncio.gather(*(share(reader(fd), offsets) for offsets in shares)))

    def once() -> tuple[int, int]:
        nonlocal seen
        seen = 0
        total = run(all_of_them())
        return seen, total

    return Work(once, (READS, READS * BLOCK))


def works(runner: asyncio.Runner, whose: str) -> dict[str, Work]:
    """What can be asked of this process."""
    verbs = ours() if whose == "ours" else of_loop(runner.get_loop())
    fd = os.open(cached_file(), os.O_RDONLY)
    return {
        "cancel": Pending(runner, verbs.recv, timeouts=False).work(),
        "timeouts": Pending(runner, verbs.recv, timeouts=True).work(),
        **{name: echo(runner, end) for name, end in verbs.ends.items()},
        **{name: reads(runner.run, fd, reader) for name, reader in verbs.reads.items()},
    }


def main() -> None:
    loop, whose = sys.argv[1:]
    factory = importlib.import_module("uvloop").new_event_loop if loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        serve(works(runner, whose))


if __name__ == "__main__":
    main()
