"""The library's own record: each cancel request that it sends is one line."""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from iocancel import Outcome, _record, libaio, open_engine, posix_aio, record_to
from iocancel.operation import ANSWER
from iocancel.testing import BlockedPipe
from iocancel.uring import CancelFlags, Opcode, PollFlags, Ring, probe

from ..operation.helpers import real
from ..support import BOUND
from .recording import Record
from .recording import record as record


@pytest.fixture
def ring(record: Record) -> Iterator[Ring]:
    with Ring(8) as made:
        yield made
    record.lines()


def read(ring: Ring, pipe: BlockedPipe, *user_data: int) -> None:
    for number in user_data:
        sqe = ring.get_sqe()
        sqe.prep_read(pipe.fileno(), bytearray(1))
        sqe.user_data = number
    ring.submit()


# Rings


def test_who_when_and_where(record: Record, ring: Ring) -> None:
    before = time.monotonic_ns()
    sqe = ring.get_sqe()
    sqe.prep_cancel64(1)
    sqe.user_data = 7
    assert record.lines() == []  # it is not sent yet
    ring.submit()
    [line] = record.lines()
    assert before <= line.pop("time") <= time.monotonic_ns()
    assert line == {
        "pid": os.getpid(),
        "tid": threading.get_native_id(),
        "system": "uring",
        "mechanism": "async_cancel",
        "ring": ring.fileno(),
        "context": None,
        "user_data": 7,
        "key_kind": "user_data",
        "key": 1,
        "fd": None,
        "opcode": None,
        "flags": [],
    }


WHAT = ("mechanism", "user_data", "key_kind", "key", "fd", "opcode", "flags")


def test_each_kind_of_entry_that_cancels(record: Record, ring: Ring) -> None:
    probe.require_cancel_flags(CancelFlags.OP | CancelFlags.FD | CancelFlags.USERDATA)
    with BlockedPipe() as pipe:
        fd = pipe.fileno()
        thing = object()
        sqe = ring.get_sqe()
        sqe.prep_read(fd, bytearray(1))
        sqe.data = thing
        ring.submit()
        number = sqe.user_data
        prepares: list[Callable[[Any], None]] = [
            lambda sqe: sqe.prep_cancel(thing),
            lambda sqe: sqe.prep_cancel64(0, CancelFlags.ANY | CancelFlags.ALL),
            lambda sqe: sqe.prep_cancel64(9, CancelFlags.USERDATA, opcode=Opcode.NOP),
            lambda sqe: sqe.prep_cancel64(9, opcode=Opcode.READ),
            lambda sqe: sqe.prep_cancel_fd(fd),
            lambda sqe: sqe.prep_cancel_fd(fd, CancelFlags.ALL, user_data=5, opcode=Opcode.READ),
            lambda sqe: sqe.prep_poll_remove(6),
            lambda sqe: sqe.prep_timeout_remove(8),
        ]
        for i, prepare in enumerate(prepares):
            sqe = ring.get_sqe()
            prepare(sqe)
            sqe.user_data = 100 + i
        ring.submit_and_wait(9)
    op, nop = int(Opcode.READ), int(Opcode.NOP)
    assert record.of(*WHAT) == [
        ("async_cancel", 100, "user_data", number, None, None, []),
        ("async_cancel", 101, "any", None, None, None, ["ALL", "ANY"]),
        ("async_cancel", 102, "user_data+opcode", 9, None, nop, ["USERDATA", "OP"]),
        ("async_cancel", 103, "opcode", op, None, op, ["OP"]),
        ("async_cancel", 104, "fd", fd, fd, None, ["FD"]),
        ("async_cancel", 105, "user_data+fd+opcode", 5, fd, op, ["ALL", "FD", "USERDATA", "OP"]),
        ("poll_remove", 106, "user_data", 6, None, None, []),
        ("timeout_remove", 107, "user_data", 8, None, None, []),
    ]


def test_what_changes_a_request_cancels_nothing(record: Record, ring: Ring) -> None:
    ring.get_sqe().prep_poll_update(1, 2, select.POLLIN, PollFlags.UPDATE_EVENTS)
    ring.get_sqe().prep_timeout_update(1.0, 3, 0)
    ring.get_sqe().prep_nop()
    ring.submit()
    assert record.lines() == []


def test_the_short_ways(record: Record, ring: Ring) -> None:
    with BlockedPipe() as pipe:
        read(ring, pipe, 1, 2, 3)
        assert len(ring.submit_cancel64(1, 100, n=2)) == 2
        assert ring.prep_cancel64_many([2, 3], [101, 102]) == 2
        ring.submit_and_reap(4)
        ring.prep_cancel64_many([4, 5], 103, CancelFlags.ALL)
        ring.submit_and_reap(2)
    assert record.of(*WHAT) == [
        ("async_cancel", 100, "user_data", 1, None, None, []),
        ("async_cancel", 101, "user_data", 2, None, None, []),
        ("async_cancel", 102, "user_data", 3, None, None, []),
        ("async_cancel", 103, "user_data", 4, None, None, ["ALL"]),
        ("async_cancel", 103, "user_data", 5, None, None, ["ALL"]),
    ]


