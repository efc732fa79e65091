"""A picture by matplotlib: SVG, text as text, the same bytes each time.

It stands on a white card, so that it reads alike on a light page and on a dark one.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Collection, Sequence
from typing import Any

from benchmarks.kept import Kept

OURS, C, SQUARE, PEER = "#0b5fa5", "#3d3d3d", "#c2410c", "#7a5195"  # told apart without red and green, too
INK, FAINT, RULE = "#1f2328", "#59636e", "#d1d9e0"
WIDTH, LEFT, RIGHT = 8.0, 2.75, 1.85  # inches: of a picture, and what is left of its axes and right of them
ABOVE, BELOW, LINE = 0.62, 0.95, 0.235  # inches: above the axes, below them, and for a row
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "iocancel bench",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],
    "font.size": 8.5,
    "axes.edgecolor": RULE,
    "axes.labelcolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "lines.solid_capstyle": "round",
}


def library() -> Any:
    """matplotlib, or ImportError where it is missing: it is not needed to measure, nor to test."""
    return importlib.import_module("matplotlib")


class Card:
    """A picture with one pair of axes; what it says of the machine is below them."""

    def __init__(self, title: str, inches: float, left: float = LEFT, right: float = RIGHT) -> None:
        height = ABOVE + inches + BELOW
        figure = importlib.import_module("matplotlib.figure").Figure((WIDTH, height), facecolor="white")
        self.figure: Any = figure
        self.axes: Any = figure.add_axes(
            (left / WIDTH, BELOW / height, (WIDTH - left - right) / WIDTH, inches / height)
        )
        self._title, self._height, self._inches = title, height, inches
        figure.text(0.12 / WIDTH, 1 - 0.27 / height, title, size=11, weight="bold")

    def below(self, label: str, kept: Kept, rounds: Collection[int], *versions: str) -> None:
        """The axis' label, the machine, and when that was measured, in how many rounds."""
        self.axes.set_xlabel(label)
        for line, text in enumerate((kept.about(), kept.made(rounds, *versions))):
            inches = 0.3 - 0.17 * line
            self.figure.text(0.12 / WIDTH, inches / self._height, text, size=7, color=FAINT)

    def beside(self, y: float, text: str, color: str = INK) -> None:
        """Text right of the axes, at a y of theirs."""
        self.axes.annotate(
            text,
            (1, y),
            (6, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            color=color,
            size=8,
            annotation_clip=False,
        )

    def svg(self) -> str:
        """It, as SVG."""
        to = io.StringIO()
        self.figure.savefig(to, format="svg", metadata={"Date": None, "Title": self._title})
        # matplotlib leaves blanks at the ends of lines.
        return "\n".join(line.rstrip() for line in to.getvalue().splitlines()) + "\n"


def marks(axis: Any, at: Sequence[float], say: Callable[[float], str]) -> None:
    """Marks at these places of a logarithmic axis and nowhere else."""
    ticker = importlib.import_module("matplotlib.ticker")
    axis.set_major_locator(ticker.FixedLocator(at))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: say(value)))
    axis.set_minor_locator(ticker.NullLocator())


def apart(ys: Sequence[float], least: float) -> list[float]:
    """Where labels go, from the lowest up, so that none lies on another."""
    found = list(ys)
    for at in sorted(range(len(ys)), key=ys.__getitem__):
        below = [found[other] for other in range(len(ys)) if (ys[other], other) < (ys[at], at)]
        found[at] = max([found[at], *(y + least for y in below)])
    return found


def within(steps: Sequence[float], least: float, most: float) -> tuple[float, float]:
    """The steps next to these two, outside of them."""
    return (
        max([step for step in steps if step <= least] or steps[:1]),
        min([step for step in steps if step >= most] or steps[-1:]),
    )


def time(ns: float) -> str:
    """Three digits, and the unit that fits."""
    for unit, size in (("ms", 1e6), ("µs", 1e3)):
        if ns >= 0.9995 * size:
            return f"{_three(ns / size)} {unit}"
    return f"{ns:.0f} ns"


def _three(value: float) -> str:
    if value >= 99.95:
        return f"{value:.0f}"
    text = f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
    return text.rstrip("0").rstrip(".")


def ratio(value: float) -> str:
    """Two digits or three."""
    if value >= 9.995:
        return _three(value)
    return f"{value:.2f}" if value >= 0.0995 else f"{value:.2g}"
