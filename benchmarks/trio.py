"""trio: its own streams, or ours on it.

`python -m benchmarks.trio {own|ours}`: a process each (see works.py).
"""

from __future__ import annotations

import importlib
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.works import SIZE, TRIPS, Work, serve

WARM = 10  # round trips before the clock starts: each run opens what it needs


def echo(trio: Any, end: Callable[[socket.socket], Any]) -> Work:
    """As in loops.py."""
    took = 0

    async def back(stream: Any) -> None:
        for _ in range(WARM + TRIPS):
            await stream.send_all(await stream.receive_some(SIZE))

    async def trips() -> tuple[int, int]:
        nonlocal took
        left, right = map(end, socket.socketpair())
        message = bytes(SIZE)
        seen = total = start = 0
        async with left, right, trio.open_nursery() as nursery:
            nursery.start_soon(back, right)
            for number in range(WARM + TRIPS):
                if number == WARM:
                    start = time.perf_counter_ns()
                await left.send_all(message)
                data = await left.receive_some(SIZE)
                seen += 1
                total += len(data)
            took = time.perf_counter_ns() - start
        return seen, total

    many = WARM + TRIPS
    return Work(lambda: trio.run(trips), (many, many * SIZE), took=lambda: took)


class ByVerbs:
    """Ours, as a stream. A context manager."""

    def __init__(self, verbs: Any, sock: socket.socket) -> None:
        self._verbs, self._sock = verbs, sock

    async def receive_some(self, many: int) -> bytes:
        data: bytes = await self._verbs.recv(self._sock, many)
        return data

    async def send_all(self, data: bytes) -> None:
        await self._verbs.sendall(self._sock, data)

    async def __aenter__(self) -> ByVerbs:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sock.close()


def main() -> None:
    trio = importlib.import_module("trio")
    if sys.argv[1] == "ours":
        os.environ["IOCANCEL_ENGINE"] = "uring"  # as in loops.py
        verbs: Any = importlib.import_module("iocancel.trio")
        serve({"echo": echo(trio, getattr(verbs, "Stream", None) or (lambda sock: ByVerbs(verbs, sock)))})
    else:

        def end(sock: socket.socket) -> Any:
            return trio.SocketStream(trio.socket.from_stdlib_socket(sock))

        serve({"echo": echo(trio, end)})


if __name__ == "__main__":
    main()
