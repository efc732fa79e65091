"""The harness of `./dev bench`: a smoke run in tiny rounds, and its judgement on injected figures."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("benchmarks/ is not here: an installed copy", allow_module_level=True)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def can_measure() -> None:
    """Skip where the C side can't be had, and where figures would be of something else."""
    from benchmarks.sides import SideFailedError, compile_baseline, compiler

    if os.environ.get("IOCANCEL_SANITIZE"):
        pytest.skip("a sanitized build is not what is measured")
    if os.environ.get("IOCANCEL_GUEST") == "1":
        pytest.skip("nothing is measured in an emulated machine")
    if compiler() is None:
        pytest.skip("no C compiler here")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            compile_baseline(Path(scratch))
        except SideFailedError as error:
            pytest.skip(str(error))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={**os.environ, "PYTHONPATH": path},
    )


# The whole, once


@pytest.mark.usefixtures("can_measure")
def test_json_has_every_case() -> None:
    from benchmarks.cases import CASES
    from benchmarks.sides import PEER

    done = run("--json", "--rounds=1", "--cold", "--no-peer", "--no-gate")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["peer"] == "left out"
    assert said["rounds"] == 1
    assert said["machine"]["kernel"] == os.uname().release
    assert said["versions"]["liburing of PyPI"] == PEER.partition("==")[2]
    assert [row["name"] for row in said["cases"]] == [
        row.name for case in CASES.values() for row in case.rows
    ]
    targets = {row["name"]: row["target"] for row in said["cases"] if row["target"] is not None}
    assert targets == {
        "cancel-1024": 2.0,
        "one": 2.5,
        "nop-1024": 4.0,
        **{f"cancel-all-{pending}": 4.0 for pending in (64, 1024, 4096, 16384, 60000)},
        "cancel-all-16384 growth": 1.5,
        "instead-16384": 1 / 250,
        "ready": 1.0,
        **{f"{name}{against}": 1.0 for name in ("tasks", "timeouts") for against in ("", " beside uvloop")},
        "echo": 1.0,
        "awaited reads": 0.5,
    }
    limits = {row["name"]: row["limit"] for row in said["cases"] if row["limit"] is not None}
    assert limits == {"cancel": 100_000, "cancel, idle": 5_000_000, "Ctrl-C": 5_000_000}  # nanoseconds
    for row in said["cases"]:
        if row["ratio"] is None:  # a peer's; or an old kernel, say, which lacks what is measured
            assert row["notes"]
            assert row["ok"] is None or row["name"] in said["missed"]
            continue
        assert row["base_ns"] > 0
        assert row["ours_ns"] > 0
        assert sorted(row["ratio"].values()) == [
            row["ratio"][key] for key in ("min", "p10", "median", "p90", "max")
        ]
        assert row["rounds"] == 1
        assert row["peer_ns"] is None
        if row["limit"] is not None:
            spread = row["spread"]
            assert 0 < spread["p10"] <= spread["p50"] <= spread["p90"]
            assert row["ok"] is (spread["p50"] <= row["limit"])
        elif row["target"] is None:
            assert row["ok"] is None
        else:
            assert row["ok"] is (row["name"] not in said["missed"])


@pytest.mark.usefixtures("can_measure")
def test_table_of_some_cases() -> None:
    done = run("--rounds=1", "--no-peer", "--no-gate", "one", "any-all-64")
    assert done.returncode == 0, done.stderr
    for word in ("ours/C", "its per s", "any-all-64", "by-user-data-64", "one by Sqe", "peer: left out"):
        assert word in done.stdout
    assert "nop-1024" not in done.stdout


def test_unknown_case_is_named() -> None:
    done = run("nonsense")
    assert done.returncode == 2
    assert "no case nonsense; there are cancel-1024, " in done.stderr


def test_no_compiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler-here")
    done = run("--no-peer")
    assert done.returncode == 2
    assert "no C compiler" in done.stderr


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


# What is awaited

AWAITED = (
    "asyncio",
    "uvloop",
    "ours on asyncio",
    "ours on uvloop",
    "trio",
    "ours on trio",
    "caio",
    "aiofiles",
)


@pytest.fixture
def uring() -> None:
    from iocancel.engines import open_engine
    from iocancel.errors import EngineUnavailable

    if os.environ.get("IOCANCEL_SANITIZE"):
        pytest.skip("a sanitized build is not what is measured")
    try:
        open_engine("uring").close()
    except EngineUnavailable as error:
        pytest.skip(str(error))


def installed(side: str) -> Path | None:
    """Where what a side needs is, in the environment (None) or beside it; without asking PyPI."""
    from benchmarks.sides import PEERS, place

    if side not in PEERS:
        return None
    where = place(PEERS[side])
    if where.is_dir():
        return where
    if importlib.util.find_spec(PEERS[side].partition("==")[0]) is None:
        pytest.skip(f"{PEERS[side]} is not installed here")
    return None


