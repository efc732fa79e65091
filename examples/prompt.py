"""Ask a question on the terminal, and go on without an answer after a while.

python examples/prompt.py [SECONDS]
"""

from __future__ import annotations

import sys
from typing import Any

import iocancel


def ask(terminal: Any, question: str, seconds: float) -> str | None:
    """Ask, and wait for a line.

    Args:
        terminal: where: a file's number, or an object with `fileno()`.
        question: what is asked.
        seconds: how long to wait.

    Returns:
        The answer, without its newline; None where none was given in time.
    """
    iocancel.write_all(terminal, question.encode())
    lines = iocancel.BufferedReader(iocancel.RawFile(terminal, closefd=False))
    with iocancel.move_on_after(seconds):
        return lines.readline().decode().removesuffix("\n")
    iocancel.write_all(terminal, b"\n")
    return None


def main() -> int:
    """Ask the user's name."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    with open("/dev/tty", "r+b", buffering=0) as terminal:
        name = ask(terminal, f"Your name, within {seconds:g} s? ", seconds)
    print("Hello, whoever you are." if name is None else f"Hello, {name}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
