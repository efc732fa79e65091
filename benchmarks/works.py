"""What the two Python sides share: they read and answer lines as baseline.c does."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

ENTRIES = 2048
MANY = 1024  # in one batch
TIMES = 100  # of the small cases, in one repetition
GONE = -errno.ECANCELED


def nothing() -> None:
    pass


class Work(NamedTuple):
    """One repetition: `run` is timed; it returns how many completions came, and the sum of their results."""

    run: Callable[[], tuple[int, int]]
    expected: tuple[int, int]
    prepare: Callable[[], None] = nothing


def serve(works: dict[str, Work]) -> None:
    """Do what is asked on stdin, until its end."""
    clock = time.perf_counter_ns
    for line in sys.stdin:
        name, repetitions = line.split()
        work = works[name]
        times = []
        for _ in range(int(repetitions)):
            work.prepare()
            start = clock()
            came = work.run()
            times.append(clock() - start)
            if came != work.expected:
                raise SystemExit(f"{name}: {came} completions and sum, not {work.expected}")
        print(*times, flush=True)
