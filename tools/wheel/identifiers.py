"""Hold cibuildwheel's configuration against the Pythons that pyproject.toml claims: neither more nor less."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SYSTEMS = ("manylinux", "musllinux")
MACHINES = ("x86_64", "aarch64")


def claimed() -> set[str]:
    """Return what cibuildwheel should build or test on, by its names for them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = (re.search(r":: 3\.(\d+)$", each) for each in project["classifiers"])
    return {
        f"cp3{match[1]}-{system}_{machine}"
        for match in found
        if match
        for system in SYSTEMS
        for machine in MACHINES
    }


def configured() -> set[str]:
    """Return what cibuildwheel makes of the configuration; it refuses one that it does not understand."""
    command = [sys.executable, "-m", "cibuildwheel", "--print-build-identifiers", "--platform", "linux"]
    done = subprocess.run(
        [*command, "--archs", ",".join(MACHINES)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"cibuildwheel: {done.stderr or done.stdout}")
    return set(done.stdout.split())


def main() -> int:
    """Compare; return the exit status."""
    wanted, found = claimed(), configured()
    if wanted == found:
        return 0
    print(f"cibuildwheel is not configured for: {sorted(wanted - found)}", file=sys.stderr)
    print(
        f"cibuildwheel is configured, and no classifier claims it: {sorted(found - wanted)}", file=sys.stderr
    )
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
