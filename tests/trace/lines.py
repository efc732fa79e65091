"""Says to a joiner what a kernel's events would."""

from __future__ import annotations

from typing import Any

import pytest

from iocancel._native import lib
from iocancel.trace.events import Cancel
from iocancel.trace.join import Joiner

ME, OTHER, WORKER = 100, 200, 300
RING = 0xFFFF0000
CANCEL, READ, POLL = lib.IORING_OP_ASYNC_CANCEL, lib.IORING_OP_READ, lib.IORING_OP_POLL_ADD
TIMEOUT, TIMEOUT_REMOVE, POLL_REMOVE = (
    lib.IORING_OP_TIMEOUT,
    lib.IORING_OP_TIMEOUT_REMOVE,
    lib.IORING_OP_POLL_REMOVE,
)
LINK = lib.IORING_OP_LINK_TIMEOUT
SILENT = lib.IOSQE_CQE_SKIP_SUCCESS


class Kernel:
    """Says what a kernel would, a microsecond after the last."""

    def __init__(self) -> None:
        self.found: list[Cancel] = []
        self.strays: list[int] = []
        self.joiner = Joiner(self.found.append, lambda tid: (tid // 100 * 100, f"p{tid}"), self.strays.append)
        self.now = 1_000_000
        self.joiner.create(RING, 7)

    def later(self, ns: int = 1000) -> int:
        self.now += ns
        return self.now

    def submit(self, req: int | None, user_data: int, opcode: int, flags: int = 0, tid: int = ME) -> None:
        self.joiner.submit(self.later(), tid, RING, req, user_data, opcode, flags)

    def add(self, req: int | None, user_data: int, tid: int = ME, **more: Any) -> None:
        self.later()
        self.joiner.task_add(tid, more.get("interrupted", False), RING, req, user_data, more.get("mask", 0))

    def done(self, req: int | None, user_data: int, res: int, tid: int = ME, cflags: int = 0) -> None:
        self.joiner.complete(self.later(), tid, RING, req, user_data, res, cflags)

    def one(self) -> Cancel:
        assert len(self.found) == 1, self.found
        return self.found[0]


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


def ended(cancel: Cancel) -> list[tuple[int | None, str | None, str | None, bool]]:
    return [(each.user_data, each.op, each.ending, each.seen) for each in cancel.targets]


def told(kernel: Kernel) -> dict[int | None, tuple[str, list[int | None]]]:
    return {
        each.user_data: (each.verdict, [target.user_data for target in each.targets]) for each in kernel.found
    }
