"""Whose a thread is: its process, and that one's name."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

MACHINES = "pid:[4026531836]"  # the first PID namespace: PROC_PID_INIT_INO of linux/proc_ns.h, since 3.8
_CLONE_THREAD = 0x10000
_MOST = 100_000  # threads that are remembered
_FRESH = 2.0  # seconds for which an answer is taken again: numbers are used again, and exec changes a name


class Names:
    """Threads' processes.

    Args:
        instance: whose kernel remembers the names of threads that have ended.
    """

    def __init__(self, instance: Any) -> None:
        self._instance = instance
        self._memory: dict[int, tuple[int, str]] = {}
        # In another PID namespace /proc has other processes by these numbers.
        self._same = (
            not Path("/proc/self/ns/pid").is_symlink()
            or str(Path("/proc/self/ns/pid").readlink()) == MACHINES
        )
        self._again = 0.0  # when the kernel's memory may be asked again
        self._known: dict[int, tuple[float, tuple[int, str]]] = {}
        self._groups: dict[int, int] = {}  # by thread, of those that were seen to be made: its process
        self._comms: dict[int, str] = {}  # the latest names that were seen to be given

    def made(self, parent: int, child: int, comm: str, flags: int) -> None:
        """task_newtask: a thread, or a process, was made by a thread."""
        if len(self._groups) > _MOST:
            self._groups.clear()
            self._comms.clear()
        self._groups[child] = self.of(parent)[0] if flags & _CLONE_THREAD else child
        self._comms[child] = comm
        self._known.pop(child, None)

    def renamed(self, tid: int, comm: str) -> None:
        """task_rename: by execve(2), or by itself."""
        self._comms[tid] = comm

    def of(self, tid: int) -> tuple[int, str]:
        """The process and its name, as well as can be known.

        io_uring's own threads (iou-wrk, iou-sqp) are threads of the process whose ring they serve. Where the
        thread has ended it is what was known of it, or the kernel's memory of its own name; "?" without any.
        """
        group = self._groups.get(tid)
        if group is not None:
            comm = self._comms.get(group)
            return group, self._found(group)[1] if comm is None else comm
        pid, comm = self._found(tid)
        return pid, self._comms.get(pid, comm)

    def _found(self, tid: int) -> tuple[int, str]:
        """What /proc and the kernel's memory say."""
        now = time.monotonic()
        known = self._known.get(tid)
        if known is not None and now - known[0] < _FRESH:
            return known[1]
        found = _living(tid) if self._same else None
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
