"""`iocancel demo`: real requests on all three systems, started, cancelled, and what became of them.

    import iocancel.demo

    for row in iocancel.demo.run().rows:
        print(row.started, row.cancelled_by, row.answer, row.ending, row.as_it_must)

What this kernel lacks is not tried, and said so; a system that can't be had here is said to be missing, with
the reason and what would help.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
import textwrap
from typing import Any, TextIO, TypeVar

from iocancel.demo import libaio as _libaio
from iocancel.demo import posix_aio as _posix_aio
from iocancel.demo import uring as _uring
from iocancel.demo.row import Row, Scene, Shown
from iocancel.doctor.live import Live, NotHere, needs
from iocancel.doctor.show import Painter, table, width_of
from iocancel.errors import EngineUnavailable, FeatureUnavailable
from iocancel.libaio import Context
from iocancel.uring import Ring

__all__ = ["Row", "Show", "main", "run"]

_T = TypeVar("_T")
_TITLES = {"io_uring": "io_uring", "libaio": "Linux AIO (libaio)", "posix_aio": "POSIX AIO (the C library's)"}


@dataclasses.dataclass(frozen=True)
class Show:
    """What came of the demonstration.

    Attributes:
        rows: one for each thing that was shown, or would have been.
        missing: the systems that can't be had here, with the reason and what would help.
    """

    rows: tuple[Row, ...]
    missing: dict[str, str]

    @property
    def ok(self) -> bool:
        """Whether something could be shown at all, and each came out as it must."""
        tried = [row.as_it_must for row in self.rows if row.as_it_must is not None]
        return bool(tried) and all(tried)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        return {
            "kernel": platform.release(),
            "ok": self.ok,
            "missing": dict(self.missing),
            "rows": [row.as_dict() for row in self.rows],
        }


def run() -> Show:
    """Shows everything that can be shown here.

    Returns:
        What was seen. It raises nothing for what this machine lacks or does wrong: that is in the rows.

    It uses POSIX AIO in this process, after which forked children can't, and `aio_init` comes too late.
    """
    rows: list[Row] = []
    missing: dict[str, str] = {}
    for system, show in (("io_uring", _show_uring), ("libaio", _show_libaio), ("posix_aio", _show_posix)):
        try:
            rows += show(system)
        except EngineUnavailable as error:
            missing[system] = (
                f"{error.reason}. What would help: {error.remedy}." if error.reason else str(error)
            )
    return Show(tuple(rows), missing)


def _show_uring(system: str) -> list[Row]:
    rows = []
    live = Live(Ring(128))
    try:
        for scene in _uring.SCENES:
            rows.append(_play(system, scene, live))
            if not live.finish():  # what does not end must not disturb the others
                live.ring.close(timeout=0)
                live = Live(Ring(128))
    finally:
        live.ring.close()
    return rows


def _show_libaio(system: str) -> list[Row]:
    rows = []
    for scene in _libaio.SCENES:
        with Context(8) as context:
            rows.append(_play(system, scene, context))
    return rows


def _show_posix(system: str) -> list[Row]:
    return [_play(system, scene, None) for scene in _posix_aio.SCENES]


def _play(system: str, scene: Scene[_T], stage: _T) -> Row:
    def row(shown: Shown | None = None, note: str = "") -> Row:
        if shown is None:
            return Row(system, scene.started, scene.cancelled_by, note=note)
        return Row(system, scene.started, scene.cancelled_by, shown.answer, shown.ending, shown.right, note)

    try:
        return row(scene.play(stage))
    except EngineUnavailable as error:  # of something that a scene needs for itself
        return row(note=f"not here: {error}")
    except FeatureUnavailable as error:
        return row(note=f"not here: needs {needs(error)}")
    except NotHere as error:
        return row(note=f"not here: needs {error}")
    except Exception as error:  # noqa: BLE001 - whatever went wrong, the row is wrong, and the others are shown
        return row(Shown("", f"{type(error).__name__}: {error}", right=False))


def main(as_json: bool = False, out: TextIO | None = None) -> int:
    """Runs the demonstration and prints it.

    Args:
        as_json: print JSON and no tables.
        out: where to; standard output when None.

    Returns:
        The exit status: 0 when at least one system could be had and everything that was tried came out as
        it must, 1 otherwise. What this kernel lacks does not count.
    """
    show = run()
    where: TextIO = sys.stdout if out is None else out
    if as_json:
        print(json.dumps(show.as_dict(), indent=2), file=where)
    else:
        where.write(render(show, Painter(where), width_of(where)))
    return 0 if show.ok else 1


def render(show: Show, paint: Painter, width: int) -> str:
    """The tables.

    Args:
        show: what was seen.
        paint: colours.
        width: how wide the tables may be, in characters.
    """
    text = ""
    head = ("what was started", "how it was cancelled", "the cancel's answer", "how it ended", "as it must")
    for system, title in _TITLES.items():
        rows = [_cells(row) for row in show.rows if row.system == system]
        if rows:
            text += paint(title, "head") + "\n" + table(head, rows, 4, paint, width) + "\n"
        elif system in show.missing:
            why = textwrap.fill(f"not to be had here: {show.missing[system]}", max(width, 40))
            text += f"{paint(title, 'head')}\n{why}\n\n"
    tried = [row for row in show.rows if row.as_it_must is not None]
    good = sum(bool(row.as_it_must) for row in tried)
    text += f"{good} of {len(tried)} came out as they must"
    left = len(show.rows) - len(tried)
    text += f"; {left} could not be tried here.\n" if left else ".\n"
    return text


def _cells(row: Row) -> tuple[str, ...]:
    if row.as_it_must is None:
        return row.started, row.cancelled_by, "-", row.note, "-"
    return row.started, row.cancelled_by, row.answer, row.ending, "yes" if row.as_it_must else "NO"
