"""What `iocancel doctor` and a ring say on this kernel, without what is this machine's alone.

`python -m tools.docs.seen` prints it as JSON; `./dev docs --collect` runs that under every kernel.
"""

from __future__ import annotations

import json
import platform
import re
from typing import Any

from iocancel import doctor
from iocancel.errors import EngineUnavailable
from iocancel.uring import Ring

__all__ = ["features", "kernel", "look", "reduced", "series", "written"]

MACHINE = ("architecture", "libc", "liburing", "libaio")
# Whether tracing is possible is the affair of the machine and of the user's rights, not the kernel's.
ABOUT_THE_MACHINE = ("iocancel trace",)
# How much went before the cancel came depends on speeds and on memory.
_COUNT = re.compile(r"\b\d{5,}\b")


def kernel(release: str, version: str) -> str:
    """Return a kernel's version without what its builder has added.

    Args:
        release: as uname(2) has it. Debian's names the interface there ("6.1.0-49-amd64"),
        version: and the version here ("#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1 (2026-10-01)").
    """
    debian = re.search(r"\bDebian (\d+(?:\.\d+)+)", version)
    plain = re.match(r"\d+(\.\d+)+", release)
    if debian:
        return f"Debian {debian[1]}"
    return plain[0] if plain else release


def series(release: str) -> str:
    """Return a kernel's series: "6.1.0-49-amd64" and "Debian 6.1.192" are of 6.1."""
    found = re.search(r"\d+\.\d+", release)
    if found is None:
        raise ValueError(f"a kernel's release has its version in it, {release!r} has not")
    return found[0]


def features() -> list[str]:
    """Return the names of what the kernel says that its rings can do; none where there are no rings."""
    try:
        with Ring(8) as ring:
            return sorted(str(each.name) for each in ring.features)
    except EngineUnavailable:
        return []


def look() -> dict[str, Any]:
    """Examine this machine; return what is kept of it."""
    return reduced(doctor.examine().as_dict(), features(), platform.version())


def reduced(report: dict[str, Any], names: list[str], version: str) -> dict[str, Any]:
    """Return what is kept of a report.

    Args:
        report: what `iocancel doctor --json` prints.
        names: what `features` returns.
        version: the kernel's version, as uname(2) has it.
    """
    machine = report["machine"]
    findings: dict[str, dict[str, dict[str, Any]]] = {}
    for finding in report["findings"]:
        if finding["name"] in ABOUT_THE_MACHINE:
            continue
        row: dict[str, Any] = {"works": finding["works"]}
        if finding["reach"] is not None:
            row["reach"] = finding["reach"]
        if finding["area"] not in ("opcode", "verb") and finding["seen"]:
            row["seen"] = _COUNT.sub("N", finding["seen"])
        areas = findings.setdefault(finding["system"], {})
        areas.setdefault(finding["area"], {})[finding["name"]] = row
    return {
        "kernel": kernel(machine["kernel"], version),
        "machine": {name: machine[name] for name in MACHINE},
        "features": names,
        "findings": findings,
    }


def written(kept: dict[str, Any]) -> str:
    """Return the JSON: sorted, one finding a line, so that two kernels can be compared by diff."""
    head = {name: kept[name] for name in ("kernel", "machine", "features")}
    lines = [f" {json.dumps(name)}: {json.dumps(value, sort_keys=True)}," for name, value in head.items()]
    systems = []
    for system, areas in sorted(kept["findings"].items()):
        inner = []
        for area, rows in sorted(areas.items()):
            each = [f"    {json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(rows.items())]
            inner.append(f"   {json.dumps(area)}: {{\n" + ",\n".join(each) + "\n   }")
        systems.append(f"  {json.dumps(system)}: {{\n" + ",\n".join(inner) + "\n  }")
    return "{\n" + "\n".join(lines) + '\n "findings": {\n' + ",\n".join(systems) + "\n }\n}\n"


if __name__ == "__main__":
    print(written(look()), end="")
