"""What the tests of scopes share."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from iocancel import (
    scope,
)

from .helpers import BOUND, GUEST

STEP = 7 if GUEST else 1


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    assert scope.local.here.stack == []
    assert scope.local.here.calls == []


def later() -> float:
    return time.monotonic() + BOUND
