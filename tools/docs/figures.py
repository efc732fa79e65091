"""The figures in pages that are written by hand: from what `./dev bench --keep` has measured and kept."""

from __future__ import annotations

from functools import cache
from typing import Any

from benchmarks import kept
from tools.docs.tables import table

__all__ = ["NAME", "measured", "written"]

# The machine whose figures the pages have, and the README the pictures.
NAME = "x86_64"
BEGIN = "<!-- figures: `./dev docs` writes them, of docs/data/bench -->\n"
END = "<!-- figures end -->\n"
# What a row says, the case, and what it is compared with.
ROWS = (
    ("a cancelled receive among 4,000 tasks: asyncio's loop", "tasks", "asyncio"),
    ("the same: uvloop, and ours on asyncio's loop", "tasks beside uvloop", "uvloop"),
    ("the same: both on uvloop", "tasks on uvloop", "uvloop"),
    ("with an `asyncio.timeout` each: asyncio's loop", "timeouts", "asyncio"),
    ("the same: uvloop, and ours on asyncio's loop", "timeouts beside uvloop", "uvloop"),
    ("the same: both on uvloop", "timeouts on uvloop", "uvloop"),
    ("64 bytes there and back: `sock_recv`, our `Stream`", "echo", "loop.sock_recv"),
    ("the same on uvloop", "echo on uvloop", "uvloop's sock_recv"),
    ("the same on trio, `SocketStream`", "echo on trio", "trio.SocketStream"),
    ("cached 4 KiB reads by 64 tasks: caio, ours, each await suspending", "awaited reads", "caio"),
    ("the same: caio, `asyncio.sleep(0)` and `os.pread` with no verb at all", "no verb at all", "caio"),
    ("the same: caio, ours taken at once", "awaited reads, inline", "caio"),
    ("the same: a thread pool, ours suspending", "awaited reads", "run_in_executor"),
)


def measured(case: str, base: str) -> dict[str, Any]:
    """Return what was measured of a case beside what it is compared with."""
    row = machine().find(case, base)
    if not row:
        raise LookupError(f"nothing is kept of {case!r} beside {base!r}: ./dev bench --keep")
    return row


@cache
def machine() -> kept.Kept:
    """Return what was measured on the machine."""
    return kept.load(kept.DATA / f"{NAME}.json")


def figures() -> str:
    """Return the table, with the machine and the rounds."""
    rows = [(said, measured(case, base)) for said, case, base in ROWS]
    lines = [
        (
            said,
            f"{row['base_ns']:,.0f}",
            f"{row['ours_ns']:,.0f}",
            "{median:.2f} ({min:.2f} to {max:.2f})".format(**row["ratio"]),
        )
        for said, row in rows
    ]
    made = machine().made({row["rounds"] for _, row in rows}, "iocancel", "uvloop", "trio", "caio")
    return f"{machine().about()}\n({made}).\n\n{table(['', 'theirs', 'ours', 'ratio'], lines)}"


def written(text: str) -> str:
    """Return a page's text, with the figures of today between their two comments."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise LookupError(f"no place for the figures: {BEGIN.strip()} ... {END.strip()}")
    return f"{before}{begin}{figures()}\n{end}{after}"
