"""A pool of each engine, and what each test's teardown looks for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from iocancel import _lifetime, pool
from iocancel.pool import Pool

from ..support import lacks_engine, need_engine, open_fds, settle
from .helpers import ENGINES, GUEST, warm, whole

# Of test_verbs*.py, what an emulated machine (14 times slower) runs: where kernels may differ.
IN_GUESTS = frozenset(
    [
        "test_a_timeout_ends_it",
        "test_a_cancel_from_another_thread_while_it_is_in_flight",
        "test_a_signals_handler_cancels_it",
        "test_ctrl_c_ends_it",
        "test_a_nonblocking_file_is_waited_for_all_the_same",
        "test_its_nonblocking_fd_is_another_files_meanwhile",
        "test_its_fd_is_another_files_meanwhile",
        "test_what_an_engine_has_not_says_who_has_it",
    ]
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a guest, leave out what does not depend on the kernel."""
    if not GUEST:
        return
    out = [
        item
        for item in items
        if item.path.name.startswith("test_verbs")
        and item.path.parent.name == "blocking"
        and getattr(item, "originalname", "") not in IN_GUESTS
    ]
    config.hook.pytest_deselected(items=out)
    gone = set(out)
    items[:] = [item for item in items if item not in gone]


POOLS: dict[str, Pool] = {}
KEPT: dict[str, Any] = {}
"""Of each pool the engine that every test finds in it."""


def pool_of(name: str) -> Pool:
    """A pool of an engine, with one in it: it takes long to give them back."""
    if name not in POOLS:
        made = POOLS[name] = Pool(name)
        made.name = name  # it was probed
        KEPT[name] = warm(made)
    return POOLS[name]


def only_one(made: Pool) -> None:
    """Close all but the one that the next test is to find."""
    for engine in list(made._free):
        if engine is not KEPT.get(made.name):
            engine.close()
            made._free.remove(engine)


@pytest.fixture(scope="module", autouse=True)
def closed_at_the_end() -> Iterator[None]:
    """Other tests look for what is in flight in all of the process, and an idle engine has a poll there."""
    yield
    for made in POOLS.values():
        made.close()
    POOLS.clear()
    KEPT.clear()


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    made = [pool_of(each) for each in ENGINES if not lacks_engine(each)]
    pool.current.close()  # of an earlier test that used the process's own
    pool.current = Pool()
    fds, threads, kept = open_fds(), set(threading.enumerate()), _lifetime.kept()
    yield
    for each in made:
        only_one(each)
    settle()
    assert _lifetime.kept() == kept, "something was kept for ever"
    assert not set(threading.enumerate()) - threads, "a thread was left running"
    was = signal.set_wakeup_fd(-1)
    assert was == -1, "the wake-up of signals was left behind"
    left = {number: to for number, to in open_fds().items() if fds.get(number) != to}
    assert not left, f"fds left open: {left}"


@pytest.fixture(params=ENGINES)
def engine_pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    """The process's pool is one of this engine."""
    name = str(request.param)
    with of_engine(name) as found:
        yield found


class of_engine:
    """Make the process's pool one of an engine's; check it at the end."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> Pool:
        need_engine(self._name)
        self._before = pool.current
        made = pool.current = pool_of(self._name)
        return made

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        made = pool.current
        try:
            if error is None:
                whole()
        finally:
            pool.current = self._before
            if error is not None and POOLS.get(self._name) is made:
                del POOLS[self._name], KEPT[self._name]
                made.close()
