"""A loader that throws away its queued read-ahead, and accounts for each read of it.

The loader reads a file ahead of whoever uses it. When its user goes on elsewhere, what was read ahead is of
no use: it is cancelled. Some of it was not even submitted, some waits in a queue, some has been read already,
and some the disk has in hand, where no cancel reaches. Each of them ends all the same, exactly once, and its
buffer is not touched after that. What had been read by then is kept: it costs nothing to use it.

    python examples/read_ahead.py
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import iocancel
from iocancel.operation import Operation, Outcome

BLOCK = 4096
AHEAD = 16


class Loader:
    """Reads a file's blocks ahead of its user.

    Args:
        engine: from `iocancel.open_engine`.
        fd: the file.
        blocks: how many blocks of 4 KiB the file has.
    """

    def __init__(self, engine: Any, fd: int, blocks: int) -> None:
        self._engine, self._fd, self._blocks = engine, fd, blocks
        self._ahead: dict[int, Operation[bytes]] = {}
        self._kept: dict[int, bytes] = {}
        self.account: Counter[str] = Counter()
        """How the reads have ended."""

    @property
    def in_flight(self) -> int:
        """How many reads are under way, or queued."""
        return len(self._ahead)

    def look_ahead(self, block: int) -> None:
        """Queue the reads of a block and of those behind it; they go out with the next `get`."""
        for number in range(block, min(block + AHEAD, self._blocks)):
            if number not in self._ahead and number not in self._kept:
                self._ahead[number] = self._engine.read(self._fd, BLOCK, number * BLOCK)

    def get(self, block: int) -> bytes:
        """A block's content; the blocks behind it are on their way after this."""
        self.look_ahead(block)
        if block in self._ahead:
            op = self._ahead.pop(block)
            self._account(block, op, op.wait())
        return self._kept.pop(block)

    def throw_away(self) -> Counter[str]:
        """Cancel all that was read ahead, wait for the endings, and tell how many ended in which way."""
        ops = list(self._ahead.values())
        self._engine.cancel(ops)
        self._engine.wait(ops)
        before = self.account.copy()
        while self._ahead:
            block, op = self._ahead.popitem()
            self._account(block, op, op.wait())
        return self.account - before

    def _account(self, block: int, op: Operation[bytes], outcome: Outcome) -> None:
        self.account[outcome.value] += 1
        if outcome is not Outcome.CANCELLED:
            self._kept[block] = op.result()  # raises where the read has failed


def content(block: int) -> bytes:
    """What the example's file has in a block."""
    return bytes([block]) * BLOCK


def load(engine: Any, path: Path, blocks: int = 128) -> list[tuple[str, Counter[str]]]:
    """Read a file in leaps; returns what became of the read-ahead of each.

    Args:
        engine: from `iocancel.open_engine`.
        path: a file with `blocks` blocks, as `content` makes them.
    """
    told = []
    fd = os.open(path, os.O_RDONLY)
    try:
        loader = Loader(engine, fd, blocks)
        for block in range(4):
            assert loader.get(block) == content(block)
        told.append(("after reading blocks 0 to 3", loader.throw_away()))
        loader.look_ahead(64)  # and another change of mind, before any of it was submitted
        told.append(("before submitting block 64", loader.throw_away()))
        assert loader.get(100) == content(100)
        loader.throw_away()
        told.append(("in all", loader.account))
        assert loader.in_flight == 0
    finally:
        os.close(fd)
    return told


def main() -> int:
    """Run it and show the accounts."""
    with tempfile.TemporaryDirectory() as directory, iocancel.open_engine() as engine:
        path = Path(directory, "blocks")
        path.write_bytes(b"".join(map(content, range(128))))
        for when, account in load(engine, path):
            ended = ", ".join(f"{many} {outcome}" for outcome, many in sorted(account.items()))
            print(f"thrown away {when}: {ended}" if when != "in all" else f"in all: {ended}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
