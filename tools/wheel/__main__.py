"""The command: sdist, wheel, repair, checks; then fresh root file systems with a Python and no more."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tools.kernels import fetch
from tools.wheel import aarch64, musl, roots, sdist, steps, trial


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
    add(
        "--uring", choices=trial.URING, default="both", help="in the roots: the tests where it is so, or both"
    )
    add("--wheel", type=Path, metavar="FILE", help="try this one; build none")
    add("--musl", action="store_true", help="the wheel for musl, by a Python that is made for it; no roots")
    emulated = parser.add_argument_group("aarch64, by a cross compiler and an emulated machine")
    add = emulated.add_argument
    add("--aarch64", action="store_true", help="the wheel for aarch64, under an arm64 kernel; no roots")
    add("--kernel", choices=fetch.SUITES, default="6.12", help="Debian's (default: %(default)s)")
    add("--whole", action="store_true", help="the tests that guests leave out, too: twice the time")
    add("--limit", type=float, default=7200, metavar="SECONDS", help="for the tests (default: %(default)s)")
    options = parser.parse_args(ours)
    if not options.aarch64 and options.whole:
        parser.error("--whole is for --aarch64: in the roots all tests are run")
    if options.aarch64 and (options.suites or options.uring != "both"):
        parser.error("--aarch64 is tried in a machine, and not in roots: it takes no SUITE and no --uring")
    if options.musl and (options.suites or options.aarch64 or options.uring != "both"):
        parser.error("--musl is for this machine, and for no root: it takes no SUITE, --uring and --aarch64")
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


def main() -> int:
    """Run the command; return its exit status."""
    options, pytest = parse(sys.argv[1:])
    try:
        if not (options.build_only or options.sdist_only or options.aarch64 or options.musl):
            roots.check_here()
        tree = source()
        if options.sdist_only:
            return 0
        if options.aarch64:
            return aarch64.main(options, tree, pytest)
        if options.musl:
            return musl.main(options, tree, pytest)
        wheel = options.wheel.resolve() if options.wheel else build(tree)
        failed: list[str] = []
        if not options.build_only:
            for suite in options.suites or roots.SUITES:
                failed += trial.attempt(
                    suite, tree, wheel, pytest, tests=not options.no_tests, uring=options.uring
                )
    except (roots.RootError, fetch.FetchError) as error:
        raise SystemExit(f"wheel: {error}") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"wheel: {' '.join(map(str, error.cmd))}: exit status {error.returncode}") from None
    for each in failed:
        print(f"failed: {each}")
    print(f"{wheel}: {wheel.stat().st_size} bytes")
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
