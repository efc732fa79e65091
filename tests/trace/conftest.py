"""What the tests of the tracer share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support import compiled, lacks_namespaces, leaving_nothing, need, need_uring

OURS = "/sys/kernel/tracing"


@pytest.fixture(scope="session")
def tracefs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where tracefs is mounted: in a directory of the test's own, so that nothing depends on the machine."""
    need(os.geteuid() == 0, "tracing takes root")
    where = tmp_path_factory.mktemp("tracefs")
    mounted = subprocess.run(
        ["mount", "-t", "tracefs", "tracefs", str(where)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"tracefs can't be mounted here: {mounted.stderr.strip()}")
    try:
        need((where / "events/io_uring").is_dir(), "this kernel has no events of io_uring")
        yield where
        assert left(where) == [], "an instance is left"
    finally:
        subprocess.run(["umount", str(where)], check=True)


def left(where: Path, pid: int = 0) -> list[str]:
    """A process's instances that are there; this one's by default."""
    return [each.name for each in (where / "instances").glob(f"iocancel-{pid or os.getpid()}-*")]


@pytest.fixture
def instances(tracefs: Path) -> Iterator[Path]:
    """Where instances are; the test leaves none of its own, and no fd."""
    with leaving_nothing():
        yield tracefs / "instances"
    assert left(tracefs) == []


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Mount namespaces, in which the command finds tracefs where it usually is, or does not."""
    reason = lacks_namespaces()
    need(not reason, reason)


@pytest.fixture(scope="session")
def cancels(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a C program that cancels by liburing: cancels.c."""
    need_uring()
    made = tmp_path_factory.mktemp("cancels") / "cancels"
    source = Path(__file__).with_name("cancels.c")
    built = compiled("-Wall", "-Wextra", "-Werror", "-o", str(made), str(source), "-luring")
    need(not built.returncode, f"no compiler, or no liburing: {built.stderr}")
    return str(made)
