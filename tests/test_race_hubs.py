"""The race suite's loops find what is wrong with a hub, and what a round leaves behind.

Each test does to the library what a bug could do.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from iocancel.asyncio import awaited as asyncio_awaited
from iocancel.asyncio import hub as asyncio_hub
from iocancel.awaiting import hub as hubs
from iocancel.operation import FdOperation
from iocancel.operation.closing import Closing
from tools.race import awaited, lanes, tasks, worlds
from tools.race.check import Failure, Resources

from .race_stage import now_and_then
from .race_tasks_stage import BOTH, WORLDS, only, options, told
from .race_tasks_stage import loops as loops
from .race_tasks_stage import nothing_left_behind as nothing_left_behind

PLAIN = (awaited.Pipe, awaited.Stream, awaited.Event, awaited.Requests, awaited.Disk)
"""Where no memoryview is pinned when an engine is closed too early: see `awaited.Pipe`."""

UNSTOPPED = ("tasks hang", "s later", "in the ledger", "never taken", "has the value", "has written others")
"""Where no cancel goes out: what runs on, and takes bytes, or writes where a buffer was given back."""


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