@pytest.mark.usefixtures("uring")
@pytest.mark.parametrize("side", AWAITED)
def test_awaited_works_do_what_they_say(side: str) -> None:
    from benchmarks.cases import CASES
    from benchmarks.loops import FILES, PENDING
    from benchmarks.sides import start

    names = ("tasks", "timeouts", "echo", "awaited-reads")
    jobs = {job for name in names for job in CASES[name].jobs}
    assert {job.side for job in jobs} == set(AWAITED)
    works = {job.work for job in jobs if job.side == side}
    assert works
    if 0 <= resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2 * PENDING + FILES:
        works -= {"cancel", "timeouts"}
    with start(side, [], installed(side)) as process:
        for work in sorted(works):  # it ends where one does not bring what it is to bring
            times = process.times(work, 2)
            assert len(times) == 2
            assert min(times) > 0


def test_items_are_as_many_as_the_works_have() -> None:
    from benchmarks.cases import CASES
    from benchmarks.loops import PENDING
    from benchmarks.works import READS, TRIPS

    for names, items in ((("tasks", "timeouts"), PENDING), (("echo",), TRIPS), (("awaited-reads",), READS)):
        for name in names:
            assert {row.items for row in CASES[name].rows} == {items}


@pytest.mark.usefixtures("uring")
@pytest.mark.parametrize(("work", "times"), [("reads", 1), ("reads-inline", 0)])
def test_how_often_a_read_suspends(monkeypatch: pytest.MonkeyPatch, work: str, times: int) -> None:
    from benchmarks.loops import ours
    from benchmarks.works import BLOCK, OFFSETS, cached_file

    monkeypatch.setenv("IOCANCEL_ENGINE", "uring")
    suspended: list[object] = []

    @types.coroutine
    def watched(awaitable: Any) -> Generator[Any, Any, Any]:
        inner = awaitable.__await__()
        while True:
            try:
                suspended.append(inner.send(None))
            except StopIteration as end:
                return end.value
            yield suspended[-1]

    async def some(fd: int) -> None:
        read = ours().reads[work](fd)
        for offset in OFFSETS[:10]:
            del suspended[:]
            assert len(await watched(read(offset))) == BLOCK
            assert len(suspended) == times

    with open(cached_file(), "rb") as file:
        asyncio.run(some(file.fileno()))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    from benchmarks import loops

    monkeypatch.setattr(loops, "PENDING", 3)
    return 3


@pytest.mark.parametrize("timeouts", [False, True])
def test_all_of_the_pending_end(few: int, timeouts: bool) -> None:
    from benchmarks.loops import Pending

    begun: list[socket.socket] = []

    async def recv(sock: socket.socket, many: int) -> bytes:
        begun.append(sock)
        return await asyncio.get_running_loop().sock_recv(sock, many)

    with asyncio.Runner() as runner:
        pending = Pending(runner, recv, timeouts)
        work = pending.work()
        for _ in range(2):
            work.prepare()
            assert len(begun) == few  # before the clock starts
            assert work.counted is not None
            assert work.counted() == (0, 0)
            work.run()
            assert work.counted() == work.expected == (few, few)
            begun.clear()
        pending.close()


@pytest.mark.parametrize("timeouts", [False, True])
def test_a_cancel_that_is_swallowed_is_seen(few: int, timeouts: bool) -> None:
    from benchmarks.loops import Pending

    async def recv(sock: socket.socket, many: int) -> bytes:
        try:
            return await asyncio.get_running_loop().sock_recv(sock, many)
        except asyncio.CancelledError:
            return b""

    with asyncio.Runner() as runner:
        pending = Pending(runner, recv, timeouts)
        work = pending.work()
        work.prepare()
        work.run()
        assert work.counted is not None
        assert work.counted() == (few, 0)
        pending.close()


@pytest.mark.usefixtures("few")
def test_timeouts_that_cannot_be_set_in_time_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import loops

    monkeypatch.setattr(loops, "AHEAD", 0.0)
    with asyncio.Runner() as runner:

        async def recv(sock: socket.socket, many: int) -> bytes:
            return await asyncio.get_running_loop().sock_recv(sock, many)

        pending = loops.Pending(runner, recv, True)
        work = pending.work()
        work.prepare()
        with pytest.raises(SystemExit, match="3 timeouts took longer to set than"):
            work.run()
        pending.close()


@pytest.mark.parametrize(
    ("limits", "raised"),
    [
        ((1024, 20_000), (8100, 20_000)),
        ((1024, resource.RLIM_INFINITY), (8100, resource.RLIM_INFINITY)),
        ((8100, 20_000), None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None),
    ],
)
def test_the_limit_of_open_files_is_raised(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], raised: tuple[int, int] | None
) -> None:
    from benchmarks.loops import allow_files

    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: set_to.append(both))
    allow_files(8000)
    assert set_to == ([] if raised is None else [raised])


