"""The page that says how far a cancel goes, kernel by kernel."""

from __future__ import annotations

from collections.abc import Iterable

from tools.docs.kernels import ABSENT, Asked, asked, mark
from tools.docs.tables import table

__all__ = ["page"]

ENGINES = (("io_uring", "uring"), ("libaio", "libaio"), ("posix_aio", "posix_aio"))
SYSTEMS = {"io_uring": "io_uring", "libaio": "Linux AIO", "posix_aio": "POSIX AIO"}
HEAD = """\
# How far a cancel goes

What these kernels said when they were asked by `iocancel doctor`, which finds out by doing it. Of your own
machine the same command tells; the tests hold it against these tables.

{kernels}
Debian's 5.10 has the io_uring of 5.15.

| word | once it runs, and is cancelled |
|---|---|
| `total` | it did not happen |
| `partial` | it may have happened in part: then it is completed, and its result says how much |
| `none` | it runs to its own end, whatever is asked |
| - | it is not there |
| **wrong** | it is there, and does what it must not: see below the table |
| ? | it could not be tried there |

What has not been handed to the system yet can always be cancelled, and what waits in a queue of it as a
rule.

## Engines

What `iocancel.open_engine(name)` offers, and says by `engine.reach(verb)`; the blocking and the awaited
verbs are made of these. An engine may do in its own way what its system has no request for, and leaves out
what its system would do wrong. Reads and writes of a disk's files run to their end on every engine,
whatever is said here of pipes and sockets.

"""
REQUESTS = """\
## Requests

What the systems themselves do, request by request, without the engines: this is what the bindings
(`iocancel.uring`, `iocancel.libaio`, `iocancel.posix_aio`) give. What became of each when it was cancelled
is in a second table: the cancel's answer, then the request's own result. "N" is a count that differs from
run to run.

"""
MECHANISMS = """\
## Ways to cancel, and what goes with them

"""


def names(area: str, system: str) -> list[str]:
    """Return what any kernel was asked of a system, in an order that does not depend on the kernel."""
    found: set[str] = set()
    for kernel in asked():
        found.update(kernel.findings.get(system, {}).get(area, {}))
    return sorted(found, key=lambda name: (name.casefold(), name))


def absent(system: str, verb: str) -> bool:
    """Whether an engine has a verb on no kernel."""
    return all(mark(kernel.row(system, "verb", verb)) == "-" for kernel in asked())


def matrix(system: str, area: str, what: str, show: str = "") -> str:
    """Return a table: a row for each thing, a column for each kernel."""
    rows = []
    for name in names(area, system):
        if area == "verb" and absent(system, name):
            continue
        said = name.removeprefix("engine.")
        cells = [mark(kernel.row(system, area, name)) for kernel in asked()]
        rows.append([f"`{said}`" if show == "code" else said, *cells])
    return table([what, *(kernel.series for kernel in asked())], rows)


def groups(rows: Iterable[tuple[Asked, str]]) -> list[tuple[str, str]]:
    """Return kernels that have seen the same, together."""
    found: dict[str, list[str]] = {}
    for kernel, seen in rows:
        found.setdefault(seen, []).append(kernel.series)
    return [(", ".join(series), seen) for seen, series in found.items()]


def seen(system: str, area: str, what: str) -> str:
    """Return a table of what was seen."""
    lines = []
    for name in names(area, system):
        told = []
        for kernel in asked():
            row = kernel.row(system, area, name)
            if row is not None and row.get("seen", "") not in ("", *ABSENT):
                told.append((kernel, row["seen"]))
        lines += [(name, series, text) for series, text in groups(told)]
    return table([what, "on", "what was seen"], lines)


def page() -> str:
    """Return the page."""
    machines = [
        [
            kernel.series,
            kernel.kernel,
            *(kernel.machine[name] for name in ("architecture", "libc", "liburing")),
        ]
        for kernel in asked()
    ]
    text = [HEAD.format(kernels=table(["in the tables", "kernel", "on", "C library", "liburing"], machines))]
    for system, engine in ENGINES:
        text.append(f"### Engine `{engine}`\n\n{matrix(system, 'verb', 'verb', 'code')}\n")
        nowhere = [
            f"`{name.removeprefix('engine.')}`" for name in names("verb", system) if absent(system, name)
        ]
        if nowhere:
            text.append(f"On no kernel: {', '.join(nowhere)}.\n\n")
    text.append(
        "`accept_multishot`, `recv_multishot` and `poll_multishot` can be used on every engine: where the\n"
        "kernel's own form is not there, one operation follows the other.\n\n"
    )
    text.append(REQUESTS)
    for system, title in SYSTEMS.items():
        text.append(f"### {title}\n\n{matrix(system, 'request', 'request')}\n")
        text.append(f"{seen(system, 'request', 'request')}\n")
    text.append(MECHANISMS)
    for system, title in SYSTEMS.items():
        text.append(f"### With {title}\n\n{matrix(system, 'mechanism', 'what')}\n")
        text.append(f"{seen(system, 'mechanism', 'what')}\n")
    return "".join(text).rstrip("\n") + "\n"
