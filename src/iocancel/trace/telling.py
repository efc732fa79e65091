"""When a cancel is whole: until then it is kept, and then it is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from iocancel.trace.events import Cancel
from iocancel.trace.pending import Pending, Ring

LINGER = 1_000_000_000
"""For how many ns a cancel that was accepted waits for the ending of what it found."""


class Telling:
    """Keeps cancels, on their rings, from when they begin until nothing more is to be known about them.

    Args:
        emit, who: see Joiner.
    """

    def __init__(self, emit: Callable[[Cancel], object], who: Callable[[int], tuple[int, str]]) -> None:
        self._emit, self._who = emit, who
        self.recorded: Callable[[Cancel], Cancel] | None = None
        """Tells of a cancel that begins what its program has written down: `Recorded.of`. Asked in the order
        of time, which is not that of the whole ones: of several with one user_data each has its own."""
        self._rings: dict[int, Ring] = {}
        self._calls: dict[int, Pending] = {}  # by thread: the system call that is a cancel
        self._pending: deque[tuple[int, Pending]] = deque()  # with the time until which they may wait

    def _ring(self, ctx: int) -> Ring:
        ring = self._rings.get(ctx)
        if ring is None:
            ring = self._rings[ctx] = Ring(None)
        return ring

    def _begin(self, time: int, tid: int, mechanism: str, ctx: int, user_data: int) -> Pending:
        ring = self._ring(ctx)
        pending = self._called(time, tid, mechanism, "uring", user_data=user_data, ring=ctx, ring_fd=ring.fd)
        pending.ring = ring
        return pending

    def _called(self, time: int, tid: int, mechanism: str, system: str, **more: Any) -> Pending:
        pid, comm = self._who(tid)
        fields = {"pid": pid, "tid": tid, "comm": comm, "system": system, **more}
        pending = Pending(time, mechanism, None, fields)
        if self.recorded is not None:
            found = self.recorded(Cancel(time=time, mechanism=mechanism, **fields))
            if found.flags is not None:
                pending.said = {"key": found.key, "fd": found.fd, "flags": found.flags}
        return pending

    def _place(self, pending: Pending, ctx: int, ring: Ring) -> None:
        """Its ring is known."""
        if pending.ring is None:
            pending.ring = ring
            pending.fields["ring"] = ctx
            if pending.fields.get("ring_fd") is None:
                pending.fields["ring_fd"] = ring.fd
            ring.add(pending)

    def _wait(self, pending: Pending) -> None:
        self._pending.append((pending.time + LINGER, pending))

    def _answer(self, pending: Pending, time: int | None, res: int) -> None:
        pending.result, pending.answered, pending.silent = res, time, False
        self._look(pending)

    def _look(self, pending: Pending) -> None:
        if pending.whole():
            self._out(pending)

    def _out(self, pending: Pending) -> None:
        if pending.out:
            return
        pending.out = True
        if pending.ring is not None:
            pending.ring.remove(pending)
        answered = pending.answered
        self._emit(
            Cancel(
                time=pending.time,
                mechanism=pending.mechanism,
                result=pending.result,
                verdict=pending.verdict(),
                targets=tuple(pending.targets),
                candidates=() if pending.whole() else tuple(pending.candidates),
                latency=None if answered is None else answered - pending.time,
                **{**pending.fields, **pending.said},
            )
        )

    def advance(self, now: int) -> None:
        """It is that late: what has waited for long enough is told as far as it is known."""
        while self._pending and self._pending[0][0] <= now:
            _, pending = self._pending.popleft()
            if pending.out:
                continue
            if pending.silent and pending.result is None and (pending.here or pending.targets):
                self._answer(pending, None, 0)
            if pending.result is None and self._waits(pending):
                self._pending.append((now + LINGER, pending))
                continue
            if pending.answered is not None and pending.answered + LINGER > now:
                self._pending.append((pending.answered + LINGER, pending))
                continue
            self._out(pending)

    def _waits(self, pending: Pending) -> bool:
        """Whether its answer may still come: it is behind something, or is a call that has not returned."""
        if pending.place is None or pending.ring is None:
            return self._calls.get(pending.fields["tid"]) is pending
        request = pending.ring.live.get(pending.place)
        return request is not None and request.own is pending

    def finish(self) -> None:
        """Nothing more will come."""
        while self._pending:
            _, pending = self._pending.popleft()
            self._out(pending)
