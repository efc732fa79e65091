"""Tables for people: plain text, wrapped to the terminal's width, coloured on a terminal only."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Sequence
from typing import TextIO

__all__ = ["Painter", "table", "width_of"]

_CODES = {"good": "32", "bad": "31;1", "off": "33", "head": "1"}
_WORDS = {"yes": "good", "NO": "bad", "no": "off", "-": "off", "?": "off"}
_GAP = "  "
_LEAST = 10
_USUAL = 120


class Painter:
    """Colours words where the output is a terminal and NO_COLOR is not set.

    Args:
        out: where the words go.
    """

    def __init__(self, out: TextIO) -> None:
        terminal = out.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
        self._on = terminal and not os.environ.get("NO_COLOR")

    def __call__(self, text: str, colour: str) -> str:
        """The text in a colour: "good", "bad", "off" or "head"; "" for none."""
        if not self._on or not text.strip() or not colour:
            return text
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"


def width_of(out: TextIO) -> int:
    """How many columns there are: $COLUMNS, or the terminal's width, or 120."""
    given = os.environ.get("COLUMNS", "")
    if given.isdigit() and int(given):
        return int(given)
    return shutil.get_terminal_size((_USUAL, 24)).columns if out.isatty() else _USUAL


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], verdict: int, paint: Painter, width: int
) -> str:
    """A table with aligned columns.

    Args:
        head: the columns' names.
        rows: the cells.
        verdict: the number of the column that says yes or no, which is coloured.
        paint: colours.
        width: how wide it may be: longer cells are wrapped. Columns of ten are not made narrower.

    Returns:
        Its lines, each with its end.
    """
    widths = _widths([head, *rows], width)
    lines = [paint(_join(head, widths), "head")]
    for row in rows:
        cells = [
            textwrap.wrap(cell, w, break_on_hyphens=False) or [""]
            for cell, w in zip(row, widths, strict=True)
        ]
        for number in range(max(map(len, cells))):
            parts = [cell[number] if number < len(cell) else "" for cell in cells]
            lines.append(_join(parts, widths, verdict, paint))
    return "".join(f"{line}\n" for line in lines)


def _join(
    parts: Sequence[str], widths: Sequence[int], verdict: int = -1, paint: Painter | None = None
) -> str:
    padded = [part.ljust(w) for part, w in zip(parts, widths, strict=True)]
    padded[-1] = padded[-1].rstrip()
    line = _GAP.join(padded).rstrip()
    if paint is None or not parts[verdict]:
        return line
    start = sum(map(len, padded[:verdict])) + len(_GAP) * verdict
    end = start + len(parts[verdict])
    return line[:start] + paint(line[start:end], _WORDS.get(parts[verdict], "")) + line[end:]


def _widths(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """How wide each column is: what it needs; where that is too much, the widest give way."""
    needed = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = width - len(_GAP) * (len(needed) - 1)
    while sum(needed) > room and max(needed) > _LEAST:
        needed[needed.index(max(needed))] -= 1
    return needed
