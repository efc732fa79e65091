"""Whose a thread is: its process, and that one's name."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

_FRESH = 2.0  # seconds for which an answer is taken again: numbers are used again, and exec changes a name


class Names:
    """Threads' processes.

    Args:
        instance: whose kernel remembers the names of threads that have ended.
    """

    def __init__(self, instance: Any) -> None:
        self._instance = instance
        self._memory: dict[int, tuple[int, str]] = {}
        self._again = 0.0  # when the kernel's memory may be asked again
        self._known: dict[int, tuple[float, tuple[int, str]]] = {}

    def of(self, tid: int) -> tuple[int, str]:
        """The process and its name, as well as can be known.

        io_uring's own threads (iou-wrk, iou-sqp) are threads of the process whose ring they serve. Where the
        thread has ended it is what was known of it, or the kernel's memory of its own name; "?" without any.
        """
        now = time.monotonic()
        known = self._known.get(tid)
        if known is not None and now - known[0] < _FRESH:
            return known[1]
        found = _living(tid)
        if found is None:
            found = known[1] if known is not None else self._ended(tid)
        if len(self._known) > 10_000:
            self._known.clear()
        self._known[tid] = now, found
        return found

    def _ended(self, tid: int) -> tuple[int, str]:
        names = self._memory
        if tid not in names:
            now = time.monotonic()
            if now >= self._again:
                names = self._memory = self._instance.remembered()
                # Reading it takes 0.1 s where numbers go up to four million: not for each that is not there.
                self._again = time.monotonic() + max(_FRESH, 10 * (time.monotonic() - now))
        pid, name = names.get(tid, (tid, "?"))
        return pid, names.get(pid, (pid, name))[1]


def _living(tid: int) -> tuple[int, str] | None:
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{tid}/status").read_text(errors="replace").splitlines():
            if line.startswith("Tgid:"):
                pid = int(line.split()[1])
                return pid, Path(f"/proc/{pid}/comm").read_text(errors="replace").rstrip("\n")
    return None


def threads(pid: int) -> list[int]:
    """A process's threads; itself alone where it has ended."""
    try:
        return [pid, *(int(name.name) for name in Path(f"/proc/{pid}/task").iterdir())]
    except OSError:
        return [pid]
