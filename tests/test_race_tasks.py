"""The race suite's loops run, and what is wrong with a verb is found.

Each test that has a `monkeypatch` does to the library what a bug could do.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from typing import Any

import pytest

from iocancel.asyncio import hub as asyncio_hub
from iocancel.awaiting import data
from iocancel.awaiting.streams import Stream
from iocancel.engines import ready
from tools.race import __main__ as command
from tools.race import awaited, owned_awaited, tasks
from tools.race.check import Failure
from tools.race.rounds import Options

from .race_stage import has, now_and_then
from .race_tasks_stage import BOTH, OPS, WORLDS, only, options, told
from .race_tasks_stage import loops as loops
from .race_tasks_stage import nothing_left_behind as nothing_left_behind

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
