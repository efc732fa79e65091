"""What the tests of the blocking verbs share."""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import iocancel
from iocancel import pool, scope
from iocancel.operation.operation import IN_FLIGHT
from iocancel.pool import Pool

from ..support import BOUND, GUEST, until

SHORT = 0.02
"""Seconds: a deadline that is to pass."""
ENGINES = ("uring", "libaio")
FUTEX = {"x86_64": "202", "aarch64": "98"}[platform.machine()]
"""The number of futex(2)."""


class Thread:
    """A thread that begins at once, whose exception is raised where it is joined, which must happen."""

    def __init__(self, run: Callable[[], Any]) -> None:
        self._run = run
        self.value: Any = None
        self.here: Any = None
        self.task = 0
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._target)
        self._thread.start()

    def _target(self) -> None:
        try:
            self.task = threading.get_native_id()
            self.here = scope.local.here
            self.value = self._run()
        except BaseException as error:  # noqa: BLE001 - raised by join
            self.error = error

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def ident(self) -> int:
        assert self._thread.ident is not None
        return self._thread.ident

    def join(self) -> Any:
        self._thread.join(BOUND)
        assert not self._thread.is_alive(), "the thread did not end"
        if self.error is not None:
            raise self.error
        return self.value

    def until_blocked(self) -> None:
        """Wait until its call is in flight."""
        until(
            lambda: (self.here is not None and blocked(self.here, self.task)) or not self.alive, "it blocks"
        )
        if not self.alive:
            self.join()
            raise AssertionError("the call was to block")


class Waits:
    """A thread that has the only engine, until it is let go."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self.thread = Thread(lambda: iocancel.read(self.read_end, 1))
        self.thread.until_blocked()

    def let_go(self) -> None:
        if self.write_end >= 0:
            os.write(self.write_end, b"x")
            assert self.thread.join() == b"x"
            os.close(self.read_end)
            os.close(self.write_end)
            self.write_end = -1


def asleep(task: int) -> bool:
    """Whether a thread sleeps in the kernel, but not for Python's lock."""
    # Which call it sleeps in; a process may see that of its own threads also where a container forbids to see
    # in which function of the kernel (wchan, stack).
    number = Path(f"/proc/self/task/{task}/syscall").read_text().split()[0]
    return number not in ("running", FUTEX)


def blocked(here: Any, task: int) -> bool:
    """Whether a thread's innermost call is in flight, and the thread in the kernel.

    Args:
        here: the thread's own.
        task: its number for the system.
    """
    for call in list(here.calls)[-1:]:
        op = call._op
        if call.waiter is not None:
            return True
        if op is not None and op._state == IN_FLIGHT and op._engine._lead is not None:
            return asleep(task) and op._state == IN_FLIGHT
    return False


@contextlib.contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    """Have another thread do something once this one's call is in flight."""
    here, task = scope.local.here, threading.get_native_id()

    def wait() -> None:
        until(lambda: blocked(here, task), "the main thread's call is in flight")
        act()

    thread = Thread(wait)
    try:
        yield
    finally:
        thread.join()


def whole() -> None:
    """Nothing is lent, nothing is in flight, nothing is left of any call of this thread."""
    current = pool.current
    assert current.idle == len(current), f"{current.idle} of {len(current)} engines came back"
    assert current.stuck == 0
    for engine in list(current._free):
        assert engine.in_flight == 0
        assert not engine.closed
        assert engine._lead is None
        assert engine._batch is None
        assert not engine._staged
        assert not engine._followers
    assert not current._waiting
    here = scope.local.here
    assert here.calls == []
    assert here.innermost() is None
    assert here.stack == []


def warm(of: Pool | None = None) -> Any:
    """The engine that the next call of this process takes."""
    made = pool.current if of is None else of
    held: list[Any] = []
    made.take(held, Impatient())
    engine = held[-1]
    made.give_back(held)
    return engine


class Impatient:
    """Waits for no engine."""

    waiter: Any = None

    def left(self) -> float:
        raise AssertionError("no engine is free")


def forked(run: Callable[[], object]) -> int:
    """Run something in a forked child; its exit code, 0 where it did not raise."""
    pid = fork()
    if not pid:
        in_child(run)
    return exit_code(pid)


def fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of 3.12: there are other threads
        return os.fork()


def in_child(run: Callable[[], object]) -> None:
    """Run something, and end this process, which is a child."""
    code = 1
    try:
        run()
        code = 0
    except BaseException:  # noqa: BLE001 - told by the exit code
        traceback.print_exc()
    finally:
        os._exit(code)


def exit_code(pid: int) -> int:
    """Wait for a child."""
    deadline = time.monotonic() + BOUND
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            raise AssertionError("the child did not end")
        time.sleep(0)


__all__ = ["BOUND", "ENGINES", "GUEST", "SHORT", "Pool", "Thread", "blocked", "meanwhile", "until", "whole"]
