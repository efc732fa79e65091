"""The pictures of a measurement: which of its figures each shows, and how (card.py draws)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import log10
from typing import Any, NamedTuple

from benchmarks import card
from benchmarks.card import INK, LINE, OURS, PEER, RULE, SQUARE, C, Card
from benchmarks.kept import Kept
from benchmarks.works import COUNTS

# Many


class Line(NamedTuple):
    """One way to cancel many."""

    label: str
    row: str
    base: str
    figure: str
    color: str
    marker: str


POWERS = [10.0**power for power in range(2, 9)]  # nanoseconds: to a tenth of a second
LINES = (
    Line("C, one ANY|ALL", "instead-{}", "C ANY|ALL", "base_ns", SQUARE, "s"),
    Line("PyPI's liburing, each by number", "cancel-all-{}", "C", "peer_ns", PEER, "^"),
    Line("iocancel, engine.cancel_all()", "cancel-all-{}", "C", "ours_ns", OURS, "o"),
    Line("C, each by number, newest first", "cancel-all-{}", "C", "base_ns", C, "D"),
)


MANY_OF = ("iocancel", "liburing", "C compiler", "liburing of PyPI")


def many(kept: Kept) -> Card | None:
    """What it costs to cancel one of many, by how many there are."""
    found = []
    rounds = {
        row["rounds"] for (name, _), row in kept.rows.items() if name.startswith(("instead-", "cancel-all-"))
    }
    for line in LINES:
        points = [
            (count, row[line.figure])
            for count in COUNTS
            if (row := kept.find(line.row.format(count), line.base)) and row[line.figure]
        ]
        if points:
            found.append((line, points))
    if not found:
        return None
    inches = 3.1
    picture = Card("What cancelling one request of many costs", inches, left=0.85, right=2.6)
    axes = picture.axes
    axes.set_xscale("log")
    axes.set_yscale("log")
    for line, points in found:
        axes.plot(
            *zip(*points, strict=True), color=line.color, marker=line.marker, markersize=5, linewidth=1.6
        )
    card.marks(axes.xaxis, COUNTS, lambda count: f"{count:,.0f}")
    card.marks(axes.yaxis, POWERS, card.time)
    axes.set_ylim(100, card.within(POWERS, 100, max(ns for _, points in found for _, ns in points))[1])
    axes.set_ylabel("for one request")
    axes.grid(visible=True, axis="y", color=RULE, linewidth=0.6)
    decades = log10(axes.get_ylim()[1]) - 2
    ys = card.apart([log10(points[-1][1]) for _, points in found], 0.34 / inches * decades)
    for (line, points), y in zip(found, ys, strict=True):
        count, ns = points[-1]
        picture.beside(10**y, f"{line.label}\n{card.time(ns)} among {count:,}", line.color)
    picture.below("pending requests, all of them cancelled", kept, rounds, *MANY_OF)
    return picture


# Ratios


class Bar(NamedTuple):
    """A ratio of ours to another's."""

    label: str
    row: str
    base: str
    ratio: str = "ratio"


Group = tuple[str, tuple[Bar, ...]]


def _to_c_and_peer(label: str, row: str) -> tuple[Bar, ...]:
    return (
        Bar(f"{label}, to C", row, "C"),
        Bar(f"{label}, to PyPI's liburing", row, "C", "ratio_to_peer"),
    )


def _to_the_loops(row: str) -> tuple[Bar, ...]:
    return (
        Bar("on asyncio, to asyncio", row, "asyncio"),
        Bar("on asyncio, to uvloop", f"{row} beside uvloop", "uvloop"),
        Bar("on uvloop, to uvloop", f"{row} on uvloop", "uvloop"),
    )


CALLS: tuple[Group, ...] = (
    (
        "1,024 polls cancelled and reaped",
        (
            *_to_c_and_peer("in bulk", "cancel-1024"),
            *_to_c_and_peer("an object each", "cancel-1024 by Sqe"),
            *_to_c_and_peer("by an engine", "cancel-all-1024"),
        ),
    ),
    (
        "One poll submitted, cancelled, reaped",
        (
            *_to_c_and_peer("one call", "one"),
            *_to_c_and_peer("by objects", "one by Sqe"),
            Bar("Linux AIO, to C", "libaio", "C"),
        ),
    ),
    (
        "1,024 NOPs",
        (*_to_c_and_peer("in bulk", "nop-1024"), *_to_c_and_peer("an object each", "nop-1024 by Sqe")),
    ),
    (
        "A ready pipe, iocancel.read",
        (
            Bar("with a timeout, to os.read", "ready", "os.read"),
            Bar("with a timeout, to select + os.read", "ready", "select + os.read"),
            Bar("in a scope, to select + os.read", "ready in scope", "select + os.read"),
        ),
    ),
)

TASKS: tuple[Group, ...] = (
    ("4,000 pending receives cancelled", _to_the_loops("tasks")),
    ("4,000 timeouts run out", _to_the_loops("timeouts")),
    (
        "64 bytes there and back",
        (
            Bar("Stream on asyncio, to asyncio", "echo", "loop.sock_recv"),
            Bar("verbs on asyncio, to asyncio", "echo by verbs", "loop.sock_recv"),
            Bar("Stream on uvloop, to uvloop", "echo on uvloop", "uvloop's sock_recv"),
            Bar("verbs on uvloop, to uvloop", "echo by verbs on uvloop", "uvloop's sock_recv"),
            Bar("Stream on trio, to trio", "echo on trio", "trio.SocketStream"),
        ),
    ),
    (
        "Cached 4 KiB reads by 64 tasks",
        (
            Bar("read, to caio", "awaited reads", "caio"),
            Bar("read, to aiofiles", "awaited reads", "aiofiles"),
            Bar("read, to run_in_executor", "awaited reads", "run_in_executor"),
            Bar("through the ring, to caio", "awaited reads, ring", "caio"),
            Bar("through the ring, to aiofiles", "awaited reads, ring", "aiofiles"),
        ),
    ),
)

