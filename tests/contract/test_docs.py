"""docs/engines.md says what the engines say."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest

from iocancel.operation import VERBS

from .helpers import NAMES

PAGE = Path(__file__).parents[2] / "docs" / "engines.md"
COLUMN = {"uring": 1, "libaio": 3, "posix_aio": 4}


def table() -> dict[str, list[str]]:
    """Of each verb its row: verb, uring, since, libaio, posix_aio."""
    rows = [[each.strip() for each in line.split("|")[1:-1]] for line in PAGE.read_text().splitlines()]
    found = {row[0].split("`")[1]: row for row in rows if len(row) == 5 and row[0].startswith("`")}
    return {verb: row for verb, row in found.items() if verb in VERBS}


def test_every_verb_is_there() -> None:
    assert set(table()) == VERBS
    assert set(COLUMN) == set(NAMES)


def test_each_reach_is_right(engine: Any) -> None:
    if engine.name == "posix_aio" and platform.libc_ver()[0] != "glibc":
        pytest.skip("the table is of glibc")
    for verb, row in table().items():
        said = row[COLUMN[engine.name]]
        reach = engine.reach(verb)
        if reach is None:
            # io_uring's verbs depend on the kernel; the others' do not.
            assert said == "-" or engine.name == "uring", verb
        else:
            assert said == reach.value, verb
