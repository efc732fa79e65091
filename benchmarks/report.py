"""From rounds to ratios, to what is reached and what is missed, to a table or JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

from benchmarks.cases import Case, Job, Row
from benchmarks.measure import Measured
from benchmarks.sides import LEFT_OUT

METHOD = (
    "ns for one item. In each round every side works in turn, its figure being the median of its "
    "repetitions; a ratio is the median of the rounds' own ratios, with the least and the greatest of them "
    "(in JSON also p10 and p90: a tenth of them is below the first, a tenth above the second)."
)

AGAINST_C = ("", "C ns", "ours ns", "peer ns", "ours/C (min-max)", "target", "ours/peer (min-max)", "")
LATENCY = ("", "p10 us", "p50 us", "p90 us", "most us", "beside", "its us", "ratio (min-max)", "")
BESIDE = ("", "against", "its ns", "ns", "its per s", "per s", "ratio (min-max)", "target", "")


def _short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.4f}"


def _tenths_of(values: Sequence[float]) -> list[float]:
    return quantiles(values, n=10, method="inclusive") if len(values) > 1 else [*values] * 9


@dataclass(frozen=True)
class Ratio:
    """The rounds' ratios."""

    median: float
    min: float
    max: float
    p10: float
    p90: float
    """A tenth of the rounds are below the first, a tenth above the last."""

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Ratio:
        """The ratios of one round or more."""
        tenths = _tenths_of(ratios)
        return cls(median(ratios), min(ratios), max(ratios), tenths[0], tenths[8])

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.min)}-{_short(self.max)})"


@dataclass(frozen=True)
class Spread:
    """Nanoseconds of all repetitions of all rounds: a tenth is below the first, a tenth above the last."""

    p10: float
    p50: float
    p90: float


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
    spread: Spread | None = None
    limit: float | None = None
    base_spread: Spread | None = None
    rounds: int = 0


def results(case: Case, measured: Measured) -> list[Result]:
    """The results of a case's rows."""
    return [_result(row, measured) for row in case.rows]


def _result(row: Row, measured: Measured) -> Result:
    base = row.against or ("C" if row.base.side == "c" else row.base.work)
    base_items = row.base_items or row.items
    ratio = _ratio(row.ours, row.base, measured, base_items / row.items)
    to_peer = _ratio(row.ours, row.peer, measured) if row.peer else None
    notes = [
        f"no figure for {job.side}: {measured.failed[job]}" for job in _jobs(row) if job in measured.failed
    ]
    missed = []
    target = row.target if measured.failed.get(row.base) != LEFT_OUT else None
    if target is not None:
        if ratio is None:
            missed.append("not measured")
        elif ratio.median > target:
            missed.append(f"{_short(ratio.median)} times {base}, the target is {target:g}")
        if to_peer is not None and to_peer.median >= 1:
            missed.append(f"behind the peer: {to_peer.median:.2f} times its time")
    spread = _spread(row.ours, measured) if row.limit is not None else None
    if row.limit is not None:
        if spread is None:
            missed.append("not measured")
        elif spread.p50 > row.limit:
            missed.append(f"the median is {_us(spread.p50)} us, the limit {_us(row.limit)}")
    return Result(
        name=row.name,
        about=row.about,
        base=base,
        base_ns=_figure(base_items, row.base, measured),
        ours_ns=_figure(row.items, row.ours, measured),
        peer_ns=_figure(row.items, row.peer, measured) if row.peer else None,
        ratio=ratio,
        target=row.target,
        ratio_to_peer=to_peer,
        ok=None if target is None and row.limit is None else not missed,
        notes=(*missed, *notes),
        spread=spread,
        limit=row.limit,
        base_spread=_spread(row.base, measured) if row.limit is not None else None,
        rounds=len(measured.rounds),
    )


def _jobs(row: Row) -> Iterable[Job]:
    return [job for job in (row.base, row.ours, row.peer) if job is not None]


def _figure(items: int, job: Job, measured: Measured) -> float | None:
    times = [times[job] for times in measured.rounds if job in times]
    return median(times) / items if times and job not in measured.failed else None


def _ratio(job: Job, base: Job, measured: Measured, scale: float = 1.0) -> Ratio | None:
    if job in measured.failed or base in measured.failed or not measured.rounds:
        return None
    return Ratio.of([times[job] / times[base] * scale for times in measured.rounds])


def _spread(job: Job, measured: Measured) -> Spread | None:
    every = measured.each.get(job, [])
    if job in measured.failed or len(every) < 2:
        return None
    tenths = _tenths_of(every)
    return Spread(tenths[0], tenths[4], tenths[8])


def missed(found: Iterable[Result]) -> list[str]:
    """The names of what is not reached."""
    return [result.name for result in found if result.ok is False]


def as_json(
    found: list[Result], machine: Mapping[str, str], versions: Mapping[str, str], peer: str, rounds: int
) -> dict[str, Any]:
    """All of it, as JSON takes it."""
    return {
        "machine": dict(machine),
        "versions": dict(versions),
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
    latencies = [result for result in found if result.limit is not None]
    if latencies:
        lines += [""] if lines else []
        lines += _columns([LATENCY, *map(_latency, latencies)])
    beside = [result for result in found if result.base != "C" and result.limit is None]
    if beside:
        lines += [""] if lines else []
        lines += _columns([BESIDE, *map(_beside, beside)])
    width = max((len(result.name) for result in found), default=0)
    abouts = dict.fromkeys((result.name, result.about) for result in found)
    lines += ["", *(f"{name:<{width}}  {about}" for name, about in abouts)]
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
        _target(result),
        _or_dash(result.ratio_to_peer) if result.peer_ns is not None else "",
        _WORDS[result.ok],
    )


def _beside(result: Result) -> tuple[str, ...]:
    return (
        result.name,
        result.base,
        _ns(result.base_ns),
        _ns(result.ours_ns),
        _rate(result.base_ns),
        _rate(result.ours_ns),
        _or_dash(result.ratio),
        _target(result),
        _WORDS[result.ok],
    )


def _latency(result: Result) -> tuple[str, ...]:
    spread, limit = result.spread, result.limit
    return (
        result.name,
        *("-" if spread is None else _us(value) for value in _tenths(spread)),
        "" if limit is None else _us(limit),
        result.base,
        "-" if result.base_ns is None else _us(result.base_ns),
        _or_dash(result.ratio),
        _WORDS[result.ok],
    )


def _tenths(spread: Spread | None) -> tuple[float, float, float]:
    return (0.0, 0.0, 0.0) if spread is None else (spread.p10, spread.p50, spread.p90)


def _us(ns: float) -> str:
    return f"{ns / 1000:,.0f}" if ns >= 100_000 else f"{ns / 1000:.1f}"


_WORDS = {True: "ok", False: "MISSED", None: ""}


def _target(result: Result) -> str:
    return f"{result.target:g}" if result.target is not None else ""


def _rate(ns: float | None) -> str:
    return "-" if ns is None else f"{1e9 / ns:,.0f}"


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
