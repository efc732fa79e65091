"""What the tests of `iocancel.uring` share; each test's teardown looks for what it left behind."""

from __future__ import annotations

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

import pytest

import iocancel
from iocancel import FeatureUnavailable, _lifetime
from iocancel.uring import Ring, cancel_flags, limbo

from .helpers import BOUND, GUEST, Asked, need, until

DELAY = 1.5  # seconds that a request to the slow disk takes


def open_fds() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the listing's own
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    fds, threads, kept = open_fds(), set(threading.enumerate()), _lifetime.kept()
    yield
    gc.collect()
    # The kernel lets go of a closed ring's files a little later, hence the wait (facts 5.5: 25 to 57 ms).
    until(lambda: limbo.sweep() == 0, "what the kernel may write to is all free")
    assert _lifetime.kept() == kept, "something was kept for ever"
    assert not set(threading.enumerate()) - threads, "a thread was left running"
    left = {number: to for number, to in open_fds().items() if fds.get(number) != to}
    assert not left, f"fds left open: {left}"


@pytest.fixture(scope="session", autouse=True)
def probed() -> None:
    """What is found out once a process is found out before the fds are counted."""
    cancel_flags()


def make_ring(entries: int, flags: int, cq_entries: int | None) -> Ring:
    """A ring, or a skip where this kernel has none of this kind."""
    try:
        return Ring(entries, flags=flags, cq_entries=cq_entries)
    except FeatureUnavailable as error:
        need(False, str(error))
        raise


@pytest.fixture
def open_ring() -> Iterator[Callable[..., Asked]]:
    """Opens rings of any kind (`entries, flags, cq_entries`), closed at the end of the test."""
    rings: list[Ring] = []

    def make(entries: int = 64, flags: int = 0, cq_entries: int | None = None) -> Asked:
        rings.append(make_ring(entries, flags, cq_entries))
        return Asked(rings[-1])

    yield make
    for ring in rings:
        ring.close()


@pytest.fixture
def asked(open_ring: Callable[..., Asked]) -> Asked:
    """A plain ring."""
    return open_ring()


@pytest.fixture
def pipes() -> Iterator[Callable[[], tuple[int, int]]]:
    """Makes pipes; their ends may be closed by the test, with `os.close`, before its end."""
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
def fifo(tmp_path: Path) -> Path:
    """A FIFO with nobody at either end."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def alarm() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Sets what SIGALRM does."""
    before = signal.getsignal(signal.SIGALRM)

    def on(act: Callable[[], None]) -> None:
        def handler(number: int, frame: FrameType | None) -> None:
            act()

        signal.signal(signal.SIGALRM, handler)

    yield on
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def run() -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs a program in a Python of its own; it must succeed and say nothing on stderr."""

    def start(program: str) -> subprocess.CompletedProcess[str]:
        folders = [
            str(Path(iocancel.__file__).parents[1]),
            *filter(None, [os.environ.get("PYTHONPATH")]),
        ]
        # Not measured: some of these programs give up their rights, and could not write what was measured.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", "import os, sys\nfrom iocancel.uring import *\n" + program],
            env={**environment, "PYTHONPATH": os.pathsep.join(folders)},
            capture_output=True,
            text=True,
            timeout=5 * BOUND,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done

    return start


@pytest.fixture
def slow_disk() -> Iterator[Path]:
    """A disk whose requests take DELAY seconds: null_blk, in guests only (the module is machine-wide)."""
    if not GUEST:
        pytest.skip("a disk with a delay is made only in a guest (IOCANCEL_GUEST=1)")
    config = Path("/sys/kernel/config")
    if not any(config.iterdir()):
        subprocess.run(["mount", "-t", "configfs", "none", config], check=False, capture_output=True)
    folder = config / "nullb" / "iocancel"
    need(folder.parent.is_dir(), "no null_blk in this kernel (or not loaded)")
    folder.mkdir()
    try:
        settings = {"irqmode": 2, "completion_nsec": int(DELAY * 1e9), "size": 64, "power": 1}
        for name, value in settings.items():
            (folder / name).write_text(f"{value}\n")
        device = Path(f"/dev/nullb{(folder / 'index').read_text().strip()}")
        if not device.exists():
            device = Path("/dev/iocancel")  # the name of those that configfs makes, from Linux 6.10 on
        until(device.exists, f"{device} is there")
        yield device
        (folder / "power").write_text("0\n")
    finally:
        folder.rmdir()
