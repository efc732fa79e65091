"""The kernel, the libraries and the limits that io_uring, Linux AIO and POSIX AIO depend on."""

from __future__ import annotations

import os
import platform
import re
import resource
from pathlib import Path
from typing import Any

from iocancel import __version__

__all__ = ["describe", "is_glibc"]

_SECCOMP = {"0": "off", "1": "strict", "2": "filter"}
_CAPABILITIES = {14: "CAP_IPC_LOCK", 21: "CAP_SYS_ADMIN", 23: "CAP_SYS_NICE"}


def is_glibc() -> bool:
    """Whether the C library is glibc, whose POSIX AIO interrupts nothing that runs; musl's does."""
    return _libc().startswith("glibc")


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or "unknown"
    except (ValueError, OSError):
        return "musl" if _loaded(r"(?:ld-|libc\.)musl") else "unknown"


def _loaded(pattern: str) -> str:
    """The file name of a loaded library, "" where there is none."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return ""
    match = re.search(rf"/({pattern}[^/\s]*)$", maps, re.MULTILINE)
    return match[1] if match else ""


def _library(name: str) -> str:
    """The file that a library was loaded from, whose name says its version; in a wheel it has a sum, too."""
    return _loaded(rf"{name}(?:-[0-9a-f.]+)?\.so") or "linked in"


def _sysctl(name: str) -> int | None:
    """A number of the kernel's, or None where it has no such."""
    try:
        return int(Path("/proc/sys", name).read_text())
    except (OSError, ValueError):
        return None


def _status() -> dict[str, str]:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _limit(which: int) -> int | None:
    """A soft limit; None for no limit."""
    soft = resource.getrlimit(which)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def describe() -> dict[str, Any]:
    """What this machine is like.

    Returns:
        Plain JSON types: `kernel`, `architecture`, `python`, `iocancel`, `libc`: versions; `liburing`,
        `libaio`: the files that they were loaded from; `uid`; `capabilities`: of those that matter;
        `seccomp`: "off", "strict", "filter" or "unknown"; `io_uring_disabled`, `io_uring_group`,
        `aio_max_nr`, `aio_nr`: the sysctls, None where there is none; `memlock` (bytes), `nofile`, `nproc`:
        the soft limits, None for none.
    """
    status = _status()
    effective = int(status.get("CapEff", "0"), 16)
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "iocancel": __version__,
        "libc": _libc(),
        "liburing": _library("liburing"),
        "libaio": _library("libaio"),
        "uid": os.geteuid(),
        "capabilities": [name for bit, name in _CAPABILITIES.items() if effective >> bit & 1],
        "seccomp": _SECCOMP.get(status.get("Seccomp", ""), "unknown"),
        "io_uring_disabled": _sysctl("kernel/io_uring_disabled"),
        "io_uring_group": _sysctl("kernel/io_uring_group"),
        "aio_max_nr": _sysctl("fs/aio-max-nr"),
        "aio_nr": _sysctl("fs/aio-nr"),
        "memlock": _limit(resource.RLIMIT_MEMLOCK),
        "nofile": _limit(resource.RLIMIT_NOFILE),
        "nproc": _limit(resource.RLIMIT_NPROC),
    }
