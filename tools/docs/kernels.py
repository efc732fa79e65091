"""The kernels that have been asked (docs/data/doctor), and the flags that the code knows, beside them."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["Asked", "Flag", "asked", "before", "effective", "flags", "libaio_flags", "load", "mark"]

ROOT = Path(__file__).parents[2]
DATA = ROOT / "docs" / "data" / "doctor"
# Debian's 5.10 has the io_uring of 5.15: "5.10" tells nothing of what it has.
IO_URING_OF = {"5.10": "5.15"}
# Of the systems, the areas of a report in which something can be missing.
ABSENT = ("this kernel lacks it", "this engine does not have it here")
REFUSED = "refused: [Errno 22]"  # so does a kernel that does not know a flag


@dataclass(frozen=True)
class Asked:
    """What one kernel has said of itself."""

    series: str
    kernel: str
    machine: dict[str, str]
    features: tuple[str, ...]
    findings: dict[str, dict[str, dict[str, dict[str, Any]]]]

    def row(self, system: str, area: str, name: str) -> dict[str, Any] | None:
        """Return a finding; None where it was not tried."""
        return self.findings.get(system, {}).get(area, {}).get(name)


def number(version: str) -> tuple[int, ...]:
    """Return what a version is sorted by."""
    return tuple(map(int, version.split(".")))


def before(one: str, other: str) -> bool:
    """Whether a version is older than another."""
    return number(one) < number(other)


def effective(series: str) -> str:
    """Return the version whose io_uring a kernel of this series has."""
    return IO_URING_OF.get(series, series)


def load(file: Path) -> Asked:
    """Return what a file holds."""
    kept = json.loads(file.read_text())
    return Asked(file.stem, kept["kernel"], kept["machine"], tuple(kept["features"]), kept["findings"])


@cache
def asked() -> tuple[Asked, ...]:
    """Return the kernels, the oldest first."""
    return tuple(sorted(map(load, DATA.glob("*.json")), key=lambda each: number(each.series)))


def mark(row: dict[str, Any] | None) -> str:
    """Return a finding in a word, for a table."""
    if row is None or row["works"] is None:
        return "?"
    if row["works"]:
        return str(row.get("reach", "yes"))
    seen = row.get("seen", ABSENT[0])
    return "-" if seen in ABSENT or seen.startswith(REFUSED) else "**wrong**"


@dataclass(frozen=True)
class Flag:
    """A flag or a number of the code's, as it is written there."""

    kind: str
    name: str
    c_name: str
    said: str
    since: str

    def works_on(self, kernel: Asked) -> bool | None:
        """Whether a kernel has it; None where nothing has been tried that tells."""
        if self.kind == "Features":
            return self.name in kernel.features
        areas = {"CancelFlags": "cancel flag", "SetupFlags": "set-up", "Opcode": "opcode"}
        name = self.c_name
        area = areas.get(self.kind, "mechanism")
        if self.c_name == "IOSQE_CQE_SKIP_SUCCESS":
            name = "IOSQE_CQE_SKIP_SUCCESS on a cancel"
        row = kernel.row("io_uring", area, name)
        return None if row is None else row["works"]


@cache
def flags() -> dict[str, list[Flag]]:
    """Return io_uring's flags of each type, with what their docstrings say."""
    return written("uring/flags.py", "uring/opcodes.py")


@cache
def libaio_flags() -> dict[str, list[Flag]]:
    """Return those of Linux AIO that a kernel brought, not poll(2)'s or the priorities'."""
    return {
        kind: known for kind, known in written("libaio/flags.py").items() if any(flag.since for flag in known)
    }


def written(*files: str) -> dict[str, list[Flag]]:
    """Return the flags of each type of these files: read from the source, which has their docstrings."""
    found: dict[str, list[Flag]] = {}
    for name in files:
        tree = ast.parse((ROOT / "src" / "iocancel" / name).read_text())
        for kind in tree.body:
            if isinstance(kind, ast.ClassDef):
                members = list(of_class(kind))
                if members:
                    found[kind.name] = members
    return found


def of_class(kind: ast.ClassDef) -> list[Flag]:
    """Return the members of an enumeration."""
    members = []
    for line, said in zip(kind.body, kind.body[1:], strict=False):
        match line, said:
            case (
                ast.Assign(targets=[ast.Name(name)], value=ast.Attribute(value=ast.Name("lib"), attr=c_name)),
                ast.Expr(value=ast.Constant(str(text))),
            ):
                since = re.findall(r"Linux (\d+(?:\.\d+)+)", text)
                members.append(
                    Flag(kind.name, name, c_name, " ".join(text.split()), since[0] if since else "")
                )
            case _:
                pass
    return members
