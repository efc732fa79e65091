"""What the tests of POSIX AIO share. Each test leaves nothing in progress and no descriptor behind."""

import contextlib
import gc
import os
import textwrap
from collections.abc import Callable, Iterator

import pytest

from iocancel import _lifetime
from iocancel import posix_aio as aio
from iocancel.posix_aio import notify

from ..support import GUEST, calls_on, open_fds, python, until

PATIENCE = 300.0 if GUEST else 30.0


def all_told() -> bool:
    notify.sweep(9)
    return notify.waiting() == 0


@pytest.fixture(autouse=True)
def leaves_nothing() -> Iterator[None]:
    gc.collect()
    before = open_fds()
    yield
    gc.collect()
    until(lambda: aio.in_progress() == 0, "the end of all operations", PATIENCE)
    until(all_told, "the last notification", PATIENCE)
    assert _lifetime.kept() == 0
    assert open_fds() == before


@pytest.fixture
def pipe(leaves_nothing: None) -> Iterator[Callable[[], tuple[int, int]]]:
    """Makes pipes; at the end whoever is blocked on one is let go, and both ends are closed."""
    ends: list[tuple[int, int]] = []

    def make() -> tuple[int, int]:
        ends.append(os.pipe())
        return ends[-1]

    yield make
    for read, write in ends:
        for fd in (read, write):
            with contextlib.suppress(OSError):
                aio.aio_cancel(fd)
        with contextlib.suppress(OSError):
            os.close(write)
    until(lambda: aio.in_progress() == 0, "the end of what was blocked on a pipe", PATIENCE)
    for read, _ in ends:
        with contextlib.suppress(OSError):
            os.close(read)


@pytest.fixture(scope="session")
def blocked_on() -> Callable[[int], None]:
    """Waits until a thread of the C library's is blocked in a system call on a descriptor.

    An idle thread takes up new work by and by; until then, the operation can be cancelled, and does not
    hold its file. Nothing tells when it has, but the kernel's list of what each thread is doing.
    """

    def wait(fd: int) -> None:
        try:
            until(lambda: calls_on(fd), f"a thread blocked on {fd}", PATIENCE)
        except PermissionError:
            pytest.skip("what the threads are doing can't be seen here (/proc/self/task/*/syscall)")

    return wait


@pytest.fixture
def eventfd(leaves_nothing: None) -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_CLOEXEC)
    yield fd
    with contextlib.suppress(OSError):
        os.close(fd)


@pytest.fixture(scope="session")
def glibc() -> bool:
    """Whether this is glibc, which interrupts nothing that runs; musl does."""
    try:
        return "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (ValueError, OSError):
        return False


HEAD = """
import atexit, ctypes, errno, gc, os, resource, signal, sys, threading, time, warnings
def late(function):  # runs after what iocancel does at the end of the interpreter
    atexit.register(function)
LATE
from iocancel import errors
from iocancel.posix_aio import *
"""


@pytest.fixture
def fresh() -> Callable[..., str]:
    """Runs a script in a process of its own, which must end by itself, and well; its standard output."""

    def run(script: str, *options: str, late: str = "", code: int = 0, stderr: str = "") -> str:
        source = HEAD.replace("LATE", textwrap.dedent(late)) + textwrap.dedent(script)
        done = python(source, *options, timeout=PATIENCE)
        assert done.returncode == code, done.stderr
        assert stderr in done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    return run
