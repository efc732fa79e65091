"""The page of flags and numbers, with the kernel that brought each."""

from __future__ import annotations

import re

from tools.docs.kernels import Flag, asked, flags
from tools.docs.tables import table

__all__ = ["page"]

HEAD = """\
# Flags and requests by kernel

What `iocancel.uring` has names for. "Since" is the mainline kernel that brought it, as the code says (an
old kernel's `FeatureUnavailable` names the same). Where something was tried that tells, it stands beside
which of the [five kernels](reach.md) have it, and a test holds one against the other.

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


def said(flag: Flag) -> str:
    """Return what a flag is for, without the kernel, which has a column of its own."""
    text = re.sub(
        r"\s*Linux \d+\.\d+(?: \([^)]*\))?(?=[.,])[.,]?(?: without privileges \d+\.\d+\.)?$", "", flag.said
    )
    return text.replace("*", "\\*")


def marks(flag: Flag) -> list[str]:
    """Return what each kernel did with it."""
    cells = []
    for kernel in asked():
        works = flag.works_on(kernel)
        cells.append("" if works is None else "yes" if works else "-")
    return cells


def of_kind(kind: str) -> str:
    """Return one table."""
    known = flags()[kind]
    tried = any(any(marks(flag)) for flag in known)
    head = [
        f"`{kind}`, and in C",
        "since",
        *((kernel.series for kernel in asked()) if tried else ()),
        "what it says",
    ]
    rows = []
    for flag in sorted(known, key=lambda each: [int(part) for part in each.since.split(".")]):
        cells = marks(flag) if tried else []
        rows.append([f"`{flag.name}` `{flag.c_name}`", flag.since, *cells, said(flag)])
    return f"## {TITLES[kind]}\n\n{table(head, rows)}\n"


def page() -> str:
    """Return the page."""
    return (HEAD + "".join(of_kind(kind) for kind in TITLES)).rstrip("\n") + "\n"
