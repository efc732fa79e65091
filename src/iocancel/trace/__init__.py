"""Every I/O cancel on the machine, as it happens: `iocancel trace`, and the same from Python.

    with Tracer(pids=[1234]) as tracer:
        for cancel in tracer:
            print(cancel.comm, cancel.mechanism, cancel.verdict, cancel.targets)

It needs root (or whoever may use tracefs), and shows what every process does: io_uring's cancel requests, its
synchronous cancels, link timeouts that fire, and Linux AIO's io_cancel. docs/trace.md says how.
"""

from iocancel.trace.events import Cancel, Target
from iocancel.trace.tracefs import TracingUnavailable
from iocancel.trace.tracer import Tracer

__all__ = ["Cancel", "Target", "Tracer", "TracingUnavailable"]
