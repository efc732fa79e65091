"""A disk that takes its time, and the files that are open on it: fixtures, in guests only."""

from __future__ import annotations

import mmap
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .support import GUEST, need, until

DELAY = 1.5
"""Seconds that a request to it takes."""
SIZE = 4096


@pytest.fixture
def slow_disk() -> Iterator[Path]:
    """A disk whose requests take DELAY seconds: null_blk, in guests only (the module is machine-wide)."""
    if not GUEST:
        pytest.skip("a disk with a delay is made only in a guest (IOCANCEL_GUEST=1)")
    config = Path("/sys/kernel/config")
    if not any(config.iterdir()):
        subprocess.run(["mount", "-t", "configfs", "none", config], check=False, capture_output=True)
    folder = config / "nullb" / "iocancel"
    need(folder.parent.is_dir(), "no null_blk in this kernel (or not loaded)")
    folder.mkdir()
    try:
        settings = {"irqmode": 2, "completion_nsec": int(DELAY * 1e9), "size": 64, "power": 1}
        for name, value in settings.items():
            (folder / name).write_text(f"{value}\n")
        device = Path(f"/dev/nullb{(folder / 'index').read_text().strip()}")
        if not device.exists():
            device = Path("/dev/iocancel")  # the name of those that configfs makes, from Linux 6.10 on
        until(device.exists, f"{device} is there")
        yield device
        (folder / "power").write_text("0\n")
    finally:
        folder.rmdir()


@pytest.fixture
def direct(slow_disk: Path) -> Iterator[int]:
    """Its requests go to the disk itself."""
    fd = os.open(slow_disk, os.O_RDWR | os.O_DIRECT)
    yield fd
    os.close(fd)


@pytest.fixture
def buffered(slow_disk: Path) -> Iterator[int]:
    """Each read of it is of a page that is not cached: the disk is made anew for each test."""
    fd = os.open(slow_disk, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # no reading ahead
    yield fd
    os.close(fd)


@pytest.fixture
def page() -> mmap.mmap:
    """Not closed here: a ring may still hold it, and is closed later."""
    return mmap.mmap(-1, SIZE)
