"""What the tests of the libaio engine share."""

from __future__ import annotations

import dis
import os
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from iocancel import Operation, Outcome, Verdict
from iocancel.engines.libaio import LibaioEngine

from ..support import BOUND, cut_short

PARTS = tuple(os.path.join("iocancel", part) for part in ("operation", "engines", "libaio"))
# Behind these the interpreter looks for signals (and when a function begins): nowhere else can a handler run.
RESUME = dis.opmap["RESUME"]
LOOKS = frozenset(
    dis.opmap[name] for name in ("CALL", "CALL_FUNCTION_EX", "JUMP_BACKWARD", "RESUME") if name in dis.opmap
)


@pytest.fixture
def engine() -> Iterator[LibaioEngine]:
    """The engine on Linux AIO; everything has ended at the test's end."""
    with LibaioEngine(64) as made:
        yield made
        assert made.in_flight == 0
        assert not made._carrier._jobs
        assert not made._carrier._want


def flying(engine: LibaioEngine, op: Operation[Any]) -> None:
    """Submit, and be sure that the kernel has it: armed, nothing done yet."""
    engine.submit()
    assert not op.done()
    assert op._entry.iocb.in_flight


def interrupted(step: int, call: Callable[[], object]) -> bool:
    """Call, and raise a KeyboardInterrupt where the `step`th signal can be noticed; False: too few were."""
    left = step
    last: dict[FrameType, int] = {}

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal left
        code = frame.f_code
        if not any(part in code.co_filename for part in PARTS):
            return None
        frame.f_trace_opcodes = True
        if event == "call":
            last[frame] = RESUME  # which has no event of its own
        if event == "opcode":
            before = last[frame]
            last[frame] = code.co_code[frame.f_lasti]
            if before in LOOKS:
                left -= 1
                if left < 0:
                    sys.settrace(None)
                    raise KeyboardInterrupt
        return trace

    return cut_short(trace, call) or left < 0


def ended(op: Any) -> Any:
    assert op.wait(BOUND) is Outcome.COMPLETED, op.exception()
    return op.result()


def gone(op: Any) -> None:
    op.cancel()
    assert op.wait(BOUND) is Outcome.CANCELLED
    assert op.verdict is Verdict.CANCELLED


def failed(op: Any) -> int:
    assert op.wait(BOUND) is Outcome.FAILED
    error = op.exception()
    assert isinstance(error, OSError)
    assert error.errno
    return error.errno


def drain(fd: int, many: int) -> None:
    while many:
        many -= len(os.read(fd, min(many, 65536)))
