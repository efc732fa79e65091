"""What the tests of engines in an event loop share: the loop, which is epoll and nothing else."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from iocancel import Operation

from ..contract.conftest import opened
from ..contract.helpers import stops
from ..support import BOUND

ROUNDS = 5
"""In so many looks with nothing happening, whatever is still to be seen to is over."""


class Loop:
    """An event loop: it sleeps in epoll, and nowhere else."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.epoll = select.epoll()
        self.fd = engine.fileno()
        self.epoll.register(self.fd, select.EPOLLIN)  # level-triggered
        self.ended: list[Operation[Any]] = []
        self.rounds = 0
        self.alarmed = 0

    def once(self, limit: float = BOUND) -> bool:
        """One turn; whether there was a reason for it."""
        when = self.engine.alarm()
        left = limit if when is None else min(limit, max(0.0, when - time.monotonic()))
        ready = bool(self.epoll.poll(left))
        due = when is not None and time.monotonic() >= when
        if not ready and not due:
            return False
        self.rounds += 1
        self.alarmed += not ready
        self.ended += self.engine.reap(0)
        return True

    def run(self, *ops: Operation[Any]) -> None:
        """Until these have ended."""
        deadline = time.monotonic() + BOUND
        while not all(op.done() for op in ops):
            assert time.monotonic() < deadline, (
                f"the loop was not told of {[op for op in ops if not op.done()]}"
            )
            self.once(max(0.0, deadline - time.monotonic()))

    def rest(self) -> None:
        """Nothing is to be done: the file is quiet after a few looks, and nothing asks for another one."""
        looks = 0
        while self.epoll.poll(0):
            looks += 1
            assert looks <= ROUNDS, "the file stays readable, and nothing comes"
            self.ended += self.engine.reap(0)
        if not self.engine.in_flight:
            # A look, for alarms that were set for what has ended.
            self.engine.reap(0)
            assert self.engine.alarm() is None, "something is due, with nothing in flight"


@pytest.fixture
def looping() -> Iterator[Callable[[Any], Loop]]:
    """Makes loops."""
    with contextlib.ExitStack() as stack:

        def make(engine: Any) -> Loop:
            loop = Loop(engine)
            stack.callback(loop.epoll.close)
            return loop

        yield make


@pytest.fixture
def engine(name: str) -> Iterator[Any]:
    """An engine of each kind, which nobody lets wait."""
    with opened(name) as engine:
        yield engine


@pytest.fixture
def loop(engine: Any, looping: Callable[[Any], Loop]) -> Loop:
    """A loop that watches the engine from its beginning."""
    return looping(engine)


def end_read(engine: Any, op: Operation[Any], end: int) -> None:
    """After a cancel's verdict: what runs and can't be stopped ends when its byte comes."""
    if not stops(engine, "read") and not op.done():  # done: no thread of the C library's had it yet
        os.write(end, b"z")


def check_cancelled(engine: Any, op: Operation[Any]) -> None:
    """That it was cancelled, where that is possible."""
    assert op.cancelled() or (not stops(engine, "read") and op.result() == b"z")


def cut_records(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C comes when records have come, and nobody has dealt with them."""
    carrier = type(engine._carrier)
    go = carrier.go

    def cut(self: Any, batch: Any, wait: bool, timeout: float | None) -> None:
        go(self, batch, wait, timeout)
        if self.records():
            monkeypatch.undo()
            raise KeyboardInterrupt

    monkeypatch.setattr(carrier, "go", cut)
