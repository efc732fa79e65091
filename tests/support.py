"""What tests of every part share: how long to wait, what to skip, what is left behind, other Pythons."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import iocancel
from iocancel import EngineUnavailable, _lifetime
from iocancel.libaio import kernel
from iocancel.operation import VERBS
from iocancel.uring import limbo

_WANTING = {
    "uring": r"io_uring is forbidden here|has no io_uring\b|no (io_)?uring here|io_uring can't be had",
    "libaio": r"Linux AIO is forbidden here|has no Linux AIO\b|no libaio here",
}
GUEST = os.environ.get("IOCANCEL_GUEST") == "1"
"""In a guest under software emulation, which is many times slower."""
BOUND = 60.0 if GUEST else 20.0
"""How many seconds anything may take that has to happen."""


def need(condition: object, reason: str) -> None:
    """Skip the test where something is lacking."""
    if not condition:
        pytest.skip(reason)


@functools.cache
def lacks_uring() -> str:
    """Why io_uring can't be had here, as in a container that forbids it; empty where it can."""
    try:
        iocancel.open_engine("uring").close()
    except EngineUnavailable as error:
        return f"no io_uring here: {error}"
    return ""


@functools.cache
def lacks_engine(name: str) -> str:
    """Why an engine can't be had here; empty where it can. It finds out what is found out once a process."""
    try:
        with iocancel.open_engine(name) as engine:
            for verb in VERBS:
                engine.supports(verb)
    except EngineUnavailable as error:
        return f"no {name} here: {error}"
    return ""


def need_engine(name: str, lacking: str | None = None) -> None:
    """Skip the test where an engine can't be had; where IOCANCEL_REQUIRE names it that is a failure.

    Args:
        name: the engine's.
        lacking: why it can't be, empty where it can; None finds out.
    """
    reason = lacks_engine(name) if lacking is None else lacking
    if reason:
        if name in required():
            pytest.fail(f"{reason} (and IOCANCEL_REQUIRE names it)")
        pytest.skip(reason)


def need_uring() -> None:
    """Skip the test where io_uring can't be had."""
    need_engine("uring", lacks_uring())


@functools.cache
def lacks_namespaces() -> str:
    """Why no mount namespace can be made here, as in a chroot or a container; empty where it can."""
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True, check=False)
    return f"no mount namespace can be made here: {tried.stderr.strip()}" if tried.returncode else ""


def required() -> set[str]:
    """The engines that have to be there, by IOCANCEL_REQUIRE: want of one is a failure, not a skip."""
    return set(filter(None, os.environ.get("IOCANCEL_REQUIRE", "").split(",")))


def names_required(reason: str) -> bool:
    """Whether a test was skipped for want of an engine that has to be there."""
    return any(re.search(_WANTING[name], reason) for name in required() & _WANTING.keys())


