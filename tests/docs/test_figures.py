"""Figures in sentences are what `./dev bench --keep` has kept; test_reference.py has those in tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.docs import figures

ROOT = Path(__file__).parents[2]
COUNTS = (64, 1024, 4096, 16384, 60000)


def said(page: str) -> str:
    return " ".join((ROOT / page).read_text().split())


def ratio(case: str, base: str, which: str = "median") -> str:
    return f"{figures.measured(case, base)['ratio'][which]:.1f}"


def test_the_readme_tells_how_much_slower_an_echo_is() -> None:
    uvloop = ratio("echo on uvloop", "uvloop's sock_recv")
    trio = ratio("echo on trio", "trio.SocketStream")
    text = f"On uvloop a 64-byte echo takes {uvloop} times as long as uvloop's own, on trio {trio} times."
    assert text in said("README.md"), text


def test_the_readme_tells_how_much_faster_c_is() -> None:
    medians = sorted(ratio(f"cancel-all-{count}", "C") for count in COUNTS)
    text = f"{medians[0]} to {medians[-1]} times as fast as this library at cancelling many"
    assert text in said("README.md"), text


def test_the_readme_tells_what_objects_cost() -> None:
    """Beside the peer that has them, too."""
    cases = ("cancel-1024 by Sqe", "one by Sqe", "nop-1024 by Sqe")
    ratios = sorted(figures.measured(case, "C")["ratio_to_peer"]["median"] for case in cases)
    assert f"take {ratios[0]:.0f} to {ratios[-1]:.0f} times as long as with PyPI's liburing" in said(
        "README.md"
    )


def test_the_tracer_s_cost_is_the_measured_one() -> None:
    row = figures.measured("traced", "not traced")
    least, median, most = (ratio("traced", "not traced", which) for which in ("min", "median", "max"))
    text = (
        f"each takes {row['base_ns']:,.0f} without and {row['ours_ns']:,.0f} with the events"
        f" (`./dev bench traced`; {median} times, {least} to {most})"
    )
    assert text in said("docs/trace.md"), text


def test_a_ready_read_s_cost_is_the_measured_one() -> None:
    """Of `select` and `os.read` together."""
    assert 0.65 < figures.measured("ready", "select + os.read")["ratio"]["median"] < 0.85
    assert "it takes about three quarters of the latter's time" in said("docs/threads.md")


def test_a_page_without_a_place_for_them_is_refused() -> None:
    with pytest.raises(LookupError, match="no place"):
        figures.written("# Title\n")
    with pytest.raises(LookupError, match="nothing is kept"):
        figures.measured("tasks", "nobody")
