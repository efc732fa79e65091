"""What the tests of libaio share; each test's teardown looks for what it left behind."""

from __future__ import annotations

import gc
import mmap
import os
import platform
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from iocancel.libaio import Context
from iocancel.libaio import kernel as kernel_module
from iocancel.libaio.request import claims

from ..support import GUEST, leaving_nothing, python, until

SYSTEM_CALLS = {
    "x86_64": {"io_getevents": 208, "io_submit": 209},
    "aarch64": {"io_getevents": 4, "io_submit": 2},
}


def all_reaped() -> bool:
    kernel_module.sweep()
    return not (claims or kernel_module._abandoned)


def settle() -> None:
    if not GUEST:  # slow there, and the same as here
        gc.collect()
    # What was cancelled has its event from a worker of the kernel, which a busy machine keeps waiting.
    until(all_reaped, "nothing is in flight, and no context was kept")


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    with leaving_nothing(settle):
        yield


@pytest.fixture
def context() -> Iterator[Context]:
    with Context() as made:
        yield made


@pytest.fixture
def is_in_call() -> Callable[[threading.Thread, str], None]:
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

        until(blocked, f"{thread} is in {call}")

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
        return python("from iocancel.libaio import *\nimport os, sys\n" + program, *options)

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
            real = module.lib
            monkeypatch.setattr(module, "lib", Fake(real, **functions))
            for name, function in functions.items():
                for known, value in list(vars(module).items()):  # what it has under a name of its own
                    if value is getattr(real, name):
                        monkeypatch.setattr(module, known, function)

    return replace
