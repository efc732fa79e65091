"""`./dev race`: see the package."""

from __future__ import annotations

import argparse
import secrets
import shlex
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import iocancel
from iocancel.errors import EngineUnavailable, FeatureUnavailable
from tools.race import handover, rounds, tasks, threads
from tools.race.check import Failure, Resources, resident
from tools.race.rounds import SCENARIOS, Options

ENGINES = ("uring", "libaio", "posix_aio")
KINDS: dict[str, tuple[ModuleType, tuple[int, ...]]] = {
    "handover": (handover, (2,)),
    "threads": (threads, threads.THREADS),
    **dict.fromkeys(tasks.WORLDS, (tasks, tasks.TASKS)),
}
"""Rounds of another kind: what plays them, and with how many threads (or tasks) by turns."""
_EVERY = 25  # rounds between two looks at what the process has
_GROWTH = 16 << 20  # bytes that it may have grown by in the second half


@dataclass
class Totals:
    """What was done."""

    ops: int = 0
    seconds: float = 0.0
    rounds: int = 0
    memory: list[int] = field(default_factory=list)
    resources: Resources = field(default_factory=Resources.now)
    unsupported: set[str] = field(default_factory=set)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="./dev race", description=__doc__)
    parser.add_argument("--ops", type=int, default=100_000, help="how many operations, in all")
    parser.add_argument(
        "--seed", type=int, default=None, help="what everything is drawn from (default: random)"
    )
    parser.add_argument("--engine", choices=("all", *ENGINES), default="all")
    parser.add_argument(
        "--threads", type=int, default=None, help="one number, also of tasks (default: several by turns)"
    )
    parser.add_argument("--scenario", choices=("all", "tasks", *KINDS, *SCENARIOS), default="all")
    parser.add_argument("--seconds", type=float, default=None, help="stop after these, whatever was done")
    parser.add_argument("--round", type=int, default=None, help="play this round only (of a failure)")
    parser.add_argument("--round-ops", type=int, default=2000, help="operations a round")
    return parser.parse_args(argv)


def engines(wanted: str) -> tuple[list[str], dict[str, str]]:
    """Those that can be had here, and why the others can't."""
    found, why = [], {}
    for name in ENGINES if wanted == "all" else (wanted,):
        try:
            iocancel.open_engine(name).close()
        except (EngineUnavailable, FeatureUnavailable, ModuleNotFoundError) as error:
            if wanted != "all":
                raise
            why[name] = str(error)
            continue
        found.append(name)
    return found, why


def plan(args: argparse.Namespace, names: Sequence[str]) -> Iterator[tuple[int, Options]]:
    """Round after round: its number, and its options. For ever."""
    several = {"all": (*SCENARIOS, *KINDS), "tasks": tasks.WORLDS}
    scenarios = several.get(args.scenario, (args.scenario,))
    number = 0
    while True:
        for scenario in scenarios:
            for engine in names:
                for many in by_turns(scenario, args.threads):
                    yield (
                        number if args.round is None else args.round,
                        Options(
                            engine=engine,
                            seed=args.seed,
                            scenario=scenario,
                            threads=many,
                            ops=args.round_ops,
                        ),
                    )
        number += 1


def by_turns(scenario: str, threads: int | None) -> tuple[int, ...]:
    """How many threads a scenario is played by, one round each; `threads` is what was asked for."""
    usual = KINDS[scenario][1] if scenario in KINDS else (1, 2, 4, 1, 8)
    return usual if threads is None or scenario == "handover" else (threads,)


def again(number: int, options: Options) -> str:
    """The command that plays this round again."""
    words = [
        "./dev",
        "race",
        "--seed",
        options.seed,
        "--engine",
        options.engine,
        "--scenario",
        options.scenario,
    ]
    words += ["--threads", options.threads, "--round", number, "--round-ops", options.ops]
    return shlex.join(map(str, words))


def play(number: int, options: Options) -> int:
    """One round, of whichever kind."""
    played = KINDS[options.scenario][0] if options.scenario in KINDS else rounds
    done: int = played.play(options, number)
    return done


def check_growth(totals: Totals) -> None:
    """Memory does not grow once all has been done a few times."""
    many = len(totals.memory)
    if many < 8:
        return
    half, end = max(totals.memory[many // 4 : many // 2]), min(totals.memory[many * 3 // 4 :])
    if end > half + _GROWTH:
        raise Failure(f"memory grew from {half >> 20} to {end >> 20} MiB over the second half")


def race(args: argparse.Namespace, names: Sequence[str], say: Callable[[str], Any] = print) -> int:
    """Play until the operations, or the time, are used up; the exit status."""
    for world in tasks.WORLDS if args.scenario in ("all", "tasks") else [args.scenario]:
        if world in tasks.WORLDS:
            tasks.warm(world)
    totals: dict[tuple[str, str], Totals] = {}
    overall = Totals()
    start = time.monotonic()
    for number, options in plan(args, names):
        mode = "1 thread" if options.threads == 1 else "threads"
        key = (options.engine, options.scenario if options.scenario in tasks.WORLDS else mode)
        total = totals.setdefault(key, Totals())
        begun = time.monotonic()
        try:
            done = play(number, options)
            overall.rounds += 1
            if overall.rounds % _EVERY == 0:
                overall.resources.check()
                overall.memory.append(resident())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a failure of this round
            say(f"\nFAILED: engine {options.engine}, scenario {options.scenario}, threads {options.threads}")
            say(f"{type(error).__name__}: {error}")
            if not isinstance(error, Failure):
                say("".join(traceback.format_exception(error)))
            say(f"seed {options.seed}, round {number}; again: {again(number, options)}")
            if options.threads > 1 or options.scenario in KINDS:
                say("(several threads: the same plan, but not the same schedule; it may take several tries)")
            return 1
        total.ops += done
        total.seconds += time.monotonic() - begun
        overall.ops += done
        if not done:
            total.unsupported.add(options.scenario)
        if args.round is not None or overall.ops >= args.ops:
            break
        if args.seconds is not None and time.monotonic() - start > args.seconds:
            say(f"stopped after {args.seconds} s")
            break
        if not overall.ops and number > 2:
            say("no engine supports anything of this")
            return 1
    try:
        overall.resources.check()
        check_growth(overall)
    except Failure as error:
        say(f"\nFAILED: {error}\nseed {args.seed}")
        return 1
    for (engine, mode), total in totals.items():
        rate = total.ops / total.seconds if total.seconds else 0.0
        without = f" (not supported: {', '.join(sorted(total.unsupported))})" if total.unsupported else ""
        say(f"{engine:10} {mode:9} {total.ops:9,} operations {rate:8,.0f}/s{without}")
    if overall.memory:
        say(f"memory {overall.memory[0] >> 20} to {overall.memory[-1] >> 20} MiB")
    say(f"{overall.ops:,} operations, every one accounted for; seed {args.seed}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    args = arguments(argv)
    if args.seed is None:
        args.seed = secrets.randbelow(1 << 32)
    print(f"seed {args.seed}", flush=True)
    # A cancelled connection that came late is closed by the library, which says nothing about it.
    warnings.simplefilter("error", ResourceWarning)
    names, why = engines(args.engine)
    for name, reason in why.items():
        print(f"{name}: not here ({reason})")
    if not names:
        print("no engine can be had here")
        return 1
    return race(args, names)


if __name__ == "__main__":
    sys.exit(main())
