"""The samples under data/ (see its README.md), as the tests use them."""

from __future__ import annotations

import functools
import gzip
import re
from pathlib import Path
from typing import NamedTuple

from iocancel.trace.format import Format
from iocancel.trace.pages import PageFormat, Record

DATA = Path(__file__).parent / "data"
KERNELS = ["5.10", "6.1", "6.12", "6.18", "7.2"]
PAGE = 4096

_LINE = re.compile(r"\s*(.*)-(\d+)\s+\[(\d+)\]\s+\S+\s+(\d+)\.(\d{6}): (\w+)(: |\(| -> )(.*)")


class Line(NamedTuple):
    """A line of the kernel's own text."""

    comm: str
    tid: int
    cpu: int
    microseconds: int
    event: str
    rest: str

    def value(self, *names: str) -> str | None:
        """What stands behind one of these words."""
        found = re.search(rf"\b(?:{'|'.join(names)}):? (\S+?)(?:[,)]|\s|$)", self.rest)
        return None if found is None else found[1]


def system(event: str) -> str:
    return {"io": "io_uring", "sys": "syscalls", "sched": "sched"}.get(event.partition("_")[0], "ftrace")


@functools.cache
def formats(kernel: str) -> dict[str, Format]:
    """By name."""
    paths = (DATA / kernel / "formats").iterdir()
    return {path.stem: Format.parse(path.read_text(), system(path.stem)) for path in paths}


@functools.cache
def page_format(kernel: str) -> PageFormat:
    where = DATA / kernel
    return PageFormat((where / "header_page.txt").read_text(), (where / "header_event.txt").read_text())


def pages(kernel: str, cpu: int) -> list[bytes]:
    raw = gzip.decompress((DATA / kernel / f"raw.cpu{cpu}.bin.gz").read_bytes())
    return [raw[at : at + PAGE] for at in range(0, len(raw), PAGE)]


@functools.cache
def records(kernel: str, cpu: int) -> list[Record]:
    found: list[Record] = []
    for page in pages(kernel, cpu):
        assert page_format(kernel).extend(found, page) == 0
    return found


@functools.cache
def lines(kernel: str) -> list[Line]:
    text = gzip.decompress((DATA / kernel / "lines.txt.gz").read_bytes()).decode()
    found = []
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        match = _LINE.match(line)
        assert match is not None, line
        comm, tid, cpu, seconds, micro, event, mark, rest = match.groups()
        if event == "tracing_mark_write":
            event = "print"
        elif event.startswith("sys_"):
            event = event.replace("sys_", "sys_exit_" if mark == " -> " else "sys_enter_", 1)
        found.append(Line(comm, int(tid), int(cpu), int(seconds) * 1_000_000 + int(micro), event, rest))
    return found
