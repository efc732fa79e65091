"""Read a FIFO with trio: opening it, and each read, ends with the scope around it.

Python has no open() of a FIFO that can be cancelled, and a thread that hangs in one can only be abandoned.
Here the kernel is asked to stop, and it is over when the scope is left.

    python examples/tail_fifo.py
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import trio

import iocancel.trio


async def lines(path: Path, seconds: float) -> list[str]:
    """What a FIFO's writer has to say before the time is over.

    Args:
        path: the FIFO's.
        seconds: how long to wait for a writer, and for its end, in all.
    """
    came = b""
    with trio.move_on_after(seconds):
        fd = await iocancel.trio.open(path)
        try:
            while data := await iocancel.trio.read(fd, 4096):
                came += data
        finally:
            os.close(fd)
    return came.decode().splitlines()


async def write(path: Path) -> None:
    """A writer: its open() waits for the reader's, and can be cancelled, too."""
    fd = await iocancel.trio.open(path, os.O_WRONLY)
    try:
        await iocancel.trio.write_all(fd, b"one\ntwo\n")
    finally:
        os.close(fd)


async def main() -> None:
    """Run it and show what happened."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fifo"
        os.mkfifo(path)
        print("nobody writes:", await lines(path, 0.1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, path)
            print("somebody does:", await lines(path, 30))
        print("in flight:", iocancel.trio.engine().in_flight)


if __name__ == "__main__":
    trio.run(main)
    sys.exit(0)
