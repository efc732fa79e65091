"""One engine after the other, and what each test's teardown looks for.

A whole engine that can't be had here is a skip with its reason; IOCANCEL_REQUIRE=uring,libaio makes that a
failure for those that it names.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import iocancel
from iocancel import EngineUnavailable, _lifetime, open_engine
from iocancel.engines.posix_aio import lines
from iocancel.libaio import kernel
from iocancel.operation import VERBS
from iocancel.posix_aio import notify
from iocancel.uring import limbo

from .helpers import BOUND, NAMES, REQUIRED, until


@functools.cache
def lacking(name: str) -> str:
    """Why an engine can't be had here; empty where it can. What is found out once is found out by this."""
    try:
        with open_engine(name) as engine:
            for verb in VERBS:
                engine.supports(verb)
    except EngineUnavailable as error:
        return f"no {name} here: {error}"
    return ""


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """An engine's name."""
    wanted = str(request.param)
    reason = lacking(wanted)
    if reason:
        if wanted in REQUIRED:
            pytest.fail(f"{reason} (and IOCANCEL_REQUIRE names it)")
        pytest.skip(reason)
    return wanted


@pytest.fixture
def uring() -> str:
    """The name of the engine on io_uring, for what only it can be asked."""
    reason = lacking("uring")
    if reason:
        if "uring" in REQUIRED:
            pytest.fail(f"{reason} (and IOCANCEL_REQUIRE names it)")
        pytest.skip(reason)
    return "uring"


def open_fds() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the listing's own
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    # What is probed once a process is probed before the fds are counted.
    for each in NAMES:
        lacking(each)
    fds, threads, kept = open_fds(), set(threading.enumerate()), _lifetime.kept()
    yield
    until(lambda: lines.sweep() == 0, "what the C library's threads still ran has ended")
    gc.collect()
    until(all_free, "what the system may write to is all free")
    assert _lifetime.kept() == kept, "something was kept for ever"
    assert not set(threading.enumerate()) - threads, "a thread was left running"
    left = {number: to for number, to in open_fds().items() if fds.get(number) != to}
    assert not left, f"fds left open: {left}"


def all_free() -> bool:
    """Whether what outlived its engine is gone: each of the three systems lets go a little later."""
    kernel.sweep()  # contexts of Linux AIO that were closed while something ran
    notify.sweep(
        notify.waiting()
    )  # threads of the C library that have told of an ending, and have yet to leave
    # The kernel gives a closed ring's files back 25 to 57 ms later (facts 5.5).
    return not (limbo.sweep() or notify.waiting() or kernel._abandoned)


@contextlib.contextmanager
def opened(name: str, **options: Any) -> Iterator[Any]:
    """An engine that has nothing in flight at the end; the test may close it."""
    engine = open_engine(name, **options)
    try:
        yield engine
        left = engine.in_flight
        assert not left, f"{engine!r} has {left} in flight at the end"
    finally:
        engine.close()


@pytest.fixture
def engine(name: str) -> Iterator[Any]:
    """An engine of each kind."""
    with opened(name) as engine:
        yield engine


@pytest.fixture
def ring(uring: str) -> Iterator[Any]:
    """An engine on io_uring."""
    with opened(uring) as engine:
        yield engine


@pytest.fixture
def pipes() -> Iterator[Callable[[], tuple[int, int]]]:
    """Makes pipes; their ends may be closed by the test before its end."""
    made: list[tuple[int, os.stat_result]] = []

    def make() -> tuple[int, int]:
        ends = os.pipe()
        made.extend((end, os.fstat(end)) for end in ends)
        return ends

    yield make
    for end, was in made:
        try:
            now = os.fstat(end)
        except OSError:
            continue
        if (now.st_dev, now.st_ino) == (was.st_dev, was.st_ino):
            os.close(end)


@pytest.fixture
def pipe(pipes: Callable[[], tuple[int, int]]) -> tuple[int, int]:
    """An empty pipe: its read end and its write end."""
    return pipes()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected stream sockets of the Unix domain."""
    a, b = socket.socketpair()
    with a, b:
        yield a, b


@pytest.fixture
def tcp() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected TCP sockets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        a = socket.create_connection(server.getsockname())
        b, _ = server.accept()
    with a, b:
        yield a, b


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A TCP socket that listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Any]:
    """A file of ten bytes, open for reading and writing."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("r+b", buffering=0) as opened_file:
        yield opened_file


@pytest.fixture
def handler() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Sets what SIGUSR1 does."""
    before = signal.getsignal(signal.SIGUSR1)

    def on(act: Callable[[], object]) -> None:
        def handle(number: int, frame: FrameType | None) -> None:
            act()

        signal.signal(signal.SIGUSR1, handle)

    yield on
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program in a Python of its own, with the engine's name in its arguments."""

    def start(name: str, program: str, *flags: str) -> subprocess.CompletedProcess[str]:
        folders = [str(Path(iocancel.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        head = "import gc, os, sys, threading, iocancel\nname = sys.argv[1]\n"
        return subprocess.run(
            [sys.executable, *flags, "-c", head + program, name],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
            capture_output=True,
            text=True,
            timeout=BOUND,
            check=False,
        )

    return start
