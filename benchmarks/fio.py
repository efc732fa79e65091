"""fio's io_uring engine: a process of its own, which has fio read, and tells its rate as a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.works import AT_ONCE, BLOCK, READS, cached_file

ROUNDS = 64  # of as many reads as the others do: fio's clock ticks in milliseconds


def nanoseconds(file: Path) -> int:
    """How long it takes for READS reads."""
    done = subprocess.run(
        [
            *("fio", "--name=reads", "--output-format=json", "--thread", "--gtod_reduce=1", "--invalidate=0"),
            *(f"--filename={file}", "--rw=randread", f"--bs={BLOCK}", "--norandommap", "--direct=0"),
            *(f"--size={BLOCK * READS}", f"--io_size={BLOCK * READS * ROUNDS}", "--ioengine=io_uring"),
            # In batches, as the others: else it makes a system call for each.
            *(f"--iodepth={AT_ONCE}", f"--iodepth_batch_submit={AT_ONCE}"),
            *("--iodepth_batch_complete_min=1", f"--iodepth_batch_complete_max={AT_ONCE}"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    if done.returncode:
        raise SystemExit(f"fio: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    [job] = json.loads(done.stdout)["jobs"]
    read = job["read"]
    if job["error"] or read["total_ios"] != READS * ROUNDS:
        raise SystemExit(f"fio: {read['total_ios']} reads, error {job['error']}")
    return int(READS / read["iops"] * 1e9)


def main() -> None:
    file = cached_file()
    for line in sys.stdin:
        _, repetitions = line.split()
        print(*(nanoseconds(file) for _ in range(int(repetitions))), flush=True)


if __name__ == "__main__":
    main()
