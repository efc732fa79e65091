"""Whether `iocancel trace` can show a system's cancels here: found by having some events recorded."""

from __future__ import annotations

from iocancel.doctor.report import Finding, System
from iocancel.trace import ebpf
from iocancel.trace.tracefs import Instance, TracingUnavailable
from iocancel.trace.tracer import events

__all__ = ["found_out"]

_NAME = "iocancel trace"


def found_out(system: System) -> Finding:
    """The finding for one system. POSIX AIO's cancels never leave the process: no kernel tells of them."""
    if system == "posix_aio":
        return Finding(
            system, "mechanism", _NAME, False, "its cancels are the C library's: no kernel sees them"
        )
    wanted = events("uring" if system == "io_uring" else "libaio")
    try:
        with Instance(wanted, 4096):
            seen = "its events are recorded"
    except TracingUnavailable as error:
        return Finding(system, "mechanism", _NAME, False, error.reason, error.remedy)
    if system == "io_uring":
        lacking = ebpf.available()
        seen += (
            ", and what they aim at is read by eBPF" if lacking is None else f"; by eBPF nothing: {lacking}"
        )
    return Finding(system, "mechanism", _NAME, True, seen)
