"""The real engines against a model: hypothesis makes up what is done, in which order.

What must always be so: bytes in are bytes out (received, or still in the pipe); each operation has
one ending; outcome and verdict go together as the kernel's facts allow.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule

from iocancel import Outcome, Verdict
from iocancel.testing import BlockedPipe, Canary

from ..support import BOUND, GUEST
from .helpers import real

PIPES = 3
numbers = st.integers(0, PIPES - 1)


class Machine(RuleBasedStateMachine):
    """Pipes, and operations on them."""

    engine_name = ""
    ops = Bundle("ops")

    @initialize()
    def open(self) -> None:
        self.engine = real(self.engine_name)
        self.pipes = [BlockedPipe() for _ in range(PIPES)]
        self.sent = [bytearray() for _ in range(PIPES)]  # into each pipe, by anybody
        self.got: list[list[bytes]] = [[] for _ in range(PIPES)]
        self.where: dict[Any, int] = {}
        self.canaries: dict[Any, Canary] = {}
        self.writes: dict[Any, bytes] = {}
        self.ended: dict[Any, int] = {}
        self.asked: set[Any] = set()
        self.taken: set[Any] = set()
        self.next = 0

    def note(self, op: Any, number: int) -> Any:
        self.where[op] = number
        self.ended[op] = 0
        op.add_done_callback(self.end)
        return op

    def end(self, op: Any) -> None:
        self.ended[op] += 1
        if op in self.writes and op.outcome is Outcome.COMPLETED:
            self.sent[self.where[op]] += self.writes[op][: op.result()]

    def fresh(self, many: int) -> bytes:
        data = bytes((self.next + i) % 251 for i in range(many))
        self.next += many
        return data

    @rule(target=ops, number=numbers, size=st.integers(1, 9))
    def read(self, number: int, size: int) -> Any:
        canary = Canary(size, guard=8)
        op = self.engine.read(self.pipes[number], canary.buffer)
        self.canaries[op] = canary
        return self.note(op, number)

    @rule(target=ops, number=numbers, size=st.integers(1, 9))
    def write(self, number: int, size: int) -> Any:
        data = self.fresh(size)
        op = self.engine.write(self.pipes[number].write_end, data)
        self.writes[op] = data
        return self.note(op, number)

    @rule(target=ops, number=numbers)
    def poll(self, number: int) -> Any:
        if not self.engine.supports("poll"):
            return multiple()
        return self.note(self.engine.poll(self.pipes[number], select.POLLIN), number)

    @rule(target=ops, seconds=st.sampled_from([0.0, 3600.0]))
    def timeout(self, seconds: float) -> Any:
        if not self.engine.supports("timeout"):
            return multiple()
        return self.note(self.engine.timeout(seconds), -1)

    @rule(number=numbers, size=st.integers(1, 9))
    def feed(self, number: int, size: int) -> None:
        """Bytes that no operation carries; in one call, so that the order is known."""
        if any(self.where[op] == number and not op.done() for op in self.writes):
            return
        data = self.fresh(size)
        self.pipes[number].write(data)
        self.sent[number] += data

    @rule(op=ops)
    def cancel(self, op: Any) -> None:
        if op.cancel():
            self.asked.add(op)

    @rule(op=ops)
    def wait_no_time(self, op: Any) -> None:
        if not op.done():
            self.asked.add(op)
        op.wait(0.0)

    @rule()
    def submit(self) -> None:
        self.engine.submit()

    @rule()
    def reap(self) -> None:
        for op in self.engine.reap(0):
            assert self.ended[op] == 1

    @rule(number=numbers)
    def cancel_fd(self, number: int) -> None:
        mine = {op for op, at in self.where.items() if at == number and op not in self.writes}
        live = {op for op in mine if not op.done()}
        assert self.engine.cancel_fd(self.pipes[number]) <= len(live)
        self.asked |= live

    @rule()
    def cancel_all(self) -> None:
        self.asked |= {op for op in self.where if not op.done()}
        self.engine.cancel_all()

    @rule(number=numbers)
    def close_fd(self, number: int) -> None:
        """Cancel, wait, close; and a new pipe at its place, which may get the same number."""
        mine = {op for op, at in self.where.items() if at == number and not op.done()}
        self.asked |= mine
        self.engine.cancel_fd(self.pipes[number].write_end)
        self.engine.wait([op for op in mine if op in self.writes], BOUND)
        left = self.pipes[number].drain() if not any(op in self.canaries for op in mine) else None
        became = self.engine.close_fd(self.pipes[number].disown(), BOUND)
        assert set(became) <= mine
        assert all(op.done() for op in mine)
        self.balance(number, left)
        self.pipes[number].close_write()
        self.pipes[number] = BlockedPipe()
        self.sent[number].clear()
        for op in [op for op, at in self.where.items() if at == number]:
            self.check(op)
            self.taken.add(op)

    def balance(self, number: int, left: bytes | None) -> None:
        """Bytes in are bytes out; `left` is what is still in the pipe, None where nobody knows."""
        parts = [
            bytes(canary)[: op.result()]
            for op, canary in self.canaries.items()
            if self.where[op] == number and op not in self.taken and op.outcome is Outcome.COMPLETED
        ]
        got = sum(map(len, parts))
        if left is not None:
            assert got + len(left) == len(self.sent[number])
            assert sorted(b"".join([*parts, left])) == sorted(self.sent[number])
        else:
            assert got <= len(self.sent[number])

    def check(self, op: Any) -> None:
        """One operation that has ended."""
        assert self.ended[op] == 1, "one ending each"
        outcome, verdict = op.outcome, op.verdict
        assert outcome is not Outcome.FAILED, op.exception()
        if op not in self.asked:
            assert outcome is Outcome.COMPLETED
            assert verdict is None
        if outcome is Outcome.CANCELLED:
            assert verdict is not None
        if verdict is Verdict.CANCELLED and self.engine_name == "uring":  # facts 2.8: no mixed case
            assert outcome is Outcome.CANCELLED
        if op in self.canaries:
            canary = self.canaries[op]
            canary.check()
            if outcome is Outcome.CANCELLED:
                assert canary.untouched(), "cancelled, and it was written to"

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        try:
            self.asked |= {op for op in self.where if not op.done()}
            self.engine.cancel_all()
            self.engine.wait(list(self.where), BOUND)
            self.engine.reap(0)
            assert self.engine.in_flight == 0
            for op in self.where:
                self.check(op)
            for number, pipe in enumerate(self.pipes):
                self.balance(number, pipe.drain())
        finally:
            self.engine.close()
            for pipe in self.pipes:
                pipe.close()
        for canary in self.canaries.values():
            canary.check()


def machine(name: str) -> Callable[..., Any]:
    made: Any = type(f"Machine_{name}", (Machine,), {"engine_name": name})
    case = made.TestCase
    case.settings = settings(
        max_examples=6 if GUEST else 200,
        stateful_step_count=30,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    return case  # type: ignore[no-any-return]


# Not posix_aio: glibc cannot end a read of an empty pipe that a thread has in hand (facts 6.2).
@pytest.mark.parametrize("name", ["uring", "libaio"])
def test_a_real_engine_does_as_the_model_says(name: str) -> None:
    real(name).close()
    case: Any = machine(name)
    case("runTest").runTest()
