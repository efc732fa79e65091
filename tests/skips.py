"""What a test may be skipped for where nothing may be lacking: with IOCANCEL_NO_SKIPS the rest are failures.

IOCANCEL_NO_SKIPS=1 is for a machine of ours, IOCANCEL_NO_SKIPS=bare for one that a wheel is tried on, where
there is nothing to build with.
"""

from __future__ import annotations

import os
import re

KERNEL = re.compile(r"(?:(?:needs?|of|before|from) Linux |there from )(\d+)\.(\d+)")
# What names no kernel may be lacking in one that is older than the newest that is tried without a guest.
LACKING = re.compile(
    r"^this kernel('s cancels all answer| (has|sends|gets|chooses|updates) no (?!io_uring\b)| does not )"
)
NEWEST = (6, 18)
EXCUSED = (
    # The table of engines, requests and events has empty places: there is nothing to be tested.
    r"(uring|libaio|posix_aio|Linux AIO) has no \w+(\(\))? here$",
    r"^Linux AIO has no open\(\)$",
    r"^\w+ can't stop a \w+ that runs$",
    r"^\w+ stops a read( of a pipe)?; a disk's (are|is) tested in guests$",
    r"^nobody but time ends a \w+$",
    r"^its end comes with the next SYN, a second later$",
    r"^only a ring tells of what nobody has reaped$",
    r"^trio drops no tasks$",
    r"^asyncio's own timeouts$",
    r"^it (is one|has no deadline of its own|takes a number, no file|was copied)$",
    r"POSIX AIO does not survive a fork",
    # What musl does otherwise, or has not.
    r"this C library (interrupts|ends) what runs$",
    r"^the table is of glibc$",
    r"^they were asked with glibc$",
    r"^this kernel has the flag$",
    r"^it is about free-threaded Python$",
    # It takes a machine of its own, which ./dev kernels makes.
    r"IOCANCEL_GUEST=1",
    r"^it would be a USB device of this very machine's$",
    # The library that was built with is older than what the case is about; wheels have the newest.
    r"^liburing \(\d+, \d+\) (has no|did it otherwise, before)",
    # What is kept as data is of other kernels, or of another architecture.
    r"^no kernel near \d+\.\d+ has been asked$",
    r"^the kernels that have been asked ran on x86_64$",
    # Sessions of their own: ./dev docs, ./dev bench, ./dev sanitize.
    r"^no Sphinx here: ./dev docs brings it$",
    r"^no matplotlib here: ./dev bench",
    r"^they were made with matplotlib",
    r" is not installed here$",
)
# Where wheels are tried there is nothing to build with, and nothing beside Python.
BARE = (
    r"no C compiler",
    r"^no compiler, or no liburing",
    r"^no liburing.h that compiles$",
    r"^no eBPF here: libbpf 1\.0 or later is wanted",
    r"^no openssl here",
    r"^no <linux/bpf.h>$",
    r"^needs dpkg-deb$",
    r"^no setuptools here that makes wheels by itself$",
    r"^no (trio|uvloop|anyio|caio|libaio)( here|$)",
    r"^could not import '(trio|uvloop|anyio|caio|libaio)'",
    r"libaio\.so\.1: (cannot open shared object file|No such file or directory)",
    r"^\w+/ is not here: an installed copy$",
)


def too_old(reason: str, release: str) -> bool:
    """Whether a reason is about the kernel, and the one of this release is too old for what is lacking."""
    running = re.match(r"(\d+)\.(\d+)", release)
    assert running, release
    if found := KERNEL.search(reason):
        since = (int(found[1]), int(found[2]))
    elif LACKING.search(reason):
        since = NEWEST
    else:
        return False
    return (int(running[1]), int(running[2])) < since


def excused(reason: str, strictness: str, release: str = "") -> bool:
    """Whether a test may be skipped for this reason.

    Args:
        reason: what the test says.
        strictness: IOCANCEL_NO_SKIPS.
        release: the kernel's, as `uname -r` says it (default: this one's).
    """
    if strictness not in {"1", "bare"}:
        return True
    known = EXCUSED + (BARE if strictness == "bare" else ())
    return too_old(reason, release or os.uname().release) or any(re.search(each, reason) for each in known)
