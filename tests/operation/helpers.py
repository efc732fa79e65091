"""What the tests of `iocancel.operation` share."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from iocancel import EngineUnavailable, open_engine

from ..support import BOUND

ECANCELED, EINTR, EIO, RESTART = -errno.ECANCELED, -errno.EINTR, -errno.EIO, -512


def real(name: str) -> Any:
    """A real engine, or a skip with the reason where it can't be had."""
    try:
        return open_engine(name)
    except ModuleNotFoundError as error:
        if error.name != f"iocancel.engines.{name}":
            raise
        return pytest.skip(f"this build has no {name} engine")
    except EngineUnavailable as error:
        return pytest.skip(f"{name}: {error.reason or error}")


class Thread:
    """A thread whose exception is raised where it is joined, which must happen."""

    def __init__(self, run: Callable[[], Any]) -> None:
        self._run = run
        self.value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._target)

    def _target(self) -> None:
        try:
            self.value = self._run()
        except BaseException as error:  # noqa: BLE001 - raised by join
            self._error = error

    def start(self) -> Thread:
        self._thread.start()
        return self

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def join(self) -> Any:
        self._thread.join(BOUND)
        assert not self._thread.is_alive(), "the thread did not end"
        if self._error is not None:
            raise self._error
        return self.value


@contextmanager
def running(*calls: Callable[[], Any]) -> Iterator[list[Thread]]:
    """Threads that run these, and are joined."""
    threads = [Thread(call).start() for call in calls]
    yield threads
    for thread in threads:
        thread.join()
