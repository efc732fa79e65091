"""The page about man pages: from docs/data/man-pages.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from tools.docs.tables import table

__all__ = ["Difference", "differences", "page"]

DATA = Path(__file__).parents[2] / "docs" / "data" / "man-pages.toml"
HEAD = """\
# Where the man pages differ

What a man page says, in our words, and what was seen. io_uring's pages are those of liburing 2.15, the
others those of libaio 0.3.113 and man-pages 6.03. "All" are the kernels 5.10, 6.1, 6.12, 6.18 and 7.2.
Behind each row stand the tests that see it, or that hold this library to it; [What the kernel does with a
cancel](../kernel-facts.md) has the whole story.

"""


@dataclass(frozen=True)
class Difference:
    """One thing that a page says otherwise."""

    pages: tuple[str, ...]
    says: str
    does: str
    on: str
    tests: tuple[str, ...]


def differences() -> list[Difference]:
    """Return them, as the file has them."""
    with DATA.open("rb") as file:
        rows = tomllib.load(file)["difference"]
    return [
        Difference(tuple(row["pages"]), row["says"], row["does"], row["on"], tuple(row["tests"]))
        for row in rows
    ]


def page() -> str:
    """Return the page."""
    rows = []
    for number, each in enumerate(differences(), 1):
        rows.append([str(number), ", ".join(each.pages), each.says or "(nothing)", each.does, each.on])
    seen = [[str(number), ", ".join(map(test, each.tests))] for number, each in enumerate(differences(), 1)]
    head = table(["", "man page", "says", "what happens", "seen on"], rows)
    return f"{HEAD}{head}\n## The tests\n\n{table(['', 'tests'], seen)}"


def test(name: str) -> str:
    """Return a test's name, as a link to its module."""
    file, _, function = name.partition("::")
    return f"[`{function}`](../../{file})"
