"""Instances of tracefs: what is read comes in order, and what is lost is counted."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iocancel.trace.pages import PageFormat, Record
from iocancel.trace.tracefs import Instance, Order
from iocancel.uring import Ring

from ..support import BOUND, need
from .marks import COMPLETE, MARKS, SUBMIT, Marker, everything, traced

# Reading


@contextlib.contextmanager
def small(tracefs: Path) -> Iterator[tuple[Instance, Marker, PageFormat]]:
    """An instance with little room, its marker, and what looks into its pages."""
    with traced(tracefs, buffer=8192) as instance, Marker(instance) as mark:
        assert instance._pages is not None
        yield instance, mark, instance._pages


def test_records_of_all_processors_come_in_order_of_time(tracefs: Path, instances: Path) -> None:
    before = os.sched_getaffinity(0)
    cpus = sorted(before)
    with traced(tracefs) as instance, Marker(instance) as mark:
        try:
            for number in range(200):
                os.sched_setaffinity(0, {cpus[number // 3 % len(cpus)]})
                mark(number)
        finally:
            os.sched_setaffinity(0, before)
        found = everything(instance, 200)
        assert mark.numbers(found.records) == list(range(200))
        times = [when for when, _, _ in found.records]
        assert times == sorted(times)
        assert time.monotonic_ns() - times[0] < BOUND * 1e9  # the clock is that of time.monotonic_ns
        assert instance.late == found.lost == 0


def test_what_does_not_fit_is_counted(tracefs: Path, instances: Path) -> None:
    many = 3000
    with small(tracefs) as (instance, mark, _):
        for number in range(many):
            mark(number)
        batch = instance.read(BOUND)
        assert batch.lost > 0
        for number in range(many, 2 * many):
            mark(number)
        rest = instance.finish()
        records = batch.records + rest.records
        assert len(records) + batch.lost + rest.lost == 2 * many
        assert instance.lost == batch.lost + rest.lost
        assert mark.numbers(records)[-1] == 2 * many - 1
        assert mark.numbers(records) == sorted(mark.numbers(records))
        assert instance.finish() == ([], 0)


def test_what_is_only_known_at_the_end_is_counted_then(
    tracefs: Path, instances: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small(tracefs) as (instance, mark, pages):
        real = pages.extend
        # A page that is full has no room for the number: it says None.
        monkeypatch.setattr(pages, "extend", lambda into, page: None if real(into, page) else 0)
        for number in range(3000):
            mark(number)
        batch = instance.read(BOUND)
        assert 0 < batch.lost <= len(os.sched_getaffinity(0)) + 1
        rest = instance.finish()
        assert len(batch.records) + len(rest.records) + batch.lost + rest.lost == 3000


def test_reading_waits_until_something_comes(tracefs: Path, instances: Path) -> None:
    with traced(tracefs) as instance, Marker(instance) as mark:
        assert instance.read(0) == ([], 0)
        began = time.monotonic()
        assert instance.read(0.05) == ([], 0)
        assert time.monotonic() - began >= 0.05
        mark(1)
        began = time.monotonic()
        assert mark.numbers(instance.read().records) == [1]
        # Held back for a moment, but not until the time is up.
        mark(2)
        assert mark.numbers(instance.read(BOUND).records) == [2]
        assert time.monotonic() - began < BOUND


def test_what_is_held_back_comes_in_the_end(tracefs: Path, instances: Path) -> None:
    with traced(tracefs, slack=BOUND) as instance, Marker(instance) as mark:
        mark(1)
        assert instance.read(0.05) == ([], 0)
        mark(2)
        assert mark.numbers(instance.finish().records) == [1, 2]
        with pytest.raises(OSError, match="Bad file descriptor"):  # it is switched off
            mark(3)
        assert instance.finish() == ([], 0)


def test_a_buffer_that_is_filled_faster_than_read_keeps_nobody(
    tracefs: Path, instances: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small(tracefs) as (instance, mark, pages):
        real, times = pages.extend, list[int]()

        def filled(into: list[Record], page: bytes) -> int | None:
            mark(len(times))
            lost = real(into, page)
            times.append(into[-1][0])
            return lost

        mark(-1)
        monkeypatch.setattr(pages, "extend", filled)
        records: list[Record] = []
        lost, complete = instance._drain(records)
        assert lost == 0
        assert len(times) == 16
        assert complete == times[-1]
        monkeypatch.undo()
        assert mark.numbers(instance.finish().records) == [15]
        assert mark.numbers(records) == [-1, *range(15)]


def test_a_processor_that_is_not_there_is_looked_for_again(tracefs: Path, instances: Path) -> None:
    class Absent(io.FileIO):
        def read(self, size: int | None = -1, /) -> Any:
            raise OSError(errno.ENODEV, "No such device")

    class Broken(io.FileIO):
        def read(self, size: int | None = -1, /) -> Any:
            raise OSError(errno.EIO, "Input/output error")

    with (
        Absent("/dev/null") as absent,
        Broken("/dev/null") as broken,
        traced(tracefs) as instance,
        Marker(instance) as mark,
    ):
        there = instance._pipes.pop()
        instance._poll.unregister(there)
        instance._absent.append(absent)
        assert instance.read(0) == ([], 0)
        assert instance._absent == [absent]
        instance._absent[:] = [there]  # and here it is
        mark(1)
        assert mark.numbers(everything(instance, 1).records) == [1]
        assert instance._absent == []
        instance._absent.append(broken)
        with pytest.raises(OSError, match="Input/output error"):
            instance.read(0)


def test_events_of_a_program_are_recorded_and_filtered(tracefs: Path, instances: Path) -> None:
    there = [event for event in SUBMIT if (tracefs / "events" / event).is_dir()]
    need(there, "this kernel has no io_uring events")
    with (
        traced(tracefs, *there, COMPLETE, filters={COMPLETE: "user_data == 0x5eed"}) as instance,
        Ring(8) as ring,
    ):
        readers = {fmt.id: (fmt.name, fmt.reader("common_pid", "user_data")) for fmt in instance.formats}
        for user_data in (1, 0x5EED, 2, 0x5EED):
            sqe = ring.get_sqe()
            sqe.prep_nop()
            sqe.user_data = user_data
        ring.submit()
        assert len(ring.wait(4)) == 4
        found = [(readers[kind][0], *readers[kind][1](raw)) for _, kind, raw in instance.finish().records]
    mine = [(name, user_data) for name, tid, user_data in found if tid == os.getpid()]
    assert [each for each in mine if each[0] != "io_uring_complete"] == [
        (there[0].partition("/")[2], user_data) for user_data in (1, 0x5EED, 2, 0x5EED)
    ]
    assert [each for each in mine if each[0] == "io_uring_complete"] == [("io_uring_complete", 0x5EED)] * 2


def test_a_filter_that_is_none_is_an_error(tracefs: Path, instances: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"not a filter of io_uring_complete: 'nonsense == 1'"),
        traced(tracefs, COMPLETE, filters={COMPLETE: "nonsense == 1", "io_uring/not_there": "x == 1"}),
    ):
        pass


def test_the_kernel_remembers_names(tracefs: Path, instances: Path) -> None:
    assert Instance([MARKS], tracefs=tracefs).remembered() == {}
    with traced(tracefs, "sched/sched_process_exit") as instance:
        subprocess.run(["true"], check=True)
        found = instance.remembered()
        assert all(type(pid) is int and type(name) is str for pid, name in found.values())
        assert any(name == "true" and pid == tid for tid, (pid, name) in found.items())


def test_what_is_not_open_can_not_be_read(tracefs: Path, instances: Path) -> None:
    instance = Instance([MARKS], tracefs=tracefs)
    for call in (instance.read, instance.finish):
        with pytest.raises(ValueError, match="not open"):
            call()
    with instance:
        pass
    for call in (instance.read, instance.finish):
        with pytest.raises(ValueError, match="not open"):
            call()


# Order, by itself


def at(*times: int) -> list[Record]:
    return [(when, 1, b"") for when in times]


def test_what_may_still_be_overtaken_is_held_back() -> None:
    order = Order()
    order.held += at(10, 20, 40)
    order.held += at(5, 30)
    assert order.take(20) == at(5, 10, 20)
    order.held += at(25)
    assert order.take(35) == at(25, 30)
    assert order.take(35) == []
    assert order.take(None) == at(40)
    assert order.take(None) == []
    assert order.late == 0


def test_what_comes_too_late_comes_all_the_same_and_is_counted() -> None:
    order = Order()
    order.held += at(10, 20)
    assert order.take(100) == at(10, 20)
    order.held += at(5, 15, 20, 30)  # of the same time is not late
    assert order.take(100) == at(5, 15, 20, 30)
    assert order.late == 2


def test_of_the_same_time_each_processors_keep_their_order() -> None:
    order = Order()
    order.held += [(1, 9, b"a"), (1, 3, b"b"), (1, 7, b"c")]
    assert order.take(None) == [(1, 9, b"a"), (1, 3, b"b"), (1, 7, b"c")]
