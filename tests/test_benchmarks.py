"""The harness of `./dev bench`: a smoke run in tiny rounds, and its judgement on injected figures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from .benchmarks_stage import ROOT
from .benchmarks_stage import importable as importable


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
