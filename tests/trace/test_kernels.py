"""What five kernels have said of the same cancels, byte for byte, and what it comes to.

data/KERNEL has the `format` files and the pages of trace_pipe_raw. Lines of trace_marker among the records
say which case begins: see data/README.md.
"""

from __future__ import annotations

import functools
from bisect import bisect
from collections import defaultdict

import pytest

from iocancel.trace.events import Cancel
from iocancel.trace.join import Joiner
from iocancel.trace.tracer import handlers

from .samples import KERNELS, formats, records

Told = tuple[str, int | None, str, tuple[tuple[str | None, str | None, bool], ...]]
"""Mechanism, answer, verdict; and of each target the opcode, the ending, and whether it was seen."""


@functools.cache
def told(kernel: str) -> dict[tuple[str, str], list[Told]]:
    """By ring and case."""
    found: list[Cancel] = []
    joiner = Joiner(found.append, lambda tid: (tid, "python"), lambda tid: None)
    known = list(formats(kernel).values())
    deal = handlers(joiner, known)
    [marker] = [each.id for each in known if each.name == "print"]
    begins: list[tuple[int, tuple[str, str]]] = [(0, ("", ""))]
    for when, kind, raw in sorted(records(kernel, 0) + records(kernel, 1), key=lambda record: record[0]):
        if kind == marker:
            word, _, rest = raw[16:].split(b"\0")[0].decode().strip().partition(": ")
            ring = rest if word == "ring" else begins[-1][1][0]
            begins.append((when, (ring, rest if word == "case" else word)))
        elif kind in deal:
            deal[kind](when, raw)
        joiner.advance(when)
    joiner.finish()
    cases = defaultdict(list)
    for cancel in sorted(found, key=lambda each: each.time):
        if cancel.user_data in (1, 2, 0x63, 0x64, 0x65):  # the library finding out what the kernel can do
            continue
        case = begins[bisect(begins, (cancel.time, ("~", ""))) - 1][1]
        targets = tuple((each.op, each.ending, each.seen) for each in cancel.targets)
        cases[case].append((cancel.mechanism, cancel.result, cancel.verdict, targets))
    return cases


POLLED = ("POLL_ADD", "ECANCELED", True)
GUESSED = ("POLL_ADD", "ECANCELED", False)
TIMED = ("TIMEOUT", "ECANCELED", False)


def one(mechanism: str, result: int, verdict: str, *targets: tuple[str, str, bool]) -> list[Told]:
    return [(mechanism, result, verdict, targets)]


EVERYWHERE = {
    "cancel_polled_read": one("async_cancel", 0, "cancelled", ("RECV", "ECANCELED", True)),
    "cancel_poll": one("async_cancel", 0, "cancelled", POLLED),
    "cancel_same_submit": one("async_cancel", 0, "cancelled", POLLED),
    "cancel_not_found": one("async_cancel", -2, "not found"),
    "poll_remove_none": one("poll_remove", -2, "not found"),
    "timeout_remove_none": one("timeout_remove", -2, "not found"),
    "link_timeout_fires": one("link_timeout", -62, "cancelled", POLLED),
    "link_timeout_not_needed": [],
    "cancel_head_of_link": one("async_cancel", 0, "cancelled", POLLED),
    "three_cancels_one_submit": one("async_cancel", 0, "cancelled", POLLED) * 3,
    "cancel_lost_race": one("async_cancel", -2, "not found"),
    "cancel_other_thread": one("async_cancel", 0, "cancelled", POLLED),
    "aio_cancel_poll": one("io_cancel", -115, "cancelled"),
    "aio_cancel_einval": one("io_cancel", -22, "not found"),
    "aio_cancel_bad_pointer": one("io_cancel", -14, "rejected"),
}


@pytest.mark.parametrize("case", EVERYWHERE)
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_same_everywhere(kernel: str, case: str) -> None:
    assert told(kernel).get(("plain", case), []) == EVERYWHERE[case]


