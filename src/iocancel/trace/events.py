"""What a tracer tells: one `Cancel` for each request to cancel something, with what it ended."""

from __future__ import annotations

import dataclasses
import errno
from typing import Any

from iocancel.uring.opcodes import Opcode

ASYNC_CANCEL = "async_cancel"
"""io_uring_prep_cancel(3)."""
TIMEOUT_REMOVE = "timeout_remove"
"""io_uring_prep_timeout_remove(3); an update looks the same as long as it succeeds."""
POLL_REMOVE = "poll_remove"
"""io_uring_prep_poll_remove(3); an update looks the same as long as it succeeds."""
LINK_TIMEOUT = "link_timeout"
"""io_uring_prep_link_timeout(3) that has fired."""
SYNC_CANCEL = "sync_cancel"
"""io_uring_register_sync_cancel(3)."""
IO_CANCEL = "io_cancel"
"""io_cancel(2)."""

# The kernel's own codes for "interrupted, to be restarted" leak out of workers that a cancel has signalled.
_RESTARTS = {
    -512: "ERESTARTSYS",
    -513: "ERESTARTNOINTR",
    -514: "ERESTARTNOHAND",
    -516: "ERESTART_RESTARTBLOCK",
}
_ARGUMENTS = (("ctx_id", "io_context_t"), ("iocb", "struct iocb*"), ("result", "struct io_event*"))
STOPPED = frozenset([-errno.ECANCELED, -errno.EINTR, *_RESTARTS])
"""How a request ends that was cancelled."""


def named(result: int | None) -> str | None:
    """A result by its name: "ECANCELED"; a number that is no error as it is; None where it is not known."""
    if result is None:
        return None
    if result >= 0:
        return str(result)
    return _RESTARTS.get(result) or errno.errorcode.get(-result, str(result))


def opcode_name(opcode: int | None) -> str | None:
    """An io_uring opcode by its C name less IORING_OP_: "READ"; None where it is not known."""
    if opcode is None:
        return None
    try:
        return Opcode(opcode).name
    except ValueError:  # of a kernel that is newer than this
        return f"OP_{opcode}"


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A request that a cancel has ended, or was about to.

    Attributes:
        user_data: its own, 64 bits; None for Linux AIO, which does not tell.
        opcode: of io_uring; None where it was submitted before the tracing began, or is none.
        result: how it ended, as the kernel says it (-125); None while it has not.
        latency: ns from the cancel's request to this ending; None while it has not ended.
        seen: whether the kernel was seen to cancel it there and then. Else it is the only one that it can be.
    """

    user_data: int | None
    opcode: int | None
    result: int | None
    latency: int | None
    seen: bool

    @property
    def op(self) -> str | None:
        """The opcode by its name, "READ"; None where it is not known."""
        return opcode_name(self.opcode)

    @property
    def ending(self) -> str | None:
        """The result by its name, "ECANCELED"; None while it has not ended."""
        return named(self.result)

    def asdict(self) -> dict[str, Any]:
        """What JSON shows."""
        return {**dataclasses.asdict(self), "op": self.op, "ending": self.ending}


@dataclasses.dataclass(frozen=True, slots=True)
class Cancel:
    """One cancel. What the kernel does not tell is None.

    Attributes:
        time: of the request, ns of CLOCK_MONOTONIC.
        pid: the process, as the machine's own process namespace counts.
        tid: the thread that asked, counted likewise.
        comm: the process's name, as far as it was known.
        system: "uring" or "libaio".
        mechanism: "async_cancel", "timeout_remove", "poll_remove", "link_timeout", "sync_cancel" or
            "io_cancel".
        ring: io_uring's ring, by the kernel's own number for it (an address; the same for the ring's life).
        ring_fd: its fd in the process that opened it, where that was seen.
        ctx_id, iocb, result_to: the arguments of io_cancel, `io_context_t`, `struct iocb *` and
            `struct io_event *`, which security tracers call `ctx_id`, `iocb` and `result`.
        user_data: the cancel's own, of io_uring's requests.
        result: the kernel's answer, as it says it (0, -2); None where it never came.
        verdict: "cancelled": it found something, which ended or will. "not found". "too late": found, but it
            runs. "rejected": the request itself was wrong. "not run": what it was linked to had failed.
            "accepted": taken, and nothing was seen to end by it (an update; a cancel of all that found none;
            or its target was not traced). "unknown": its answer was not seen.
        targets: what it ended.
        candidates: where that is not known for sure, what it may have ended: one or another of several
            cancels did.
        latency: ns from the request to the answer.
        key, fd, flags: what it aimed at: io_uring tells them of rejected requests only; else from the
            library's own record, or by eBPF, where these are switched on.
    """

    time: int
    pid: int
    tid: int
    comm: str
    system: str
    mechanism: str
    ring: int | None = None
    ring_fd: int | None = None
    ctx_id: int | None = None
    iocb: int | None = None
    result_to: int | None = None
    user_data: int | None = None
    result: int | None = None
    verdict: str = "unknown"
    targets: tuple[Target, ...] = ()
    candidates: tuple[Target, ...] = ()
    latency: int | None = None
    key: int | None = None
    fd: int | None = None
    flags: int | None = None

    @property
    def ending(self) -> str | None:
        """The answer by its name, "ENOENT"; None where it never came."""
        return named(self.result)

    def asdict(self) -> dict[str, Any]:
        """What JSON shows: all of it, with the names beside the numbers."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        given = [found.pop(name) for name in ("ctx_id", "iocb", "result_to")]
        if self.system == "libaio":
            for name in ("ring", "ring_fd", "user_data", "key", "fd", "flags"):
                del found[name]
            found["args"] = [
                {"name": name, "type": type_, "value": value}
                for (name, type_), value in zip(_ARGUMENTS, given, strict=True)
            ]
        found["ending"] = self.ending
        for name in ("targets", "candidates"):
            found[name] = [each.asdict() for each in found[name]]
        return found
