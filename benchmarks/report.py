"""From rounds to ratios, to what is reached and what is missed, to a table or JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.cases import Case, Job, Row
from benchmarks.measure import Measured

METHOD = (
    "ns for one item. In each round every side works in turn, its figure being the median of its "
    "repetitions; a ratio is the median of the rounds' own ratios, with the least and the greatest of them."
)

AGAINST_C = ("", "C ns", "ours ns", "peer ns", "ours/C (min-max)", "target", "ours/peer (min-max)", "")
BESIDE = ("", "by user_data ns", "ANY|ALL ns", "ratio (min-max)")


@dataclass(frozen=True)
class Ratio:
    """The rounds' ratios."""

    median: float
    min: float
    max: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.min:.2f}-{self.max:.2f})"


@dataclass(frozen=True)
class Result:
    """A row with its figures. `ok` is None where there is no target."""

    name: str
    about: str
    base: str
    base_ns: float | None
    ours_ns: float | None
    peer_ns: float | None
    ratio: Ratio | None
    target: float | None
    ratio_to_peer: Ratio | None
    ok: bool | None
    notes: tuple[str, ...]


def results(case: Case, measured: Measured) -> list[Result]:
    """The results of a case's rows."""
    return [_result(row, measured) for row in case.rows]


def _result(row: Row, measured: Measured) -> Result:
    ratio = _ratio(row.ours, row.base, measured)
    to_peer = _ratio(row.ours, row.peer, measured) if row.peer else None
    notes = [
        f"no figure for {job.side}: {measured.failed[job]}" for job in _jobs(row) if job in measured.failed
    ]
    missed = []
    if row.target is not None:
        if ratio is None:
            missed.append("not measured")
        elif ratio.median > row.target:
            missed.append(f"{ratio.median:.2f} times C, the target is {row.target:g}")
        if to_peer is not None and to_peer.median >= 1:
            missed.append(f"behind the peer: {to_peer.median:.2f} times its time")
    return Result(
        name=row.name,
        about=row.about,
        base="C" if row.base.side == "c" else row.base.work,
        base_ns=_figure(row, row.base, measured),
        ours_ns=_figure(row, row.ours, measured),
        peer_ns=_figure(row, row.peer, measured) if row.peer else None,
        ratio=ratio,
        target=row.target,
        ratio_to_peer=to_peer,
        ok=None if row.target is None else not missed,
        notes=(*missed, *notes),
    )


def _jobs(row: Row) -> Iterable[Job]:
    return [job for job in (row.base, row.ours, row.peer) if job is not None]


def _figure(row: Row, job: Job, measured: Measured) -> float | None:
    times = [times[job] for times in measured.rounds if job in times]
    return median(times) / row.items if times and job not in measured.failed else None


def _ratio(job: Job, base: Job, measured: Measured) -> Ratio | None:
    if job in measured.failed or base in measured.failed or not measured.rounds:
        return None
    ratios = [times[job] / times[base] for times in measured.rounds]
    return Ratio(median(ratios), min(ratios), max(ratios))


def missed(found: Iterable[Result]) -> list[str]:
    """The names of what is not reached."""
    return [result.name for result in found if result.ok is False]


def as_json(found: list[Result], machine: Mapping[str, str], peer: str, rounds: int) -> dict[str, Any]:
    """All of it, as JSON takes it."""
    return {
        "machine": dict(machine),
        "peer": peer,
        "method": METHOD,
        "rounds": rounds,
        "cases": [asdict(result) for result in found],
        "missed": missed(found),
    }


def table(found: list[Result], peer: str) -> str:
    """What a person reads: against C and the peer, then what stands beside something else of ours."""
    lines = []
    against_c = [result for result in found if result.base == "C"]
    if against_c:
        lines += _columns([AGAINST_C, *map(_against_c, against_c)])
    beside = [result for result in found if result.base != "C"]
    if beside:
        lines += [""] if lines else []
        rows = [(r.name, _ns(r.base_ns), _ns(r.ours_ns), _or_dash(r.ratio)) for r in beside]
        lines += _columns([BESIDE, *rows])
    width = max((len(result.name) for result in found), default=0)
    lines += ["", *(f"{result.name:<{width}}  {result.about}" for result in found)]
    lines += ["", METHOD, f"peer: {peer}"]
    notes = dict.fromkeys((result.name, note) for result in found for note in result.notes)
    lines += [f"{name}: {note}" for name, note in notes]
    return "\n".join(lines)


def _against_c(result: Result) -> tuple[str, ...]:
    return (
        result.name,
        _ns(result.base_ns),
        _ns(result.ours_ns),
        _ns(result.peer_ns),
        _or_dash(result.ratio),
        f"{result.target:g}" if result.target is not None else "",
        _or_dash(result.ratio_to_peer),
        {True: "ok", False: "MISSED", None: ""}[result.ok],
    )


def _ns(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _or_dash(ratio: Ratio | None) -> str:
    return "-" if ratio is None else str(ratio)


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:{'<' if at == 0 else '>'}{width}}"
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
