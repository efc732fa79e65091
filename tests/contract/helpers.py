"""What the tests of the contract share."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from iocancel import Operation, Outcome, Reach

NAMES = ("uring", "libaio", "posix_aio")
C, F, X = Outcome.COMPLETED, Outcome.FAILED, Outcome.CANCELLED


def need_verbs(engine: Any, *verbs: str) -> None:
    """Skip what an engine can't do here: that it says so is tested elsewhere."""
    for verb in verbs:
        if not engine.supports(verb):
            pytest.skip(f"{engine.name} has no {verb} here")


def stops(engine: Any, verb: str) -> bool:
    """Whether a verb's operations can be stopped once they run; the others go on to their end."""
    return engine.reach(verb) is not Reach.NONE


def need_stopping(engine: Any, *verbs: str) -> None:
    """Skip where a verb is not there, or where what runs can't be stopped."""
    need_verbs(engine, *verbs)
    for verb in verbs:
        if not stops(engine, verb):
            pytest.skip(f"{engine.name} can't stop a {verb} that runs")


def outcomes(ops: Iterable[Operation[Any]]) -> set[Outcome | None]:
    """How they ended."""
    return {op.outcome for op in ops}


def readable(fd: int) -> int:
    """How many bytes a pipe or a socket holds."""
    raw = fcntl.ioctl(fd, termios.FIONREAD, bytes(4))
    number: int = struct.unpack("i", raw)[0]
    return number


def drain(fd: int) -> int:
    """Read all that there is; returns how many bytes that were."""
    was = os.get_blocking(fd)
    os.set_blocking(fd, False)
    many = 0
    try:
        while got := os.read(fd, 1 << 20):
            many += len(got)
    except BlockingIOError:
        pass
    finally:
        os.set_blocking(fd, was)
    return many


ON_FILES: dict[str, Callable[[Any, Any], Any]] = {
    "read": lambda engine, fd: engine.read(fd, 1),
    "readv": lambda engine, fd: engine.readv(fd, [bytearray(1)]),
    "write": lambda engine, fd: engine.write(fd, b"a"),
    "writev": lambda engine, fd: engine.writev(fd, [b"a"]),
    "fsync": lambda engine, fd: engine.fsync(fd),
    "poll": lambda engine, fd: engine.poll(fd, select.POLLIN),
    "recv": lambda engine, fd: engine.recv(fd, 1),
    "send": lambda engine, fd: engine.send(fd, b"a"),
    "send_zc": lambda engine, fd: engine.send_zc(fd, b"a"),
    "recvmsg": lambda engine, fd: engine.recvmsg(fd, 1),
    "sendmsg": lambda engine, fd: engine.sendmsg(fd, [b"a"]),
    "accept": lambda engine, fd: engine.accept(fd),
    "connect": lambda engine, fd: engine.connect(fd, b"\2\0\0\1\x7f\0\0\1" + bytes(8)),
    "close": lambda engine, fd: engine.close_later(fd),
    "splice": lambda engine, fd: engine.splice(fd, fd, 1),
    "tee": lambda engine, fd: engine.tee(fd, fd, 1),
}
"""What each verb that is about a file is asked for."""
