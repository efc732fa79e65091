"""What a call of a verb that blocks is made of, for tests of what ends it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import iocancel
from iocancel import pool

WORD = b"iocancel"


def readable(fd: int) -> int:
    """How many bytes a pipe or a socket holds."""
    raw = fcntl.ioctl(fd, termios.FIONREAD, bytes(4))
    number: int = struct.unpack("i", raw)[0]
    return number


def fill(fd: int) -> None:
    """Write until it takes no more, to the last byte."""
    was = os.get_blocking(fd)
    os.set_blocking(fd, False)
    for size in (1 << 16, 4096, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(fd, bytes(size))
    os.set_blocking(fd, was)


def drain(fd: int) -> bytes:
    """Read all that there is."""
    was = os.get_blocking(fd)
    os.set_blocking(fd, False)
    found = bytearray()
    with contextlib.suppress(BlockingIOError):
        while part := os.read(fd, 1 << 20):
            found += part
    os.set_blocking(fd, was)
    return bytes(found)


class Case:
    """A call that blocks until `ready` was called.

    `call` can be made again and again. Where `stays` is set what `ready` has brought stays until a call
    takes it.
    """

    verb = ""
    """What engines call it."""
    timed = True
    """It takes a timeout."""
    stays = True
    is_ready = False
    """It is ready, and stays so."""
    shared = True
    """What ends it ends a forked child's, too."""
    fd = -1
    """The number that it blocks on, which is the test's to close."""
    api: Any = iocancel
    """Whose verbs these are: those for plain threads, or those of an event loop, whose calls are awaited."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path) -> None:
        self.stack, self.folder = stack, folder
        self.set()

    def set(self) -> None:
        raise NotImplementedError

    def call(self, **named: Any) -> Any:
        raise NotImplementedError

    def ready(self) -> None:
        raise NotImplementedError

    def runs(self) -> None:
        """Wait until the kernel has looked its files up, which a worker of io_uring does later."""

    def system(self) -> str:
        """The name of the engine that carries it."""
        name: str = pool.current.name
        return name

    def right(self, value: Any) -> bool:
        raise NotImplementedError

    def right_in_child(self, value: Any) -> bool:
        """The same in a forked child, where `ready` was called by the parent."""
        return self.right(value)

    def other(self) -> tuple[int, Callable[[], bool]]:
        """A file of the same kind that is ready, and a look whether it was left alone."""
        raise NotImplementedError

    # What they are made of

    def pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        for end in ends:
            self.own(end)
        return ends

    def own(self, fd: int) -> int:
        was = os.fstat(fd)

        def close() -> None:
            with contextlib.suppress(OSError):
                now = os.fstat(fd)
                if (now.st_dev, now.st_ino) == (was.st_dev, was.st_ino):
                    os.close(fd)

        self.stack.callback(close)
        return fd

    def pair(self) -> tuple[int, int]:
        a, b = socket.socketpair()
        ends = a.detach(), b.detach()
        for end in ends:
            self.own(end)
        return ends
