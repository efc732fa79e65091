"""The engine on POSIX AIO: what its verbs do, and what it does not have."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iocancel import FeatureUnavailable, Outcome, Reach
from iocancel.engines.posix_aio import PosixAioEngine
from iocancel.operation import VERBS, Engine

from .posix_aio_stage import GLIBC, ends, engine, nothing_left_behind, own_number, runs, sibling

__all__ = ["ends", "engine", "nothing_left_behind"]

Ends = Callable[[], tuple[int, int]]
HAS = {"read", "write", "fsync", "timeout"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    return path


def test_what_it_has(engine: PosixAioEngine) -> None:
    assert isinstance(engine, Engine)
    assert engine.name == "posix_aio"
    assert {name for name in VERBS if engine.supports(name)} == HAS
    assert engine.reach("accept") is None
    assert engine.reach("timeout") is Reach.TOTAL
    assert engine.reach("fsync") is Reach.NONE
    assert engine.reach("read") is (Reach.NONE if GLIBC else Reach.TOTAL)
    assert engine.reach("write") is (Reach.NONE if GLIBC else Reach.PARTIAL)


LACKING: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "accept": ("the uring and libaio engines have", lambda e: e.accept(0)),
    "poll": ("the uring and libaio engines have", lambda e: e.poll(0, 1)),
    "readv": ("the uring and libaio engines have", lambda e: e.readv(0, [bytearray(1)])),
    "openat": ("the uring engine has", lambda e: e.openat("/")),
    "send_zc": ("the uring engine has", lambda e: e.send_zc(0, b"x")),
}


@pytest.mark.parametrize("verb", LACKING)
def test_what_it_has_not(engine: PosixAioEngine, verb: str) -> None:
    there, call = LACKING[verb]
    with pytest.raises(FeatureUnavailable, match=f"posix_aio has no {verb}: {there}$") as caught:
        call(engine)
    assert caught.value.errno == errno.EOPNOTSUPP
    assert (caught.value.feature, caught.value.running) == (verb, "posix_aio")
    assert "uring" in caught.value.since
    assert engine.in_flight == 0


def test_multishots_it_has_not(engine: PosixAioEngine) -> None:
    with pytest.raises(FeatureUnavailable, match="posix_aio has no accept"), engine.accept_multishot(0):
        pass


def test_a_pipe(engine: PosixAioEngine, ends: Ends) -> None:
    read_end, write_end = ends()
    buffer = bytearray(8)
    first, second = engine.read(read_end, buffer), engine.read(read_end, 8)
    assert engine.submit() == 2
    assert engine.write(write_end, array.array("H", [0x6161, 0x6262])).wait() is Outcome.COMPLETED
    assert first.wait() is Outcome.COMPLETED
    assert (first.result(), bytes(buffer[:4])) == (4, b"aabb")
    buffer.append(0)  # it is the caller's again
    os.close(write_end)
    assert second.wait() is Outcome.COMPLETED
    assert second.result() == b""


def test_files_in_order(engine: PosixAioEngine, file: Path) -> None:
    """One after the other, so a sync comes after the write that it was asked for."""
    with file.open("r+b", buffering=0) as f:
        ops: list[Any] = [
            engine.write(f, b"ABC", 2),
            engine.fsync(f),
            engine.fsync(f, datasync=True),
            engine.read(f, 4, 1),
            engine.read(f, 4, 100),
            engine.read(f, 0, 0),
        ]
        engine.wait(ops)
        assert [op.result() for op in ops] == [3, None, None, b"1ABC", b"", b""]
        assert f.tell() == 0


def test_its_own_position(engine: PosixAioEngine, file: Path) -> None:
    with file.open("r+b", buffering=0) as f:
        ops = [engine.read(f, 3), engine.write(f, b"x"), engine.read(f, 2), engine.read(f, 100)]
        engine.wait(ops)
        assert [op.result() for op in ops] == [b"012", 1, b"45", b"6789"]
        assert f.tell() == 10
        f.seek(8)
        assert engine.read(f, 1).wait() is Outcome.COMPLETED
        assert f.tell() == 9
    assert file.read_bytes() == b"012x456789"


def test_its_own_position_at_the_end(engine: PosixAioEngine, file: Path) -> None:
    with file.open("ab", buffering=0) as f:
        f.seek(0)
        op = engine.write(f, b"xyz")
        assert op.wait() is Outcome.COMPLETED
        assert f.tell() == 13
    assert file.read_bytes() == b"0123456789xyz"


def test_what_was_cancelled_does_not_move_the_position(engine: PosixAioEngine, file: Path) -> None:
    with file.open("rb", buffering=0) as f:
        ops = [engine.read(f, 2) for _ in range(3)]
        ops[1].cancel()
        engine.wait(ops)
        assert ops[1].cancelled()
        assert [ops[0].result(), ops[2].result()] == [b"01", b"23"]
        assert f.tell() == 4


@pytest.mark.parametrize("offset", [-2, 1 << 63, 1 << 70])
def test_offsets_that_no_file_has(engine: PosixAioEngine, ends: Ends, offset: int) -> None:
    with pytest.raises(ValueError, match="offset takes -1 or 0 to"):
        engine.read(ends()[0], 1, offset)
    with pytest.raises(TypeError):
        engine.read(ends()[0], 1, 1.5)  # type: ignore[arg-type]
    assert engine.in_flight == 0


@pytest.mark.parametrize("buffer", [b"read-only", "text", memoryview(bytearray(8))[::2]])
def test_buffers_that_can_not_be_read_to(engine: PosixAioEngine, ends: Ends, buffer: Any) -> None:
    with pytest.raises(TypeError, match="writable, contiguous buffer"):
        engine.read(ends()[0], buffer)
    assert engine.in_flight == 0


def test_a_buffer_is_held_from_the_call_on(engine: PosixAioEngine, ends: Ends) -> None:
    buffer = bytearray(4)
    op = engine.read(ends()[0], buffer)
    with pytest.raises(BufferError):
        buffer.append(0)
    op.cancel()
    assert op.wait() is Outcome.CANCELLED
    buffer.append(0)


def test_failures(engine: PosixAioEngine, ends: Ends, tmp_path: Path) -> None:
    read_end, write_end = ends()
    for op, number in (
        (engine.write(read_end, b"x"), errno.EBADF),
        (engine.read(write_end, 1), errno.EBADF),
        (engine.fsync(write_end), errno.EINVAL),
        (engine.read(1 << 20, 1), errno.EBADF),
    ):
        assert op.wait() is Outcome.FAILED
        with pytest.raises(OSError) as caught:
            op.result()
        assert caught.value.errno == number
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        op = engine.read(folder, 1, 0)
        assert op.wait() is Outcome.FAILED
        assert isinstance(op.exception(), IsADirectoryError)
    finally:
        os.close(folder)


def test_a_reader_that_has_gone(engine: PosixAioEngine, ends: Ends) -> None:
    read_end, write_end = ends()
    os.close(read_end)
    op = engine.write(write_end, b"x")
    assert op.wait() is Outcome.FAILED
    assert isinstance(op.exception(), BrokenPipeError)


def test_both_directions_of_a_socket(engine: PosixAioEngine) -> None:
    """A read that blocks holds up no write, which it does in the C library: both have one number."""
    a, b = socket.socketpair()
    with a, b:
        reading = engine.read(a, 8)
        engine.submit()
        runs(reading)
        assert engine.write(a, b"out").wait() is Outcome.COMPLETED
        assert b.recv(8) == b"out"
        b.send(b"in")
        assert reading.wait() is Outcome.COMPLETED
        assert reading.result() == b"in"


def test_a_number_that_is_another_files(engine: PosixAioEngine, ends: Ends) -> None:
    """What is started on a number's next file does not wait behind what runs on the last one."""
    read_end, write_end = ends()
    old = [engine.read(read_end, 8) for _ in range(2)]
    engine.submit()
    runs(old[0])
    os.close(read_end)
    other, other_end = ends()
    assert other == read_end
    os.write(other_end, b"new")
    op = engine.read(other, 8)
    assert op.wait() is Outcome.COMPLETED
    assert op.result() == b"new"
    os.write(write_end, b"old")
    assert old[0].wait() is Outcome.COMPLETED
    os.write(write_end, b"too")
    assert old[1].wait() is Outcome.COMPLETED
    assert [each.result() for each in old] == [b"old", b"too"]


