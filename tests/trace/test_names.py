"""Whose a thread is: as the kernel told when it was made and named, else by /proc."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from iocancel.trace.names import Names, threads

THREAD = 0x10000 | 0x100  # CLONE_THREAD, CLONE_VM
GONE = 5_000_000  # above any number that there is


class Kernel:
    """What an instance says of those that have ended."""

    def __init__(self, **known: tuple[int, str]) -> None:
        self.known = {int(tid.lstrip("t")): found for tid, found in known.items()}
        self.asked = 0

    def remembered(self) -> dict[int, tuple[int, str]]:
        self.asked += 1
        return self.known


def test_what_lives() -> None:
    names = Names(Kernel())
    mine = os.getpid(), Path("/proc/self/comm").read_text().rstrip("\n")
    assert names.of(os.getpid()) == mine
    found = []
    thread = threading.Thread(target=lambda: found.append(names.of(threading.get_native_id())))
    thread.start()
    thread.join()
    assert found == [mine]
    assert os.getpid() in threads(os.getpid())
    assert threads(GONE) == [GONE]


def test_what_was_seen_to_be_made() -> None:
    """A process, its thread, that one's worker; then it is another program: the name is the one of then."""
    names = Names(Kernel())
    names.made(1, GONE, "sh", 0)
    names.made(GONE, GONE + 1, "sh", THREAD)
    names.made(GONE + 1, GONE + 2, "iou-wrk-1", THREAD)
    assert {names.of(GONE + i) for i in range(3)} == {(GONE, "sh")}
    names.renamed(GONE, "program")
    names.renamed(GONE + 1, "a thread's own")
    assert {names.of(GONE + i) for i in range(3)} == {(GONE, "program")}


def test_a_number_that_is_used_again() -> None:
    names = Names(Kernel())
    names.made(1, GONE, "one", 0)
    names.made(GONE, GONE + 1, "one", THREAD)
    names.made(1, GONE + 1, "two", 0)
    assert names.of(GONE + 1) == (GONE + 1, "two")


def test_what_the_kernel_remembers() -> None:
    kernel = Kernel(t5000001=(GONE, "thread"), t5000000=(GONE, "process"))
    names = Names(kernel)
    assert names.of(GONE + 1) == (GONE, "process")
    assert names.of(GONE + 9) == (GONE + 9, "?")
    for i in range(100):
        names.of(GONE + 10 + i)
    assert kernel.asked == 1, "it takes long"


def test_a_new_name_of_what_was_there_before() -> None:
    names = Names(Kernel(t5000000=(GONE, "old")))
    names.renamed(GONE, "new")
    assert names.of(GONE) == (GONE, "new")


def test_not_for_ever() -> None:
    """A machine makes threads for years."""
    names = Names(Kernel())
    for i in range(120_000):
        names.made(GONE, GONE + i, "x", 0)
    assert len(names._groups) <= 100_001
    assert len(names._comms) <= 100_001
