"""Blocking verbs of plain threads, and what Python itself has: a process of its own (see works.py)."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable

import iocancel
from benchmarks.works import Work, serve
from iocancel.errors import Cancelled

READS = 1000  # of a ready pipe, in one repetition
SIZE = 64  # bytes of each
_IDLE = 0.002  # seconds after which a virtual machine's idle processors are given to others


def ready() -> dict[str, Work]:
    """A pipe that is ready: what each costs that gives up waiting after a second, and what does not."""
    reader, writer = os.pipe()
    read, select_, os_read = iocancel.read, select.select, os.read

    def fill() -> None:
        os.write(writer, bytes(READS * SIZE))

    def by_os() -> tuple[int, int]:
        total = 0
        for _ in range(READS):
            total += len(os_read(reader, SIZE))
        return READS, total

    def by_select() -> tuple[int, int]:
        total = 0
        for _ in range(READS):
            if select_([reader], (), (), 1)[0]:
                total += len(os_read(reader, SIZE))
        return READS, total

    def ours() -> tuple[int, int]:
        total = 0
        for _ in range(READS):
            total += len(read(reader, SIZE, timeout=1))
        return READS, total

    def in_scope() -> tuple[int, int]:
        total = 0
        with iocancel.fail_after(60):
            for _ in range(READS):
                total += len(read(reader, SIZE))
        return READS, total

    wanted = (READS, READS * SIZE)
    works = {"os-read": by_os, "select-read": by_select, "read": ours, "read-in-scope": in_scope}
    return {name: Work(run, wanted, fill) for name, run in works.items()}


def asleep(thread: int) -> None:
    """Return when a thread sleeps in the kernel."""
    with open(f"/proc/self/task/{thread}/stat", "rb", buffering=0) as file:
        while file.read().rpartition(b") ")[2][:1] != b"S":
            file.seek(0)


class Sleeper:
    """Another thread, which waits for something; how long after being told it knows.

    Args:
        wait: calls what it is given, waits, and returns `time.perf_counter_ns()` as that ends.
        tell: ends the wait, from this thread.
        idle: seconds that both do nothing before.
    """

    def __init__(
        self, wait: Callable[[Callable[[], None]], int], tell: Callable[[], None], idle: float = 0.0
    ) -> None:
        self._wait, self._tell, self._idle = wait, tell, idle
        self._begin, self._started = threading.Semaphore(0), threading.Semaphore(0)
        self._done = threading.Semaphore(0)
        self._knew = self._told = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self._begin.acquire():
            self._knew = self._wait(self._started.release)
            self._done.release()

    def _prepare(self) -> None:
        self._begin.release()
        self._started.acquire()
        asleep(self._thread.native_id or 0)
        if self._idle:
            time.sleep(self._idle)

    def _once(self) -> tuple[int, int]:
        self._told = time.perf_counter_ns()
        self._tell()
        self._done.acquire()
        return 1, 0

    def work(self) -> Work:
        """One wait and its end."""
        return Work(self._once, (1, 0), self._prepare, took=lambda: self._knew - self._told)


def wake(idle: float = 0.0) -> Work:
    """Another thread's os.read, ended by a byte: the least that waking a thread costs."""
    reader, writer = os.pipe()

    def wait(begins: Callable[[], None]) -> int:
        begins()
        os.read(reader, 1)
        return time.perf_counter_ns()

    return Sleeper(wait, lambda: _byte(writer), idle).work()


def _byte(writer: int) -> None:
    os.write(writer, b"x")


def cancel(idle: float = 0.0) -> Work:
    """Another thread's iocancel.read, ended by scope.cancel()."""
    reader, _ = os.pipe()
    scopes: list[iocancel.CancelScope] = []

    def wait(begins: Callable[[], None]) -> int:
        knew = 0
        with iocancel.CancelScope() as scope:
            scopes.append(scope)
            begins()
            try:
                iocancel.read(reader, SIZE)
            except Cancelled:
                knew = time.perf_counter_ns()
                raise
        return knew

    return Sleeper(wait, lambda: scopes.pop().cancel(), idle).work()


class Interrupted:
    """This thread's call, ended by Ctrl-C: how long after another thread's kill KeyboardInterrupt is here.

    Args:
        call: waits until then.
    """

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._begin = threading.Semaphore(0)
        self._knew = self._told = 0
        threading.Thread(target=self._kill, daemon=True).start()

    def _kill(self) -> None:
        while self._begin.acquire():
            asleep(threading.main_thread().native_id or 0)
            self._told = time.perf_counter_ns()
            os.kill(os.getpid(), signal.SIGINT)

    def _once(self) -> tuple[int, int]:
        try:
            self._begin.release()
            self._call()
        except KeyboardInterrupt:
            self._knew = time.perf_counter_ns()
            return 1, 0
        return 0, 0

    def work(self) -> Work:
        """One call and its end."""
        return Work(self._once, (1, 0), took=lambda: self._knew - self._told)


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    silent, _ = os.pipe()
    serve(
        {
            **ready(),
            "wake": wake(),
            "cancel": cancel(),
            "wake-idle": wake(_IDLE),
            "cancel-idle": cancel(_IDLE),
            "interrupt-select": Interrupted(lambda: select.select([silent], (), ())).work(),
            "interrupt": Interrupted(lambda: iocancel.read(silent, SIZE)).work(),
        }
    )


if __name__ == "__main__":
    main()
