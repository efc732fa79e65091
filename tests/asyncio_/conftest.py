"""What each test's teardown looks for; and the loops."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..support import leaving_nothing, need, need_uring, settle
from .helpers import LOOPS, VERBS, Blocking, World, lacking


@pytest.fixture(scope="session", autouse=True)
def on_io_uring() -> None:
    """The loops' own rules are tried on io_uring; tests/awaiting and contract/awaited do with Linux AIO."""
    need_uring()


@pytest.fixture(scope="session", autouse=True)
def warm(on_io_uring: None) -> None:
    """uvloop's first loop opens what the process then keeps."""
    if not lacking("uvloop"):
        World("uvloop").loop().close()


@pytest.fixture(autouse=True)
def nothing_left_behind(warm: None) -> Iterator[None]:
    gc.collect()
    with leaving_nothing(settle):
        yield


@pytest.fixture(params=LOOPS)
def world(request: pytest.FixtureRequest) -> World:
    """One kind of loop."""
    why = lacking(request.param)
    need(not why, why)
    return World(request.param)


@pytest.fixture(params=VERBS)
def blocks(request: pytest.FixtureRequest, tmp_path: Path, pipes: Callable[[], tuple[int, int]]) -> Blocking:
    """What blocks for ever."""
    return Blocking(request.param, tmp_path, pipes)
