"""The library's own record: each cancel request that it sends is one line, and off it leaves no trace."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import iocancel
from iocancel import Outcome, _record, libaio, open_engine, posix_aio, record_to
from iocancel.operation import ANSWER
from iocancel.testing import BlockedPipe
from iocancel.uring import CancelFlags, Opcode, PollFlags, Ring, probe

from ..operation.helpers import real, running
from ..support import BOUND, few, leaving_nothing

FIELDS = [
    *("time", "pid", "tid", "system", "mechanism", "ring", "context"),
    *("user_data", "key_kind", "key", "fd", "opcode", "flags"),
]


class Record:
    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self) -> list[dict[str, Any]]:
        """What came since the last call."""
        found = [json.loads(line) for line in self.path.read_text().splitlines()]
        os.truncate(self.path, 0)
        for line in found:
            assert list(line) == FIELDS
        return found

    def of(self, *names: str) -> list[tuple[Any, ...]]:
        return [tuple(line[name] for name in names) for line in self.lines()]


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    real("uring").close()
    probe.cancel_flags()  # cancels something, once a process
    probe.sync_cancel_works()
    probe.sync_opcode_works()
    with leaving_nothing():
        made = Record(tmp_path / "record")
        record_to(made.path)
        assert made.lines() == []
        yield made
        record_to(None)


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


# Anywhere


def test_lines_of_many_threads_do_not_mix(record: Record) -> None:
    rounds = few(100)

    def work() -> None:
        with Ring(64) as ring:
            for _ in range(rounds):
                ring.prep_cancel64_many(range(50), 7)
                ring.submit_and_reap(50)

    with running(work, work, work):
        pass
    found = record.lines()
    assert len(found) == 3 * rounds * 50
    assert len({line["tid"] for line in found}) == 3


def test_in_a_signal_handler_and_from_another_thread(
    record: Record, handler: Callable[[Callable[[], object]], None]
) -> None:
    with open_engine("uring") as engine, BlockedPipe() as pipe:
        record.lines()
        op = engine.read(pipe.fileno(), 1)
        engine.submit()
        handler(lambda: engine._stop(op))
        signal.raise_signal(signal.SIGUSR1)
        assert op.wait(BOUND) is Outcome.CANCELLED
        assert record.of("mechanism", "key") == [("sync_cancel", op.token)]


def test_a_forked_child_goes_on_with_its_own_number(record: Record) -> None:
    child = os.fork()
    if not child:
        code = 1
        try:
            with Ring(8) as ring:
                ring.submit_cancel64(1, 2, n=1)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert record.of("pid", "key") == [(child, 1)]


# On and off


def test_off_the_calls_are_c_s_own(tmp_path: Path) -> None:
    assert _record._points
    for point in _record._points:
        assert point.namespace[point.name] is point.call
    record_to(tmp_path / "one")
    for point in _record._points:
        assert point.namespace[point.name] is not point.call
    record_to(tmp_path / "two")
    with Ring(8) as ring:
        ring.submit_cancel64(1, 2, n=1)
    record_to(None)
    for point in _record._points:
        assert point.namespace[point.name] is point.call
    assert (tmp_path / "one").read_bytes() == b""
    assert (tmp_path / "two").read_bytes().count(b"\n") == 1


def test_each_call_that_cancels_is_joined() -> None:
    """No module has a call that cancels and is not recorded."""
    source = Path(iocancel.__file__).parent
    calls = [
        *("ioc_cancel_many", "ioc_cancel_one", "ioc_push_many", "ioc_sync_cancel"),
        *("ioc_laio_cancel", "ioc_laio_cancel_many", "ioc_laio_cancel_each", "ioc_aio_cancel"),
    ]
    for path in source.rglob("*.py"):
        if path.name == "_record.py" or path.parts[-2] in ("doctor", "demo"):
            continue
        text = path.read_text()
        for call in calls:
            bare = text.replace(f"    return int(lib.{call}(", "")  # of a function that is joined
            assert f"lib.{call}(" not in bare, f"{path} calls {call} by itself"
            if f"lib.{call}" in text:
                assert "_record.join(globals()" in text


def test_a_file_that_can_t_be_opened_changes_nothing(record: Record, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        record_to(tmp_path / "no" / "such")
    with Ring(8) as ring:
        ring.submit_cancel64(1, 2, n=1)
    assert record.of("key") == [(1,)]


def test_a_full_disk_is_told_once_and_stops_no_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: told.append((report.exc_value, report.err_msg)))
    record_to("/dev/full")
    try:
        with open_engine("uring") as engine, BlockedPipe() as pipe:
            for _ in range(3):
                op = engine.read(pipe.fileno(), 1)
                op.cancel()
                engine.submit()
                op = engine.read(pipe.fileno(), 1)
                engine.submit()
                op.cancel()
                assert op.wait(BOUND) is Outcome.CANCELLED
    finally:
        record_to(None)
    [(error, text)] = told
    assert error.errno == errno.ENOSPC
    assert text == "The record of cancels ends here"


PROGRAM = """
import iocancel
with iocancel.open_engine("uring") as engine:
    op = engine.timeout(100.0)
    engine.submit()
    op.cancel()
    op.wait()
    print(op.token)
"""


def test_by_the_environment(tmp_path: Path) -> None:
    real("uring").close()
    path = tmp_path / "record"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env={**os.environ, "IOCANCEL_RECORD": str(path)},
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=True,
    )
    keys = [json.loads(line)["key"] for line in path.read_text().splitlines()]
    assert keys.count(int(done.stdout)) == 1


def test_a_wrong_path_in_the_environment_is_a_warning(tmp_path: Path) -> None:
    real("uring").close()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "IOCANCEL_RECORD": str(tmp_path / "no" / "such")},
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=True,
    )
    assert "RuntimeWarning: IOCANCEL_RECORD: no record is made: [Errno 2]" in done.stderr
    assert done.stdout.strip().isdigit()
