"""What the tests of libaio share; each test's teardown looks for what it left behind."""

from __future__ import annotations

import gc
import mmap
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from iocancel import _lifetime
from iocancel.libaio import Context
from iocancel.libaio import kernel as kernel_module
from iocancel.libaio.request import claims

GUEST = os.environ.get("IOCANCEL_GUEST") == "1"
SYSTEM_CALLS = {
    "x86_64": {"io_getevents": 208, "io_submit": 209},
    "aarch64": {"io_getevents": 4, "io_submit": 2},
}


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
    if not GUEST:  # slow there, and the same as here
        gc.collect()
    kernel_module.sweep()
    assert not claims, "something is in flight"
    assert not kernel_module._abandoned, "a context was kept"
    assert _lifetime.kept() == kept
    assert set(threading.enumerate()) <= threads
    left = {n: to for n, to in open_fds().items() if fds.get(n) != to}
    assert not left, f"fds left open: {left}"


@pytest.fixture
def rounds() -> Callable[[int], int]:
    """How often to repeat: less in an emulated guest, where Python is much slower."""
    return lambda many: max(many // 20, 5) if GUEST else many


@pytest.fixture
def context() -> Iterator[Context]:
    with Context() as made:
        yield made


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:  # the test has closed it
            pass


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Wait for a condition that nothing announces, as the state of another thread."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            os.sched_yield()

    return wait


@pytest.fixture
def is_in_call(until: Callable[[Callable[[], bool]], None]) -> Callable[[threading.Thread, str], None]:
    """Wait until a thread is blocked inside a system call."""
    number = SYSTEM_CALLS.get(platform.machine(), {})

    def wait(thread: threading.Thread, call: str) -> None:
        def blocked() -> bool:
            folder = Path(f"/proc/self/task/{thread.native_id}")
            assert thread.is_alive(), "the thread is gone"
            try:
                words = (folder / "syscall").read_text().split()
            except OSError:
                words = ["?"]
            if call in number and words[0].isdigit():
                return int(words[0]) == number[call]
            return words[0] != "running" and (folder / "stat").read_text().rsplit(")", 1)[1].split()[0] == "S"

        until(blocked)

    return wait


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A file of 4 MiB on a real disk."""
    path = Path(os.environ.get("IOCANCEL_SCRATCH", "/var/tmp"), f"iocancel-test-{os.getpid()}")
    path.write_bytes(os.urandom(1 << 22))
    yield path
    path.unlink()


@pytest.fixture
def direct(scratch: Path) -> Iterator[int]:
    """The same, open with O_DIRECT, so that reads go on in the background."""
    try:
        fd = os.open(scratch, os.O_RDWR | os.O_DIRECT)
    except OSError as error:
        pytest.skip(f"no O_DIRECT in {scratch.parent} (IOCANCEL_SCRATCH names another folder): {error}")
    yield fd
    os.close(fd)


@pytest.fixture
def pages() -> Iterator[Callable[[int], mmap.mmap]]:
    """Makes memory that is aligned for O_DIRECT."""
    made: list[mmap.mmap] = []

    def make(size: int) -> mmap.mmap:
        made.append(mmap.mmap(-1, size))
        return made[-1]

    yield make
    for memory in made:
        memory.close()


@pytest.fixture
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program in a Python of its own."""

    def start(program: str, *options: str) -> subprocess.CompletedProcess[str]:
        folders = [
            str(Path(kernel_module.__file__).parents[2]),
            *filter(None, [os.environ.get("PYTHONPATH")]),
        ]
        return subprocess.run(
            [sys.executable, *options, "-c", "from iocancel.libaio import *\nimport os, sys\n" + program],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
            capture_output=True,
            text=True,
            timeout=100,
        )

    return start


class Fake:
    """The native library with some functions replaced."""

    def __init__(self, real: object, **replaced: object) -> None:
        self._real = real
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace native functions, for what no kernel here would answer."""

    def replace(**functions: object) -> None:
        from iocancel.libaio import context as context_module

        for module in (kernel_module, context_module):
            monkeypatch.setattr(module, "lib", Fake(module.lib, **functions))

    return replace
