"""An exception out of a signal handler at any point of a start leaves the ledger true."""

import errno
import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from iocancel import posix_aio as aio
from iocancel.posix_aio import Aiocb

from ..support import GUEST, cut_short

Pipe = Callable[[], tuple[int, int]]


def interrupted(call: Callable[[], object], at: int) -> bool:
    """Run `call`, and raise KeyboardInterrupt before its instruction number `at`; whether it came so far."""
    left = at

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if "posix_aio" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    return cut_short(trace, call)


def starts(block: Aiocb) -> dict[str, Callable[[], object]]:
    return {
        "aio_read": lambda: aio.aio_read(block),
        "lio_listio": lambda: aio.lio_listio(aio.LIO_NOWAIT, [block]),
    }


@pytest.mark.parametrize("name", ["aio_read", "lio_listio"])
def test_a_start(name: str, pipe: Pipe) -> None:
    read, write = pipe()
    started = at = 0
    while True:
        at += 29 if GUEST else 1
        block = Aiocb(read, bytearray(1), lio_opcode=aio.LIO_READ)
        came = interrupted(starts(block)[name], at)
        running = aio.in_progress()
        if running:  # the C library has it: the block knows, and the memory is kept
            started += 1
            assert aio.aio_error(block) == errno.EINPROGRESS
            with pytest.raises(BufferError):
                block.buf.append(1)
            os.write(write, b"x")
            assert aio.aio_suspend([block], 60)
            assert aio.aio_return(block) == 1
        block.buf = bytearray(1)  # it never got it, or has done with it: the block can be started
        os.write(write, b"x")
        starts(block)[name]()
        assert aio.aio_suspend([block], 60)
        assert aio.aio_return(block) == 1
        if not came:
            break
    assert started
    assert at > 50
