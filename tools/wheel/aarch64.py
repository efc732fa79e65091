"""The wheel for aarch64: built by a cross compiler, and tried under an arm64 kernel in an emulated machine.

No program for aarch64 runs on this side. Debian's packages, the wheel and what the tests need from PyPI are
unpacked; Python's modules are compiled, which is the same for all architectures; the rest is the guest's.
"""

from __future__ import annotations

import compileall
import re
import shlex
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from tools.kernels import boot, fetch, suite, tree
from tools.kernels.report import Result, judge
from tools.wheel import cross, house, steps

if TYPE_CHECKING:
    import argparse

OUT = steps.OUT / "aarch64"
# Debian's suites by their Python. It is the one that runs this: what it compiles, the guest's can load.
SUITES = {"3.11": "bookworm", "3.13": "trixie"}
PYTHON = "{}.{}".format(*sys.version_info[:2])
TESTS = Path("/iocancel")  # in the guest
VARIABLES = {"HOME": "/root", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
# There is only a source archive of it, and it wants a libaio. What is compared with it is skipped.
LEFT_OUT = ("libaio",)


def debian() -> str:
    """Return the suite whose Python this is."""
    if PYTHON not in SUITES:
        known = " or ".join(f"PYTHON=python{python}" for python in SUITES)
        raise SystemExit(
            f"wheel: a guest has the Python that runs this, and cannot have {PYTHON}: use {known}"
        )
    return SUITES[PYTHON]


def build(unpacked: Path) -> Path:
    """Build the wheel of an unpacked source distribution; return the repaired one."""
    include = cross.headers(debian(), PYTHON)
    with tempfile.TemporaryDirectory() as scratch:
        environment = cross.environment(include, PYTHON, Path(scratch))
        steps.dependencies(unpacked, OUT / "prefix", environment)
        built = steps.wheel(unpacked, OUT / "built", OUT / "prefix", environment)
    return steps.repair(unpacked, built, OUT / "wheel", OUT / "prefix")


def install(unpacked: Path, wheel: Path) -> Path:
    """Make the guest's root file system, with the wheel and its tests; return its path."""
    root = OUT / "root"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(tree.find(debian(), cross.AARCH64), root, symlinks=True)
    library = root / "usr/lib" / f"python{PYTHON}"
    packages = root / "usr/local/lib" / f"python{PYTHON}" / "dist-packages"
    target = [*house.target(PYTHON, cross.AARCH64.name), "--target", str(packages)]
    if said := house.pip("install", *target, str(wheel), *requirements(unpacked)):
        raise SystemExit(f"wheel: what the guest needs could not be installed: {said}")
    for directory in (library, packages):
        compileall.compile_dir(directory, quiet=2, stripdir=str(root))
    tests = root / TESTS.relative_to("/")
    shutil.copytree(unpacked, tests)
    suite.collect(sys.executable, tests, [])
    return root


def requirements(unpacked: Path) -> list[str]:
    """Return what the tests need, as far as it is to be had there."""
    with (unpacked / "pyproject.toml").open("rb") as file:
        group: list[str] = tomllib.load(file)["dependency-groups"]["test"]
    return [each for each in group if re.split(r"[^\w-]", each)[0] not in LEFT_OUT]


def start(root: Path, series: str, command: str, limit: float) -> tuple[str, boot.Run]:
    """Run a script in a guest; return its kernel's release, and what came of it."""
    kernel = fetch.find(series, architecture=cross.AARCH64)
    machine = boot.Machine(modules=tuple(suite.MODULES.items()), architecture=cross.AARCH64, root=root)
    return kernel.release, boot.run(kernel, machine, command, limit)


def show(root: Path, series: str) -> bool:
    """Run `iocancel demo` and `iocancel doctor` there; return whether both were content."""
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in VARIABLES.items())
    programs = "python3 -m iocancel demo && python3 -m iocancel doctor --json >/run/report.xml"
    release, done = start(root, series, exports + programs, 600)
    print(done.output, flush=True)
    (OUT / f"doctor-{series}.json").write_bytes(done.report)
    good = done.status == 0 and bool(done.report)
    if not good:
        print(f"{release}: status {done.status}; the console ends with:\n{done.console[-2000:]}")
    return good


def attempt(root: Path, series: str, pytest: list[str], limit: float, *, whole: bool = False) -> Result:
    """Run the tests there; with `whole` also those that guests leave out."""
    variables, more = VARIABLES, []
    if whole:  # some try thousands of places for an interruption
        variables, more = VARIABLES | {"IOCANCEL_WHOLE": "1"}, ["-o", "timeout=900"]
    script = suite.script("python3", TESTS, [*more, *pytest], variables)
    release, done = start(root, series, script, limit)
    log = OUT / f"tests-{series}.log"
    log.write_text(f"{done.output}\n\n=== console\n{done.console}")
    result = judge(release, done)
    result.log = str(log.relative_to(steps.ROOT))
    return result


def main(options: argparse.Namespace, unpacked: Path, pytest: list[str]) -> int:
    """Build the wheel and try it; return the exit status."""
    wheel = options.wheel.resolve() if options.wheel else build(unpacked)
    good = True
    if not options.build_only:
        root = install(unpacked, wheel)
        good = show(root, options.kernel)
        if good and not options.no_tests:
            result = attempt(root, options.kernel, pytest, options.limit, whole=options.whole)
            print("\n".join(result.lines()))
            good = result.good
    print(f"{wheel}: {wheel.stat().st_size} bytes")
    return not good
