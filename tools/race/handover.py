"""Requests made just when the leading thread leaves: none may be forgotten.

One thread waits in the engine, and so leads. Another wakes it and, while it is on its way out, asks for
something: a write by `submit`, a cancel by `Operation.cancel` or `engine.cancel`. Then nobody calls the
engine any more, and the effect must come all the same.
"""

from __future__ import annotations

import os
import random
import select
import sys
import threading
from typing import Any

import iocancel
from iocancel.operation import Reach
from iocancel.operation.operation import SENT
from tools.race.check import Failure, quiescent
from tools.race.rounds import Options

_PATIENCE = 3.0


class _Leader(threading.Thread):
    """Waits for one read after the other, and does nothing between."""

    def __init__(self, engine: Any, fd: int) -> None:
        super().__init__(daemon=True)
        self.engine, self.fd = engine, fd
        self.begin, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.over = False
        self.failure: BaseException | None = None
        self.op: Any = None

    def run(self) -> None:
        """See the base class."""
        try:
            while self.begin.acquire() and not self.over:
                self.op.wait()
                self.done.release()
        except BaseException as error:  # noqa: BLE001 - for the other thread
            self.failure = error
            self.done.release()


def play(options: Options, number: int) -> int:
    """A round of it: returns how many operations there were."""
    rng = random.Random(f"{options.seed}/handover/{options.engine}/{number}")
    old = sys.getswitchinterval()
    sys.setswitchinterval(options.switch)
    pipes = [os.pipe() for _ in range(3)]
    engine = iocancel.open_engine(options.engine)
    if engine.reach("read") is Reach.NONE:  # it lives by cancelling reads that wait
        engine.close()
        for pipe in pipes:
            os.close(pipe[0])
            os.close(pipe[1])
        sys.setswitchinterval(old)
        return 0
    if options.sabotage is not None:
        options.sabotage(engine)
    leader = _Leader(engine, pipes[0][0])
    leader.start()
    many = 0
    try:
        for i in range(options.ops // 3):
            many += _once(engine, leader, pipes, rng, i)
        quiescent(engine)
    finally:
        leader.over = True
        leader.begin.release()
        for pipe in pipes:  # an end of file for what may still be read
            os.close(pipe[1])
        engine.close(1.0)
        leader.join(_PATIENCE)
        for pipe in pipes:
            os.close(pipe[0])
        sys.setswitchinterval(old)
    return many


def _once(engine: Any, leader: _Leader, pipes: list[tuple[int, int]], rng: random.Random, i: int) -> int:
    led = leader.op = engine.read(pipes[0][0], 8)
    waiting = engine.read(pipes[1][0], 8)
    leader.begin.release()
    for _ in range(rng.randrange(40)):
        engine.in_flight  # noqa: B018 - time passes
    os.write(pipes[0][1], b"12345678")
    for _ in range(rng.randrange(200)):
        engine.in_flight  # noqa: B018
    written = engine.write(pipes[2][1], b"12345678")
    engine.submit()
    if not leader.done.acquire(timeout=_PATIENCE):
        raise Failure(f"turn {i}: the leader does not come back; {led!r}")
    if leader.failure is not None:
        raise leader.failure
    if not select.select([pipes[2][0]], [], [], _PATIENCE)[0]:
        raise Failure(
            f"turn {i}: submit() has returned, no thread waits, and {written!r} was not handed over"
        )
    os.read(pipes[2][0], 8)
    # The same with a cancel.
    led = leader.op = engine.read(pipes[0][0], 8)
    engine.submit()
    leader.begin.release()
    for _ in range(rng.randrange(40)):
        engine.in_flight  # noqa: B018
    os.write(pipes[0][1], b"12345678")
    for _ in range(rng.randrange(200)):
        engine.in_flight  # noqa: B018
    engine.cancel([waiting])
    if not leader.done.acquire(timeout=_PATIENCE):
        raise Failure(f"turn {i}: the leader does not come back; {led!r}")
    if leader.failure is not None:
        raise leader.failure
    # What the other thread has submitted ends by that thread's work, a little later; but it has begun.
    if not waiting.done() and waiting._cancel < SENT:
        raise Failure(
            f"turn {i}: engine.cancel() has returned, no thread waits, and it was not sent: {waiting!r}"
        )
    waiting.wait(_PATIENCE)
    engine.reap()
    if engine.in_flight or not waiting.cancelled():
        raise Failure(f"turn {i}: {engine.in_flight} in flight; {written!r} {waiting!r}")
    return 4