def few(many: int) -> int:
    """How often to repeat, or how many at a time: much less in an emulated guest."""
    return max(many // 20, 5) if GUEST else many


def compiled(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the C compiler and tell what came of it; a skip where there is none."""
    need(shutil.which("cc"), "no C compiler (cc)")
    return subprocess.run(["cc", *arguments], capture_output=True, text=True, check=False)


def until(condition: Callable[[], object], what: str, bound: float = BOUND) -> None:
    """Wait for what nothing announces, as the state of another thread."""
    deadline = time.monotonic() + bound
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen: {what}"
        os.sched_yield()


# What is left behind


def open_fds() -> dict[str, str]:
    """The numbers of the fds that are open, with what they are."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


def all_free() -> bool:
    """Whether the system has given back what was closed: rings, and contexts of Linux AIO."""
    kernel.sweep()
    return not (limbo.sweep() or kernel._abandoned)


def settle() -> None:
    """Wait for that: it does so somewhat later."""
    gc.collect()
    until(all_free, "what the system may write to is all free")


@contextlib.contextmanager
def leaving_nothing(settle: Callable[[], object] = gc.collect) -> Iterator[None]:
    """Looks at the end for fds, threads and memory that were not there before.

    Args:
        settle: what is done before that, for what goes away a little later.
    """
    fds, threads, kept = open_fds(), set(threading.enumerate()), _lifetime.kept()
    yield
    settle()
    assert _lifetime.kept() == kept, "something was kept for ever"
    assert not set(threading.enumerate()) - threads, "a thread was left running"
    left = {number: to for number, to in open_fds().items() if fds.get(number) != to}
    assert not left, f"fds left open: {left}"


def resizable(buffer: bytearray) -> bool:
    """Whether nobody has a live export of it."""
    try:
        buffer.append(0)
    except BufferError:
        return False
    buffer.pop()
    return True


# What threads are doing


def blocked_in(where: str, states: str = "SD") -> int:
    """How many threads of this process sleep in a kernel function whose name has this in it.

    Args:
        where: a part of the function's name.
        states: as ps(1) has them: S can be interrupted, D not.
    """
    found = 0
    for task in Path("/proc/self/task").iterdir():
        try:
            state = (task / "stat").read_text().rsplit(")", 1)[1].split()[0]
            found += state in states and where in _sleeps_in(task)
        except OSError:  # it has ended
            continue
    return found


def _sleeps_in(task: Path) -> str:
    name = (task / "wchan").read_text()
    if name == "0" and os.getuid() == 0:  # Debian's 5.10 has no names there
        return (task / "stack").read_text()
    return name


def until_blocked(where: str, many: int = 1) -> None:
    """Wait until as many threads (those of io_uring's workers, too) are blocked in this kernel function."""
    need(Path("/proc/self/wchan").exists(), "no /proc/self/wchan: nobody sees what a worker is doing")
    until(lambda: blocked_in(where) >= many, f"{many} blocked in {where}")


def calls_on(fd: int) -> bool:
    """Whether a thread of this process is in a system call with this number as its first argument."""
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if (task / "syscall").read_text().split()[1:2] == [hex(fd)]:
                return True
    return False


# Interrupts


def cut_short(trace: Callable[..., Any], call: Callable[[], object]) -> bool:
    """Make a call under a trace that may raise a KeyboardInterrupt; whether that came out of the call."""
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


# Files


def fill(fd: int) -> int:
    """Write to a pipe or a socket until it takes no more; returns how many bytes that were."""
    was = os.get_blocking(fd)
    os.set_blocking(fd, False)
    many = 0
    try:
        while True:
            many += os.write(fd, bytes(4096))
    except BlockingIOError:
        return many
    finally:
        os.set_blocking(fd, was)


# Other Pythons


def python(
    source: str,
    *options: str,
    arguments: tuple[str, ...] = (),
    environment: Mapping[str, str] = os.environ,
    timeout: float = 5 * BOUND,
) -> subprocess.CompletedProcess[str]:
    """Runs a program in a Python of its own, which finds this very package.

    Args:
        source: the program.
        options: the interpreter's: "-W", "error".
        arguments: the program's.
        environment: its variables, but for PYTHONPATH.
        timeout: seconds.
    """
    folders = [str(Path(iocancel.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, *options, "-c", source, *arguments],
        env={**environment, "PYTHONPATH": os.pathsep.join(folders)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def not_measured() -> dict[str, str]:
    """The environment less what has coverage measure a program."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}


def refuse(*_: object, **__: object) -> None:
    """Stands for what opens a system, where that is forbidden."""
    error = EngineUnavailable(1, "Operation not permitted")
    error.reason, error.remedy = "it is forbidden", "allow it"
    raise error


def by_a_thread_that_is_gone(engine: Any, make: Callable[[], Any]) -> Any:
    """What a thread has made and submitted that is gone: also for the kernel, a moment later than join()."""
    made: list[Any] = []

    def work() -> None:
        made.append(make())
        engine.submit()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    until(lambda: not Path(f"/proc/self/task/{thread.native_id}").exists(), "the thread is gone")
    return made[0]
