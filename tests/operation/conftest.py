"""What the tests of `iocancel.operation` share; each test's teardown looks for what it left behind."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator

import pytest

from iocancel import _lifetime
from iocancel.testing import ScriptedEngine


def open_fds() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the listing's own
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    fds, threads, kept = open_fds(), set(threading.enumerate()), _lifetime.kept()
    yield
    gc.collect()
    assert _lifetime.kept() == kept, "something was kept for ever"
    assert not set(threading.enumerate()) - threads, "a thread was left running"
    left = {number: to for number, to in open_fds().items() if fds.get(number) != to}
    assert not left, f"fds left open: {left}"


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    """A scripted engine; whoever left something in its system has to end it before the test ends."""
    with ScriptedEngine() as made:
        yield made
    assert not made.pending
    assert made.in_flight == 0
