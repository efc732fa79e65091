"""What figures depend on: the machine, and the versions of what is measured."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.sides import PEERS, compiler
from iocancel.doctor.machine import describe as doctors


def _cpuinfo() -> dict[str, str]:
    """The first processor's lines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def describe() -> Mapping[str, str]:
    """The machine, and when it was."""
    info = os.uname()
    cpu = _cpuinfo()
    return {
        "kernel": info.release,
        "machine": info.machine,
        "processor": cpu.get("model name", ""),
        "processors": str(len(os.sched_getaffinity(0))),
        # Only x86 says so; elsewhere it is not known.
        "virtual": "yes" if "hypervisor" in cpu.get("flags", "").split() else "",
        "python": sys.version.split()[0],
        "date": datetime.now(UTC).date().isoformat(),
    }


def _said(command: list[str]) -> str:
    """The number in the first line that a program says of its version; nothing where it can't be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.findall(r"\d+(?:\.\d+)+", done.stdout.partition("\n")[0])
    return found[-1] if found else ""


def versions() -> dict[str, str]:
    """By name, what was measured and what it was built with; "" where that can't be found out."""
    here = doctors()
    cc = compiler()
    theirs = (what.split("==") for what in dict.fromkeys(PEERS.values()))
    return {
        "iocancel": here["iocancel"],
        "cffi": version("cffi"),
        "liburing": here["liburing"].rpartition(".so.")[2],
        "libc": here["libc"],
        "C compiler": _said([*cc, "--version"]) if cc is not None else "",
        "fio": _said(["fio", "--version"]) if shutil.which("fio") else "",
        **{"liburing of PyPI" if name == "liburing" else name: number for name, number in theirs},
    }
