"""What the tests of the race suite's loops share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from typing import Any

import pytest

from iocancel.uring import limbo
from tools.race import awaited, tasks
from tools.race.check import Failure, Resources
from tools.race.rounds import Options

from .race_stage import has

OPS = 60 if os.environ.get("IOCANCEL_GUEST") else 200
WORLDS = [name for name in tasks.WORLDS if tasks.is_here(name)]
BOTH = [name for name in WORLDS if name != "uvloop"]


@pytest.fixture(scope="module", autouse=True)
def loops() -> None:
    has("uring")
    for name in WORLDS:
        tasks.warm(name)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    resources = Resources.now()
    yield
    while limbo.sweep():  # what a sabotage has kept from an engine is let go by the kernel
        gc.collect()
    resources.check()


def options(scenario: str, many: int = 8, **more: Any) -> Options:
    return Options(scenario=scenario, threads=many, ops=OPS, patience=30.0, **more)


def told(scenario: str, many: int = 12, patience: float = 30.0, **more: Any) -> str:
    """What is said of something that is wrong, in one of a few rounds."""
    asked = options(scenario, many, **more)
    asked.patience = patience
    for number in range(20):
        try:
            tasks.play(asked, number)
        except Failure as failure:
            return str(failure)
    raise AssertionError("nothing was found")


def only(monkeypatch: pytest.MonkeyPatch, *kinds: type[awaited.File]) -> None:
    """Rounds with these files."""
    monkeypatch.setattr(tasks, "_KINDS", kinds * 2)
