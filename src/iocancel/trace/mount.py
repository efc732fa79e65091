"""Where tracefs is, and what is said where it can't be had."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path

_WHERE = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
_MOUNT = "mount -t tracefs tracefs /sys/kernel/tracing"


class TracingUnavailable(OSError):
    """The kernel's tracing can't be had here.

    Attributes:
        reason (str): why.
        remedy (str): what to do about it.
    """

    def __init__(self, number: int, reason: str, remedy: str) -> None:
        super().__init__(number, reason)
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.reason}. {self.remedy}"


def find(path: str | os.PathLike[str] | None = None) -> Path:
    """Where tracefs is mounted.

    Args:
        path: look only there; None looks where it usually is, and among the mounts.

    Raises:
        TracingUnavailable: it is not mounted, or not to be used by this user.
    """
    places = [Path(path)] if path is not None else [Path(place) for place in (*_WHERE, *_mounts())]
    denied: OSError | None = None
    for place in places:
        try:
            if any(entry.name == "events" for entry in place.iterdir()):
                return place
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            denied = denied or error
    if denied is not None:
        if os.geteuid() and path is None and not _mounts():
            raise TracingUnavailable(errno.ENOENT, "tracefs is not mounted", f"Tracing needs root: {_MOUNT}")
        raise refused(denied, f"can't look into {denied.filename}")
    where = "" if path is None else f" at {path}"
    if "tracefs" not in _known_file_systems():
        raise TracingUnavailable(
            errno.ENODEV, f"there is no tracefs{where}", "It takes a kernel with CONFIG_TRACING"
        )
    raise TracingUnavailable(errno.ENOENT, f"tracefs is not mounted{where}", f"Try {_MOUNT}")


def _mounts() -> list[str]:
    """Where the mount table has a tracefs."""
    with contextlib.suppress(OSError), open("/proc/self/mounts", errors="surrogateescape") as table:
        rows = [line.split() for line in table]
        places = [row[1] for row in rows if row[2] == "tracefs"]
        return [re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), place) for place in places]
    return []


def _known_file_systems() -> str:
    with contextlib.suppress(OSError), open("/proc/filesystems") as table:
        return table.read()
    return "tracefs"  # it can't be told


def refused(error: OSError, doing: str) -> TracingUnavailable:
    """The exception for what the kernel has refused."""
    number = error.errno or 0
    remedy = {
        errno.EROFS: "tracefs is read-only here, as in containers: trace on the host, or remount it",
        errno.ENOMEM: "The kernel has no memory for such buffers: ask for smaller ones",
    }.get(number, "This kernel's tracing is not as it is known to be")
    if number in (errno.EACCES, errno.EPERM):
        remedy = (
            "Tracing needs root"
            if os.geteuid()
            else "Root is not enough here: a container, or the kernel's lockdown, forbids it"
        )
    return TracingUnavailable(number, f"{doing}: {os.strerror(number)}", remedy)


def without(events: list[str]) -> TracingUnavailable:
    """The exception for a kernel that has none of them."""
    systems = list(dict.fromkeys(event.partition("/")[0] for event in events))
    needs = {"io_uring": "CONFIG_IO_URING", "syscalls": "CONFIG_FTRACE_SYSCALLS"}
    options = " and ".join(needs[system] for system in systems if system in needs)
    return TracingUnavailable(
        errno.ENOENT,
        f"this kernel has no {' or '.join(systems)} events",
        f"It takes Linux 5.10 or later with {options or 'them'}",
    )
