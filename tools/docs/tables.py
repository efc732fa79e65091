"""Tables in Markdown, as Sphinx and GitHub take them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["cell", "table"]


def cell(text: str) -> str:
    """Return a text that can stand in a cell."""
    return " ".join(text.replace("|", "\\|").split())


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, with a line's end behind it."""
    lines = [head, ["---"] * len(head), *rows]
    return (
        "".join("| " + " | ".join(map(cell, line)) + " |\n" for line in lines)
        .replace("| --- ", "|---")
        .replace("|--- |", "|---|")
    )
