"""The reference pages: what they are made of, and whether this machine says the same."""

from __future__ import annotations

import ast
import functools
import itertools
import os
import platform
import re
from pathlib import Path
from typing import Any

import pytest

from iocancel import doctor, libaio
from iocancel.uring import flags as real
from iocancel.uring.opcodes import SINCE, Opcode
from tools.docs import commandpage, flagpage, generate, kernels, manpages, reach, seen

from ..support import need

ROOT = Path(__file__).parents[2]
FIVE = ["5.10", "6.1", "6.12", "6.18", "7.2"]
# Debian's 5.10 has the io_uring of 5.15 but for these, which reach into the file systems' code.
NOT_IN_DEBIANS_5_10 = {"MKDIRAT", "SYMLINKAT", "LINKAT"}
# What limits of a machine, and not its kernel, may make different: rights, memory, files, other processes.
OF_THE_MACHINE = (
    "no space",
    "O_DIRECT",
    "refused",
    "forbidden",
    "could not be tried",
    "were lost",
    "no memory",
)
# What a thread of the kernel's or of the C library's is about to take up, has, or has done when the cancel
# comes is a race: how far the cancel goes is the same, its answer is not.
RACES = (
    "regular file",
    "fsync",
    "worker",
    "connect",
    "FIFO",
    "splice",
    "tee",
    "aio_",
    "eventfd",
    "does not wait",
)
FILES = ("regular file", "O_DIRECT", "fsync")


def test_five_kernels_have_been_asked() -> None:
    assert [kernel.series for kernel in kernels.asked()] == FIVE
    for kernel in kernels.asked():
        assert set(kernel.findings) == {"io_uring", "libaio", "posix_aio"}
        assert all(
            kernel.row(system, "system", system) == worked(kernel, system) for system in kernel.findings
        )


def worked(kernel: kernels.Asked, system: str) -> dict[str, Any] | None:
    row = kernel.row(system, "system", system)
    assert row is not None
    assert row["works"], f"{system} on {kernel.kernel}"
    return row


def test_data_have_nothing_of_the_machine_that_made_them() -> None:
    for file in kernels.DATA.glob("*.json"):
        text = file.read_text()
        for word in (platform.node(), str(Path.home()), str(ROOT), "/tmp"):
            assert len(word) < 3 or word not in text, f"{file.name}: {word}"
        assert len(text) < 30_000


# This machine


@functools.cache
def here() -> dict[str, Any]:
    return seen.look()


