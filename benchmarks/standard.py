"""What Python itself has for reading many blocks: os.pread in line, and in a pool of threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from benchmarks.works import AT_ONCE, BLOCK, OFFSETS, READS, Work, cached_file, serve


def works(fd: int, pool: ThreadPoolExecutor) -> dict[str, Work]:
    pread = os.pread

    def inline() -> tuple[int, int]:
        seen = total = 0
        for offset in OFFSETS:
            seen += 1
            total += len(pread(fd, BLOCK, offset))
        return seen, total

    def threads() -> tuple[int, int]:
        seen = total = 0
        for at in range(0, READS, AT_ONCE):
            futures = [pool.submit(pread, fd, BLOCK, offset) for offset in OFFSETS[at : at + AT_ONCE]]
            for future in futures:
                seen += 1
                total += len(future.result())
        return seen, total

    wanted = (READS, READS * BLOCK)
    return {"pread": Work(inline, wanted), "threads": Work(threads, wanted)}


def main() -> None:
    # As many threads as asyncio's `run_in_executor` would have: more are slower still.
    with ThreadPoolExecutor() as pool:
        serve(works(os.open(cached_file(), os.O_RDONLY), pool))


if __name__ == "__main__":
    main()
