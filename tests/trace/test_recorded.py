"""What programs on this library write down of their cancels, joined to what the kernel tells of them."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from iocancel.trace.events import Cancel
from iocancel.trace.join import Joiner
from iocancel.trace.recorded import Recorded
from iocancel.uring import CancelFlags, Opcode

from .test_command import run

SECOND = 1_000_000_000


def line(time: int, user_data: int | None, **more: Any) -> bytes:
    said = {
        "time": time,
        "pid": 10,
        "tid": 11,
        "mechanism": "async_cancel",
        "user_data": user_data,
        "key": 7,
        "fd": None,
        "flags": [],
        **more,
    }
    return json.dumps(said).encode() + b"\n"


def cancel(time: int, user_data: int | None, **more: Any) -> Cancel:
    said: dict[str, Any] = {"pid": 10, "tid": 11, "mechanism": "async_cancel", **more}
    return Cancel(time=time, comm="x", system="uring", user_data=user_data, **said)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "record"


def test_each_line_belongs_to_one(path: Path) -> None:
    path.write_bytes(line(1, 5, key=1))
    with Recorded(path) as recorded:
        with path.open("ab") as file:
            file.write(line(10, 5, key=2) + line(20, 5, key=3) + line(15, 6, flags=["FD", "ALL"], fd=4))
        recorded.read()
        assert recorded.of(cancel(11, 5)).key == 2, "what was there before is of earlier"
        assert recorded.of(cancel(12, 5)).key is None, "the next was written down later than that"
        assert recorded.of(cancel(21, 5)).key == 3
        assert recorded.of(cancel(22, 5)).key is None
        found = recorded.of(cancel(30, 6))
        assert (found.fd, found.flags) == (4, int(CancelFlags.FD | CancelFlags.ALL))
        assert recorded.of(cancel(40, 6, pid=12)).fd is None, "another process's"


def test_a_synchronous_one_is_its_threads(path: Path) -> None:
    with Recorded(path) as recorded:
        path.write_bytes(line(10, None, mechanism="sync_cancel", key=2))
        recorded.read()
        assert recorded.of(cancel(11, None, mechanism="sync_cancel", tid=99)).key is None
        assert recorded.of(cancel(11, None, mechanism="sync_cancel")).key == 2


def test_half_a_line(path: Path) -> None:
    """Somebody writes while it is read."""
    whole = line(10, 5)
    with Recorded(path) as recorded:
        path.write_bytes(whole[:20])
        recorded.read()
        assert recorded.of(cancel(11, 5)).key is None
        path.write_bytes(whole)
        recorded.read()
        assert recorded.of(cancel(11, 5)).key == 7


def test_what_was_never_sent_is_forgotten(path: Path) -> None:
    with Recorded(path) as recorded:
        path.write_bytes(line(0, 5, key=1) + line(59 * SECOND, 5, key=2))
        recorded.read()
        assert recorded.of(cancel(60 * SECOND, 5)).key == 2


def test_a_file_that_can_t_be(tmp_path: Path, tracefs: Path, namespaces: None) -> None:
    done = run("--record", str(tmp_path), "--duration", "0")
    assert done.returncode == 2
    assert done.stderr == f"iocancel trace: {tmp_path}: Is a directory\n"


def test_from_end_to_end(path: Path, tracefs: Path, namespaces: None) -> None:
    """The engine's cancels by user_data, a ring's by fd, a synchronous one: as they were asked for."""
    program = """
        import os
        from iocancel import open_engine
        from iocancel.uring import CancelFlags, Ring
        reader, _ = os.pipe()
        with open_engine("uring") as engine:
            read = engine.read(reader, 8)
            engine.submit()
            read.cancel()
            read.wait()
            print(read.token)
        with Ring(8) as ring:
            polls = [ring.get_sqe() for _ in range(2)]
            for i, sqe in enumerate(polls):
                sqe.prep_poll_add(reader, 1)
                sqe.user_data = 100 + i
            sqe = ring.get_sqe()
            sqe.prep_cancel_fd(reader, CancelFlags.ALL)
            sqe.user_data = 200
            ring.submit()
            ring.wait(3)
        print(reader)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = run("--json", "--no-ebpf", "--record", str(path), "--", *command)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    token, reader = (int(each) for each in said if each.isdigit())
    found = {each["user_data"]: each for each in told(said)}
    ours, by_fd = found[token | 1 << 62], found[200]
    assert (ours["key"], ours["flags"], ours["verdict"]) == (token, 0, "cancelled")
    assert (by_fd["fd"], by_fd["flags"]) == (reader, int(CancelFlags.FD | CancelFlags.ALL))
    assert len(by_fd["targets"]) == 2


def told(lines: list[str]) -> list[dict[str, Any]]:
    """The cancels among what was printed."""
    return [each for each in (json.loads(one) for one in lines if one.startswith("{")) if "mechanism" in each]


def test_without_it_nothing_is_known(tracefs: Path, namespaces: None) -> None:
    program = """
        import os
        from iocancel import open_engine
        with open_engine("uring") as engine:
            engine.read(os.pipe()[0], 8)
            engine.submit()
    """
    done = run("--json", "--no-ebpf", "--", sys.executable, "-c", textwrap.dedent(program))
    assert done.returncode == 0, done.stderr
    found = told(done.stdout.splitlines())
    assert {each["mechanism"] for each in found} >= {"async_cancel"}
    assert {each["key"] for each in found} == {None}


def test_what_is_no_line(path: Path) -> None:
    """The rest of one that was not finished, with the next behind it."""
    with Recorded(path) as recorded:
        path.write_bytes(b'{"time": 1, "pi' + line(5, 5) + b"7\n" + line(6, 5, key=8))
        recorded.read()
        assert recorded.of(cancel(10, 5)).key == 8


def test_what_nobody_asks_for_is_dropped(path: Path) -> None:
    with Recorded(path) as recorded:
        path.write_bytes(b"".join(line(i * SECOND, i) for i in range(30_000)))
        recorded.read()
        assert len(recorded._lines) < 100
        path.write_bytes(b"")
        os.lseek(recorded._fd, 0, os.SEEK_SET)
        path.write_bytes(line(1, None, mechanism="aio_cancel", system="posix_aio"))
        recorded.read()
        assert all(mechanism != "aio_cancel" for mechanism, *_ in recorded._lines)


def test_in_the_order_of_their_requests(path: Path) -> None:
    """Not in that in which they are whole: the first one waits for its target's ending."""
    found: list[Cancel] = []
    joiner = Joiner(found.append, lambda _: (10, "x"), lambda _: None)
    with Recorded(path) as recorded:
        path.write_bytes(line(1, 0, key=1) + line(1, 0, key=2))
        recorded.read()
        joiner.recorded = recorded.of
        joiner.submit(10, 11, 0x1, 0x20, 0, int(Opcode.ASYNC_CANCEL), 0)
        joiner.submit(20, 11, 0x1, 0x21, 0, int(Opcode.ASYNC_CANCEL), 0)
        joiner.complete(30, 11, 0x1, 0x20, 0, 0, 0)
        joiner.complete(40, 11, 0x1, 0x21, 0, -2, 0)
        joiner.advance(10 * SECOND)
    assert [(each.result, each.key) for each in found] == [(-2, 2), (0, 1)]
