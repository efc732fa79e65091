"""Time that passes when the test says so."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any


class Clock:
    """Seconds that stand still until `advance`. Made by `stopped_clock`."""

    def __init__(self) -> None:
        self._now = time.monotonic()

    def monotonic(self) -> float:
        """The time now, in seconds, as `time.monotonic`."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Args:
            seconds: how long, >= 0. Nothing happens by itself: deadlines are seen at the engine's next turn.
        """
        if seconds < 0:
            raise ValueError(f"seconds takes a number >= 0, not {seconds}")
        self._now += seconds


_clocks: list[Clock] = []


def current_clock() -> Clock | None:
    """The clock that stands, None where time goes by itself."""
    return _clocks[-1] if _clocks else None


def _that_ask_for_the_time() -> list[Any]:
    modules: list[tuple[str, Any]] = list(sys.modules.items())
    return [
        module
        for name, module in modules
        if name.startswith("iocancel.operation.") and hasattr(module, "time")
    ]


@contextlib.contextmanager
def stopped_clock() -> Iterator[Clock]:
    """Stop the time of `iocancel.operation` inside of a block: deadlines, pauses and bounds.

    A `ScriptedEngine` that has nothing to do but to let time pass, with no other thread there to end its
    wait, moves the clock instead of waiting: a test of a deadline of ten seconds takes no time. The time of
    real engines' kernels goes on, so this is for scripted ones.

    Yields:
        The clock.
    """
    clock = Clock()
    patched: list[tuple[Any, object]] = []
    _clocks.append(clock)
    try:
        for module in _that_ask_for_the_time():
            patched.append((module, module.time))
            module.time = clock
        yield clock
    finally:
        for module, before in reversed(patched):
            module.time = before
        _clocks.remove(clock)
