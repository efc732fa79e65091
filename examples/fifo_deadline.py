"""Read lines from a FIFO whose writer may never come, or stall in the middle of a line.

Python can't end a read of a FIFO: no timeout applies, O_NONBLOCK is not a wait. Here each line has a
deadline, and what had come of a line before it is still there for the next attempt.

    python examples/fifo_deadline.py
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import iocancel


def next_line(lines: Any, seconds: float) -> str:
    """The next line, or what became of it.

    Args:
        lines: an `iocancel.BufferedReader`.
        seconds: how long to wait.
    """
    with iocancel.move_on_after(seconds):
        return repr(lines.readline())
    return "nothing in time"


def main() -> int:
    """Run it and show what happened."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fifo"
        os.mkfifo(path)
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # without waiting for the writer
        writer = os.open(path, os.O_WRONLY)
        with iocancel.BufferedReader(iocancel.RawFile(fd)) as lines:
            print(f"before anybody writes: {next_line(lines, 0.05)}")
            os.write(writer, b"half of a ")
            print(f"half of a line: {next_line(lines, 0.05)}")
            os.write(writer, b"line\n")
            print(f"the other half: {next_line(lines, 10)}")
            os.close(writer)
            print(f"the writer has gone: {next_line(lines, 10)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
