"""Cancels for people: a line each, and a table of counts."""

from __future__ import annotations

import time
from typing import TextIO

from iocancel.trace.events import ASYNC_CANCEL, SYNC_CANCEL, Cancel, Target
from iocancel.trace.summary import PERCENTILES, Losses, Summary
from iocancel.uring.flags import CancelFlags

_COLOURS = {
    "cancelled": "32",
    "not found": "33",
    "too late": "35",
    "rejected": "31",
    "accepted": "36",
    "unknown": "2",
}
_HEAD = ("TIME", "PID", "COMM", "MECHANISM", "ON", "USER_DATA", "VERDICT", "ANSWER", "LATENCY", "ENDED")
_WIDTHS = (15, 8, 15, 14, 18, 18, 9, 12, 9, 0)


def duration(ns: int | None) -> str:
    """A time in words: "2.1 us"; "-" where it is not known."""
    if ns is None:
        return "-"
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)):
        if ns >= size:
            value = ns / size
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"
    return f"{ns} ns"


def _name(comm: str) -> str:
    """A name as it can be shown: anybody may have put a terminal's commands into it, or a line's end."""
    return ascii(comm)[1:-1]


def _target(target: Target) -> str:
    name = "?" if target.user_data is None else f"{target.user_data:#x}"
    op = target.op or "request"
    sure = "" if target.seen else "~"
    return f"{sure}{op} {name} {target.ending} {duration(target.latency)}".replace(" -", "")


def _cells(cancel: Cancel, offset: int) -> tuple[str, ...]:
    when = (cancel.time + offset) / 1e9
    clock = time.strftime("%H:%M:%S", time.localtime(when)) + f".{int(when * 1e6) % 1_000_000:06d}"
    if cancel.system == "libaio":
        where, what = f"ctx {cancel.ctx_id or 0:#x}", f"{cancel.iocb or 0:#x}"
    else:
        where = "ring ?" if cancel.ring is None else f"ring {cancel.ring & 0xFFFFFFFF:08x}"
        if cancel.ring_fd is not None:
            where = f"fd {cancel.ring_fd} {where}"
        what = "-" if cancel.user_data is None else f"{cancel.user_data:#x}"
    ended = ", ".join(_target(each) for each in cancel.targets)
    if cancel.candidates:
        few = ", ".join(_target(each) for each in cancel.candidates[:3])
        ended += f"one of {len(cancel.candidates)}: {few}{' ...' if len(cancel.candidates) > 3 else ''}"
    return (
        clock,
        str(cancel.pid),
        _name(cancel.comm),
        cancel.mechanism,
        where,
        what,
        cancel.verdict,
        cancel.ending or "-",
        duration(cancel.latency),
        ended + _aim(cancel),
    )


def _aim(cancel: Cancel) -> str:
    """What it aimed at, as far as anything told."""
    known = []
    if cancel.key is not None:
        known.append(f"key {cancel.key:#x}")
    if cancel.fd is not None:
        known.append(f"fd {cancel.fd}")
    if cancel.flags:
        known.append(f"flags {_flags(cancel)}")
    return f" ({', '.join(known)})" if known else ""


def _flags(cancel: Cancel) -> str:
    """By name, as far as they have one."""
    left, names = cancel.flags or 0, []
    if cancel.mechanism in (ASYNC_CANCEL, SYNC_CANCEL):
        for flag in CancelFlags:
            if left & flag:
                names.append(flag.name or "")
                left &= ~flag
    return "|".join(names + ([f"{left:#x}"] if left else []))


class Lines:
    """Writes a line for each.

    Args:
        out: where to.
        coloured: as on a terminal.
    """

    def __init__(self, out: TextIO, coloured: bool) -> None:
        self._out, self._coloured = out, coloured
        self._offset = time.time_ns() - time.monotonic_ns()
        self._headed = False

    def add(self, cancel: Cancel) -> None:
        """One more."""
        if not self._headed:
            self._headed = True
            self._write(_HEAD, None)
        self._write(_cells(cancel, self._offset), _COLOURS.get(cancel.verdict))

    def _write(self, cells: tuple[str, ...], colour: str | None) -> None:
        shown = [cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)]
        if self._coloured and colour is not None:
            shown[6] = f"\x1b[{colour}m{shown[6]}\x1b[0m"
        self._out.write(" ".join(shown).rstrip() + "\n")


def table(summary: Summary, losses: Losses) -> str:
    """The counts, as lines. What was lost is always said."""
    rows = [("PID", "COMM", "MECHANISM", "CANCELS", "VERDICTS", "ENDED", *(f"P{p}" for p in PERCENTILES))]
    for (pid, comm, mechanism), each in sorted(summary.rows.items()):
        verdicts = ", ".join(f"{many:,} {verdict}" for verdict, many in each.verdicts.most_common())
        rows.append(
            (
                str(pid),
                _name(comm),
                mechanism,
                f"{each.verdicts.total():,}",
                verdicts,
                f"{each.ended:,}",
                *(duration(each.latencies.percentile(p)) for p in PERCENTILES),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    if not summary.rows:
        lines = []
    lines.append(f"{summary.total:,} cancels. Events lost: {losses.events:,}.")
    if losses.events:
        lines.append("What was lost may be cancels, or their answers, of any process: give more --buffer.")
    if losses.late:
        lines.append(f"{losses.late:,} events came late: what belongs to them may be told wrongly.")
    if losses.keys:
        lines.append(f"What {losses.keys:,} cancels aimed at was lost on its way from eBPF.")
    if losses.strays:
        lines.append(
            f"{losses.strays:,} requests ended as cancelled by nothing that was seen: their ring was closed, "
            "their thread ended, or one of several cancels may have been it."
        )
    return "\n".join(lines) + "\n"
