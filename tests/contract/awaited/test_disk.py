"""A disk's files: reads and writes, with an offset and without; what came too late for a cancel."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iocancel import Outcome
from iocancel.engines.ready import ROOM

from .loops import CAME, PAIRS, STOPPED, Started, World

SIZE = 4 * ROOM
LONG = 2 * ROOM
"""More than an attempt without an engine has room for: a request."""
worlds = pytest.mark.parametrize(
    "world",
    [*PAIRS, ("asyncio", "posix_aio"), ("trio", "posix_aio")],
    ids="-".join,
    indirect=True,
)


@pytest.fixture
def file(tmp_path: Path) -> Any:
    """Its bytes tell where they are."""
    path = tmp_path / "file"
    path.write_bytes(b"".join(i.to_bytes(4, "little") for i in range(SIZE // 4)))
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


def at(offset: int, many: int) -> bytes:
    return b"".join(i.to_bytes(4, "little") for i in range(offset // 4, (offset + many) // 4))


@worlds
def test_reads_and_writes(world: World, file: int) -> None:
    async def main(world: World) -> None:
        api = world.verbs
        for many in (8, LONG):
            assert await api.read(file, many, 40) == at(40, many)
            os.lseek(file, 80, os.SEEK_SET)
            assert await api.read(file, many) == at(80, many)
            assert os.lseek(file, 0, os.SEEK_CUR) == 80 + many
            room = bytearray(many)
            assert await api.read(file, room, 4) == many
            assert room == at(4, many)
        if world.engine.supports("readv"):
            rooms = [bytearray(4), bytearray(8)]
            assert await api.readv(file, rooms, 8) == 12
            assert b"".join(rooms) == at(8, 12)
            assert await api.writev(file, [b"a", b"bc"], 300) == 3
            assert os.pread(file, 3, 300) == b"abc"
        assert await api.write(file, b"wrote", 100) == 5
        assert os.pread(file, 5, 100) == b"wrote"
        os.lseek(file, 200, os.SEEK_SET)
        assert await api.write(file, b"there") == 5
        assert os.pread(file, 5, 200) == b"there"
        await api.fsync(file)
        await api.fsync(file, datasync=True)
        assert await api.read(file, 10, SIZE) == b""

    world.run(main)


@worlds
def test_time_passes(world: World) -> None:
    async def main(world: World) -> None:
        began = time.monotonic()
        await world.verbs.sleep(0.002)
        await world.verbs.sleep_until(began + 0.004)
        assert time.monotonic() >= began + 0.004

    world.run(main)


READS: dict[str, Callable[[Any, int, int], Any]] = {
    "read": lambda api, fd, offset: api.read(fd, LONG, offset),
    "read_to": lambda api, fd, offset: api.read(fd, bytearray(LONG), offset),
    "readv": lambda api, fd, offset: api.readv(fd, [bytearray(ROOM), bytearray(ROOM)], offset),
}


def when_prepared(world: World, monkeypatch: pytest.MonkeyPatch, act: Callable[[Any], None]) -> None:
    """Have `act(op)` called when a read is prepared, in its task."""

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def prepare(*args: Any, **named: Any) -> Any:
            op = real(*args, **named)
            act(op)
            return op

        return prepare

    for name in ("read", "readv"):
        monkeypatch.setattr(world.engine, name, wrap(getattr(world.engine, name)), raising=False)


@worlds
@pytest.mark.parametrize("offset", [-1, 8], ids=["position", "offset"])
@pytest.mark.parametrize("moment", ["prepared", "settled"])
@pytest.mark.parametrize("name", READS)
def test_a_position_is_not_moved_by_a_read_that_came_too_late(
    world: World, file: int, name: str, moment: str, offset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(world: World) -> None:
        verb = "readv" if name == "readv" else "read"
        if not world.engine.supports(verb):
            return

        def act(op: Any) -> None:
            calls.append(op)
            if moment == "prepared":
                started.cancel()
            else:
                op.add_done_callback(lambda _: started.cancel())

        calls: list[Any] = []
        when_prepared(world, monkeypatch, act)
        os.lseek(file, 40, os.SEEK_SET)
        started: Started = world.start(lambda: READS[name](world.verbs, file, offset))
        await world.ended(started)
        (op,) = calls
        now = os.lseek(file, 0, os.SEEK_CUR)
        if started.ending is STOPPED:
            assert now == 40, "what was cancelled has moved it"
            assert op.cancelled() or not world.delivers
        else:
            assert started.ending is CAME
            assert world.delivers
            assert now == (40 if offset >= 0 else 40 + LONG)
            assert started.raised_next
        if moment == "settled":
            assert op.outcome is Outcome.COMPLETED
            assert (started.ending is CAME) is world.delivers

    world.run(main)
