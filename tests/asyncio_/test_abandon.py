"""`abandon_on_cancel=True`: the await ends at once, and the engine keeps what it can't stop."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path

import pytest

import iocancel.asyncio as ours
from iocancel.asyncio.hub import current
from iocancel.testing import hold_back

from ..slow_disk import SIZE
from ..slow_disk import buffered as buffered
from ..slow_disk import slow_disk as slow_disk
from ..support import BOUND, open_fds
from .helpers import World, in_flight, raised


async def no_orphans() -> None:
    """Let the loop turn until nothing is left that was abandoned."""
    async with asyncio.timeout(BOUND):
        while ours.engine().orphans:
            await asyncio.sleep(0)
    assert ours.engine().in_flight == 0


async def raises_cancelled(task: asyncio.Task[int]) -> None:
    """The task was cancelled. (An `assert` of pytest's keeps what it has looked at.)"""
    error = await raised(task)
    ok = type(error) is asyncio.CancelledError
    assert ok


def test_a_fifos_open(world: World, tmp_path: Path) -> None:
    """The await ends before the kernel has said anything; the worker is interrupted by the cancel."""
    os.mkfifo(tmp_path / "fifo")

    async def main() -> None:
        task = asyncio.ensure_future(ours.open(tmp_path / "fifo", abandon_on_cancel=True))
        await in_flight()
        with hold_back(ours.engine()):
            task.cancel()
            assert type(await raised(task)) is asyncio.CancelledError
            assert ours.engine().orphans == 1
            assert ours.engine().in_flight == 1
        current().soon()
        await no_orphans()

    world.run(main)


@pytest.mark.parametrize("abandon", [True, False])
def test_a_late_fd_is_closed(world: World, tmp_path: Path, abandon: bool) -> None:
    (tmp_path / "file").touch()

    async def main() -> None:
        engine = ours.engine()
        await ours.sleep(0)
        before = open_fds()
        with hold_back(engine) as held:
            task = asyncio.ensure_future(ours.open(tmp_path / "file", abandon_on_cancel=abandon))
            await in_flight()
            [op] = engine._ledger.flight.values()
            async with asyncio.timeout(BOUND):
                while op not in held:  # it is open, and nobody knows
                    current().soon()
                    await asyncio.sleep(0)
            assert open_fds() != before
            task.cancel()
            if abandon:
                await raises_cancelled(task)
                assert engine.orphans == 1
            else:
                await asyncio.sleep(0)
                assert not task.done()  # its ending is awaited
        current().soon()
        if not abandon:
            await raises_cancelled(task)
        await no_orphans()
        del op, task
        for _ in range(3):
            await asyncio.sleep(0)  # the loop, and a turn, let go of it
        gc.collect()  # a task that is written in Python leaves a cycle with its exception
        assert open_fds() == before

    world.run(main)


def test_only_with_the_librarys_memory(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bytes")

    async def main() -> None:
        with open(tmp_path / "file", "r+b") as file:
            with pytest.raises(TypeError, match="abandon_on_cancel"):
                await ours.read(file, bytearray(4), 0, abandon_on_cancel=True)
            with pytest.raises(TypeError, match="abandon_on_cancel"):
                await ours.write(file, bytearray(4), 0, abandon_on_cancel=True)
            assert await ours.read(file, 4, 0, abandon_on_cancel=True) == b"byte"

    world.run(main)


def test_an_abandoned_read_of_a_stalled_disk(world: World, buffered: int) -> None:
    """What no kernel stops: the await does not wait for it, and its memory is kept until it has ended."""

    async def main() -> None:
        task = asyncio.ensure_future(ours.read(buffered, SIZE, 8 * SIZE, abandon_on_cancel=True))
        await in_flight()
        task.cancel()
        assert type(await raised(task)) is asyncio.CancelledError
        assert ours.engine().orphans == 1
        await no_orphans()

    world.run(main)


def test_an_awaited_read_of_a_stalled_disk(world: World, buffered: int) -> None:
    """Without it the cancel waits for the disk, and the file's position is where it was."""

    async def main() -> None:
        task = asyncio.ensure_future(ours.read(buffered, SIZE))
        await in_flight()
        task.cancel()
        assert type(await raised(task)) is asyncio.CancelledError
        assert ours.engine().in_flight == 0
        assert os.lseek(buffered, 0, os.SEEK_CUR) == 0

    world.run(main)
