"""io_uring: how rings can be set up here, and which kinds of request the kernel says that it has."""

from __future__ import annotations

import errno
import select

from iocancel.doctor.live import Live, code
from iocancel.doctor.props import pipe
from iocancel.doctor.report import Check, Finding, Seen, Wrong, found
from iocancel.uring import Opcode, Ring, SetupFlags
from iocancel.uring.opcodes import SINCE

__all__ = ["opcodes", "set_ups"]

_F = SetupFlags
# The flag, what it needs beside it, and the first mainline kernel.
_OFFERED: tuple[tuple[SetupFlags, SetupFlags, str], ...] = (
    (_F(0), _F(0), "5.1"),
    (_F.IOPOLL, _F(0), "5.1"),
    (_F.SQPOLL, _F(0), "5.11"),
    (_F.SQ_AFF, _F.SQPOLL, "5.1"),
    (_F.CQSIZE, _F(0), "5.5"),
    (_F.CLAMP, _F(0), "5.6"),
    (_F.ATTACH_WQ, _F(0), "5.6"),
    (_F.R_DISABLED, _F(0), "5.10"),
    (_F.SUBMIT_ALL, _F(0), "5.18"),
    (_F.COOP_TASKRUN, _F(0), "5.19"),
    (_F.TASKRUN_FLAG, _F.COOP_TASKRUN, "5.19"),
    (_F.SINGLE_ISSUER, _F(0), "6.0"),
    (_F.DEFER_TASKRUN, _F.SINGLE_ISSUER, "6.1"),
    (_F.HYBRID_IOPOLL, _F.IOPOLL, "6.13"),
)


def _open(flags: SetupFlags) -> Ring:
    if flags & _F.CQSIZE:
        return Ring(8, flags=flags & ~_F.CQSIZE, cq_entries=64)
    if flags & _F.ATTACH_WQ:
        with Ring(8) as other:
            return Ring(8, flags=flags & ~_F.ATTACH_WQ, attach=other)
    return Ring(8, flags=flags, sq_thread_idle=20 if flags & _F.SQPOLL else 0)


def _set_up(flags: SetupFlags) -> Seen:
    with _open(flags) as ring:
        if flags & _F.R_DISABLED:
            ring.enable()
        live = Live(ring)
        with pipe() as (read_end, _):
            number = live.start(lambda sqe: sqe.prep_poll_add(read_end, select.POLLIN))
            if flags & _F.IOPOLL:
                refused = live.final(number).res
                return Seen(f"a ring; other requests than direct I/O: {code(refused)}, cancelling too")
            answer, cqe = live.cancel(number)
    if (answer, cqe.res) != (0, -errno.ECANCELED):
        raise Wrong(f"a poll was to be cancelled: {code(answer)}, and it ended with {code(cqe.res)}")
    return Seen("a ring, in which a poll was cancelled")


def set_ups() -> list[Finding]:
    """Sets a ring up in each way that `Ring` offers, and cancels a poll in it."""
    findings = []
    for flag, beside, since in _OFFERED:
        name = f"IORING_SETUP_{flag.name}" if flag else "a plain ring"
        check = Check("set-up", name, since if flag else "", _set_up)
        findings.append(found("io_uring", check, flag | beside))
    return findings


def opcodes(ring: Ring) -> list[Finding]:
    """Asks the kernel which kinds of request it has."""
    try:
        probe = ring.probe()
    except OSError as error:
        return [
            Finding("io_uring", "opcode", "IORING_REGISTER_PROBE", False, str(error), "Linux 5.6 or later")
        ]
    findings = []
    for opcode in Opcode:
        works = probe.supports(opcode)
        since = SINCE.get(opcode.name, "")
        remedy = "" if works or not since else f"Linux {since} or later"
        seen = "" if works else "this kernel lacks it"
        findings.append(Finding("io_uring", "opcode", f"IORING_OP_{opcode.name}", works, seen, remedy))
    return findings
