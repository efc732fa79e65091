"""Reads and writes, run."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from iocancel.uring import Cqe, Ring


@pytest.fixture
def file(no_file_is_left_open: None, tmp_path: Path) -> Any:
    with open(tmp_path / "file", "w+b", buffering=0) as file:
        file.write(b"0123456789")
        file.seek(0)
        yield file


def test_a_read_at_an_offset_and_one_at_the_file_s_position(go: Any, file: Any) -> None:
    buffer = bytearray(4)
    assert go.ok("read", file, buffer, 3) == 4
    assert buffer == b"3456"
    assert go.ok("read", file.fileno(), buffer) == 4
    assert buffer == b"0123"
    assert file.tell() == 4
    assert go.ok("read", file, buffer, 10) == 0


def test_writes(go: Any, file: Any) -> None:
    assert go.ok("write", file, b"ab", 1) == 2
    assert go.ok("write", file, memoryview(b"xyz")[1:]) == 2
    file.seek(0)
    assert file.read() == b"yzb3456789"


def test_vectors(go: Any, file: Any) -> None:
    first, second = bytearray(2), bytearray(3)
    assert go.ok("readv", file, [first, second], 1) == 5
    assert first + second == b"12345"
    assert go.ok("readv2", file, [first], 6) == 2
    assert first == b"67"
    assert go.ok("writev", file, [b"a", b"", b"bc"], 0) == 3
    assert go.ok("writev2", file, [b"end"], 0, os.RWF_APPEND) == 3
    file.seek(0)
    assert file.read() == b"abc3456789end"


def test_flags_are_passed_on(go: Any, file: Any) -> None:
    cqe = go("readv2", file, [bytearray(1)], 0, 1 << 30)
    assert cqe.res in (-errno.EOPNOTSUPP, -errno.EINVAL)


def test_registered_buffers(go: Any, ring: Ring, file: Any) -> None:
    zero, one = bytearray(4096), bytearray(4096)
    ring.register_buffers([zero, one])
    assert go.ok("read_fixed", file, memoryview(one)[8:12], 2, 1) == 4
    assert one[8:12] == b"2345"
    one[:3] = b"new"
    assert go.ok("write_fixed", file, memoryview(one)[:3], 0, 1) == 3
    assert go("read_fixed", file, bytearray(4096), 0, 1).res == -errno.EFAULT
    assert go("write_fixed", file, one, 0, 2).res == -errno.EFAULT
    file.seek(0)
    assert file.read() == b"new3456789"


def test_vectors_of_registered_buffers(go: Any, ring: Ring, file: Any) -> None:
    buffer = bytearray(4096)
    ring.register_buffers([buffer])
    view = memoryview(buffer)
    assert go.ok("readv_fixed", file, [view[:2], view[4:6]], 0) == 4
    assert buffer[:6] == b"01\0\x0023"
    assert go.ok("writev_fixed", file, [view[4:6], view[:2]], 0) == 4
    file.seek(0)
    assert file.read() == b"2301456789"


def test_a_read_into_a_group(go: Any, file: Any) -> None:
    group = go.group(4, 64)
    cqe: Cqe = go("read", file, None, 2, buf_group=7)
    assert cqe.check() == 8
    assert group.take(cqe) == b"23456789"
    assert group.take(go("read", file, None, 2, nbytes=3, buf_group=7)) == b"234"
    assert go("read", file, None, buf_group=8).res == -errno.ENOBUFS


def test_a_multishot_read(go: Any) -> None:
    group = go.group(4, 64)
    reader, writer = os.pipe()
    try:
        number = go.start("read_multishot", reader, 0, -1, 7)
        for word in (b"one", b"two"):
            os.write(writer, word)
            [cqe] = go.wait()
            assert cqe.more
            assert group.take(cqe) == word
        cqe = go.cancel(number)
        assert (cqe.res, cqe.more) == (-errno.ECANCELED, False)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_read_of_a_pipe_that_is_cancelled(go: Any) -> None:
    reader, writer = os.pipe()
    try:
        buffer = bytearray(8)
        number = go.start("read", reader, buffer)
        with pytest.raises(BufferError):
            buffer.clear()
        assert go.cancel(number).res == -errno.ECANCELED
        buffer.clear()
        os.write(writer, b"kept")
        assert os.read(reader, 8) == b"kept"
    finally:
        os.close(reader)
        os.close(writer)
