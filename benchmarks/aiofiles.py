"""PyPI's `aiofiles`, which reads in a pool of threads: a process of its own (see works.py)."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

from benchmarks.loops import Read, reads
from benchmarks.works import AT_ONCE, BLOCK, cached_file, serve


def main() -> None:
    theirs: Any = importlib.import_module("aiofiles")
    path = cached_file()
    runner = asyncio.Runner()

    async def opened() -> list[Any]:
        return [await theirs.open(path, "rb", buffering=0) for _ in range(AT_ONCE)]

    files = runner.run(opened())
    left: list[Any] = []

    def reader(_: int) -> Read:
        """It has no reads at an offset: each task has a file of its own, and two calls."""
        file = left.pop()

        async def read(offset: int) -> bytes:
            await file.seek(offset)
            data: bytes = await file.read(BLOCK)
            return data

        return read

    work = reads(runner.run, -1, reader)
    serve({"reads": work._replace(prepare=lambda: left.extend(files))})


if __name__ == "__main__":
    main()
