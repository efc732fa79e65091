"""A service that shuts down at SIGTERM, and accounts for every request that was pending.

The signal's handler asks for cancels: `Operation.cancel` takes no lock and enters no kernel, so it may be
called there. The main thread, which waits in the engine, sends them and waits on, until every request has
ended. What had happened by then is not lost: it is a value, in the table as "completed".

    python examples/drain.py & sleep 1; kill $!
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import iocancel
from iocancel.operation import Operation, Outcome


@contextlib.contextmanager
def cancelled_by(number: int, ops: list[Operation[Any]]) -> Iterator[None]:
    """While this lasts, a signal cancels these operations."""

    def handler(_number: int, _frame: object) -> None:
        for op in ops:
            op.cancel()

    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def serve(engine: Any, ready: Callable[[], None]) -> list[tuple[str, str, str]]:
    """Wait for requests until SIGTERM; returns (request, outcome, its value or error) of each.

    Args:
        engine: from `iocancel.open_engine`.
        ready: called when all have been submitted.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        ours, theirs = (stack.enter_context(sock) for sock in socket.socketpair())
        read_end, write_end = os.pipe()
        stack.callback(os.close, read_end)
        stack.callback(os.close, write_end)

        theirs.sendall(b"last words")
        requests = {
            "a connection": engine.accept(listener),
            "a message": engine.recv(ours, 64),
            "another message": engine.recv(ours, 64),
            "a job from a pipe": engine.read(read_end, 64),
        }
        if engine.supports("timeout"):
            requests["the hourly clean-up"] = engine.timeout(3600)
        ops = list(requests.values())
        with cancelled_by(signal.SIGTERM, ops):
            engine.submit()
            ready()
            engine.wait(ops)  # for ever, but for the signal
        # Whatever became of the signal: after this nothing is pending, and no memory is the kernel's.
        engine.close()
        return [(name, op.wait().value, _told(op)) for name, op in requests.items()]


def _told(op: Operation[Any]) -> str:
    return repr(op.result()) if op.outcome is Outcome.COMPLETED else str(op.exception())


def main() -> int:
    """Run until SIGTERM, then show the table."""
    with iocancel.open_engine() as engine:
        rows = serve(engine, lambda: print(f"pid {os.getpid()}: waiting for SIGTERM", flush=True))
    width = max(len(name) for name, _, _ in rows)
    for name, outcome, told in rows:
        print(f"{name:<{width}}  {outcome:<9}  {told}")
    ended = [outcome for _, outcome, _ in rows]
    print(", ".join(f"{ended.count(each)} {each}" for each in sorted(set(ended))), "of", len(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
