"""`./dev bench [NAME...]`: measure iocancel against C and against peers; all cases by default.

C, ours and the peers (asyncio and trio themselves, PyPI's `liburing`, `caio`, `aiofiles` and `uvloop`, fio)
are processes that work in turn, for many short rounds in one run. What counts are the ratios of a round: the
figures themselves are this machine's, of this hour. The exit status is 1 where a target is missed: a ratio to
C or to a peer, or `liburing` being faster.

`--keep` measures all and keeps it: as docs/data/bench/MACHINE.json, with the pictures in docs/pictures.
`--plot` makes the pictures again, of what is kept or of the files given; with `--check` it only says whether
they are what the data give.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks import plot, report
from benchmarks.cases import CASES
from benchmarks.machine import describe, versions
from benchmarks.measure import measure
from benchmarks.sides import CACHE, LEFT_OUT, PEER, PEERS, SideFailedError, compile_baseline, peers

FULL, QUICK = 101, 15


def arguments(argv: list[str] | None) -> argparse.Namespace:
    about, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=about, epilog=more)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"a case: {', '.join(CASES)}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} rounds, not {FULL}: less sure")
    parser.add_argument("--rounds", type=int, metavar="N", help="how many rounds")
    parser.add_argument("--cold", action="store_true", help="without a round before, which warms up")
    parser.add_argument("--no-peer", action="store_true", help="leave the peers out")
    parser.add_argument("--no-gate", action="store_true", help="end with 0 also where a target is missed")
    parser.add_argument("--keep", action="store_true", help="measure all, keep it, and make the pictures")
    parser.add_argument("--plot", nargs="*", type=Path, metavar="FILE.json", help="only make the pictures")
    parser.add_argument("--check", action="store_true", help="with --plot: only say whether they are right")
    asked = parser.parse_args(argv)
    if asked.keep and (asked.names or asked.no_peer or asked.plot is not None):
        parser.error("--keep keeps all that there is to measure: no NAME, no --no-peer, no --plot")
    if asked.check and asked.plot is None:
        parser.error("--check goes with --plot")
    if asked.check and asked.plot:
        parser.error("--plot --check looks at all that is kept: no FILE")
    unknown = [name for name in asked.names if name not in CASES]
    if unknown:
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    if asked.rounds is None:
        asked.rounds = QUICK if asked.quick else FULL
    if asked.rounds < 1:
        parser.error("--rounds takes 1 or more")
    return asked


def main(argv: list[str] | None = None) -> int:
    asked = arguments(argv)
    if asked.plot is not None:
        return plot.plot(asked.plot, check=asked.check)
    cases = [CASES[name] for name in asked.names or CASES]
    others: dict[str, Path | str] = dict.fromkeys((*PEERS, "fio"), LEFT_OUT)
    if not asked.no_peer:
        others = peers({job.side for case in cases for job in case.jobs})
    found: list[report.Result] = []
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        try:
            baseline = compile_baseline(Path(scratch))
        except SideFailedError as error:
            print(f"benchmarks: {error}", file=sys.stderr)
            return 2
        for case in cases:
            rounds = max(1, asked.rounds // case.share)
            print(f"measuring {case.name}", file=sys.stderr, flush=True)
            found += report.results(case, measure(case, rounds, baseline, others, warm=not asked.cold))
    peer = others.get("peer", "not asked for")
    stated = peer if isinstance(peer, str) else PEER
    said = report.as_json(found, describe(), versions(), stated, asked.rounds)
    if asked.json:
        print(json.dumps(said, indent=1))
    else:
        print("  ".join(f"{name}: {value}" for name, value in said["machine"].items() if value), end="\n\n")
        print(report.table(found, stated))
    if asked.keep:
        file = plot.keep(said)
        print(f"kept in {file}", file=sys.stderr)
        if status := plot.plot([file]):
            return status
    return 1 if report.missed(found) and not asked.no_gate else 0


if __name__ == "__main__":
    sys.exit(main())
