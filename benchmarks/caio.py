"""PyPI's `caio` (asyncio only), on io_uring where it has that: a process of its own (see works.py)."""

from __future__ import annotations

import asyncio
import importlib
import os
from functools import partial
from typing import Any

from benchmarks.loops import reads
from benchmarks.works import AT_ONCE, BLOCK, OFFSETS, READS, Work, cached_file, serve


def context() -> Any:
    """Its best context: on io_uring, else Linux AIO, else threads."""
    for name in ("linux_uring_asyncio", "linux_aio_asyncio", "thread_aio_asyncio"):
        try:
            return importlib.import_module(f"caio.{name}").AsyncioContext(max_requests=AT_ONCE)
        except (ImportError, OSError):
            continue
    raise SystemExit("none of caio's contexts works here")


def main() -> None:
    fd = os.open(cached_file(), os.O_RDONLY)
    runner = asyncio.Runner()

    async def opened() -> Any:
        return context()

    theirs = runner.run(opened())

    async def read() -> tuple[int, int]:
        seen = total = 0
        for at in range(0, READS, AT_ONCE):
            for data in await asyncio.gather(
                *(theirs.read(BLOCK, fd, offset) for offset in OFFSETS[at : at + AT_ONCE])
            ):
                seen += 1
                total += len(data)
        return seen, total

    serve(
        {
            "read": Work(lambda: runner.run(read()), (READS, READS * BLOCK)),
            "reads": reads(runner.run, fd, lambda fd: partial(theirs.read, BLOCK, fd)),
        }
    )


if __name__ == "__main__":
    main()
