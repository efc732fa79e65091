"""A pipe whose reads block, until the test writes."""

from __future__ import annotations

import array
import fcntl
import os
import select
import termios
from types import TracebackType

_PAGE = 4096  # so many bytes, or fewer, go in at once where poll says that the pipe is writable (PIPE_BUF)


class BlockedPipe:
    """An empty pipe: reads of it block. A context manager that closes what the test has not closed.

    with BlockedPipe() as pipe:
        op = engine.read(pipe, 100)     # it has a fileno(), that of its read end
        engine.submit()
        pipe.write(b"x")                # and now it ends

    Its ends block (no O_NONBLOCK), and no helper changes that even for a moment: what is in flight in the
    kernel would see it.
    """

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()

    def fileno(self) -> int:
        """The read end; -1 when it is closed."""
        return self.read_end

    def write(self, data: bytes = b"x") -> int:
        """Write `data`; blocks where the pipe is full. Returns how many bytes went in."""
        return os.write(self.write_end, data)

    def fill(self) -> int:
        """Write until nothing more goes in, so that writes block; returns how many bytes went in."""
        poll = select.poll()
        poll.register(self.write_end, select.POLLOUT)
        total = 0
        while poll.poll(0):
            total += os.write(self.write_end, bytes(_PAGE))
        return total

    def available(self) -> int:
        """How many bytes are in the pipe (FIONREAD)."""
        number = array.array("i", [0])
        fcntl.ioctl(self.read_end, termios.FIONREAD, number)
        return number[0]

    def drain(self) -> bytes:
        """Read what is in the pipe, without blocking; nobody else may read meanwhile."""
        found = bytearray()
        while many := self.available():
            found += os.read(self.read_end, many)
        return bytes(found)

    def close_read(self) -> None:
        """Close the read end, if it is open."""
        fd, self.read_end = self.read_end, -1
        if fd >= 0:
            os.close(fd)

    def close_write(self) -> None:
        """Close the write end, if it is open: reads get b"" behind the last byte."""
        fd, self.write_end = self.write_end, -1
        if fd >= 0:
            os.close(fd)

    def disown(self) -> int:
        """The read end's number, which somebody else (`engine.close_fd`) closes from now on."""
        fd, self.read_end = self.read_end, -1
        return fd

    def close(self) -> None:
        """Close both ends."""
        self.close_read()
        self.close_write()

    def __enter__(self) -> BlockedPipe:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close both ends."""
        self.close()
