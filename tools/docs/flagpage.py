"""The page of flags and numbers, with the kernel that brought each."""

from __future__ import annotations

import re

from tools.docs.kernels import Flag, asked, flags, libaio_flags
from tools.docs.tables import table

__all__ = ["page"]

HEAD = """\
# Flags and requests by kernel

What `iocancel.uring` and `iocancel.libaio` have names for. "Since" is the mainline kernel that brought it, as
the code says (an old kernel's `FeatureUnavailable` names the same). Where something was tried that tells, it
stands beside which of the [five kernels](reach.md) have it, and a test holds one against the other. (POSIX
AIO is the C library's, and has none that a kernel brought.)

| in the tables | it says |
|---|---|
| yes | it was tried, and works |
| - | it is not there, or does not do what it says |
| an empty cell | nothing was tried that tells |

Distributions carry parts of newer kernels: Debian's 5.10 has the io_uring of 5.15, but for the three
requests that make links and directories, and its 6.1 has two of the cancel flags by half ([the
trap](../kernel-facts.md#io_uring-flags)). `iocancel doctor` looks at what is there.

"""
TITLES = {
    "CancelFlags": "What a cancel matches",
    "SetupFlags": "How a ring is set up",
    "SqeFlags": "How an entry is handled",
    "CqeFlags": "What a completion says",
    "Features": "What a ring can do",
    "TimeoutFlags": "Timeouts",
    "PollFlags": "Polls",
    "RecvSendFlags": "Sends and receives",
    "AcceptFlags": "Accepts",
    "MsgRingFlags": "Messages to rings",
    "FsyncFlags": "Syncs",
    "Opcode": "Requests",
}
LIBAIO_TITLES = {"Opcode": "Linux AIO: requests", "RwFlags": "Linux AIO: how a read or write is done"}
LIBAIO_NOTES = {
    "Opcode": "What can be cancelled of them, and on which kernel, [was tried](reach.md#linux-aio).",
    "RwFlags": "Not tried one by one: what a kernel or a file does not know is refused (EOPNOTSUPP).",
}


def said(flag: Flag) -> str:
    """Return what a flag is for, without the kernel, which has a column of its own."""
    text = re.sub(
        r"\s*Linux \d+(?:\.\d+)+(?: \([^)]*\))?(?=[.,])[.,]?(?: without privileges \d+\.\d+\.)?$",
        "",
        flag.said,
    )
    return text.replace("*", "\\*")


def marks(flag: Flag) -> list[str]:
    """Return what each kernel did with it."""
    cells = []
    for kernel in asked():
        works = flag.works_on(kernel)
        cells.append("" if works is None else "yes" if works else "-")
    return cells


def of_kind(title: str, kind: str, known: list[Flag], note: str = "") -> str:
    """Return one table: narrow columns, and the words last, where they can be broken."""
    tried = any(any(marks(flag)) for flag in known)
    head = [
        f"`{kind}`",
        "since",
        *((kernel.series for kernel in asked()) if tried else ()),
        "in C, and what it says",
    ]
    rows = []
    for flag in sorted(known, key=lambda each: [int(part) for part in each.since.split(".")]):
        cells = marks(flag) if tried else []
        rows.append([f"`{flag.name}`", flag.since, *cells, f"`{flag.c_name}`: {said(flag)}"])
    above = f"{note}\n\n" if note else ""
    return f"## {title}\n\n{above}{table(head, rows)}\n"


def page() -> str:
    """Return the page."""
    tables = [of_kind(TITLES[kind], kind, flags()[kind]) for kind in TITLES]
    tables += [
        of_kind(LIBAIO_TITLES[kind], kind, known, LIBAIO_NOTES[kind])
        for kind, known in libaio_flags().items()
    ]
    return (HEAD + "".join(tables)).rstrip("\n") + "\n"
