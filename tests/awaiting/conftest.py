"""Each world with each engine, and what each test's teardown looks for: see worlds.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .worlds import ENGINES, NAMES, World, in_world


@pytest.fixture(params=[(name, engine) for name in NAMES for engine in ENGINES], ids="-".join)
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A kind of loop with an engine."""
    name, engine = request.param
    with in_world(name, engine, monkeypatch) as made:
        yield made
