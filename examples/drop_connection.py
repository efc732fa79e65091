"""A server drops a connection: cancel what is pending on it, wait for the endings, and only then close it.

The order matters. Closing a socket cancels nothing: what is pending keeps the connection open and goes on,
and the number is given to the next connection at once. A cancel "by the number" that comes after that would
hit the new connection's requests. `close_fd` does it in the right order, and says what became of each.

    python examples/drop_connection.py
"""

from __future__ import annotations

import select
import socket
import sys
from typing import Any, NamedTuple

import iocancel


class Report(NamedTuple):
    """What happened."""

    dropped: dict[str, str]
    """What was pending on the old connection, and how it ended."""
    reused: bool
    """Whether the new connection got the old one's number."""
    late: bool
    """What a late cancel of an old request answered."""
    received: bytes
    """What the new connection's read brought."""


def serve(engine: Any) -> Report:
    """Take a connection, drop it while requests are pending on it, and go on with the next one.

    Args:
        engine: where the requests go, from `iocancel.open_engine`.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address), socket.create_connection(address) as next_client:
            gone, _ = _accepted(engine, listener)
            number = gone.fileno()
            pending = [engine.recv(gone, 4096), engine.recv(gone, 4096), engine.poll(gone, select.POLLRDHUP)]
            engine.submit()

            outcomes = engine.close_fd(gone)

            # The next connection takes the number that has just become free, and starts to read.
            fresh, _ = _accepted(engine, listener)
            with fresh:
                reading = engine.recv(fresh, 4096)
                engine.submit()
                late = pending[0].cancel()  # somebody still holds the old request: this hits nobody
                engine.reap()
                next_client.sendall(b"hello")
                reading.wait(timeout=10)
                return Report(
                    {f"{op.name} {op.token:#x}": outcome.value for op, outcome in outcomes.items()},
                    fresh.fileno() == number,
                    late,
                    reading.result(),
                )


def _accepted(engine: Any, listener: socket.socket) -> Any:
    accepting = engine.accept(listener)
    accepting.wait(timeout=10)
    return accepting.result()


def main() -> int:
    """Run it and show what happened."""
    with iocancel.open_engine() as engine:
        report = serve(engine)
    print("pending on the dropped connection:")
    for name, outcome in report.dropped.items():
        print(f"  {name}: {outcome}")
    print(f"the next connection has the same number: {'yes' if report.reused else 'no'}")
    print(f"a late cancel of an old request: {'asked for' if report.late else 'too late, nothing was sent'}")
    print(f"the next connection received {report.received!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
