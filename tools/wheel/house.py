"""The wheels of what the tests need, fetched here for another Python: where they go is no network."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

# pip takes the tags that it is given to the letter: all that a current glibc runs.
GLIBC = ("2_34", "2_31", "2_28", "2_27", "2_17", "2_12", "2_5")
OLD = ("manylinux2014", "manylinux2010", "manylinux1")


def fetch(python: str, requirements: list[str], directory: Path, machine: str = "") -> dict[str, str]:
    """Fetch the wheels of `requirements`, and of what these need, for CPython `python` ("3.13").

    Args:
        python: its version.
        requirements: as pip takes them.
        directory: where the wheels go.
        machine: as `uname -m` says it (default: this one's).

    Returns:
        The requirements that can't be had as a wheel, and what pip says; a pure one is built here where there
        is none.
    """
    directory.mkdir(parents=True, exist_ok=True)
    options = [*target(python, machine or platform.machine()), "--dest", str(directory)]
    if not pip("download", *options, *requirements):
        return {}
    lacking = {}
    for each in requirements:
        said = pip("download", *options, each)
        if said and not pure(each, directory):
            lacking[each] = said
    return lacking


def target(python: str, machine: str) -> list[str]:
    """Return the options by which pip takes what is for another Python, or another machine."""
    systems = [
        *(f"manylinux_{version}_{machine}" for version in GLIBC),
        *(f"{name}_{machine}" for name in OLD),
    ]
    options = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    options += [f"--abi={name}" for name in (f"cp{python.replace('.', '')}", "abi3", "none")]
    return options + [f"--platform={name}" for name in systems]


def pure(requirement: str, directory: Path) -> bool:
    """Build the wheel of a requirement that any Python can use; return whether it is such."""
    built = directory / "built"
    pip("wheel", "--no-deps", "--wheel-dir", str(built), requirement)
    found = sorted(built.glob("*-none-any.whl"))
    for wheel in found:
        wheel.rename(directory / wheel.name)
    return bool(found)


def pip(*arguments: str) -> str:
    """Run pip; return what it said when it failed, "" when it did not."""
    command = [sys.executable, "-m", "pip", *arguments, "-q", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.returncode:
        return ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return (errors or done.stderr.splitlines() or [f"exit status {done.returncode}"])[-1]
