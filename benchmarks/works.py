"""What the Python sides share: they read and answer lines as baseline.c does."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.sides import CACHE

ENTRIES = 2048
MANY = 1024  # in one batch
COUNTS = (64, 1024, 4096, 16384, 60000)  # so many are pending where many are cancelled
TIMES = 100  # of the small cases, in one repetition
GONE = -errno.ECANCELED

BLOCK = 4096  # bytes of a read
READS = 4096  # in one repetition
AT_ONCE = 64  # in flight
TRIPS = 1000  # there and back, in one repetition
SIZE = 64  # bytes of each, and of a receive
FILE = CACHE / "reads"
# Each block once, in an order that nothing reads ahead for.
OFFSETS = [number * 1021 % READS * BLOCK for number in range(READS)]


def nothing() -> None:
    pass


def cached_file() -> Path:
    """The file that is read, made when it is first needed; read once, it is in the page cache."""
    if not FILE.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=CACHE, delete=False) as file:
            file.write(os.urandom(BLOCK * READS))
        Path(file.name).rename(FILE)
    FILE.read_bytes()
    return FILE


class Work(NamedTuple):
    """One repetition: `run` is timed; it returns how many completions came, and the sum of their results."""

    run: Callable[[], tuple[int, int]]
    expected: tuple[int, int]
    prepare: Callable[[], None] = nothing
    counted: Callable[[], tuple[int, int]] | None = None
    """What came, where `run` itself is not to count it: not timed."""
    took: Callable[[], int] | None = None
    """How many nanoseconds it took, where the work has clocks of its own."""


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
            if work.took is not None:
                times[-1] = work.took()
            if work.counted is not None:
                came = work.counted()
            if came != work.expected:
                raise SystemExit(f"{name}: {came} completions and sum, not {work.expected}")
        print(*times, flush=True)
