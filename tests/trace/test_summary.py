"""Counts and percentiles, and what is said of them."""

from __future__ import annotations

import random

import pytest

from iocancel.trace.events import Cancel, Target
from iocancel.trace.summary import Latencies, Losses, Summary
from iocancel.trace.text import duration, table

NONE = Losses(0, 0, 0, 0)


def test_percentiles_are_within_three_percent() -> None:
    seen = Latencies()
    drawn = random.Random(6)
    values = sorted(int(drawn.lognormvariate(9, 2)) for _ in range(10_001))
    for value in values:
        seen.add(value)
    for percent in (1, 50, 90, 99):
        true = values[percent * 100]
        found = seen.percentile(percent)
        assert found is not None
        assert 0.96 * true <= found <= 1.04 * true
    assert seen.percentile(100) == values[-1]
    assert len(seen._seen) < 1000


def test_none_at_all() -> None:
    assert Latencies().percentile(50) is None
    assert table(Summary(), NONE) == "0 cancels. Events lost: 0.\n"


def cancel(pid: int, verdict: str, latency: int | None, ended: int = 0) -> Cancel:
    return Cancel(
        time=0,
        pid=pid,
        tid=pid,
        comm=f"p{pid}",
        system="uring",
        mechanism="async_cancel",
        verdict=verdict,
        latency=latency,
        targets=(Target(1, 22, -125, 5, True),) * ended,
    )


def test_by_process_mechanism_and_verdict() -> None:
    summary = Summary()
    for _ in range(3):
        summary.add(cancel(1, "cancelled", 1000, 1))
    summary.add(cancel(1, "not found", None))
    summary.add(cancel(2, "cancelled", 2_500_000, 2))
    rows = table(summary, NONE).splitlines()
    assert rows[1].split()[:3] == ["1", "p1", "async_cancel"]
    assert "3 cancelled, 1 not found" in rows[1]
    assert rows[2].endswith("2.5 ms")
    found = summary.asdict(NONE)
    assert [(row["cancels"], row["ended"]) for row in found["summary"]] == [(4, 3), (1, 2)]
    assert found["cancels"] == 5


def test_what_was_lost_is_always_said() -> None:
    said = table(Summary(), Losses(1234, 5, 6, 7))
    assert "Events lost: 1,234." in said
    assert "--buffer" in said
    assert "5 events came late" in said
    assert "What 6 cancels aimed at was lost" in said
    assert "7 requests ended as cancelled by nothing that was seen" in said
    found = Summary().asdict(Losses(1234, 5, 6, 7))
    assert [found[name] for name in ("lost_events", "late_events", "lost_keys", "strays")] == [1234, 5, 6, 7]


@pytest.mark.parametrize(
    ("ns", "said"),
    [
        (None, "-"),
        (0, "0 ns"),
        (999, "999 ns"),
        (1000, "1.0 us"),
        (123_456, "123 us"),
        (1_500_000, "1.5 ms"),
        (2_000_000_000, "2.0 s"),
    ],
)
def test_durations(ns: int | None, said: str) -> None:
    assert duration(ns) == said
