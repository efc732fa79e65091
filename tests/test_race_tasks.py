"""The race suite's loops run, and what is wrong with a verb, a hub or a loop is found.

Each test that has a `monkeypatch` does to the library what a bug could do.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from iocancel import open_engine
from iocancel.asyncio import awaited as asyncio_awaited
from iocancel.asyncio import hub as asyncio_hub
from iocancel.awaiting import data
from iocancel.awaiting import hub as hubs
from iocancel.awaiting.streams import Stream
from iocancel.engines import ready
from iocancel.errors import EngineUnavailable
from iocancel.operation import FdOperation
from iocancel.operation.closing import Closing
from iocancel.uring import limbo
from tools.race import __main__ as command
from tools.race import awaited, lanes, owned_awaited, tasks, worlds
from tools.race.check import Failure, Resources
from tools.race.rounds import Options

OPS = 60 if os.environ.get("IOCANCEL_GUEST") else 200
WORLDS = [name for name in tasks.WORLDS if tasks.is_here(name)]
BOTH = [name for name in WORLDS if name != "uvloop"]


@pytest.fixture(scope="module", autouse=True)
def loops() -> None:
    try:
        open_engine("uring").close()
    except EngineUnavailable as error:
        pytest.skip(str(error))
    for name in WORLDS:
        tasks.warm(name)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    resources = Resources.now()
    yield
    while limbo.sweep():  # what a sabotage has kept from an engine is let go by the kernel
        gc.collect()
    resources.check()


def options(scenario: str, many: int = 8, **more: Any) -> Options:
    return Options(scenario=scenario, threads=many, ops=OPS, patience=30.0, **more)


def told(scenario: str, many: int = 12, patience: float = 30.0, **more: Any) -> str:
    """What is said of something that is wrong, in one of a few rounds."""
    asked = options(scenario, many, **more)
    asked.patience = patience
    for number in range(20):
        try:
            tasks.play(asked, number)
        except Failure as failure:
            return str(failure)
    raise AssertionError("nothing was found")


def now_and_then(nth: int) -> Callable[[], bool]:
    """True once in so many times."""
    counted = itertools.count(1)
    return lambda: next(counted) % nth == 0


def only(monkeypatch: pytest.MonkeyPatch, *kinds: type[awaited.File]) -> None:
    """Rounds with these files."""
    monkeypatch.setattr(tasks, "_KINDS", kinds * 2)


PLAIN = (awaited.Pipe, awaited.Stream, awaited.Event, awaited.Requests, awaited.Disk)
"""Where no memoryview is pinned when an engine is closed too early: see `awaited.Pipe`."""

UNSTOPPED = ("tasks hang", "s later", "in the ledger", "never taken", "has the value", "has written others")
"""Where no cancel goes out: what runs on, and takes bytes, or writes where a buffer was given back."""


def has(engine: str) -> None:
    try:
        open_engine(engine).close()
    except EngineUnavailable as error:
        pytest.skip(str(error))


# It runs


@pytest.mark.parametrize("many", [1, 60])
@pytest.mark.parametrize("engine", tasks.ENGINES)
@pytest.mark.parametrize("scenario", WORLDS)
def test_a_short_run(scenario: str, engine: str, many: int) -> None:
    has(engine)
    was = os.environ.get("IOCANCEL_ENGINE"), asyncio_hub.INLINE
    done = sum(tasks.play(options(scenario, many, engine=engine), number) for number in range(2))
    assert done > OPS
    assert (os.environ.get("IOCANCEL_ENGINE"), asyncio_hub.INLINE) == was


def test_no_round_where_nothing_can_be_polled() -> None:
    assert tasks.play(options("asyncio", engine="posix_aio"), 0) == 0


def test_no_round_in_a_world_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert tasks.play(options("uvloop"), 0) == 0


@pytest.mark.parametrize("scenario", BOTH)
def test_the_plan_is_drawn_from_the_seed(scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, str, int]] = []

    async def noted(self: tasks.Strand, name: str, *args: Any, **more: Any) -> Any:  # nothing is waited for
        made.append((self.name, name, self.left))
        raise OSError

    async def play(self: awaited.File, strand: tasks.Strand) -> bool:
        with pytest.raises(OSError):
            await strand.verb(self.name, self.finish)
        return True

    monkeypatch.setattr(tasks.Strand, "verb", noted)
    monkeypatch.setattr(tasks.Strand, "rest", lambda self: awaited.File.play(self.game.files[0], self))
    monkeypatch.setattr(
        tasks.Game, "cancel_somebody", lambda self, rng: None
    )  # who is there: a matter of time
    for kind in (awaited.File, *tasks._KINDS):
        monkeypatch.setattr(kind, "play", play)
    # How far a block comes before its deadline is a matter of time, too.
    real = asyncio.timeout
    monkeypatch.setattr(asyncio, "timeout", lambda seconds: real(None))
    if scenario == "trio":
        world_trio = importlib.import_module("tools.race.world_trio")
        monkeypatch.setattr(world_trio, "_KINDS", dict.fromkeys(world_trio._KINDS, world_trio._plain))
    played = []
    for seed in (1, 1, 2):
        made.clear()
        tasks.play(options(scenario, 1, seed=seed), 0)
        played.append(sorted(made))
    assert len(played[0]) > 50
    assert played[0] == played[1] != played[2]


# What verbs could do wrong


@pytest.mark.parametrize("scenario", WORLDS)
def test_a_byte_that_is_lost_is_found(scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, lies = data._read, now_and_then(10)

    def loses(*args: Any) -> int:
        many: int = real(*args)
        return many - 1 if many > 1 and lies() else many

    only(monkeypatch, awaited.Pipe)
    monkeypatch.setattr(data, "_read", loses)
    said = told(scenario)
    words = ("different from byte", "no whole number of words", "came behind", "missing")
    assert any(each in said for each in words)


@pytest.mark.parametrize("scenario", BOTH)
def test_what_a_cancelled_verb_consumes_is_found(scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = data._recv

    class Consumes:
        def __init__(self, hub: Any, file: Any, number: int, events: int) -> None:
            self.wait = until_ready(hub, file, number, events)
            self.number, self.events = number, events

        def __await__(self) -> Any:
            try:
                yield from self.wait.__await__()
            except BaseException:
                if self.events & data._IN:
                    real(ready.Attempt().told, self.number, 8, 0)  # from a socket: a pipe says ENOTSOCK
                raise

    module = asyncio_hub if scenario == "asyncio" else importlib.import_module("iocancel.trio.hub")
    until_ready, waited = module.Hub.until_ready, module.Hub.waited
    monkeypatch.setattr(module.Hub, "until_ready", lambda *args: Consumes(*args))
    monkeypatch.setattr(module.Hub, "waited", lambda hub, wait: waited(hub, wait.wait))
    said = told(scenario)
    assert "different from byte" in said or "missing" in said or "not the first that went" in said


@pytest.mark.parametrize("scenario", BOTH)
def test_a_buffer_that_is_written_to_after_the_cancel_is_found(
    scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = data.Data.readv
    module = tasks._world(scenario).verbs

    async def spoils(fd: int, buffers: Any) -> int:
        try:
            return await real(module._verbs, fd, buffers)
        except tasks._world(scenario).cancelled:
            if buffers[1]:
                buffers[1][0] = 0
            raise

    monkeypatch.setattr(module, "readv", spoils)
    assert "has written others" in told(scenario)


@pytest.mark.parametrize("scenario", BOTH)
def test_a_connection_that_is_dropped_is_found(scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, lies = tasks._world(scenario).verbs, now_and_then(5)
    real = module.accept

    async def drops(sock: Any) -> Any:
        pair = await real(sock)
        if lies():
            pair[0].close()
            pair = await real(sock)
        return pair

    monkeypatch.setattr(module, "accept", drops)
    said = told(scenario)
    assert "were lost" in said or "was closed, not accepted" in said


def test_a_stream_that_keeps_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real, cancel = Stream._bring, asyncio_hub.Hub.cancel

    async def forgets(self: Any, *args: Any) -> None:
        try:
            await real(self, *args)
        except BaseException:
            op = self._reading
            if op is not None and op.done() and op._res >= 0:
                self._reading = None
            raise

    def dawdles(self: Any, op: Any) -> None:
        """Send a cancel some passes of the loop later: so the bytes are often first."""
        self.loop.call_soon(self.loop.call_soon, self.loop.call_soon, sends, self, op, op._token)

    def sends(self: Any, op: Any, token: int) -> None:
        if op._token == token and not self.closed:  # else it has ended, and the object is used again
            cancel(self, op)

    only(monkeypatch, owned_awaited.Owned)
    monkeypatch.setattr(Stream, "_bring", forgets)
    monkeypatch.setattr(asyncio_hub.Hub, "cancel", dawdles)
    said = told("asyncio")
    # Where it was the last of them somebody waits for ever.
    assert any(each in said for each in ("different from byte", "never written", "missing", "tasks hang"))


@pytest.mark.parametrize("scenario", BOTH)
def test_a_position_that_a_cancelled_read_has_moved_is_found(
    scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = data.Data._from_disk

    async def moves(self: Any, hub: Any, fd: Any, number: int, into: Any, offset: int, abandon: bool) -> Any:
        try:
            return await real(self, hub, fd, number, into, offset, abandon)
        except BaseException:
            if offset < 0:
                os.lseek(number, 1, os.SEEK_CUR)
            raise

    monkeypatch.setattr(data.Data, "_from_disk", moves)
    only(monkeypatch, awaited.Disk)
    assert "and it is at" in told(scenario)


# What a hub could do wrong


def test_a_cancel_that_is_swallowed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio_hub.Ending, "result", lambda self: None)
    monkeypatch.setattr(asyncio_hub.Hub, "gone", lambda self, message: asyncio_awaited._go_on)
    said = told("asyncio")
    assert "was cancelled while it waited" in said or "nobody has asked for it" in said


def test_a_cancel_that_nobody_asked_for_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    lies = now_and_then(10)

    def result() -> None:
        if lies():
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio_awaited, "_go_on", result)
    assert "nobody has cancelled its task" in told("asyncio")


def test_a_cancel_that_trio_is_not_told_of_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    trio_hub = pytest.importorskip("iocancel.trio.hub")

    async def looks_away(self: Any) -> None:
        return

    monkeypatch.setattr(trio_hub.Hub, "checkpoint_if_cancelled", looks_away)
    assert "was cancelled before it" in told("trio")


def test_a_late_success_that_is_dropped_in_trio_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    trio_hub = pytest.importorskip("iocancel.trio.hub")
    only(monkeypatch, awaited.Disk)  # of reads that a cancel comes too late for
    real = trio_hub.Hub._wait

    async def drops(self: Any, op: Any, abandon: bool, deaf: bool) -> None:
        await real(self, op, abandon, deaf)
        await trio_hub.trio.lowlevel.checkpoint_if_cancelled()

    monkeypatch.setattr(trio_hub.Hub, "_wait", drops)
    said = told("trio")
    assert "has the value" in said or "and it is at" in said


@pytest.mark.parametrize("scenario", WORLDS)
def test_cancels_that_are_not_sent_are_found(scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, *PLAIN)

    def sabotage(engine: Any) -> None:
        engine._carrier.cancel = lambda ops: None

    said = told(scenario, patience=1.0, sabotage=sabotage)
    assert any(each in said for each in UNSTOPPED)


@pytest.mark.parametrize("scenario", BOTH)
def test_a_cancel_that_no_turn_is_made_for_is_found(scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, *PLAIN)
    monkeypatch.setattr(hubs.Hub, "cancel", lambda self, op: None)
    said = told(scenario, patience=1.0)
    assert any(each in said for each in UNSTOPPED)


@pytest.mark.parametrize("scenario", BOTH)
def test_an_ending_that_nobody_is_told_of_is_found(scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    close, lies, kept = hubs.Hub.close, now_and_then(20), []

    def sabotage(engine: Any) -> None:
        real = engine.tick

        def tick() -> list[Any]:
            ended: list[Any] = real()
            if ended and lies():
                kept.extend(ended)
                return []
            return ended

        engine.tick = tick

    def closes(self: Any, timeout: float = 1.0) -> None:  # so that the round can end
        close(self, timeout)
        self.waking.extend(op._awaited for op in kept if op._awaited is not None)
        kept.clear()

    only(monkeypatch, *PLAIN)
    monkeypatch.setattr(hubs.Hub, "close", closes)
    said = told(scenario, patience=1.0, sabotage=sabotage)
    assert "tasks hang" in said or "s later" in said


@pytest.mark.parametrize("scenario", BOTH)
def test_an_orphan_that_stays_is_found(scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Closing, "orphan", lambda self, op: self._orphans.add(op))
    only(monkeypatch, awaited.Fifo, awaited.Pipe)
    assert "of them orphans" in told(scenario, patience=1.0)


def test_a_late_fd_that_stays_open_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[int] = []

    def keeps(self: Any) -> None:
        if self._state == 3 and self._res >= 0 and not self._claimed and self._kind.name == "openat":
            lost.append(self._res)
            self._claimed = True
        real(self)

    real = FdOperation.__del__
    monkeypatch.setattr(FdOperation, "__del__", keeps)
    only(monkeypatch, awaited.Fifo, awaited.Fifo, awaited.Fifo)
    before = Resources.now()
    for number in range(40):
        tasks.play(options("asyncio", 60), number)
        if lost:
            break
    monkeypatch.setattr("tools.race.check._FD_SWEEP", 0.0)
    with pytest.raises(Failure, match="left behind"):
        before.check()
    for fd in lost:
        os.close(fd)


# What a round leaves behind


def test_a_task_that_is_left_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def leaves(self: awaited.Pipe) -> None:
        kept.append(asyncio.ensure_future(asyncio.sleep(0)))
        self.pipe.verify()

    kept: list[Any] = []
    monkeypatch.setattr(awaited.Pipe, "finish", leaves)
    monkeypatch.setattr(tasks.Game, "settle", lambda self: asyncio.sleep(0) if not kept else _no_pass())
    assert "tasks are left" in told("asyncio")


async def _no_pass() -> None:
    return


@pytest.mark.parametrize("scenario", BOTH)
def test_what_is_still_in_flight_is_found(scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def leaves(self: awaited.Pipe) -> None:
        self.game.hub.engine.read(self.pipe.reader, 8)
        self.game.hub.soon()

    monkeypatch.setattr(awaited.Pipe, "finish", leaves)
    assert "operations are in flight" in told(scenario, patience=1.0)


def test_what_the_loop_reports_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(self: awaited.Pipe) -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)

    monkeypatch.setattr(awaited.Pipe, "finish", breaks)
    assert "exception handler was called" in told("asyncio")


def test_what_nobody_can_catch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaks:
        def __del__(self) -> None:
            raise ZeroDivisionError

    real = lanes.Pipe.verify

    def breaks(self: lanes.Pipe) -> None:
        Breaks()
        real(self)

    monkeypatch.setattr(lanes.Pipe, "verify", breaks)
    assert "unraisable" in told("asyncio")


def test_a_cancel_that_takes_long_is_found() -> None:
    game = tasks.Game(options("asyncio"), 0)
    game.options.patience = 0.0
    with pytest.raises(Failure, match=r"it was cancelled, and has raised .* s later"):
        worlds.Asyncio(game).late("it", 0.0)


# The command


def test_the_command_plays_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--seed", "5", "--ops", "400", "--round-ops", "60", "--scenario", "tasks", "--threads", "8"]
    assert command.main([*arguments, "--engine", "uring"]) == 0
    said = capsys.readouterr().out
    assert all(f"uring      {name}" in said for name in WORLDS)
    assert "every one accounted for" in said


def test_the_command_says_how_to_play_a_failure_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(asked: Options, number: int) -> int:
        raise Failure(f"round {number} went wrong")

    monkeypatch.setattr(tasks, "play", fails)
    assert command.main(["--seed", "7", "--scenario", "asyncio", "--engine", "uring", "--threads", "9"]) == 1
    said = capsys.readouterr().out
    assert "./dev race --seed 7 --engine uring --scenario asyncio --threads 9 --round 0" in said
