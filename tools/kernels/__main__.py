"""The command: which kernels, how, and what came of it."""

from __future__ import annotations

import argparse
import compileall
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.kernels import boot, fetch, suite
from tools.kernels.report import Result, judge

ROOT = Path(__file__).parents[2]
LOGS = ROOT / "build" / "kernels"


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return our options, and what is pytest's (after "--")."""
    ours, pytest = arguments, []
    if "--" in arguments:
        cut = arguments.index("--")
        ours, pytest = arguments[:cut], arguments[cut + 1 :]
    known = ", ".join(fetch.SUITES)
    accelerator = os.environ.get("IOCANCEL_ACCEL", "tcg")
    jobs = min(2, os.cpu_count() or 1)
    parser = argparse.ArgumentParser(prog="./dev kernels", epilog="Arguments after -- go to pytest.")
    add = parser.add_argument
    add("series", nargs="*", metavar="VERSION", help=f"of {known} (default: all of them)")
    add("--update", action="store_true", help="look for newer kernels than those in the cache")
    add("--limit", type=float, default=2100, metavar="SECONDS", help="for each kernel (default: 2100)")
    add("--jobs", type=int, default=jobs, help="guests at a time (default: %(default)s)")
    add("--smp", type=int, default=1, help="processors of each guest (default: 1)")
    add("--accel", choices=boot.ACCELERATORS, default=accelerator, help="default: $IOCANCEL_ACCEL or tcg")
    add("--module", action="append", default=[], metavar="NAME[:PARAMETERS]", help="load this one, too")
    add("--again", action="store_true", help="run what failed once more, by itself; both runs are shown")
    add("--json", type=Path, metavar="FILE", help="also write the results there")
    options = parser.parse_args(ours)
    for series in options.series:
        if series not in fetch.SUITES:
            parser.error(f"no kernel {series}; there are {known}")
    return options, pytest


def prepare(pytest: list[str]) -> None:
    """Compile everything here, where it is fast: a guest imports from source 30 times slower.

    pytest compiles the tests when it collects them.
    """
    for directory in (ROOT / "src", Path(sys.prefix)):
        compileall.compile_dir(directory, quiet=2)
    suite.collect(sys.executable, ROOT, pytest)


def script(pytest: list[str]) -> str:
    """Return what a guest runs."""
    variables = {"HOME": str(Path.home()), "PATH": os.environ["PATH"]}
    return suite.script(sys.executable, ROOT, pytest, variables)


def run(series: str, options: argparse.Namespace, pytest: list[str]) -> list[Result]:
    """Run the tests under one kernel; with `--again` the failed ones twice. The last result counts."""
    first = once(series, options, script(pytest), series)
    if not options.again or first.broken or not first.failed:
        return [first]
    return [first, once(series, options, script(sorted(map(node, first.failed))), f"{series}-again")]


def node(name: str) -> str:
    """Return what pytest takes for a test that its report names."""
    module, _, rest = name.partition("::")
    return f"{module.replace('.', '/')}.py::{rest}"


def once(series: str, options: argparse.Namespace, command: str, name: str) -> Result:
    """Boot once and run."""
    try:
        kernel = fetch.find(series, update=options.update)
    except (fetch.FetchError, OSError, subprocess.CalledProcessError) as error:
        return Result(series, broken=f"not run: {error}")
    extra = {**suite.MODULES, **dict(each.partition(":")[::2] for each in options.module)}
    machine = boot.Machine(options.accel, options.smp, modules=tuple(extra.items()))
    done = boot.run(kernel, machine, command, options.limit)
    log = LOGS / f"{name}.log"
    log.write_text(f"{done.output}\n\n=== console\n{done.console}")
    result = judge(kernel.release, done)
    result.log = str(log.relative_to(ROOT))
    if result.broken:
        result.broken += "; its log ends with:\n    "
        result.broken += "\n    ".join((done.output + done.console).splitlines()[-15:])
    return result


def main() -> int:
    """Run the command; return its exit status."""
    options, pytest = parse(sys.argv[1:])
    LOGS.mkdir(parents=True, exist_ok=True)
    prepare(pytest)
    results = []
    with ThreadPoolExecutor(max(1, options.jobs)) as pool:
        for runs in pool.map(lambda series: run(series, options, pytest), options.series or fetch.SUITES):
            print("\n".join(line for result in runs for line in result.lines()), flush=True)
            results.append(runs[-1])
            if len(runs) > 1:  # the whole suite's figures, and the failures that came twice
                results[-1].passed += runs[0].passed
    if options.json:
        options.json.write_text(json.dumps([result.as_json() for result in results], indent=1) + "\n")
    passed = sum(result.passed for result in results)
    failed = sum(len(result.failed) for result in results)
    broken = sum(bool(result.broken) for result in results)
    print(f"{len(results)} kernels: {passed} passed, {failed} failed, {broken} runs broken off")
    return not all(result.good for result in results)


if __name__ == "__main__":
    raise SystemExit(main())