def rows(kept: dict[str, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    found = kept["findings"]
    return {(s, area, name): row for s in found for area in found[s] for name, row in found[s][area].items()}


def of(series: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    [kernel] = [each for each in kernels.asked() if each.series == series]
    return rows({"findings": kernel.findings})


def explained(row: dict[str, Any] | None) -> bool:
    """Whether limits of a machine explain a finding."""
    return row is None or row["works"] is None or any(word in row.get("seen", "") for word in OF_THE_MACHINE)


def differences(mine: dict[Any, dict[str, Any]], theirs: dict[Any, dict[str, Any]]) -> list[str]:
    """What two kernels of a series say that must be alike, and is not."""
    found = []
    for key in sorted(mine.keys() | theirs.keys()):
        one, other = mine.get(key), theirs.get(key)
        if explained(one) or explained(other):
            continue
        assert one is not None
        assert other is not None
        alike = ["works", "reach", "seen"]
        if any(word in key[2] for word in RACES):
            alike.remove("seen")
        if any(word in key[2] for word in FILES):
            alike = ["works"]  # one that no thread had taken up yet is cancelled in full
        found += [
            f"{key}: {each}: {one.get(each)} here" for each in alike if one.get(each) != other.get(each)
        ]
    return found


def test_this_machine_says_what_its_row_says() -> None:
    series = kernels_own()
    if series in FIVE:
        assert differences(rows(here()), of(series)) == []
        return
    older = [each for each in FIVE if kernels.before(each, series)]
    newer = [each for each in FIVE if kernels.before(series, each)]
    if not older and not newer:
        pytest.skip(f"no kernel near {series} has been asked")
    outside = between(rows(here()), of(older[-1]) if older else {}, of(newer[0]) if newer else {})
    assert outside == []


def kernels_own() -> str:
    need(platform.machine() == "x86_64", "the kernels that have been asked ran on x86_64")
    need(platform.libc_ver()[0] == "glibc", "they were asked with glibc")
    report = doctor.examine(["io_uring"])
    need(report.works("io_uring", "io_uring"), "no io_uring here: nothing can be compared")
    return seen.series(platform.release())


def between(mine: Any, older: Any, newer: Any) -> list[str]:
    """What a kernel says that neither of its neighbours does."""
    found = []
    for key, row in sorted(mine.items()):
        neighbours = [each[key] for each in (older, newer) if key in each]
        if explained(row) or not neighbours or any(map(explained, neighbours)):
            continue
        said = (row["works"], row.get("reach"))
        if said not in {(each["works"], each.get("reach")) for each in neighbours}:
            found.append(f"{key}: {said} here")
    return found


def test_a_machine_that_says_otherwise_is_found() -> None:
    mine = of("6.12")
    key = ("io_uring", "request", "poll")
    assert differences(mine, of("6.12")) == []
    assert differences({**mine, key: {"works": True, "reach": "none", "seen": "x"}}, of("6.12")) != []
    assert differences({**mine, key: {"works": False, "seen": "refused: no memory"}}, of("6.12")) == []
    assert between(mine, of("6.1"), of("6.18")) == [], "each of the five lies between its neighbours"
    assert between({**mine, key: {"works": True, "reach": "none"}}, of("6.1"), of("6.18")) != []
    assert between(of("6.1"), of("5.10"), of("6.12")) == []
    assert between(of("6.18"), of("6.12"), of("7.2")) == []


def test_what_a_kernel_has_the_next_one_has_too() -> None:
    for older, newer in itertools.pairwise(FIVE):
        lost = [
            key
            for key, row in of(older).items()
            if row["works"] and not explained(of(newer).get(key)) and not of(newer)[key]["works"]
        ]
        assert lost == [], f"{newer} lacks what {older} has"


@pytest.mark.parametrize(
    ("release", "version", "kernel", "series"),
    [
        ("6.1.0-49-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1 (2026-10-01)", "Debian 6.1.192", "6.1"),
        ("6.18.44-x-y1", "#1 SMP Mon Jan 1", "6.18.44", "6.18"),
        ("7.2.13+deb14-amd64", "#1 SMP Debian 7.2.13-1 (2026)", "Debian 7.2.13", "7.2"),
    ],
)
def test_names_of_kernels(release: str, version: str, kernel: str, series: str) -> None:
    assert seen.kernel(release, version) == kernel
    assert seen.series(release) == seen.series(kernel) == series


def test_counts_that_differ_from_run_to_run_are_left_out() -> None:
    report = doctor.Report(
        {"kernel": "6.1", **dict.fromkeys(seen.MACHINE, "")},
        (doctor.Finding("io_uring", "request", "send", True, "cancel 0, then 3919467", "", "partial"),),
    )
    kept = seen.reduced(report.as_dict(), [], "")
    assert kept["findings"]["io_uring"]["request"]["send"]["seen"] == "cancel 0, then N"
    assert seen.written(kept).count("\n") == 12, "a finding has a line"


def test_what_the_how_to_shows_of_doctor_is_what_it_said() -> None:
    page = (ROOT / "docs" / "howto" / "allowed.md").read_text()
    [shown] = [block for block in page.split("```") if block.startswith("text\nio_uring: works")]
    told = {name: row for (system, _, name), row in of("6.18").items() if system == "io_uring"}
    lines = [re.split(r"  +", line) for line in shown.splitlines()]
    rows = [line for line in lines if line[1:2] == ["yes"]]
    assert len(rows) == 4
    for name, _, *far, saw in rows:
        assert told[name]["seen"] == saw
        assert far == [told[name]["reach"]] if "reach" in told[name] else not far
    verbs = {verb: line[1] for line in lines if line[0] == "" and len(line) > 2 for verb in line[2].split()}
    assert verbs == {
        name.removeprefix("engine."): row["reach"] for name, row in told.items() if name.startswith("engine.")
    }


# Flags


def test_every_flag_is_in_the_tables() -> None:
    kinds = {name: getattr(real, name) for name in real.__all__ if name != "bits"} | {"Opcode": Opcode}
    assert set(kernels.flags()) == set(kinds) == set(flagpage.TITLES)
    for name, kind in kinds.items():
        members = {each.name for each in kernels.flags()[name]}
        assert members == set(kind.__members__), name
    assert {flag.name: flag.since for flag in kernels.flags()["Opcode"]} == dict(SINCE)


def test_every_flag_of_linux_aio_is_in_the_tables() -> None:
    assert set(kernels.libaio_flags()) == set(flagpage.LIBAIO_TITLES)
    for name, known in kernels.libaio_flags().items():
        assert {flag.name for flag in known} == set(getattr(libaio, name).__members__), name


def test_each_says_since_when() -> None:
    every = [*kernels.flags().values(), *kernels.libaio_flags().values()]
    assert [flag for known in every for flag in known if not flag.since] == []
    assert {flag.name: flag.since for flag in kernels.libaio_flags()["Opcode"]}["PREADV"] == "2.6.19"


@pytest.mark.parametrize("series", FIVE)
def test_what_is_said_of_flags_is_what_kernels_do(series: str) -> None:
    """A flag that came later than a kernel does not work there; an earlier one does."""
    [kernel] = [each for each in kernels.asked() if each.series == series]
    told = 0
    for flag in (flag for known in kernels.flags().values() for flag in known):
        works = flag.works_on(kernel)
        if works is None:
            continue
        told += 1
        expected = not kernels.before(kernels.effective(series), flag.since)
        if series == "5.10" and flag.name in NOT_IN_DEBIANS_5_10:
            expected = False
        assert works is expected, f"{flag.c_name}, since {flag.since}, on {kernel.kernel}"
    assert told > 90


# The command


def test_every_variable_of_the_environment_is_on_the_page() -> None:
    source = "".join(path.read_text() for path in (ROOT / "src" / "iocancel").rglob("*.py"))
    assert set(re.findall(r"IOCANCEL_[A-Z]+", source)) == set(commandpage.VARIABLES)


def test_every_option_is_on_the_page() -> None:
    page = commandpage.page()
    for name, command in commandpage.commands().items():
        assert f"## `iocancel {name}`" in page
        given = re.findall(r"\[(--?[a-z][\w-]*)", command.format_usage())
        assert given
        assert [option for option in given if not re.search(rf"`{option}[` ]", page)] == []


# Man pages


def test_each_difference_names_tests_that_are_there() -> None:
    assert len(manpages.differences()) > 15
    for each in manpages.differences():
        assert each.pages
        assert each.does
        assert each.on
        assert each.tests
        for name in each.tests:
            file, _, function = name.partition("::")
            tree = ast.parse((ROOT / file).read_text())
            assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, (
                name
            )


# The pages


@pytest.mark.parametrize("page", generate.pages(), ids=lambda page: page.name)
def test_pages_are_fresh(page: Path) -> None:
    assert page.read_text() == generate.pages()[page], "run ./dev docs"


def test_the_matrix_says_what_the_data_say() -> None:
    lines = reach.page().splitlines()
    assert "| `futex_wait` | - | - | total | total | total |" in lines
    assert "| MSG_WAITALL" not in lines
    [wrong] = [line for line in lines if line.startswith("| recv with MSG_WAITALL") and "**wrong**" in line]
    assert wrong.endswith("| **wrong** | partial | partial | partial | partial |")
    assert "| IOSQE_CQE_SKIP_SUCCESS on a cancel | - | yes | yes | yes | yes |" in lines, (
        "refused, so not there"
    )


def test_the_tests_know_every_kernel_that_is_booted() -> None:
    from tools.kernels import fetch

    assert set(fetch.SUITES) <= set(FIVE), "./dev docs --collect"
    assert os.access(ROOT / "dev", os.X_OK)
