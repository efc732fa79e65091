"""What each test's teardown looks for."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..support import leaving_nothing, need_uring, settle, until
from .helpers import VERBS, Blocking


@pytest.fixture(scope="session", autouse=True)
def on_io_uring() -> None:
    """trio's own rules are tried on io_uring; tests/awaiting and contract/awaited do with Linux AIO."""
    need_uring()


@pytest.fixture(scope="package", autouse=True)
def no_idle_threads() -> Iterator[None]:
    """trio keeps idle threads for ten seconds; here for none: one that is left is ours."""
    from trio._core import _thread_cache

    before = _thread_cache.IDLE_TIMEOUT
    _thread_cache.IDLE_TIMEOUT = 0
    yield
    _thread_cache.IDLE_TIMEOUT = before


@pytest.fixture(autouse=True)
def nothing_left_behind(no_idle_threads: None) -> Iterator[None]:
    gc.collect()
    threads = set(threading.enumerate())

    def settled() -> None:
        settle()
        until(lambda: not set(threading.enumerate()) - threads, "trio's idle threads have ended")

    with leaving_nothing(settled):
        yield


@pytest.fixture(params=VERBS)
def blocks(request: pytest.FixtureRequest, tmp_path: Path, pipes: Callable[[], tuple[int, int]]) -> Blocking:
    """What blocks for ever."""
    return Blocking(request.param, tmp_path, pipes)
