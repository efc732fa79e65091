"""What the tests of `iocancel.operation` share; each test's teardown looks for what it left behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from iocancel.testing import ScriptedEngine

from ..support import leaving_nothing


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    with leaving_nothing():
        yield


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    """A scripted engine; whoever left something in its system has to end it before the test ends."""
    with ScriptedEngine() as made:
        yield made
    assert not made.pending
    assert made.in_flight == 0
