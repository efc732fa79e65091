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
Below each table stand the tests that see it, or that hold this library to it; [What the kernel does with a
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
    text = [HEAD]
    by_page: dict[tuple[str, ...], list[Difference]] = {}
    for each in differences():
        by_page.setdefault(each.pages, []).append(each)
    for pages, found in by_page.items():
        rows = [[each.says or "(nothing)", each.does, each.on] for each in found]
        tests = ", ".join(test(name) for each in found for name in each.tests)
        told = table(["says", "what happens", "seen on"], rows)
        text.append(f"## {', '.join(pages)}\n\n{told}\nSeen by {tests}.\n\n")
    return "".join(text).rstrip("\n") + "\n"


def test(name: str) -> str:
    """Return a test's name, as a link to its module."""
    file, _, function = name.partition("::")
    return f"[`{function}`](../../{file})"
