"""What `./dev bench` has measured and kept: the files in docs/data/bench, read and looked through."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.sides import ROOT

DATA = ROOT / "docs" / "data" / "bench"
PICTURES = ROOT / "docs" / "pictures"
_TOP = ("machine", "versions", "cases")
_ROW = (
    "name",
    "base",
    "base_ns",
    "ours_ns",
    "peer_ns",
    "ratio",
    "ratio_to_peer",
    "spread",
    "base_spread",
    "rounds",
)


class KeptError(Exception):
    """A file that no picture can be made of; which, and why."""


def _many(number: int | str, what: str) -> str:
    return f"{number} {what}" if int(number) == 1 else f"{number} {what}s"


@dataclass(frozen=True)
class Kept:
    """A measurement."""

    name: str
    """Of the machine: the file's."""
    machine: dict[str, str]
    versions: dict[str, str]
    rows: dict[tuple[str, str], dict[str, Any]]
    """By name, and by what it is compared with: as `report.Result` has them."""

    def about(self) -> str:
        """The machine, in a line."""
        of = self.machine
        known = [
            f"Linux {of['kernel']}",
            of["machine"],
            of["processor"],
            _many(of["processors"], "processor"),
        ]
        known += ["virtual"] if of["virtual"] else []
        return ", ".join([*filter(None, known), f"Python {of['python']}"])

    def made(self, rounds: Collection[int], *names: str) -> str:
        """When, in how many rounds, and of which versions, in a line."""
        least, most = min(rounds), max(rounds)
        many = _many(most, "round") if least == most else f"{least} to {most} rounds"
        versions = [f"{name} {self.versions[name]}" for name in names if self.versions.get(name)]
        return ", ".join([self.machine["date"], many, *versions])

    def find(self, name: str, base: str) -> dict[str, Any]:
        """A row; an empty one where there is none."""
        return self.rows.get((name, base), {})


def load(file: Path) -> Kept:
    """Read what `./dev bench --json` has printed.

    Raises:
        KeptError: it is not that, or lacks something.
    """
    try:
        said = json.loads(file.read_text())
        lacking = [key for key in _TOP if key not in said]
        lacking += [key for key in _ROW for row in said.get("cases", ())[:1] if key not in row]
        lacking += [key for key in ("virtual", "date") if key not in said.get("machine", {})]
    except OSError as error:
        raise KeptError(f"{file}: {error.strerror}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise KeptError(f"{file} is not what ./dev bench --json prints: {error}") from None
    if lacking:
        raise KeptError(f"{file} lacks {', '.join(lacking)}: it was made by another version; measure again")
    rows = {(row["name"], row["base"]): row for row in said["cases"]}
    return Kept(file.stem, said["machine"], said["versions"], rows)