SINCE_6 = {
    "cancel_all_of_two": one("async_cancel", 2, "cancelled", POLLED, POLLED),
    "cancel_fd_all": one("async_cancel", 2, "cancelled", POLLED, POLLED),
    "cancel_any_all_none": one("async_cancel", 0, "accepted"),
    "cancel_rejected_flags": one("async_cancel", -22, "rejected")
    + one("poll_remove", 0, "cancelled", GUESSED),
    "poll_remove": one("poll_remove", 0, "cancelled", GUESSED),
    "timeout_remove": one("timeout_remove", 0, "cancelled", TIMED),
    "cancel_timeout": one("async_cancel", 0, "cancelled", TIMED),
    "cancel_skip_success": one("async_cancel", 0, "cancelled", POLLED),
    "cancel_worker_read": one("async_cancel", 0, "cancelled", ("READ", "ECANCELED", True)),
    "cancel_worker_queued_any": one("async_cancel", 1, "cancelled", ("READ", "ECANCELED", True)),
    "sync_cancel": one("sync_cancel", 0, "cancelled", POLLED),
    "sync_cancel_none": one("sync_cancel", -2, "not found"),
    "sync_cancel_fd_all": one("sync_cancel", 2, "cancelled", POLLED, POLLED),
    "sync_cancel_worker": one("sync_cancel", 0, "cancelled", ("READ", "ECANCELED", True)),
}


@pytest.mark.parametrize("case", SINCE_6)
@pytest.mark.parametrize("kernel", KERNELS[1:])
def test_since_linux_6(kernel: str, case: str) -> None:
    found = told(kernel).get(("plain", case), [])
    assert found[-len(SINCE_6[case]) :] == SINCE_6[case]


@pytest.mark.parametrize("kernel", KERNELS[1:])
def test_in_a_worker(kernel: str) -> None:
    """What runs is interrupted by the signal that its worker gets; its code leaks out."""
    opened = ("OPENAT", "EINTR" if kernel in ("6.1", "6.12") else "ERESTARTSYS", False)
    assert told(kernel)["plain", "cancel_worker_open"] == one("async_cancel", -114, "too late", opened)
    assert told(kernel)["plain", "cancel_worker_open_all"] == one("async_cancel", 0, "cancelled", opened)
    queued = ("OPENAT", "ECANCELED", False)
    first, *_ = told(kernel)["plain", "cancel_worker_open_queued"]
    assert first == ("async_cancel", 0, "cancelled", (queued,))


def test_linux_5_10() -> None:
    """A target that waits by no poll completes within its cancel; so it is seen."""
    cases = told("5.10")
    assert cases["plain", "poll_remove"] == one("poll_remove", 0, "cancelled", POLLED)
    timed = ("TIMEOUT", "ECANCELED", True)
    assert cases["plain", "timeout_remove"] == one("timeout_remove", 0, "cancelled", timed)
    assert cases["plain", "cancel_timeout"] == one("async_cancel", 0, "cancelled", timed)
    worker = ("READ", "EINTR", False)
    assert cases["plain", "cancel_worker_read"] == one("async_cancel", -114, "too late", worker)


@pytest.mark.parametrize("kernel", KERNELS[1:])
@pytest.mark.parametrize("ring", ["defer", "sqpoll"])
def test_other_rings(kernel: str, ring: str) -> None:
    for case in ("cancel_polled_read", "cancel_all_of_two", "timeout_remove", "cancel_skip_success"):
        expected = EVERYWHERE.get(case) or SINCE_6[case]
        assert told(kernel)[ring, case] == expected


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_format_is_read(kernel: str) -> None:
    deal = handlers(Joiner(lambda _: None, lambda tid: (tid, ""), lambda _: None), formats(kernel).values())
    wanted = 12 if kernel == "5.10" else 14  # 5.10 does not tell of rejected requests, nor of overflow
    assert len(deal) == wanted
