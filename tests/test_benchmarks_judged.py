"""What `./dev bench` says of injected figures: ratios, targets, latencies."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

from .benchmarks_stage import importable as importable

# The judgement

Judge = Callable[..., Any]


@pytest.fixture
def judge() -> Judge:
    """The result of a case with a target of 2, of rounds given as (C, ours, peer), each for 10 items."""
    from benchmarks.cases import Case, Job, Row
    from benchmarks.measure import Measured
    from benchmarks.report import results

    base, ours, peer = Job("c", "work", 1), Job("ours", "work", 1), Job("peer", "work", 1)

    def judged(*rounds: tuple[float, float, float], target: float | None = 2.0, failed: str = "") -> Any:
        case = Case("case", (Row("case", "about it", 10, base, ours, peer, target),))
        measured = Measured([dict(zip((base, ours, peer), times, strict=True)) for times in rounds])
        measured.failed = {job: "it fell ill" for job in (base, ours, peer) if job.side == failed}
        [result] = results(case, measured)
        return result

    return judged


def test_reached(judge: Judge) -> None:
    result = judge((100.0, 150.0, 300.0), (100.0, 200.0, 400.0), (200.0, 340.0, 400.0))
    assert (result.base_ns, result.ours_ns, result.peer_ns) == (10.0, 20.0, 40.0)
    assert (result.ratio.median, result.ratio.min, result.ratio.max) == (1.7, 1.5, 2.0)
    assert (result.ratio.p10, result.ratio.p90) == pytest.approx((1.54, 1.94))
    assert result.rounds == 3
    assert result.ratio_to_peer.median == 0.5
    assert result.ok is True
    assert result.notes == ()


def test_a_ratio_is_made_within_a_round(judge: Judge) -> None:
    # The machine was three times slower in one round: of the medians alone, the ratio would be 1.33.
    result = judge((100.0, 150.0, 500.0), (300.0, 450.0, 900.0), (300.0, 400.0, 900.0))
    assert result.ratio.median == 1.5


def test_just_reached(judge: Judge) -> None:
    assert judge((100.0, 200.0, 300.0)).ok is True


def test_missed(judge: Judge) -> None:
    result = judge((100.0, 201.0, 300.0))
    assert result.ok is False
    assert result.notes == ("2.01 times C, the target is 2",)


def test_behind_the_peer(judge: Judge) -> None:
    result = judge((100.0, 150.0, 120.0))
    assert result.ok is False
    assert result.notes == ("behind the peer: 1.25 times its time",)


def test_no_peer_is_no_fault(judge: Judge) -> None:
    result = judge((100.0, 150.0, 1.0), failed="peer")
    assert result.ok is True
    assert (result.peer_ns, result.ratio_to_peer) == (None, None)
    assert result.notes == ("no figure for peer: it fell ill",)


@pytest.mark.parametrize("side", ["c", "ours"])
def test_not_measured_is_missed(judge: Judge, side: str) -> None:
    result = judge((100.0, 150.0, 300.0), failed=side)
    assert result.ok is False
    assert result.notes == ("not measured", f"no figure for {side}: it fell ill")


def of_a_peer(failed: str = "") -> Any:
    """The result of a row that has its target against a peer."""
    from benchmarks.cases import Case, Job, Row
    from benchmarks.measure import Measured
    from benchmarks.report import results

    base, ours = Job("caio", "reads", 1), Job("ours on asyncio", "reads", 1)
    measured = Measured([{base: 30.0, ours: 20.0}], {base: failed} if failed else {})
    [result] = results(Case("case", (Row("case", "about it", 10, base, ours, target=0.5),)), measured)
    return result


def test_a_target_against_a_peer() -> None:
    result = of_a_peer()
    assert result.ok is False
    assert result.notes == ("0.67 times reads, the target is 0.5",)


def test_a_target_against_a_peer_that_was_left_out_is_not_missed() -> None:
    from benchmarks.sides import LEFT_OUT

    result = of_a_peer(LEFT_OUT)
    assert result.ok is None
    assert result.notes == ("no figure for caio: left out",)


def test_a_target_against_a_peer_that_cannot_be_had_is_missed() -> None:
    result = of_a_peer("caio can't be installed")
    assert result.ok is False
    assert result.notes == ("not measured", "no figure for caio: caio can't be installed")


def test_without_a_target_nothing_is_missed(judge: Judge) -> None:
    assert judge((100.0, 9000.0, 300.0), target=None).ok is None


def test_what_it_is_compared_with_may_have_other_items(judge: Judge) -> None:
    from benchmarks.cases import Case, Job, Row
    from benchmarks.measure import Measured
    from benchmarks.report import results, table

    few, many = Job("engine", "few", 1), Job("engine", "many", 1)
    row = Row("growth", "about it", 100, few, many, target=1.5, against="10 pending", base_items=10)
    [result] = results(Case("case", (row,)), Measured([{few: 20.0, many: 400.0}]))
    assert (result.base, result.base_ns, result.ours_ns) == ("10 pending", 2.0, 4.0)
    assert result.ratio is not None
    assert result.ratio.median == 2.0
    assert result.notes == ("2.00 times 10 pending, the target is 1.5",)
    text = table([result], "left out")
    assert "500,000,000" in text  # each second, of the base
    assert "MISSED" in text


def test_a_small_ratio_is_not_rounded_away() -> None:
    from benchmarks.report import Ratio

    assert str(Ratio.of([0.0029, 0.0028, 0.31])) == "0.0029 (0.0028-0.31)"


def test_a_case_that_is_not_warmed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import measure as measuring
    from benchmarks.cases import Case, Job, Row
    from benchmarks.sides import Side

    counting = "n = 0\nwhile line := input(): n += 1; print(n, flush=True)"
    monkeypatch.setattr(measuring, "start", lambda *_: Side([sys.executable, "-c", counting]))
    base, ours = Job("c", "work", 1), Job("ours", "work", 1)
    rows = (Row("case", "about it", 1, base, ours),)
    cold = measuring.measure(Case("case", rows, warm=False), 2, [], {})
    warm = measuring.measure(Case("case", rows), 2, [], {})
    asked = measuring.measure(Case("case", rows), 2, [], {}, warm=False)
    assert [times[ours] for times in cold.rounds] == [1, 2]
    assert [times[ours] for times in asked.rounds] == [1, 2]
    assert [times[ours] for times in warm.rounds] == [2, 3]


def test_exit_status(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import __main__ as command
    from benchmarks import report

    found = [judge((100.0, 300.0, 400.0))]
    monkeypatch.setattr(command, "compile_baseline", lambda directory: ["none"])
    monkeypatch.setattr(command, "measure", lambda *arguments, warm: None)
    monkeypatch.setattr(report, "results", lambda case, measured: found)
    assert command.main(["--no-peer", "one"]) == 1
    assert "MISSED" in capsys.readouterr().out
    assert command.main(["--no-peer", "--no-gate", "one"]) == 0
    assert command.main(["--no-peer", "--json", "one"]) == 1
    capsys.readouterr()
    found[:] = [judge((100.0, 150.0, 400.0))]
    assert command.main(["--no-peer", "one"]) == 0


# Latencies


def latency(times: list[int], limit: float | None = 100_000.0, failed: str = "") -> Any:
    """The result of a row with a limit, of the nanoseconds of each repetition."""
    from benchmarks.cases import Case, Job, Row
    from benchmarks.measure import Measured
    from benchmarks.report import results

    base, ours = Job("blocking", "wake", 3), Job("blocking", "cancel", 3)
    row = Row("cancel", "about it", 1, base, ours, against="a byte", limit=limit)
    measured = Measured([{base: 1000.0, ours: 2000.0}], each={ours: times} if times else {})
    if failed:
        measured.failed[ours] = failed
    [result] = results(Case("latency", (row,)), measured)
    return result


def test_a_latency_has_its_spread() -> None:
    from benchmarks.report import table

    result = latency([1000 * number for number in range(1, 102)])
    assert (result.spread.p10, result.spread.p50, result.spread.p90) == (11_000, 51_000, 91_000)
    assert result.ok is True
    assert result.ratio.median == 2.0
    text = table([result], "left out")
    for word in ("p10 us", "11.0", "51.0", "91.0", "100", "a byte", "1.0", "ok"):
        assert word in text
    assert "its per s" not in text


def test_a_latency_over_its_limit_is_missed() -> None:
    from benchmarks.report import missed

    result = latency([90_000, 101_000, 500_000])
    assert result.ok is False
    assert result.notes == ("the median is 101 us, the limit 100",)
    assert missed([result]) == ["cancel"]


def test_a_latency_just_at_its_limit() -> None:
    assert latency([90_000, 100_000, 500_000]).ok is True


@pytest.mark.parametrize(("times", "failed"), [([], ""), ([5], ""), ([1, 2, 3], "it fell ill")])
def test_a_latency_that_was_not_measured_is_missed(times: list[int], failed: str) -> None:
    from benchmarks.report import table

    result = latency(times, failed=failed)
    assert result.ok is False
    assert result.spread is None
    assert result.notes[0] == "not measured"
    assert "MISSED" in table([result], "left out")


def test_every_repetition_of_every_round_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import measure as measuring
    from benchmarks.cases import Case, Job, Row
    from benchmarks.sides import Side

    counting = "n = 0\nwhile line := input(): n += 10; print(n, n + 1, n + 5, flush=True)"
    monkeypatch.setattr(measuring, "start", lambda *_: Side([sys.executable, "-c", counting]))
    job = Job("blocking", "work", 3)
    measured = measuring.measure(Case("case", (Row("case", "about it", 1, job, job),)), 2, [], {})
    assert measured.rounds == [{job: 21.0}, {job: 31.0}]  # the first round warms up
    assert measured.each == {job: [20, 21, 25, 30, 31, 35]}


def test_a_work_with_clocks_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import io

    from benchmarks.works import Work, serve

    monkeypatch.setattr(sys, "stdin", io.StringIO("it 2\n"))
    serve({"it": Work(lambda: (1, 0), (1, 0), took=lambda: 17)})
    assert capsys.readouterr().out.strip() == "17 17"


def test_blocking_works_do_what_they_say() -> None:
    from benchmarks.cases import CASES
    from benchmarks.sides import start

    if os.environ.get("IOCANCEL_SANITIZE"):
        pytest.skip("a sanitized build is not what is measured")
    jobs = {job for name in ("ready", "latency") for job in CASES[name].jobs}
    assert {job.side for job in jobs} == {"blocking"}
    with start("blocking", [], None) as side:
        for job in sorted(jobs, key=str):  # it ends where one does not bring what it is to bring
            times = side.times(job.work, 2)
            assert len(times) == 2
            assert min(times) > 0
