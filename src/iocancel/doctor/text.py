"""The report as tables."""

from __future__ import annotations

import textwrap
from typing import Any

from iocancel.doctor.report import Finding, Report, System
from iocancel.doctor.show import Painter, table

__all__ = ["as_text"]

_TITLES: dict[System, str] = {
    "io_uring": "io_uring",
    "libaio": "Linux AIO (libaio)",
    "posix_aio": "POSIX AIO (the C library's)",
}
_AREAS = {
    "cancel flag": "cancel flag",
    "mechanism": "mechanism",
    "request": "kind of request",
    "set-up": "set-up",
}
_LEGEND = (
    "cancelled: how far a request of this kind can be cancelled here. total: it did not happen;",
    "partial: perhaps in part, and the result says how much; none: it runs to its own end.",
)


def as_text(report: Report, paint: Painter, width: int) -> str:
    """The report for people.

    Args:
        report: the report.
        paint: colours.
        width: how wide it may be, in characters.

    Returns:
        Lines, each with its end.
    """
    lines = [paint("this machine", "head"), *_machine(report.machine), ""]
    for system, title in _TITLES.items():
        findings = [finding for finding in report.findings if finding.system == system]
        if not findings:
            continue
        lines += _state(title, findings[0], paint, width)
        for area, heading in _AREAS.items():
            rows = [finding for finding in findings if finding.area == area]
            if rows:
                lines += ["", _table(heading, rows, paint, width).rstrip("\n")]
        opcodes = [finding for finding in findings if finding.area == "opcode"]
        if opcodes:
            lines += ["", *_opcodes(opcodes)]
        lines += _engine(findings, paint, width)
        lines.append("")
    lines += _LEGEND
    return "\n".join(lines) + "\n"


def _state(title: str, finding: Finding, paint: Painter, width: int) -> list[str]:
    if finding.works:
        return [f"{paint(title, 'head')}: {paint('works', 'good')}"]
    why = f"{finding.seen}. What would help: {finding.remedy}." if finding.remedy else f"{finding.seen}."
    return [
        f"{paint(title, 'head')}: {paint('can not be had here', 'bad')}",
        *textwrap.wrap(why, max(width, 40), break_on_hyphens=False),
    ]


def _machine(machine: dict[str, Any]) -> list[str]:
    def limit(name: str, unit: str = "") -> str:
        return f"{name} " + ("unlimited" if machine[name] is None else f"{machine[name]}{unit}")

    def sysctl(name: str) -> str:
        return f"{name} {'(none)' if machine[name] is None else machine[name]}"

    rights = " ".join(machine["capabilities"]) or "no capability that matters"
    return [
        f"  Linux {machine['kernel']} on {machine['architecture']}, {machine['libc']}, {machine['python']}",
        f"  iocancel {machine['iocancel']}, liburing: {machine['liburing']}, libaio: {machine['libaio']}",
        f"  uid {machine['uid']}, {rights}, seccomp {machine['seccomp']}",
        f"  {sysctl('io_uring_disabled')}, {sysctl('io_uring_group')}",
        f"  {sysctl('aio_nr')} of {sysctl('aio_max_nr')}",
        f"  {limit('memlock', ' bytes')}, {limit('nofile')}, {limit('nproc')}",
    ]


def _table(heading: str, findings: list[Finding], paint: Painter, width: int) -> str:
    reaches = any(finding.reach for finding in findings)
    remedies = any(finding.remedy for finding in findings)
    head = [heading, "works", "seen"]
    if reaches:
        head.insert(2, "cancelled")
    if remedies:
        head.append("what would help")
    rows = []
    for finding in findings:
        row = [finding.name, {True: "yes", False: "no", None: "?"}[finding.works], finding.seen]
        if reaches:
            row.insert(2, finding.reach or "-")
        if remedies:
            row.append(finding.remedy)
        rows.append(row)
    return table(head, rows, 1, paint, width)


def _engine(findings: list[Finding], paint: Painter, width: int) -> list[str]:
    """What the system's engine can be asked for, by how far that can be cancelled."""
    engines = [finding for finding in findings if finding.area == "engine"]
    verbs = [finding for finding in findings if finding.area == "verb"]
    lines = []
    for engine in engines:
        title = f"{engine.name}, {engine.seen}" if engine.works else engine.name
        lines += ["", *_state(title, engine, paint, width)]
    for word in ("total", "partial", "none", None):
        names = [finding.name.removeprefix("engine.") for finding in verbs if finding.reach == word]
        if names:
            lines += textwrap.wrap(
                " ".join(names),
                max(width, 40),
                initial_indent=f"  {word or 'not here':<9} ",
                subsequent_indent=" " * 12,
                break_on_hyphens=False,
            )
    return lines


def _opcodes(findings: list[Finding]) -> list[str]:
    lacking = [finding for finding in findings if not finding.works]
    lines = [f"opcodes: {len(findings) - len(lacking)} of the {len(findings)} that this version knows"]
    lines += [
        f"  not {finding.name}" + (f": {finding.remedy}" if finding.remedy else "") for finding in lacking
    ]
    return lines
