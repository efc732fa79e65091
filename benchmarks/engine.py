"""The operation engine on io_uring, as its users would write it: a process of its own (see works.py)."""

from __future__ import annotations

import os
import re
import select
from typing import Any

import iocancel
from benchmarks.works import AT_ONCE, BLOCK, OFFSETS, READS, Work, cached_file, serve
from iocancel.engines.uring import UringEngine
from iocancel.operation import Operation, Outcome
from iocancel.trace.tracefs import Instance, TracingUnavailable
from iocancel.trace.tracer import BUFFER, events

PENDING = re.compile(r"cancel-all-(\d+)(-traced)?")


def cancel_all(engine: UringEngine, fd: int, pending: int) -> Work:
    """Cancel all that is pending, until every operation is settled."""
    ops: list[Operation[int]] = []

    def poll() -> None:
        ops.clear()
        ops.extend([engine.poll(fd, select.POLLIN) for _ in range(pending)])
        engine.submit()

    def cancel() -> tuple[int, int]:
        return engine.cancel_all(), 0

    def outcomes() -> tuple[int, int]:
        return len(ops), sum(op.outcome is Outcome.CANCELLED for op in ops)

    return Work(cancel, (pending, pending), poll, outcomes)


def reads(engine: UringEngine, fd: int) -> dict[str, Work]:
    """Reads of 4 KiB, so many at once, to buffers of the engine's own or to given ones."""
    batches = [OFFSETS[at : at + AT_ONCE] for at in range(0, READS, AT_ONCE)]
    buffers = [bytearray(BLOCK) for _ in range(AT_ONCE)]

    def own() -> tuple[int, int]:
        seen = total = 0
        for offsets in batches:
            ops = [engine.read(fd, BLOCK, offset) for offset in offsets]
            engine.wait(ops)
            for op in ops:
                seen += 1
                total += len(op.result())
        return seen, total

    def given() -> tuple[int, int]:
        seen = total = 0
        for offsets in batches:
            ops = [engine.read(fd, buffer, offset) for buffer, offset in zip(buffers, offsets, strict=True)]
            engine.wait(ops)
            for op in ops:
                seen += 1
                total += op.result()
        return seen, total

    def as_they_come() -> tuple[int, int]:
        seen = total = 0
        left = iter(OFFSETS)
        for _ in range(AT_ONCE):
            engine.read(fd, BLOCK, next(left))
        while engine.in_flight:
            for op in engine.reap(None):
                seen += 1
                total += len(op.result())
                for offset in left:
                    engine.read(fd, BLOCK, offset)
                    break
        return seen, total

    wanted = (READS, READS * BLOCK)
    return {"read": Work(own, wanted), "read-into": Work(given, wanted), "reap": Work(as_they_come, wanted)}


class Traced:
    """The same work while the kernel records each cancel, as for `iocancel trace`; nobody reads it then."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._instance: Any = None

    def _prepare(self) -> None:
        self._work.prepare()
        try:
            self._instance = Instance([*events("uring"), *events("libaio")], BUFFER).__enter__()
        except TracingUnavailable as error:
            raise SystemExit(str(error)) from None

    def _counted(self) -> tuple[int, int]:
        batch = self._instance.finish()
        self._instance.close()
        assert self._work.counted is not None
        if batch.lost or not batch.records:
            raise SystemExit(f"{len(batch.records)} events were recorded, {batch.lost} lost")
        return self._work.counted()

    def work(self) -> Work:
        """It."""
        return self._work._replace(prepare=self._prepare, counted=self._counted)


class Works(dict[str, Work]):
    """Works; those with a number of pending requests are made when they are asked for."""

    def __init__(self, engine: UringEngine, blocked: int, data: int) -> None:
        super().__init__(reads(engine, data))
        self._engine, self._blocked = engine, blocked

    def __missing__(self, name: str) -> Work:
        found = PENDING.fullmatch(name)
        if found is None:
            raise KeyError(name)
        work = cancel_all(self._engine, self._blocked, int(found[1]))
        self[name] = work = Traced(work).work() if found[2] else work
        return work


def main() -> None:
    blocked, _ = os.pipe()
    data = os.open(cached_file(), os.O_RDONLY)
    with iocancel.open_engine("uring") as engine:
        serve(Works(engine, blocked, data))


if __name__ == "__main__":
    main()
