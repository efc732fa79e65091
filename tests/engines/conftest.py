"""What the tests of the engines share; each test's teardown looks for what it left behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from iocancel.engines.uring import UringEngine
from iocancel.uring import cancel_flags
from iocancel.uring.probe import sync_cancel_works

from ..support import lacks_uring, need_uring
from ..uring.conftest import nothing_left_behind as nothing_left_behind


@pytest.fixture(scope="session", autouse=True)
def probed() -> None:
    """What is found out once a process is found out before the fds are counted."""
    if not lacks_uring():
        cancel_flags()
        sync_cancel_works()


@pytest.fixture
def uring() -> Iterator[UringEngine]:
    """The engine on io_uring; everything has ended at the test's end."""
    need_uring()
    with UringEngine() as engine:
        yield engine
        assert engine.in_flight == 0
