"""The command: sdist, wheel, repair, checks; then fresh root file systems with a Python and no more."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nox

from tools.kernels.fetch import FetchError
from tools.wheel import house, roots, sdist, steps

# What is run once more where io_uring is forbidden: every engine and face, and what says so.
WITHOUT_URING = [
    "tests/contract",
    "tests/engines",
    "tests/blocking/test_verbs.py",
    "tests/asyncio_",
    "tests/trio_",
    "tests/test_demo.py",
    "tests/test_doctor.py",
    "tests/test_examples.py",
]


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return our options, and what is pytest's (after "--")."""
    ours, pytest = arguments, []
    if "--" in arguments:
        cut = arguments.index("--")
        ours, pytest = arguments[:cut], arguments[cut + 1 :]
    known = ", ".join(f"{suite} (Python {python})" for suite, python in roots.SUITES.items())
    parser = argparse.ArgumentParser(
        prog="./dev wheel",
        description="Build the wheel from the sdist, and try it in fresh roots of Debian.",
        epilog="Arguments after -- go to pytest.",
    )
    add = parser.add_argument
    add("suites", nargs="*", metavar="SUITE", help=f"of {known}; default: all of them")
    add("--sdist-only", action="store_true", help="make the sdist, and hold it against what git tracks")
    add("--build-only", action="store_true", help="make the wheel, and no root")
    add("--no-tests", action="store_true", help="in the roots: iocancel demo and doctor, no tests")
    add("--no-uring", action="store_true", help="in the roots: only the tests where io_uring is forbidden")
    add("--wheel", type=Path, metavar="FILE", help="try this one; build none")
    options = parser.parse_args(ours)
    for suite in options.suites:
        if suite not in roots.SUITES:
            parser.error(f"no suite {suite}; there are {known}")
    if options.wheel and (options.build_only or options.sdist_only):
        parser.error("--wheel is for the roots: none is made by --build-only and --sdist-only")
    return options, pytest


def source() -> Path:
    """Build the sdist, compare it with what git tracks, and unpack it; return the tree."""
    made = steps.sdist(steps.OUT / "sdist")
    if (steps.ROOT / ".git").exists():
        if sdist.main(made):
            raise SystemExit(1)
    else:
        print("wheel: no git here: the sdist is not held against what git tracks", flush=True)
    return steps.unpack(made, steps.OUT / "tree")


def build(tree: Path) -> Path:
    """Build the wheel of a tree; return the repaired one."""
    prefix = steps.OUT / "prefix"
    steps.dependencies(tree, prefix)
    return steps.repair(tree, steps.wheel(tree, steps.OUT / "built", prefix), steps.OUT / "repaired", prefix)


def attempt(suite: str, tree: Path, wheel: Path, options: argparse.Namespace, pytest: list[str]) -> list[str]:
    """Install the wheel in a fresh root of a suite and try it; return what failed."""
    began, failed = time.monotonic(), []
    groups = nox.project.dependency_groups(nox.project.load_toml(steps.ROOT / "pyproject.toml"), "test")
    with roots.copied(suite, steps.OUT / "roots" / suite) as root:
        shutil.copytree(tree, root / "opt/iocancel", symlinks=True)
        wheels = root / "opt/wheels"
        # By the versions that the wheel's own metadata asks for.
        needs = [*nox.project.load_toml(tree / "pyproject.toml")["project"]["dependencies"]]
        lacking = house.fetch(roots.SUITES[suite], needs if options.no_tests else [*needs, *groups], wheels)
        for each in lacking:
            print(f"wheel: {suite} goes without {each}", flush=True)
        shutil.copy(wheel, wheels)
        install = [
            "/opt/venv/bin/python",
            "-m",
            "pip",
            "install",
            "-q",
            "--no-index",
            "--find-links=/opt/wheels",
        ]
        install += ["--disable-pip-version-check"]
        path = {"PATH": "/opt/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        path |= {name: value for name, value in os.environ.items() if name.startswith("IOCANCEL_")}

        def step(name: str, *command: str) -> bool:
            print(f"\n=== {suite}: {name}", flush=True)
            status = roots.run(root, roots.shell(*command), path)
            if status:
                failed.append(f"{suite}: {name} (exit status {status})")
            return not status

        if not (
            step("an environment", "python3", "-m", "venv", "/opt/venv")
            and step("the wheel installed", *install, f"/opt/wheels/{wheel.name}")
        ):
            return failed
        test = "tools/wheel/test.sh"
        if options.no_tests:
            step("the command", test, "--no-tests")
            return failed
        gone = {each.split(" (")[0] for each in lacking}
        if not step("what the tests need", *install, *(each for each in groups if each not in gone)):
            return failed
        if not options.no_uring:
            step("the command and the tests", test, *pytest)
        forbidden = ("python", "tools/wheel/no_uring.py", test, *(pytest or WITHOUT_URING))
        path.pop("IOCANCEL_REQUIRE", None)  # what is forbidden can't be required
        step("the same where io_uring is forbidden", *forbidden)
    print(f"\n=== {suite}: {time.monotonic() - began:.0f} s", flush=True)
    return failed


def main() -> int:
    """Run the command; return its exit status."""
    options, pytest = parse(sys.argv[1:])
    try:
        if not (options.build_only or options.sdist_only):
            roots.check_here()
        tree = source()
        if options.sdist_only:
            return 0
        wheel = options.wheel.resolve() if options.wheel else build(tree)
        failed: list[str] = []
        if not options.build_only:
            for suite in options.suites or roots.SUITES:
                failed += attempt(suite, tree, wheel, options, pytest)
    except (roots.RootError, FetchError) as error:
        raise SystemExit(f"wheel: {error}") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"wheel: {' '.join(map(str, error.cmd))}: exit status {error.returncode}") from None
    for each in failed:
        print(f"failed: {each}")
    print(f"{wheel}: {wheel.stat().st_size} bytes")
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
