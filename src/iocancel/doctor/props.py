"""What requests are tried on: pipes, sockets, terminals, files; closed when the block is left."""

from __future__ import annotations

import contextlib
import mmap
import os
import pty
import socket
import tempfile
import tty
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from iocancel.doctor.live import NotHere

__all__ = ["direct_file", "folder", "pipe", "pseudoterminal", "sockets"]


class _Ends(AbstractContextManager[tuple[int, int]]):
    """Two fds that are closed at the end, and a way to close one before."""

    def __init__(self, ends: tuple[int, int]) -> None:
        self._ends = ends

    def __enter__(self) -> tuple[int, int]:
        return self._ends

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for fd in self._ends:
            os.close(fd)


def pipe() -> AbstractContextManager[tuple[int, int]]:
    """A pipe: its read end and its write end, as fds."""
    return _Ends(os.pipe())


@contextlib.contextmanager
def pseudoterminal() -> Iterator[tuple[int, int]]:
    """A pseudoterminal in raw mode: its master and its slave, as fds."""
    try:
        ends = pty.openpty()
    except OSError as error:
        raise NotHere(f"a pseudoterminal ({error})") from None
    with _Ends(ends):
        tty.setraw(ends[1])
        yield ends


@contextlib.contextmanager
def sockets(kind: int = socket.SOCK_STREAM) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A pair of connected unix sockets."""
    a, b = socket.socketpair(socket.AF_UNIX, kind)
    with a, b:
        yield a, b


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A directory for a moment."""
    try:
        there = tempfile.TemporaryDirectory(prefix="iocancel-")
    except OSError as error:
        raise NotHere(f"a directory to write to, which $TMPDIR can name ({error})") from None
    with there as name:
        yield Path(name)


@contextlib.contextmanager
def direct_file(size: int = 1 << 20) -> Iterator[tuple[int, mmap.mmap]]:
    """A regular file of so many bytes, opened for direct I/O, and memory that suits it."""
    with folder() as there:
        (there / "direct").write_bytes(bytes(size))
        try:
            fd = os.open(there / "direct", os.O_RDWR | os.O_DIRECT)
        except OSError as error:
            raise NotHere(f"a file system with O_DIRECT, which $TMPDIR can name ({error.strerror})") from None
        try:
            yield fd, mmap.mmap(-1, size)
        finally:
            os.close(fd)
