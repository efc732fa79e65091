"""The eventfd that a cancel wakes the leader by: csrc/wake.c."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from iocancel._native import ffi, lib


@pytest.fixture
def wake() -> Iterator[Any]:
    made = ffi.gc(lib.ioc_wake_new(0), lib.ioc_wake_free)
    assert made != ffi.NULL
    yield made
    lib.ioc_wake_close(made)


def count(fd: int) -> int:
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


def test_it_counts_and_is_cleared(wake: Any) -> None:
    lib.ioc_wake_clear(wake)  # nothing there: it does not block
    for _ in range(3):
        lib.ioc_wake_set(wake)
    assert count(wake.fd) == 3
    lib.ioc_wake_set(wake)
    lib.ioc_wake_clear(wake)
    assert count(wake.fd) == 0


def test_a_full_counter_blocks_nobody(wake: Any) -> None:
    os.eventfd_write(wake.fd, (1 << 64) - 2)
    lib.ioc_wake_set(wake)
    assert count(wake.fd) == (1 << 64) - 2


def test_after_its_close_the_number_is_another_files(wake: Any) -> None:
    number = wake.fd
    lib.ioc_wake_close(wake)
    lib.ioc_wake_close(wake)  # the second does nothing
    assert wake.fd == -1
    other = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        if other != number:
            os.dup2(other, number)
        lib.ioc_wake_set(wake)
        lib.ioc_wake_clear(wake)
        assert count(other) == 0
    finally:
        os.close(other)
        if other != number:
            os.close(number)


def test_a_childs_writes_and_reads_do_not_reach_the_parent(wake: Any) -> None:
    lib.ioc_wake_set(wake)
    child = os.fork()
    if not child:
        lib.ioc_wake_set(wake)
        lib.ioc_wake_clear(wake)
        lib.ioc_wake_close(wake)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert count(wake.fd) == 1


def test_closing_among_writers_writes_to_nobody_else() -> None:
    """Writers that hammer it while it is closed, and its number is another file's at once."""
    for _ in range(50):
        wake = ffi.gc(lib.ioc_wake_new(0), lib.ioc_wake_free)
        number = wake.fd
        started, stop = threading.Barrier(4), threading.Event()

        def write(
            wake: Any = wake, started: threading.Barrier = started, stop: threading.Event = stop
        ) -> None:
            started.wait()
            while not stop.is_set():
                lib.ioc_wake_set(wake)

        threads = [threading.Thread(target=write) for _ in range(3)]
        for thread in threads:
            thread.start()
        started.wait()
        lib.ioc_wake_close(wake)
        other = os.eventfd(0, os.EFD_NONBLOCK)
        stop.set()
        for thread in threads:
            thread.join()
        try:
            assert other == number, "the lowest free number is taken again"
            assert count(other) == 0
        finally:
            os.close(other)
