"""The ledger by itself: what it must bear from threads and interruptions that no test can time."""

from __future__ import annotations

import os
from typing import Any

import pytest

from iocancel._native import ffi, lib
from iocancel.libaio import Context, Iocb
from iocancel.libaio.ledger import Batch, Ledger, records
from iocancel.libaio.request import claims


def flown(many: int) -> tuple[Ledger, Batch, list[Iocb]]:
    iocbs = [Iocb.poll(1 << 20, data=number) for number in range(many)]
    ledger, batch = Ledger(), Batch(list(iocbs))
    batch.fill()
    ledger.fly(batch)
    batch.state.called = batch.state.returned = 1
    batch.state.done = many
    return ledger, batch, iocbs


def record(batch: Batch, *indices: int) -> Any:
    made = records(len(indices))
    made.count = len(indices)
    for place, index in enumerate(indices):
        made.event[place].data = batch.first + index
        made.event[place].res = -index
    return made


def test_a_record_counts_once() -> None:
    ledger, batch, iocbs = flown(3)
    one = record(batch, 0, 2)
    ledger.absorb(one)
    ledger.absorb(one)
    ledger.late += [one, record(batch, 1, 0)]
    ledger.catch_up()
    assert [(event.iocb, event.res) for event in ledger.ready] == [
        (iocbs[0], 0),
        (iocbs[2], -2),
        (iocbs[1], -1),
    ]
    assert (ledger.flight, ledger.late, claims) == ({}, [], {})


def test_a_record_that_comes_late_leaves_the_next_submission_alone() -> None:
    ledger, batch, iocbs = flown(1)
    ledger.absorb(record(batch, 0))
    again = Batch(list(iocbs))
    again.fill()
    ledger.fly(again)
    ledger.absorb(record(batch, 0))
    assert iocbs[0].in_flight
    assert len(ledger.ready) == 1
    assert batch.block(iocbs[0]) is None  # nor is its old block a name for it
    assert again.block(iocbs[0]) is not None
    ledger.settle(again)  # never called
    assert (ledger.flight, claims) == ({}, {})
    assert again.block(iocbs[0]) is None


def test_settling() -> None:
    ledger, batch, iocbs = flown(3)
    batch.state.returned = 0
    ledger.settle(batch)  # a thread is inside of io_submit
    assert len(ledger.flight) == 3
    batch.state.returned, batch.state.done = 1, 2
    for _ in range(2):
        ledger.settle(batch)
        assert [iocb.in_flight for iocb in iocbs] == [True, True, False]
    ledger.absorb(record(batch, 0, 1))
    ledger.settle(batch)
    assert (ledger.flight, claims) == ({}, {})


def test_taking() -> None:
    ledger, batch, iocbs = flown(3)
    ledger.absorb(record(batch, 0, 1))
    assert ledger.take(3, 9) is None
    event = ledger.take_of(iocbs[0])
    assert event is not None
    assert event.iocb is iocbs[0]
    assert ledger.take_of(iocbs[2]) is None
    taken = ledger.take(1, 1)
    assert taken is not None
    assert [event.iocb for event in taken] == [iocbs[1]]
    ledger.absorb(record(batch, 2))
    assert ledger.take(0, 9)
    assert ledger.take(0, 9) == []


def test_giving_up() -> None:
    ledger, batch, iocbs = flown(2)
    ledger.absorb(record(batch, 0))
    assert ledger.give_up() == [batch]
    assert not iocbs[1].in_flight
    assert (ledger.flight, claims) == ({}, {})


def test_contexts_that_are_not_open() -> None:
    """The native calls themselves refuse what is not set up, or destroyed."""
    c = ffi.new("struct ioc_laio_context *")
    out = records(4)
    batch = ffi.new("struct ioc_laio_batch *")
    blocks, entries = ffi.new("struct iocb[1]"), ffi.new("struct ioc_laio_entry[1]")
    for _ in range(2):
        assert not lib.ioc_laio_open(c)
        assert lib.ioc_laio_getevents(c, 1, 4, -1, out) == -22
        assert lib.ioc_laio_submit(c, blocks, entries, 1, 1, batch) == -22
        assert lib.ioc_laio_cancel(c, blocks, out) == -22
        assert lib.ioc_laio_cancel_many(c, [blocks], 1, out) == -22
        assert lib.ioc_laio_wake(c) == -22
        assert lib.ioc_laio_destroy(c) == -22
        wake = os.eventfd(0)
        assert lib.ioc_laio_setup(c, 1, wake) == 0
        assert lib.ioc_laio_destroy(c) == 0
        os.close(wake)


@pytest.mark.leak
def test_nothing_is_left_over(pipe: tuple[int, int]) -> None:
    """Requests of every kind, cancelled and not, again and again."""
    for _ in range(20):
        with Context(4) as context:
            polls = [Iocb.poll(pipe[0]) for _ in range(100)]
            context.submit(polls)
            context.cancel(polls[0])
            context.submit([Iocb.pwritev(pipe[1], [bytearray(1)] * 3), Iocb.pread(pipe[0], bytearray(3))])
            context.getevents(1)
