"""What the tests of interrupts and races share: a trace that gets in between, and a stage for it."""

from __future__ import annotations

import contextlib
import dis
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import iocancel
from iocancel.uring import Ring

from ..support import BOUND, GUEST, resizable

PATIENCE = BOUND / 4
"""How long a close may wait for what never comes; it is quick when it takes less than half of that."""
Wrapped = Callable[[Callable[[], object]], Callable[[], object]]
"""Has something done elsewhere."""
_OURS = str(Path(iocancel.__file__).parent) + os.sep
_CALLS = ("CALL", "CALL_FUNCTION_EX", "CALL_KW")
_GENERATOR = 0x20


def interrupt() -> None:
    raise KeyboardInterrupt


class Bomb:
    """Does something at the nth place, in iocancel's own code, where CPython runs signals' handlers.

    That is where it switches between threads, too: at the entry of a function, after a call of what is
    written in C (that of a Python function ends without a look), and at a jump backward.
    """

    def __init__(self, nth: int, act: Callable[[], object] = interrupt, spared: tuple[str, ...] = ()) -> None:
        self.left = nth
        self.spared = spared  # functions where it does nothing
        self.act = act
        self.place = ""
        self._done: dict[FrameType, str] = {}  # the last instruction of each frame
        self._returned_to: FrameType | None = None
        self._names: dict[CodeType, dict[int, str]] = {}

    def __enter__(self) -> Bomb:
        self._before = sys.gettrace()
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)
        self._done.clear()
        self._returned_to = None

    def _enter(self, frame: FrameType, event: str, arg: object) -> Any:
        if self.place or not frame.f_code.co_filename.startswith(_OURS):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        if not frame.f_code.co_flags & _GENERATOR:  # one that is closed is entered, too, without a look
            self._here(frame, "entry")
        return self._inside

    def _inside(self, frame: FrameType, event: str, arg: object) -> Any:
        code = frame.f_code
        if event == "return":
            self._done.pop(frame, None)
            if code.co_name != "__init__" and not code.co_flags & _GENERATOR:
                self._returned_to = frame.f_back
        elif event == "opcode":
            if code not in self._names:
                self._names[code] = {i.offset: i.opname for i in dis.get_instructions(code)}
            name = self._names[code][frame.f_lasti]
            after_c = self._done.get(frame) in _CALLS and self._returned_to is not frame
            self._done[frame], self._returned_to = name, None
            if after_c or "JUMP_BACKWARD" in name:
                self._here(frame, "after a call" if after_c else "jump backward")
        return self._inside

    def _here(self, frame: FrameType, kind: str) -> None:
        if self.place or frame.f_code.co_name in self.spared:
            return
        if self.left:
            self.left -= 1
            return
        code = frame.f_code
        self.place = f"{kind}: {Path(code.co_filename).name}:{frame.f_lineno} in {code.co_name}"
        self.act()


def places() -> Iterator[int]:
    """The places' numbers, without an end; fewer in an emulated guest."""
    nth = 0
    while True:
        yield nth
        nth += 7 if GUEST else 1


def swept(nth: int) -> None:
    """An operation in which the nth place was not reached any more: the sweep is over, if there was one."""
    assert nth > 0, "no place was found where an interrupt may come"


class Stage:
    """A ring, two reads of pipes, and all the completions that were handed out."""

    def __init__(self) -> None:
        self.ring = Ring(8)
        self.pipes = [os.pipe(), os.pipe()]
        self.buffers = [bytearray(8), bytearray(8)]
        self.got: Counter[tuple[int, int]] = Counter()

    def prepare(self, many: int = 2, flags: int = 0) -> None:
        for name in range(1, many + 1):
            sqe = self.ring.get_sqe()
            sqe.user_data = name
            sqe.flags = flags
            sqe.prep_read(self.pipes[name - 1][0], self.buffers[name - 1])

    def feed(self) -> None:
        for _, write_end in self.pipes:
            os.write(write_end, b"x")

    def note(self, told: list[Any]) -> None:
        self.got.update((c[0], c[1]) if isinstance(c, tuple) else (c.user_data, c.res) for c in told)

    def settle(self, *wanted: tuple[int, int]) -> None:
        """Waits for these and for a NOP that is submitted behind them: no others have come, none twice."""
        deadline = time.monotonic() + BOUND
        whole = Counter(wanted)
        self.note(self.ring.peek())
        while not whole <= self.got and (left := deadline - time.monotonic()) > 0:
            self.note(self.ring.wait(1, left))
        self.nop()
        assert self.got == whole

    def nop(self) -> None:
        name = self.ring.get_sqe().user_data
        self.ring.submit()
        deadline = time.monotonic() + BOUND
        while not self.got.pop((name, 0), 0):
            assert time.monotonic() < deadline
            self.note(self.ring.wait(1, deadline - time.monotonic()))

    def close(self) -> None:
        before = time.monotonic()
        self.ring.close(PATIENCE)
        assert time.monotonic() - before < PATIENCE / 2, "closing was not quick"
        for ends in self.pipes:
            for end in ends:
                os.close(end)


@contextlib.contextmanager
def played(stage: Any, bomb: Bomb) -> Iterator[None]:
    """Closes the stage at the end; what fails on it says where the bomb went off."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"at {bomb.place}")
        raise
    finally:
        stage.close()


def all_free(stage: Stage) -> None:
    assert stage.ring.in_flight == 0
    assert all(resizable(buffer) for buffer in stage.buffers), "a pin was kept"
