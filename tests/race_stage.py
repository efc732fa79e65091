"""What the tests of the race suite share."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from iocancel import open_engine
from iocancel.errors import EngineUnavailable
from tools.race.check import Resources
from tools.race.rounds import Options

OPS = 150 if os.environ.get("IOCANCEL_GUEST") else 600


def has(engine: str) -> None:
    """Skip where an engine can't be had."""
    try:
        open_engine(engine).close()
    except EngineUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", autouse=True)
def uring() -> None:
    has("uring")


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    resources = Resources.now()
    yield
    resources.check()


def options(scenario: str = "pipes", threads: int = 1, **more: Any) -> Options:
    return Options(scenario=scenario, threads=threads, ops=OPS, patience=30.0, **more)


def now_and_then(nth: int) -> Callable[[], bool]:
    """True once in so many times."""
    counted = itertools.count(1)
    return lambda: next(counted) % nth == 0
