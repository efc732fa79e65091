"""File objects for the standard library: what is built on them ends, and goes on."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from iocancel import BufferedReader, CancelScope, RawFile, move_on_after
from iocancel.pool import Pool

from .streams_stage import Pipe, Thread, when_waiting
from .streams_stage import engine as engine
from .streams_stage import pipe as pipe

pytestmark = pytest.mark.usefixtures("engine")


# Raw files


def test_a_raw_file(pipe: Pipe) -> None:
    with RawFile(pipe.r) as file:
        assert (file.readable(), file.writable(), file.seekable(), file.isatty()) == (
            True,
            False,
            False,
            False,
        )
        assert (file.mode, file.name, file.fileno()) == ("rb", pipe.r, pipe.r)
        assert repr(file) == f"<RawFile fd={pipe.r} mode='rb'>"
        pipe.put(b"hello")
        assert file.read(2) == b"he"
        assert file.readinto(bytearray()) == 0
        with pytest.raises(io.UnsupportedOperation, match="not opened for writing"):
            file.write(b"x")
        pipe.close_write()
        assert file.readall() == b"llo"
        assert file.read(1) == b""
    assert file.closed
    for call in (file.readable, file.fileno, file.tell, lambda: file.read(1)):
        with pytest.raises(ValueError, match="closed"):
            call()
    with pytest.raises(OSError):
        os.fstat(pipe.r)


def test_arguments(pipe: Pipe) -> None:
    with pytest.raises(ValueError, match="mode takes rb, wb"):
        RawFile(pipe.r, "r")
    with pytest.raises(ValueError, match="timeout"):
        RawFile(pipe.r, timeout=-1)
    with pytest.raises(TypeError, match="an object with fileno"):
        RawFile("name")
    with RawFile(pipe.r) as file, pytest.raises(ValueError, match="buffer_size"):
        BufferedReader(file, 0)


def test_who_closes(pipe: Pipe) -> None:
    RawFile(pipe.r, closefd=False).close()
    os.fstat(pipe.r)
    made = [RawFile(pipe.r)]
    with pytest.warns(ResourceWarning, match="unclosed <RawFile fd="):
        made.clear()
    with pytest.raises(OSError):
        os.fstat(pipe.r)


def test_a_disks_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\nthree\n")
    with open(path, "r+b", buffering=0) as plain, RawFile(plain, "r+b") as file:
        assert file.name == plain.fileno()
        assert file.seekable()
        assert file.read(4) == b"one\n"
        assert file.tell() == 4
        reader = BufferedReader(file)
        assert reader.readline() == b"two\n"
        assert (reader.tell(), file.tell()) == (8, 8)
        assert reader.seek(-4, os.SEEK_CUR) == 4
        assert reader.read() == b"two\nthree\n"
        assert reader.seek(4) == 4
        file.seek(0, os.SEEK_END)
        assert file.write(b"four\n") == 5
    assert path.read_bytes() == b"one\ntwo\nthree\nfour\n"


def test_deadlines(engine: Pool, pipe: Pipe) -> None:
    with RawFile(pipe.r, timeout=0.01) as file:
        with pytest.raises(TimeoutError):
            file.read(1)
        file.timeout = None
        with move_on_after(0.01) as scope:
            file.read(1)
        assert scope.cancelled_caught
        stop = CancelScope()

        def work() -> None:
            with stop:
                io.BufferedReader(file).read1()

        thread = Thread(work)
        when_waiting(engine)
        stop.cancel()
        thread.ended()
        assert stop.cancelled_caught


@pytest.mark.parametrize("make", [io.BufferedReader, BufferedReader])
def test_a_close_ends_who_reads(engine: Pool, pipe: Pipe, make: Callable[[RawFile], Any]) -> None:
    raw = RawFile(pipe.r)
    reader = make(raw)
    thread = Thread(lambda: reader.read(10))
    when_waiting(engine)
    raw.close()
    with pytest.raises(ValueError, match="closed"):
        thread.ended()
    with pytest.raises(ValueError, match="closed"):
        reader.read(1)


def test_writing(pipe: Pipe) -> None:
    with RawFile(pipe.w, "wb", timeout=0.01, closefd=False) as raw:
        assert raw.writable()
        out = io.BufferedWriter(raw, 100)
        pickle.dump(list(range(1000)), out)
        out.flush()
        got = os.read(pipe.r, 65536)
        assert pickle.loads(got) == list(range(1000))
        # A full pipe: what could not be written is written later, once.
        os.set_blocking(pipe.r, False)
        full = 0
        with contextlib.suppress(TimeoutError):
            while True:
                full += raw.write(bytes(4096))
        out.write(b"last")
        with pytest.raises(TimeoutError):
            out.flush()
        while full:
            full -= len(os.read(pipe.r, full))
        out.close()
    assert os.read(pipe.r, 100) == b"last"
    os.close(pipe.r)


# Buffered reading


@pytest.fixture
def reader(pipe: Pipe) -> Iterator[BufferedReader]:
    with BufferedReader(RawFile(pipe.r, timeout=0)) as made:
        yield made


def test_each_way_of_reading(pipe: Pipe, reader: BufferedReader) -> None:
    pipe.put(b"0123456789one\ntwo\nthree\nfour\nfive")
    assert reader.peek()[:3] == b"012"
    assert reader.read(2) == b"01"
    assert reader.read1(2) == b"23"
    assert reader.read(0) == reader.read1(0) == b""
    buffer = bytearray(3)
    assert (reader.readinto(buffer), bytes(buffer)) == (3, b"456")
    assert (reader.readinto1(buffer), bytes(buffer)) == (3, b"789")
    assert reader.readline(2) == b"on"
    assert reader.readline() == b"e\n"
    assert next(reader) == b"two\n"
    assert reader.readlines(3) == [b"three\n"]
    pipe.close_write()
    assert list(reader) == [b"four\n", b"five"]
    assert reader.read() == reader.readline() == reader.read1() == reader.peek() == b""
    assert reader.readlines() == []
    assert (reader.fileno(), reader.name, reader.mode) == (pipe.r, pipe.r, "rb")
    assert (reader.readable(), reader.seekable(), reader.isatty()) == (True, False, False)
    assert repr(reader).startswith("<BufferedReader of <RawFile")


CALLS: list[Callable[[Any], object]] = [
    lambda file: file.read(7),
    lambda file: file.read(),
    lambda file: file.readline(),
    lambda file: file.readlines(),
    lambda file: file.readinto(bytearray(7)),
]
LINES = b"th\nree"


@pytest.mark.parametrize("call", CALLS, ids=["read", "read-all", "readline", "readlines", "readinto"])
def test_nothing_is_taken_by_what_raises(pipe: Pipe, reader: BufferedReader, call: Any) -> None:
    for part in (b"o", b"n", b"e"):
        pipe.put(part)
        with pytest.raises(TimeoutError):
            call(reader)
        with CancelScope() as scope:
            scope.cancel()
            call(reader)
    pipe.close_write()
    assert reader.read() == b"one"


@pytest.mark.parametrize("call", [CALLS[0], CALLS[2], CALLS[4]], ids=["read", "readline", "readinto"])
def test_the_standard_one_drops_what_it_had_taken(pipe: Pipe, call: Any) -> None:
    """So that we learn of it when CPython does no longer: the docstrings say so."""
    with io.BufferedReader(RawFile(pipe.r, timeout=0)) as file:
        pipe.put(b"one")
        with pytest.raises(TimeoutError):
            call(file)
        pipe.close_write()
        assert file.read() != b"one"


def test_the_standard_one_keeps_all_where_it_reads_all(pipe: Pipe) -> None:
    """It asks the raw file for all of it."""
    with io.BufferedReader(RawFile(pipe.r, timeout=0)) as file:
        pipe.put(b"one")
        with pytest.raises(TimeoutError):
            file.read()
        pipe.close_write()
        assert file.read() == b"one"


@pytest.mark.parametrize("name", ["read1", "peek", "readinto1"])
def test_the_standard_one_is_safe_there(pipe: Pipe, name: str) -> None:
    with io.BufferedReader(RawFile(pipe.r, timeout=0)) as file:
        argument: Any = bytearray(7) if name == "readinto1" else 7
        with pytest.raises(TimeoutError):
            getattr(file, name)(argument)
        pipe.put(b"one")
        pipe.close_write()
        assert file.read() == b"one"


def test_the_standard_text_file_drops_the_part_of_a_line(pipe: Pipe, reader: BufferedReader) -> None:
    with io.TextIOWrapper(reader, encoding="utf-8") as file:
        pipe.put(b"one\ntw")
        assert file.readline() == "one\n"
        with pytest.raises(TimeoutError):
            file.readline()
        pipe.put(b"o\n")
        assert file.readline() != "two\n"


def test_pickles(pipe: Pipe, reader: BufferedReader) -> None:
    pipe.put(pickle.dumps({"a": 1}) + pickle.dumps([2])[:-1])
    assert pickle.load(reader) == {"a": 1}
    with pytest.raises(TimeoutError):
        pickle.load(reader)


def test_one_reader_at_a_time(engine: Pool, pipe: Pipe, reader: BufferedReader) -> None:
    reader.raw.timeout = None
    thread = Thread(lambda: reader.read(3))
    when_waiting(engine)
    with pytest.raises(RuntimeError, match="another call is receiving already"):
        reader.read(1)
    pipe.put(b"one")
    assert thread.ended() == b"one"


def test_detached(pipe: Pipe) -> None:
    reader = BufferedReader(RawFile(pipe.r))
    pipe.put(b"onetwo")
    assert reader.read(3) == b"one"
    with reader.detach() as raw:
        assert raw.read(3) == b"two"  # what was read ahead is the raw file's
    with pytest.raises(ValueError, match="detached"):
        reader.read(1)


def test_another_raw_file(pipe: Pipe) -> None:
    os.set_blocking(pipe.r, False)
    with BufferedReader(open(pipe.r, "rb", buffering=0)) as reader:
        pipe.put(b"one")
        for _ in range(2):
            with pytest.raises(BlockingIOError):
                reader.readline()
        pipe.put(b"\n")
        assert reader.readline() == b"one\n"


def test_a_disks_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\n")
    with BufferedReader(open(path, "rb", buffering=0)) as reader:
        assert reader.readline() == b"one\n"
        assert reader.tell() == 4
        assert reader.seek(-4, os.SEEK_CUR) == 0
        assert reader.read() == b"one\ntwo\n"
    with pytest.raises(OSError, match="not readable"), open(path, "ab", buffering=0) as writer:
        BufferedReader(writer)


def test_a_lot(pipe: Pipe, reader: BufferedReader) -> None:
    reader.raw.timeout = None
    data = os.urandom(2_000_000)

    def write() -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(pipe.w, view) :]
        pipe.close_write()

    thread = Thread(write)
    assert reader.read(1_000_000) + b"".join(reader) == data
    thread.ended()