def test_nothing_of_a_file_is_kept_open_after_the_ending(engine: PosixAioEngine, ends: Ends) -> None:
    read_end, write_end = ends()
    assert engine.write(write_end, b"x").wait() is Outcome.COMPLETED
    os.close(write_end)
    assert os.read(read_end, 8) == b"x"
    assert os.read(read_end, 8) == b""  # the end: nobody else has the write end open


def test_the_locks_of_a_file_are_kept(engine: PosixAioEngine, file: Path) -> None:
    """Closing a duplicate would drop them (fcntl(2)): so there is none of a regular file."""
    with file.open("r+b", buffering=0) as f:
        fcntl.lockf(f, fcntl.LOCK_EX)
        engine.wait([engine.read(f, 4), engine.write(f, b"x"), engine.fsync(f)])
        seen = sibling(
            f"import fcntl\nf = open({str(file)!r}, 'r+b')\n"
            "try:\n    fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
            "except BlockingIOError:\n    print('locked')"
        )
        assert seen.stdout == "locked\n", seen.stderr


def test_a_regular_files_number_that_is_another_files(
    engine: PosixAioEngine, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for its turn is not done to the wrong file."""
    other = tmp_path / "other"
    other.write_bytes(b"untouched")
    number = os.open(file, os.O_RDWR)
    ops = [engine.write(number, b"x", 0), engine.write(number, b"y", 0)]
    move = engine._carrier._move

    def once(line: Any) -> None:
        # Between their being taken and the first's start.
        monkeypatch.setattr(engine._carrier, "_move", move)
        os.dup2(replacement, number)
        move(line)

    replacement = os.open(other, os.O_RDWR)
    monkeypatch.setattr(engine._carrier, "_move", once)
    try:
        engine.wait(ops)
        assert [op.outcome for op in ops] == [Outcome.FAILED] * 2
        with pytest.raises(OSError, match="closed, or is another file") as caught:
            ops[0].result()
        assert caught.value.errno == errno.EBADF
    finally:
        os.close(number)
        os.close(replacement)
    assert other.read_bytes() == b"untouched"


def test_timeouts(engine: PosixAioEngine) -> None:
    long, short, longer = engine.timeout(1000), engine.timeout(0.01), engine.timeout(2000)
    assert short.wait() is Outcome.COMPLETED
    assert short.result() is None
    assert not long.done()
    assert engine.cancel([long, longer]) == 2
    assert long.cancelled()
    assert longer.cancelled()


def test_many_timeouts_that_are_cancelled_are_forgotten(engine: PosixAioEngine) -> None:
    last = engine.timeout(1000)
    for _ in range(300):
        op = engine.timeout(500)
        engine.submit()
        engine.cancel([op])
        assert op.cancelled()
    engine.submit()
    assert len(engine._carrier._timers) < 100
    last.cancel()
    assert last.wait() is Outcome.CANCELLED


def test_more_files_than_there_are_threads(engine: PosixAioEngine, ends: Ends) -> None:
    """glibc has twenty threads; what waits for one is queued, and can be cancelled: nobody is stranded."""
    pipes = [ends() for _ in range(40)]
    ops = [engine.read(read_end, 4) for read_end, _ in pipes for _ in range(2)]
    engine.submit()
    heads = ops[::2]
    if GLIBC:
        for op in heads[:15]:  # what an earlier test has left to run may hold some of the twenty
            runs(op)
        assert engine.cancel(heads[20:]) == 20
        assert all(op.cancelled() for op in heads[20:])
    # Their successors are not stranded: they run as soon as a thread is free.
    for _, write_end in pipes:
        os.write(write_end, b"data" * 2)
    engine.wait([op for op in ops if not op.done()])
    assert {op.result() for op in ops if not op.cancelled()} == {b"data"}


def test_no_thread_for_it() -> None:
    """An error that says so, and no hang."""
    done = sibling(
        """
import os, resource
import iocancel.engines.posix_aio
from iocancel import QueueFull, open_engine
if os.getuid() == 0:
    os.setgroups([]), os.setgid(54322), os.setuid(54322)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
r, w = os.pipe()
with open_engine("posix_aio") as engine:
    op = engine.read(r, 1)
    print(op.wait().value)
    try:
        op.result()
    except QueueFull as error:
        print(error)
"""
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("failed\n")
    assert "could start no thread (RLIMIT_NPROC is 0" in done.stdout


def test_no_fd_for_it() -> None:
    done = sibling(
        """
import os, resource
from iocancel import EngineUnavailable, open_engine
open_engine("posix_aio").close()
r, w = os.pipe()
with open_engine("posix_aio") as engine:
    next = os.dup(0)
    os.close(next)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next, next))
    op = engine.read(r, 1)
    op.wait()
    print(op.exception().errno)
    try:
        open_engine("posix_aio")
    except EngineUnavailable as error:
        print(error.errno, "RLIMIT_NOFILE" in str(error))
"""
    )
    assert done.stdout == "24\n24 True\n", done.stderr


def test_numbers_of_its_own(engine: PosixAioEngine, ends: Ends) -> None:
    """Of a pipe the C library has a duplicate, which is closed at the ending."""
    read_end, write_end = ends()
    op = engine.read(read_end, 1)
    engine.submit()
    number = own_number(op)
    assert number != read_end
    assert os.path.sameopenfile(number, read_end)
    os.write(write_end, b"x")
    assert op.wait() is Outcome.COMPLETED
    with pytest.raises(OSError):
        os.fstat(number)