STEPS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


def _ratios(kept: Kept, title: str, groups: Iterable[Group], versions: Sequence[str]) -> Card | None:
    """Bars from 1.0: to the left where ours takes less, to the right where it takes more."""
    rows: list[tuple[str, dict[str, float] | None]] = []
    rounds: set[int] = set()
    for heading, bars in groups:
        known = [(bar, kept.find(bar.row, bar.base)) for bar in bars]
        shown = [(bar.label, row[bar.ratio], row["rounds"]) for bar, row in known if row.get(bar.ratio)]
        if shown:
            rows += [(heading, None), *((label, ratio) for label, ratio, _ in shown)]
            rounds.update(many for *_, many in shown)
    ratios = [ratio for _, ratio in rows if ratio]
    if not ratios:
        return None
    low, high = card.within(STEPS, min(each["p10"] for each in ratios), max(each["p90"] for each in ratios))
    low, high = min(low, 0.3), max(high, 3.0)
    picture, axes = _lines(title, [label for label, _ in rows], low, high)
    card.marks(axes.xaxis, [step for step in STEPS if low <= step <= high], lambda step: f"{step:g}")
    axes.axvline(1, color=INK, linewidth=1)
    for y, (_, ratio) in enumerate(rows):
        if ratio is None:
            axes.get_yticklabels()[y].set_weight("bold")
            continue
        median, p10, p90 = ratio["median"], ratio["p10"], ratio["p90"]
        axes.barh(y, median - 1, left=1, height=0.62, color=OURS if median <= 1 else SQUARE)
        axes.plot([p10, p90], [y, y], color=INK, linewidth=1)
        picture.beside(y, f"{card.ratio(median)}  ({card.ratio(p10)} to {card.ratio(p90)})")
    label = (
        "the time that iocancel takes, as a multiple of the other's (a tenth to nine tenths of the rounds)"
    )
    picture.below(label, kept, rounds, *versions)
    return picture


def _lines(title: str, labels: Sequence[str], low: float, high: float) -> tuple[Card, Any]:
    """A card with a line for each label, and its axes: logarithmic, from low to high."""
    picture = Card(title, LINE * len(labels))
    axes = picture.axes
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(visible=True, axis="x", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.set_yticks(range(len(labels)), labels, color=INK)
    return picture, axes


def calls(kept: Kept) -> Card | None:
    """What single calls and batches cost."""
    versions = ("iocancel", "cffi", "liburing", "C compiler", "liburing of PyPI")
    return _ratios(kept, "Single calls and batches, against C and peers", CALLS, versions)


def tasks(kept: Kept) -> Card | None:
    """What is awaited."""
    versions = ("iocancel", "uvloop", "trio", "caio", "aiofiles")
    return _ratios(kept, "Tasks, against the loops' own and peers", TASKS, versions)


# Latency


class Wait(NamedTuple):
    """How a wait ends, and with what it is compared."""

    label: str
    row: str
    base: str
    other: str


WAITS = (
    Wait("scope.cancel(), from another thread", "cancel", "os.read woken by a byte", "a byte wakes os.read"),
    Wait(
        "the same, processors idle", "cancel, idle", "os.read woken by a byte", "a byte wakes os.read, idle"
    ),
    Wait("Ctrl-C in iocancel.read", "Ctrl-C", "select.select", "Ctrl-C in select.select"),
)


def latency(kept: Kept) -> Card | None:
    """How long after it was told a thread knows."""
    rows: list[tuple[str, dict[str, float], str]] = []
    rounds: set[int] = set()
    for wait in WAITS:
        row = kept.find(wait.row, wait.base)
        rounds.update([row["rounds"]] if row else [])
        both = (wait.label, row.get("spread"), OURS), (wait.other, row.get("base_spread"), C)
        rows += [(label, spread, color) for label, spread, color in both if spread]
    if not rows:
        return None
    spreads = [spread for _, spread, _ in rows]
    low, high = card.within(
        POWERS, min(each["p10"] for each in spreads), max(each["p90"] for each in spreads)
    )
    picture, axes = _lines("From scope.cancel() until the thread knows", [row[0] for row in rows], low, high)
    card.marks(axes.xaxis, [power for power in POWERS if low <= power <= high], card.time)
    for y, (_, spread, color) in enumerate(rows):
        p10, p50, p90 = spread["p10"], spread["p50"], spread["p90"]
        axes.plot([p10, p90], [y, y], color=color, linewidth=4, alpha=0.45)
        axes.plot([p50], [y], color=color, marker="o", markersize=6)
        picture.beside(y, f"{card.time(p50)}  ({card.time(p10)} to {card.time(p90)})")
    picture.below("median of all, and from a tenth of them to nine tenths", kept, rounds, "iocancel")
    return picture


PICTURES: dict[str, Callable[[Kept], Card | None]] = {
    "many": many,
    "calls": calls,
    "tasks": tasks,
    "latency": latency,
}


def draw(kept: Kept) -> dict[str, str]:
    """By file name, the pictures for which there are figures."""
    with card.library().rc_context(card.STYLE):
        cards = {f"bench-{name}-{kept.name}.svg": make(kept) for name, make in PICTURES.items()}
        return {name: made.svg() for name, made in cards.items() if made is not None}
