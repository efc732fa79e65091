"""The rounds: every side in turn, again and again, so that what disturbs one disturbs the others as well."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.cases import Case, Job
from benchmarks.sides import Side, SideFailedError, start


@dataclass
class Measured:
    """For each round the nanoseconds of one repetition of each job, and why jobs are missing."""

    rounds: list[dict[Job, float]] = field(default_factory=list)
    failed: dict[Job, str] = field(default_factory=dict)
    each: dict[Job, list[int]] = field(default_factory=dict)
    """The nanoseconds of every repetition of all rounds."""


def measure(
    case: Case, rounds: int, baseline: list[str], peers: Mapping[str, Path | str], *, warm: bool = True
) -> Measured:
    """Measure a case.

    Args:
        case: it.
        rounds: how many.
        baseline: the command of the C side.
        peers: the directory to import a peer from, or the reason why there is none.
        warm: whether those cases have a round before that want one.
    """
    measured = Measured()
    with contextlib.ExitStack() as stack:
        sides: dict[str, Side] = {}
        for job in case.jobs:
            peer = peers.get(job.side)
            if isinstance(peer, str):
                measured.failed[job] = peer
            elif job.side not in sides and job not in measured.failed:
                try:
                    sides[job.side] = stack.enter_context(start(job.side, baseline, peer))
                except SideFailedError as error:
                    _fail(measured, case, job.side, error)
        # The first round warms up. Every other one goes backwards: nobody is always behind the same one.
        for number in range(0 if case.warm and warm else 1, rounds + 1):
            times: dict[Job, float] = {}
            for job in case.jobs[:: -1 if number % 2 else 1]:
                if job in measured.failed:
                    continue
                try:
                    repetitions = sides[job.side].times(job.work, job.repetitions)
                except SideFailedError as error:
                    _fail(measured, case, job.side, error)
                    continue
                times[job] = median(repetitions)
                if number:
                    measured.each.setdefault(job, []).extend(repetitions)
            if number:
                measured.rounds.append(times)
    return measured


def _fail(measured: Measured, case: Case, side: str, error: SideFailedError) -> None:
    """A process that has failed does none of its side's other jobs either."""
    for job in case.jobs:
        if job.side == side:
            measured.failed[job] = str(error)
