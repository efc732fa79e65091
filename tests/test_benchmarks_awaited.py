"""The awaited works of `./dev bench` do what they say."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import resource
import socket
import types
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from .benchmarks_stage import importable as importable

# What is awaited

AWAITED = (
    "asyncio",
    "uvloop",
    "ours on asyncio",
    "ours on uvloop",
    "trio",
    "ours on trio",
    "caio",
    "aiofiles",
)


@pytest.fixture
def uring() -> None:
    from iocancel.engines import open_engine
    from iocancel.errors import EngineUnavailable

    if os.environ.get("IOCANCEL_SANITIZE"):
        pytest.skip("a sanitized build is not what is measured")
    try:
        open_engine("uring").close()
    except EngineUnavailable as error:
        pytest.skip(str(error))


def installed(side: str) -> Path | None:
    """Where what a side needs is, in the environment (None) or beside it; without asking PyPI."""
    from benchmarks.sides import PEERS, place

    if side not in PEERS:
        return None
    where = place(PEERS[side])
    if where.is_dir():
        return where
    if importlib.util.find_spec(PEERS[side].partition("==")[0]) is None:
        pytest.skip(f"{PEERS[side]} is not installed here")
    return None


@pytest.mark.usefixtures("uring")
@pytest.mark.parametrize("side", AWAITED)
def test_awaited_works_do_what_they_say(side: str) -> None:
    from benchmarks.cases import CASES
    from benchmarks.loops import FILES, PENDING
    from benchmarks.sides import start

    names = ("tasks", "timeouts", "echo", "awaited-reads")
    jobs = {job for name in names for job in CASES[name].jobs}
    assert {job.side for job in jobs} == set(AWAITED)
    works = {job.work for job in jobs if job.side == side}
    assert works
    if 0 <= resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2 * PENDING + FILES:
        works -= {"cancel", "timeouts"}
    with start(side, [], installed(side)) as process:
        for work in sorted(works):  # it ends where one does not bring what it is to bring
            times = process.times(work, 2)
            assert len(times) == 2
            assert min(times) > 0


def test_items_are_as_many_as_the_works_have() -> None:
    from benchmarks.cases import CASES
    from benchmarks.loops import PENDING
    from benchmarks.works import READS, TRIPS

    for names, items in ((("tasks", "timeouts"), PENDING), (("echo",), TRIPS), (("awaited-reads",), READS)):
        for name in names:
            assert {row.items for row in CASES[name].rows} == {items}


@pytest.mark.usefixtures("uring")
@pytest.mark.parametrize(("work", "times"), [("reads", 1), ("reads-inline", 0)])
def test_how_often_a_read_suspends(monkeypatch: pytest.MonkeyPatch, work: str, times: int) -> None:
    from benchmarks.loops import ours
    from benchmarks.works import BLOCK, OFFSETS, cached_file

    monkeypatch.setenv("IOCANCEL_ENGINE", "uring")
    suspended: list[object] = []

    @types.coroutine
    def watched(awaitable: Any) -> Generator[Any, Any, Any]:
        inner = awaitable.__await__()
        while True:
            try:
                suspended.append(inner.send(None))
            except StopIteration as end:
                return end.value
            yield suspended[-1]

    async def some(fd: int) -> None:
        read = ours().reads[work](fd)
        for offset in OFFSETS[:10]:
            del suspended[:]
            assert len(await watched(read(offset))) == BLOCK
            assert len(suspended) == times

    with open(cached_file(), "rb") as file:
        asyncio.run(some(file.fileno()))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    from benchmarks import loops

    monkeypatch.setattr(loops, "PENDING", 3)
    return 3


@pytest.mark.parametrize("timeouts", [False, True])
def test_all_of_the_pending_end(few: int, timeouts: bool) -> None:
    from benchmarks.loops import Pending

    begun: list[socket.socket] = []

    async def recv(sock: socket.socket, many: int) -> bytes:
        begun.append(sock)
        return await asyncio.get_running_loop().sock_recv(sock, many)

    with asyncio.Runner() as runner:
        pending = Pending(runner, recv, timeouts)
        work = pending.work()
        for _ in range(2):
            work.prepare()
            assert len(begun) == few  # before the clock starts
            assert work.counted is not None
            assert work.counted() == (0, 0)
            work.run()
            assert work.counted() == work.expected == (few, few)
            begun.clear()
        pending.close()


@pytest.mark.parametrize("timeouts", [False, True])
def test_a_cancel_that_is_swallowed_is_seen(few: int, timeouts: bool) -> None:
    from benchmarks.loops import Pending

    async def recv(sock: socket.socket, many: int) -> bytes:
        try:
            return await asyncio.get_running_loop().sock_recv(sock, many)
        except asyncio.CancelledError:
            return b""

    with asyncio.Runner() as runner:
        pending = Pending(runner, recv, timeouts)
        work = pending.work()
        work.prepare()
        work.run()
        assert work.counted is not None
        assert work.counted() == (few, 0)
        pending.close()


async def receive(sock: socket.socket, many: int) -> bytes:
    return await asyncio.get_running_loop().sock_recv(sock, many)


def test_timeouts_that_cannot_be_set_in_time_are_said(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import loops

    # The first try, and the only one that there is time for, is over before it has begun.
    monkeypatch.setattr(loops, "AHEAD", 1e-9)
    monkeypatch.setattr(loops, "LONGEST", 1e-9)
    with asyncio.Runner() as runner:
        pending = loops.Pending(runner, receive, True)
        work = pending.work()
        work.prepare()
        with pytest.raises(SystemExit, match=f"{few} timeouts took longer to set than"):
            work.run()
        pending.close()


def test_timeouts_are_set_further_ahead_on_a_busy_machine(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import loops

    monkeypatch.setattr(loops, "AHEAD", 1e-9)
    with asyncio.Runner() as runner:
        pending = loops.Pending(runner, receive, True)
        work = pending.work()
        work.prepare()
        work.run()
        assert work.counted is not None
        assert work.counted() == (few, few)
        pending.close()


@pytest.mark.parametrize(
    ("limits", "raised"),
    [
        ((1024, 20_000), (8100, 20_000)),
        ((1024, resource.RLIM_INFINITY), (8100, resource.RLIM_INFINITY)),
        ((8100, 20_000), None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None),
    ],
)
def test_the_limit_of_open_files_is_raised(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], raised: tuple[int, int] | None
) -> None:
    from benchmarks.loops import allow_files

    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: set_to.append(both))
    allow_files(8000)
    assert set_to == ([] if raised is None else [raised])


def test_too_few_open_files_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.loops import allow_files

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    with pytest.raises(SystemExit, match=r"needs 8,100 open files, and 4,096 are allowed"):
        allow_files(8000)
