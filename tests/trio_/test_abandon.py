"""`abandon_on_cancel=True`: the await ends at once, and the engine keeps what it can't stop."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

import iocancel.trio as ours
from iocancel.testing import hold_back
from iocancel.trio.hub import current

from ..slow_disk import SIZE
from ..slow_disk import buffered as buffered
from ..slow_disk import slow_disk as slow_disk
from ..support import BOUND, open_fds
from .helpers import in_flight, run


async def no_orphans() -> None:
    """Let others run until nothing is left that was abandoned."""
    with trio.fail_after(BOUND):
        while ours.engine().orphans:
            await trio.lowlevel.checkpoint()
    assert ours.engine().in_flight == 0


def test_a_fifos_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def opening() -> None:
                with scope:
                    await ours.open(tmp_path / "fifo", abandon_on_cancel=True)

            nursery.start_soon(opening)
            await in_flight()
            with hold_back(ours.engine()):
                scope.cancel()
                with trio.fail_after(BOUND):
                    while not scope.cancelled_caught:
                        await trio.lowlevel.checkpoint()
                assert ours.engine().orphans == 1
                assert ours.engine().in_flight == 1
        current().soon()
        await no_orphans()

    run(main)


@pytest.mark.parametrize("abandon", [True, False])
def test_a_late_fd(tmp_path: Path, abandon: bool) -> None:
    """Abandoned it is closed; else trio's contract has room for it: it is returned."""
    (tmp_path / "file").touch()

    async def main() -> None:
        engine = ours.engine()
        await ours.sleep(0)
        before = open_fds()
        seen: list[int] = []
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def opening() -> None:
                with scope:
                    seen.append(await ours.open(tmp_path / "file", abandon_on_cancel=abandon))

            with hold_back(engine) as held:
                nursery.start_soon(opening)
                await in_flight()
                [op] = engine._ledger.flight.values()
                with trio.fail_after(BOUND):
                    while op not in held:  # it is open, and nobody knows
                        current().soon()
                        await trio.lowlevel.checkpoint()
                assert open_fds() != before
                scope.cancel()
                if abandon:
                    with trio.fail_after(BOUND):
                        while not scope.cancelled_caught:
                            await trio.lowlevel.checkpoint()
                    assert engine.orphans == 1
                else:
                    await trio.lowlevel.checkpoint()
                    assert not seen
                    assert engine.in_flight == 1
            current().soon()
        await no_orphans()
        del op
        assert len(seen) == (0 if abandon else 1)
        for number in seen:
            os.close(number)
        assert open_fds() == before

    run(main)


def test_an_abandoned_read_of_a_stalled_disk(buffered: int) -> None:
    async def main() -> None:
        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:

            async def reading() -> None:
                with scope:
                    await ours.read(buffered, SIZE, 8 * SIZE, abandon_on_cancel=True)

            nursery.start_soon(reading)
            await in_flight()
            scope.cancel()
        assert scope.cancelled_caught
        assert ours.engine().orphans == 1
        await no_orphans()

    run(main)


def test_an_awaited_read_of_a_stalled_disk(buffered: int) -> None:
    """Without it the cancel waits for the disk, and the value is delivered."""

    async def main() -> None:
        scope = trio.CancelScope()
        seen: list[bytes] = []
        async with trio.open_nursery() as nursery:

            async def reading() -> None:
                with scope:
                    seen.append(await ours.read(buffered, SIZE, 8 * SIZE))

            nursery.start_soon(reading)
            await in_flight()
            scope.cancel()
        assert [len(each) for each in seen] == [SIZE]

    run(main)