def test_too_few_open_files_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.loops import allow_files

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    with pytest.raises(SystemExit, match=r"needs 8,100 open files, and 4,096 are allowed"):
        allow_files(8000)


# The sides


def test_a_side_that_crashes_says_how() -> None:
    from benchmarks.sides import Side, SideFailedError

    code = f"import os; input(); os.kill(os.getpid(), {int(signal.SIGILL)})"
    with (
        Side([sys.executable, "-c", code]) as side,
        pytest.raises(SideFailedError, match="SIGILL: it was built for"),
    ):
        side.times("work", 1)


def test_a_side_that_cannot_be_started_says_why() -> None:
    from benchmarks.sides import Side, SideFailedError

    with pytest.raises(SideFailedError, match="can't be started"):
        Side(["/nonexistent"])


def test_a_side_that_fails_says_why() -> None:
    from benchmarks.sides import Side, SideFailedError

    with (
        Side([sys.executable, "-c", "raise SystemExit('no ring here')"]) as side,
        pytest.raises(SideFailedError, match="no ring here"),
    ):
        side.times("work", 1)


def test_a_side_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import sides

    monkeypatch.setattr(sides, "TOO_LONG", 0.01)
    with (
        sides.Side([sys.executable, "-c", "import signal; signal.pause()"]) as side,
        pytest.raises(sides.SideFailedError, match="longer than"),
    ):
        side.times("work", 1)


def test_a_peer_that_crashes_costs_only_its_column(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import measure as measuring
    from benchmarks.cases import Case, Job, Row
    from benchmarks.report import results
    from benchmarks.sides import Side

    healthy = [sys.executable, "-c", "while line := input(): print(*[7] * int(line.split()[1]), flush=True)"]
    dying = [sys.executable, "-c", f"import os; input(); os.kill(os.getpid(), {int(signal.SIGILL)})"]
    monkeypatch.setattr(measuring, "start", lambda side, *rest: Side(dying if side == "peer" else healthy))
    row = Row("case", "about it", 1, Job("c", "work", 2), Job("ours", "work", 2), Job("peer", "work", 2), 2.0)
    case = Case("case", (row,))
    [result] = results(case, measuring.measure(case, 2, [], {"peer": ROOT}))
    assert result.ok is True
    assert (result.base_ns, result.ours_ns, result.peer_ns) == (7.0, 7.0, None)
    assert "SIGILL" in result.notes[0]


def test_a_peer_that_cannot_be_installed_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from benchmarks import sides

    monkeypatch.setattr(sides, "CACHE", tmp_path)
    refused = subprocess.CompletedProcess([], 1, "", "WARNING: so so\nERROR: No matching distribution\n")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **more: refused)
    with pytest.raises(sides.SideFailedError, match="can't be installed: No matching distribution"):
        sides.install_peer()
    assert not list(tmp_path.iterdir())


def test_peers_that_are_not_here_say_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from benchmarks import sides

    def refuse(what: str) -> Path:
        if what.startswith("caio"):
            raise sides.SideFailedError("no caio")
        return tmp_path

    monkeypatch.setattr(sides, "install_peer", refuse)
    monkeypatch.setattr("shutil.which", lambda name: None)
    found = sides.peers({"c", "peer", "caio", "fio"})
    assert found == {"peer": tmp_path, "caio": "no caio", "fio": found["fio"]}
    assert "not installed" in str(found["fio"])
    assert sides.peers({"c", "ours", "asyncio", "ours on asyncio"}) == {}


def test_what_two_sides_need_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import sides

    asked: list[str] = []

    def refuse(what: str) -> Path:
        asked.append(what)
        raise sides.SideFailedError("not here")

    monkeypatch.setattr(sides, "install_peer", refuse)
    found = sides.peers({"uvloop", "ours on uvloop", "trio"})
    assert found == dict.fromkeys(("uvloop", "ours on uvloop", "trio"), "not here")
    assert asked == [sides.UVLOOP, sides.TRIO]


def test_a_work_that_is_counted_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import io

    from benchmarks.works import Work, serve

    done: list[str] = []
    work = Work(lambda: (0, 0), (1, 2), lambda: done.append("prepared"), lambda: (len(done), 2))
    monkeypatch.setattr(sys, "stdin", io.StringIO("it 1\n"))
    serve({"it": work})
    assert capsys.readouterr().out.strip().isdigit()
    monkeypatch.setattr(sys, "stdin", io.StringIO("it 1\n"))
    with pytest.raises(SystemExit, match="it: "):  # two, now
        serve({"it": work})


def test_a_peer_is_installed_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from benchmarks import sides

    calls: list[list[str]] = []

    def pip(command: list[str], **more: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        Path(command[command.index("--target") + 1]).mkdir()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(sides, "CACHE", tmp_path)
    monkeypatch.setattr(subprocess, "run", pip)
    assert sides.install_peer() == sides.install_peer()
    assert len(calls) == 1
    assert [each.is_dir() for each in tmp_path.iterdir()] == [True]
