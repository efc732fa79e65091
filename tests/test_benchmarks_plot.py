"""The pictures of `./dev bench`: what they say of given figures, and that those which are kept are right."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from .benchmarks_stage import importable as importable


@pytest.fixture
def matplotlib() -> None:
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("no matplotlib here: ./dev bench --plot --check installs it, and looks at the pictures")


def ratio(median: float) -> dict[str, float]:
    return {"median": median, "min": median / 4, "max": median * 4, "p10": median / 2, "p90": median * 2}


def spread(p50: float) -> dict[str, float]:
    return {"p10": p50 / 2, "p50": p50, "p90": p50 * 3}


def row(name: str, base: str, **figures: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(
        ("base_ns", "ours_ns", "peer_ns", "ratio", "ratio_to_peer", "spread", "base_spread")
    )
    return {"name": name, "base": base, **nothing, "rounds": 7, **figures}


def said(*rows: dict[str, Any]) -> dict[str, Any]:
    """As `--json` has it."""
    machine = {
        "kernel": "6.66.1",
        "machine": "pdp11",
        "processor": "KDJ11-E",
        "processors": "1",
        "virtual": "yes",
        "python": "3.11.99",
        "date": "1970-01-02",
    }
    versions = {"iocancel": "0.9.9", "liburing": "2.99", "uvloop": "0.1.2", "trio": ""}
    return {"machine": machine, "versions": versions, "rounds": 7, "cases": list(rows)}


ROWS = (
    row("cancel-all-64", "C", base_ns=200.4, ours_ns=500.0, peer_ns=900.0, ratio=ratio(2.5)),
    row("cancel-all-16384", "C", base_ns=250.0, ours_ns=612.0, ratio=ratio(2.45), rounds=3),
    row("instead-64", "C ANY|ALL", base_ns=290.0, ours_ns=500.0),
    row("instead-16384", "C ANY|ALL", base_ns=248_000.0, ours_ns=600.0),
    row("one", "C", ratio=ratio(2.0), ratio_to_peer=ratio(0.5)),
    row("tasks", "asyncio", ratio=ratio(0.4)),
    row("echo on trio", "trio.SocketStream", ratio=ratio(1.25)),
    row("awaited reads", "caio"),  # not measured
    row("cancel", "os.read woken by a byte", spread=spread(20_000), base_spread=spread(2_500)),
    row("cancel, idle", "os.read woken by a byte", spread=spread(61_000)),
)

Draw = Callable[..., dict[str, str]]


@pytest.fixture
def draw(matplotlib: None, tmp_path: Path) -> Draw:
    """The pictures of some rows, by name."""
    from benchmarks import pictures
    from benchmarks.kept import load

    def drawn(*rows: dict[str, Any]) -> dict[str, str]:
        file = tmp_path / "pdp11.json"
        file.write_text(json.dumps(said(*rows)))
        return pictures.draw(load(file))

    return drawn


def words(svg: str) -> list[str]:
    """What a picture says: its text is text."""
    return [
        "".join(each.itertext()).strip()
        for each in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    ]


def test_all_of_them(draw: Draw) -> None:
    made = draw(*ROWS)
    assert sorted(made) == [f"bench-{name}-pdp11.svg" for name in ("calls", "latency", "many", "tasks")]
    for svg in made.values():
        assert "Linux 6.66.1, pdp11, KDJ11-E, 1 processor, virtual, Python 3.11.99" in words(svg)
        assert len(svg.encode()) < 60_000
        assert "<dc:date>" not in svg


def test_many(draw: Draw) -> None:
    text = words(draw(*ROWS)["bench-many-pdp11.svg"])
    for label, figure in (
        ("C, one ANY|ALL", "248 µs among 16,384"),
        ("PyPI's liburing, each by number", "900 ns among 64"),
        ("iocancel, engine.cancel_all()", "612 ns among 16,384"),
        ("C, each by number, newest first", "250 ns among 16,384"),
    ):
        assert text[text.index(label) + 1] == figure
    assert "1970-01-02, 3 to 7 rounds, iocancel 0.9.9, liburing 2.99" in text


def test_ratios(draw: Draw) -> None:
    made = draw(*ROWS)
    calls, tasks = words(made["bench-calls-pdp11.svg"]), words(made["bench-tasks-pdp11.svg"])
    assert "2.00  (1.00 to 4.00)" in calls
    assert "0.50  (0.25 to 1.00)" in calls
    assert "one call, to PyPI's liburing" in calls
    assert "1,024 NOPs" not in calls  # nothing of that was measured
    assert [word for word in tasks if ", to " in word] == [
        "on asyncio, to asyncio",
        "Stream on trio, to trio",
    ]
    assert "0.40  (0.20 to 0.80)" in tasks
    assert "1.25  (0.62 to 2.50)" in tasks


def test_bars_are_on_their_side_of_one(draw: Draw) -> None:
    svg = draw(row("tasks", "asyncio", ratio=ratio(0.4)), row("echo", "loop.sock_recv", ratio=ratio(2.5)))

    def bar(color: str) -> tuple[float, float]:
        [path] = re.findall(rf'<path d="([^"]*)"[^>]*style="fill: {color}"', svg["bench-tasks-pdp11.svg"])
        xs = [float(x) for x in re.findall(r"[ML] (\S+) ", path)]
        return min(xs), max(xs)

    (faster, one), (also_one, slower) = bar("#0b5fa5"), bar("#c2410c")
    assert one == pytest.approx(also_one)
    assert one - faster == pytest.approx(
        slower - one, rel=1e-3
    )  # a factor of 2.5 each, on a logarithmic axis


def test_latency(draw: Draw) -> None:
    text = words(draw(*ROWS)["bench-latency-pdp11.svg"])
    for figure in ("20 µs  (10 µs to 60 µs)", "2.5 µs  (1.25 µs to 7.5 µs)", "61 µs  (30.5 µs to 183 µs)"):
        assert figure in text
    assert "Ctrl-C in iocancel.read" not in text
    assert "a byte wakes os.read, idle" not in text


def test_the_same_bytes_each_time(draw: Draw) -> None:
    assert draw(*ROWS) == draw(*ROWS)


def test_what_was_not_measured_has_no_picture(draw: Draw) -> None:
    assert draw(row("tasks", "asyncio"), row("cancel", "os.read woken by a byte")) == {}
    assert list(draw(row("tasks", "asyncio", ratio=ratio(1.0)))) == ["bench-tasks-pdp11.svg"]


def test_each_line_is_of_a_row_that_there_is() -> None:
    from benchmarks.cases import CASES
    from benchmarks.measure import Measured
    from benchmarks.pictures import CALLS, LINES, TASKS, WAITS
    from benchmarks.report import results
    from benchmarks.works import COUNTS

    there = {(each.name, each.base) for case in CASES.values() for each in results(case, Measured())}
    assert {(bar.row, bar.base) for _, bars in (*CALLS, *TASKS) for bar in bars} <= there
    assert {(wait.row, wait.base) for wait in WAITS} <= there
    for line in LINES:
        assert len({(line.row.format(count), line.base) for count in COUNTS} & there) >= 4


# What is told, and how


@pytest.mark.parametrize(
    ("ns", "text"),
    [(99.6, "100 ns"), (999.4, "999 ns"), (999.6, "1 µs"), (1234, "1.23 µs"), (54_321, "54.3 µs")]
    + [(237_400, "237 µs"), (4e6, "4 ms")],
)
def test_times(ns: float, text: str) -> None:
    from benchmarks.card import time

    assert time(ns) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00291, "0.0029"), (0.12, "0.12"), (0.996, "1.00"), (9.96, "9.96"), (25.04, "25"), (123.4, "123")],
)
def test_ratios_in_words(value: float, text: str) -> None:
    from benchmarks.card import ratio

    assert ratio(value) == text


def test_labels_are_held_apart() -> None:
    from benchmarks.card import apart

    assert apart([5.0, 1.0, 1.5, 1.0], 1.0) == [5.0, 1.0, 3.0, 2.0]


def test_an_axis_ends_at_a_step() -> None:
    from benchmarks.card import within

    assert within([1, 10, 100], 2, 50) == (1, 100)
    assert within([1, 10, 100], 10, 10) == (10, 10)
    assert within([1, 10, 100], 0.1, 1000) == (1, 100)


# The files


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "No such file"),
        ("{", "is not what ./dev bench --json prints"),
        ("[]", "is not what ./dev bench --json prints"),
        ("{}", "lacks machine, versions, cases"),
        (json.dumps({**said(), "cases": [{"name": "one", "base": "C"}]}), "lacks base_ns, .*measure again"),
        (json.dumps({**said(), "machine": {"kernel": "5.10"}}), "lacks .*virtual.*measure again"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str | None, why: str) -> None:
    from benchmarks.kept import KeptError, load

    file = tmp_path / "it.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(KeptError, match=f"{re.escape(str(file))}.*{why}"):
        load(file)


def test_what_is_measured_can_be_kept(tmp_path: Path) -> None:
    from benchmarks.cases import Case, Job, Row
    from benchmarks.kept import load
    from benchmarks.machine import describe, versions
    from benchmarks.measure import Measured
    from benchmarks.plot import keep
    from benchmarks.report import as_json, results

    base, ours = Job("blocking", "wake", 2), Job("blocking", "cancel", 2)
    case = Case("latency", (Row("cancel", "about it", 1, base, ours, against="a byte", limit=100.0),))
    found = results(case, Measured([{ours: 30.0, base: 20.0}], each={ours: [1, 2], base: [3, 4]}))
    file = keep(as_json(found, describe(), versions(), "left out", 1), tmp_path / "data")
    kept = load(file)
    assert file.name == f"{kept.machine['machine']}.json"
    assert kept.find("cancel", "a byte")["base_spread"]["p50"] == 3.5
    assert kept.find("cancel", "a byte")["rounds"] == 1
    assert kept.about().startswith("Linux ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d, 1 round, iocancel [0-9.]+", kept.made([1], "iocancel", "no such"))


def test_without_matplotlib_it_says_what_brings_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import __main__ as command
    from benchmarks import card

    def missing() -> None:
        raise ImportError("No module named 'matplotlib'")

    monkeypatch.setattr(card, "library", missing)
    assert command.main(["--plot"]) == 2
    assert "No module named 'matplotlib'; ./dev bench --plot installs it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--check"], "--check goes with --plot"),
        (["--plot", "it.json", "--check"], "no FILE"),
        (["--keep", "one"], "no NAME"),
        (["--keep", "--no-peer"], "no --no-peer"),
    ],
)
def test_what_does_not_go_together(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import __main__ as command

    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert why in capsys.readouterr().err


@pytest.mark.usefixtures("matplotlib")
def test_pictures_are_made_and_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import plot

    data, pictures = tmp_path / "data", tmp_path / "pictures"
    made = partial(plot.plot, [], data=data, pictures=pictures)
    assert made() == 2
    assert "nothing is kept" in capsys.readouterr().err
    data.mkdir()
    (data / "pdp11.json").write_text(json.dumps(said(*ROWS)))
    assert made(check=True) == 1
    assert capsys.readouterr().err.count("is not there") == 4
    assert made() == 0
    assert made(check=True) == 0
    assert "4 pictures are what the data give" in capsys.readouterr().out
    many = pictures / "bench-many-pdp11.svg"
    many.write_text(many.read_text().replace("612 ns", "61 ns"))
    (pictures / "bench-many-vax.svg").touch()
    assert made(check=True) == 1
    wrong = capsys.readouterr().err
    assert "bench-many-pdp11.svg is not what the data give: " in wrong
    assert "bench-many-vax.svg is of no data" in wrong
    many.write_text(re.sub(r"Matplotlib v[^,]+", "Matplotlib v1.2.3", many.read_text()))
    assert made(check=True) == 1
    assert "it was made with matplotlib 1.2.3" in capsys.readouterr().err
    (data / "pdp11.json").write_text(json.dumps(said()))
    assert made() == 2
    assert "nothing that a picture shows" in capsys.readouterr().err


@pytest.mark.usefixtures("matplotlib")
def test_the_pictures_that_are_kept_are_what_the_data_give() -> None:
    from benchmarks import card, pictures
    from benchmarks.kept import DATA, PICTURES, load
    from benchmarks.plot import differing, drawn_by

    version = card.library().__version__
    there = {drawn_by(file.read_text()) for file in PICTURES.glob("bench-*.svg")}
    if there != {version}:
        pytest.skip(f"they were made with matplotlib {', '.join(there)}, and here is {version}")
    made = {name: svg for file in DATA.glob("*.json") for name, svg in pictures.draw(load(file)).items()}
    assert len(made) >= 4
    assert differing(made, PICTURES, version) == []
