"""A worker thread that waits for its device for ever is stopped from outside, at once and cleanly.

The usual ways are a daemon thread, a byte in a pipe of its own, a signal. Here it is `scope.cancel()`: the
read ends, nothing of it is left in the kernel, and what it had already read was handled.

    python examples/stop_worker.py
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import iocancel


def work(scope: Any, device: int, handle: Callable[[bytes], None]) -> None:
    """Handle what a device sends, until the scope is cancelled.

    Args:
        scope: an `iocancel.CancelScope` that has not been entered.
        device: a file that is read.
        handle: called with each message.
    """
    with scope:
        while data := iocancel.read(device, 4096):
            handle(data)


def main() -> int:
    """Run it and show what happened."""
    device, sender = os.pipe()
    scope, handled = iocancel.CancelScope(), threading.Event()

    def handle(data: bytes) -> None:
        print(f"the worker got {data!r}")
        handled.set()

    worker = threading.Thread(target=work, args=(scope, device, handle))
    worker.start()
    os.write(sender, b"a message")
    handled.wait()
    scope.cancel()
    worker.join()
    print(f"the worker has ended, cancelled: {scope.cancelled_caught}")
    os.write(sender, b"later")
    print(f"nothing reads any more: {os.read(device, 100)!r} is still there")
    os.close(device)
    os.close(sender)
    return 0


if __name__ == "__main__":
    sys.exit(main())
