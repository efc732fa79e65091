"""What this machine allows, found out by doing it: for the command, and for programs.

    import iocancel.doctor

    report = iocancel.doctor.examine()
    report.systems                                        # ("io_uring", "libaio", "posix_aio")
    report.works("io_uring", "IORING_ASYNC_CANCEL_FD")    # True
    report.reach("io_uring", "recv")                      # "total"
    report.reach("io_uring", "engine.recv")               # "partial": what `open_engine("uring")` says of it

Version numbers say little, since distributions carry parts of newer kernels: every line of the report is
something that was tried; but how far an engine's verbs can be cancelled is what the engine itself declares
(and what its tests hold it to). It takes about a tenth of a second.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import TextIO, get_args

from iocancel.doctor import machine, mechanisms, others, rings, streams, tracing, verbs, waits
from iocancel.doctor.live import Live
from iocancel.doctor.report import Finding, Reach, Report, System, all_found, found
from iocancel.doctor.show import Painter, width_of
from iocancel.doctor.text import as_text
from iocancel.errors import EngineUnavailable
from iocancel.libaio import Context
from iocancel.uring import Ring

_ENTRIES = 128

__all__ = ["Finding", "Reach", "Report", "System", "examine", "main"]


def examine(systems: Iterable[System] = ("io_uring", "libaio", "posix_aio")) -> Report:
    """Finds out what works here.

    Args:
        systems: which of "io_uring", "libaio" and "posix_aio" to examine. POSIX AIO is used in this very
            process, after which its forked children can't use it, and `aio_init` comes too late: leave it
            out where that matters.

    Returns:
        What was found. What is missing, forbidden or wrong is a finding, and no exception.

    Raises:
        ValueError: another name.
    """
    wanted = list(systems)
    for name in wanted:
        if name not in get_args(System):
            raise ValueError(f"systems takes {', '.join(get_args(System))}, not {name!r}")
    findings: list[Finding] = []
    for system, look in (("io_uring", _uring), ("libaio", _libaio), ("posix_aio", _posix_aio)):
        if system in wanted:
            findings += look()
            findings.append(tracing.found_out(system))
    return Report(machine.describe(), tuple(findings))


def _missing(system: System, error: EngineUnavailable) -> list[Finding]:
    return [Finding(system, "system", system, False, error.reason or str(error), error.remedy)]


def _uring() -> list[Finding]:
    try:
        live = Live(Ring(_ENTRIES))
    except EngineUnavailable as error:
        return _missing("io_uring", error)
    findings = [Finding("io_uring", "system", "io_uring", True, "a ring could be set up")]
    try:
        findings += rings.opcodes(live.ring)
        for check in (*mechanisms.FLAGS, *mechanisms.MECHANISMS, *streams.KINDS, *waits.KINDS):
            findings.append(found("io_uring", check, live))
            if not live.finish():  # what does not end must not disturb the others
                live.ring.close(timeout=0)
                live = Live(Ring(_ENTRIES))
    except EngineUnavailable as error:
        why = f"the examination ended here: {error.reason or error}"
        findings.append(Finding("io_uring", "mechanism", "another ring", False, why, error.remedy))
    finally:
        live.ring.close()
    return findings + rings.set_ups() + verbs.found_out("io_uring")


def _libaio() -> list[Finding]:
    try:
        context = Context(8)
    except EngineUnavailable as error:
        return _missing("libaio", error)
    with context:
        first = Finding("libaio", "system", "libaio", True, "a context could be set up")
        findings = [first, *all_found("libaio", (*others.LIBAIO, *others.LIBAIO_KINDS), context)]
    return findings + verbs.found_out("libaio")


def _posix_aio() -> list[Finding]:
    findings = all_found("posix_aio", (*others.POSIX_AIO, *others.POSIX_AIO_KINDS), None)
    tried = [finding for finding in findings if finding.area == "request"]
    works = any(finding.works for finding in tried)
    why = "requests could be started" if works else tried[0].seen
    return [
        Finding("posix_aio", "system", "posix_aio", works, why, "" if works else tried[0].remedy),
        *findings,
        *verbs.found_out("posix_aio"),
    ]


def main(as_json: bool = False, out: TextIO | None = None) -> int:
    """Examines this machine and prints the report.

    Args:
        as_json: print JSON and no tables.
        out: where to; standard output when None.

    Returns:
        The exit status: 0 when at least one of the three systems works here, 1 when none does.
    """
    report = examine()
    where: TextIO = sys.stdout if out is None else out
    if as_json:
        print(json.dumps(report.as_dict(), indent=2), file=where)
    else:
        where.write(as_text(report, Painter(where), width_of(where)))
    return 0 if report.systems else 1
