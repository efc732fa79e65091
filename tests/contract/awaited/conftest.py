"""Which worlds, which engines, and what is looked for behind each module of these tests."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iocancel import _lifetime

from ...blocking.cases import CASES
from ...support import GUEST, lacks_engine, need_engine, open_fds
from ..conftest import settle
from ..helpers import NAMES
from .loops import World, world_of

# In an emulated machine, 14 times slower: what may differ from kernel to kernel.
IN_GUESTS = frozenset(
    [
        "test_it_waits",
        "test_a_cancel_in_flight",
        "test_what_comes_just_before_a_cancel_is_not_lost",
        "test_files_of_each_kind",
        "test_closed_by_close_fd",
        "test_a_position_is_not_moved_by_a_read_that_came_too_late",
    ]
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a guest, leave out what does not depend on the kernel."""
    if not GUEST:
        return
    here = Path(__file__).parent
    out = [
        item
        for item in items
        if item.path.parent == here
        and (
            getattr(item, "originalname", "") not in IN_GUESTS
            or any(world in item.name for world in ("debug", "uvloop"))
        )
    ]
    config.hook.pytest_deselected(items=out)
    gone = set(out)
    items[:] = [item for item in items if item not in gone]


@pytest.fixture(scope="module", autouse=True)
def module_leaves_nothing() -> Iterator[None]:
    """The kernel takes 25 to 57 ms to give a closed ring back: that is waited for once a module."""
    for each in NAMES:
        lacks_engine(each)
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.new_event_loop().close()  # libuv keeps a pipe for the process's signals
    gc.collect()
    fds, kept = open_fds(), _lifetime.kept()
    yield
    settle()
    assert _lifetime.kept() == kept, "something was kept for ever"
    left = {number: to for number, to in open_fds().items() if fds.get(number) != to}
    assert not left, f"fds left open: {left}"


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fds and threads are looked for within each run (`World.run`), memory here."""
    kept = _lifetime.kept()
    yield
    assert _lifetime.kept() == kept, "something was kept for ever"


def chosen(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have loops take this engine."""
    need_engine(engine)
    monkeypatch.setenv("IOCANCEL_ENGINE", engine)


class Row:
    """A world, an engine, and a call that blocks; the world is run once, by `run`."""

    def __init__(self, world: str, engine: str, name: str, folder: Path) -> None:
        self.world: World = world_of(world)
        self.engine, self.name, self._folder = engine, name, folder

    def run(self, main: Any) -> None:
        """Run `main(world, case)`."""

        async def with_case(world: World) -> None:
            with contextlib.ExitStack() as stack:
                if not world.engine.supports(CASES[self.name].verb) and self.name != "waitid":
                    pytest.skip(f"{self.engine} has no {self.name} here")
                case: Any = CASES[self.name](stack, self._folder)
                case.api = world.verbs
                case.system = lambda: self.engine
                case.name = self.name
                await main(world, case)

        self.world.run(with_case)


@pytest.fixture
def row(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Row:
    """Of (world, engine, name of a case)."""
    world, engine, name = request.param
    chosen(engine, monkeypatch)
    return Row(world, engine, name, tmp_path)


@pytest.fixture
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> World:
    """Of (world, engine)."""
    name, engine = request.param
    chosen(engine, monkeypatch)
    return world_of(name)