def test_synchronous_ones(record: Record, ring: Ring) -> None:
    with BlockedPipe() as pipe:
        read(ring, pipe, 1, 2)
        ring.register_sync_cancel(1)
        ring.register_sync_cancel(fd=pipe.fileno(), flags=CancelFlags.ALL)
        assert record.of(*WHAT) == [
            ("sync_cancel", None, "user_data", 1, None, None, []),
            ("sync_cancel", None, "fd", pipe.fileno(), pipe.fileno(), None, ["ALL", "FD"]),
        ]


def test_a_rings_closing_cancels(record: Record) -> None:
    with BlockedPipe() as pipe:
        with Ring(8) as ring:
            read(ring, pipe, 5)
            number = ring.fileno()
        lines = record.of("ring", "mechanism", "key_kind", "key")
    assert lines == [(number, "async_cancel", "user_data", 5)]


def test_what_the_queue_had_no_room_for_is_told_once(record: Record, ring: Ring) -> None:
    """The queue is made to take one entry and no more, once."""
    [point] = [each for each in _record._points if each.namespace["__name__"] == "iocancel.uring.core"]
    at, short = _record._points.index(point), [True]

    def enter(handle: Any, raw: Any, count: int, *rest: Any) -> int:
        if short and isinstance(raw, bytes):
            short.pop()
            return int(point.call(handle, raw[:64], 1, *rest))
        return int(point.call(handle, raw, count, *rest))

    with BlockedPipe() as pipe:
        read(ring, pipe, 1, 2)
        _record._points[at] = point._replace(call=enter)
        try:
            record_to(record.path)
            for target in (1, 2):
                sqe = ring.get_sqe()
                sqe.prep_cancel64(target)
                sqe.user_data = 100 + target
            assert ring.submit() == 1
            assert ring.submit_and_wait(4) == 1
        finally:
            _record._points[at] = point
            record_to(record.path)
        assert len(ring.peek()) == 4
    assert not short
    assert record.of("user_data", "key") == [(101, 1), (102, 2)]


# Engines


def test_an_engine_on_io_uring(record: Record) -> None:
    with open_engine("uring") as engine, BlockedPipe() as pipe:
        record.lines()
        ops = [engine.read(pipe.fileno(), 1) for _ in range(3)]
        engine.submit()
        engine.cancel(ops[:2])
        tokens = [op.token for op in ops]
        expected = [(token | ANSWER, token) for token in reversed(tokens[:2])]
        assert record.of("user_data", "key") == expected
        ops[2].cancel()
        assert record.lines() == []  # it is not sent yet
        engine.submit()
        assert record.of("ring", "user_data", "key") == [
            (engine._carrier.ring.fileno(), tokens[2] | ANSWER, tokens[2])
        ]
        last = engine.read(pipe.fileno(), 1)
        engine.submit()
        assert engine._stop(last)
        assert record.of("mechanism", "key") == [("sync_cancel", last.token)]


def test_a_batch_is_one_write(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []
    write = os.write

    def counted(fd: int, data: Any) -> int:
        writes.append(len(data))
        return write(fd, data)

    with open_engine("uring") as engine, BlockedPipe() as pipe:
        ops = [engine.poll(pipe.fileno(), select.POLLIN) for _ in range(1500)]
        engine.submit()
        record.lines()
        monkeypatch.setattr(os, "write", counted)
        engine.cancel(ops)
        assert len(record.lines()) == 1500
        assert len(writes) == 2  # batches of 1,024


def test_linux_aio(record: Record) -> None:
    real("libaio").close()
    with BlockedPipe() as pipe:
        record.lines()
        with libaio.Context() as context:
            first, second = (libaio.Iocb.poll(pipe.fileno(), select.POLLIN) for _ in range(2))
            context.submit([first, second])
            context.cancel(first)
            [line] = record.lines()
            assert line["context"] > 0
            assert (line["system"], line["mechanism"], line["key_kind"]) == ("libaio", "io_cancel", "iocb")
            assert (line["ring"], line["user_data"], line["flags"]) == (None, None, [])
        [again] = {each["key"] for each in record.lines()} - {line["key"]}  # by the closing
        assert again > 0
        with open_engine("libaio") as engine:
            op = engine.poll(pipe.fileno(), select.POLLIN)
            engine.submit()
            op.cancel()
            assert op.wait(BOUND) is Outcome.CANCELLED
            lines = record.lines()
            assert len([each for each in lines if each["mechanism"] == "io_cancel"]) == 1


def test_posix_aio(record: Record) -> None:
    real("posix_aio").close()
    record.lines()
    with BlockedPipe() as pipe:
        fd = pipe.fileno()
        assert posix_aio.aio_cancel(fd) is posix_aio.CancelStatus.ALLDONE
        assert record.of(*WHAT) == [("aio_cancel", None, "fd", fd, fd, None, [])]
        blocks = [posix_aio.Aiocb(fd, bytearray(1)) for _ in range(2)]
        for block in blocks:
            posix_aio.aio_read(block)
        posix_aio.aio_cancel(fd, blocks[1])
        [(kind, key, number)] = record.of("key_kind", "key", "fd")
        assert (kind, number) == ("aiocb", fd)
        assert key > 0
        pipe.write(b"xx")
        posix_aio.aio_suspend(blocks, BOUND)
        for block in blocks:
            while posix_aio.aio_error(block) == errno.EINPROGRESS:
                posix_aio.aio_suspend([block], BOUND)
