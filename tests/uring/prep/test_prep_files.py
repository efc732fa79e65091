"""Files, names, data and advice, run."""

import array
import errno
import mmap
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iocancel.errors import FeatureUnavailable
from iocancel.uring import FsyncFlags, Ring, SqeFlags
from iocancel.uring.prep_help import AT_FDCWD

AT_REMOVEDIR, AT_EMPTY_PATH, STATX_SIZE, RESOLVE_BENEATH = 0x200, 0x1000, 0x200, 0x08


@pytest.fixture
def folder(no_file_is_left_open: None, tmp_path: Path) -> Iterator[int]:
    (tmp_path / "file").write_bytes(b"0123456789")
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def file(no_file_is_left_open: None, tmp_path: Path) -> Iterator[Any]:
    with open(tmp_path / "open", "w+b", buffering=0) as file:
        file.write(b"0123456789")
        yield file


@pytest.fixture
def slots(ring: Ring, no_file_is_left_open: None) -> Ring:
    ring.register_files([-1] * 4)
    return ring


def read_all(fd: int) -> bytes:
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


def read_slot(ring: Ring, slot: int) -> bytes:
    """What a registered file has."""
    buffer = bytearray(32)
    sqe = ring.get_sqe()
    sqe.prep_read(slot, buffer, 0)
    sqe.flags = SqeFlags.FIXED_FILE
    ring.submit()
    [cqe] = ring.wait(1, timeout=20)
    return bytes(buffer[: cqe.check()])


def test_open_and_close(go: Any, folder: int, tmp_path: Path) -> None:
    assert read_all(go.ok("openat", folder, "file", os.O_RDONLY | os.O_CLOEXEC)) == b"0123456789"
    assert read_all(go.ok("openat", AT_FDCWD, tmp_path / "file", os.O_RDONLY)) == b"0123456789"
    assert read_all(go.ok("open", os.fsencode(tmp_path / "file"), os.O_RDONLY)) == b"0123456789"
    made = go.ok("open", tmp_path / "new", os.O_CREAT | os.O_WRONLY, 0o640)
    assert stat.S_IMODE(os.fstat(made).st_mode) & 0o600 == 0o600
    assert go.ok("close", made) == 0
    with pytest.raises(OSError):
        os.fstat(made)
    assert go("close", made).res == -errno.EBADF
    with pytest.raises(FileNotFoundError):
        go("open", tmp_path / "none", os.O_RDONLY).check()


def test_openat2(go: Any, folder: int) -> None:
    assert read_all(go.ok("openat2", folder, "file", os.O_RDONLY, 0, RESOLVE_BENEATH)) == b"0123456789"
    assert go("openat2", folder, "../x", os.O_RDONLY, 0, RESOLVE_BENEATH).res == -errno.EXDEV


def test_opens_into_the_registered_files(go: Any, slots: Ring, folder: int, tmp_path: Path) -> None:
    assert go.ok("openat_direct", folder, "file", os.O_RDONLY, 0, 2) == 0
    assert read_slot(slots, 2) == b"0123456789"
    assert go.ok("open_direct", tmp_path / "file", os.O_RDONLY, 0, 0) == 0
    try:
        free = go("openat2_direct", folder, "file", os.O_RDONLY).check()
    except FeatureUnavailable as error:
        pytest.skip(str(error))
    assert free in (1, 3)
    assert read_slot(slots, free) == b"0123456789"
    assert {go("open_direct", tmp_path / "file", os.O_RDONLY, 0).res, free} == {1, 3}
    assert go("open_direct", tmp_path / "file", os.O_RDONLY, 0).res == -errno.ENFILE
    assert go.ok("close_direct", 2) == 0
    assert go("close_direct", 2).res == -errno.EBADF


def test_a_registered_file_gets_an_fd(go: Any, slots: Ring, folder: int) -> None:
    assert go.ok("openat_direct", folder, "file", os.O_RDONLY, 0, 2) == 0
    assert read_all(go.ok("fixed_fd_install", 2)) == b"0123456789"
    assert go("fixed_fd_install", 1).res == -errno.EBADF


def test_registered_files_are_changed(go: Any, slots: Ring, file: Any) -> None:
    assert go.ok("files_update", [file, -1], 1) == 2
    assert read_slot(slots, 1) == b"0123456789"
    assert go.ok("files_update", [-1], 1) == 1
    where = array.array("i", [file.fileno(), file.fileno()])
    cqe = go("files_update", where, -1)
    if cqe.res in (-errno.EINVAL, -errno.EOVERFLOW):
        pytest.skip("this kernel chooses no slots")
    assert cqe.res == 2
    assert len({*where}) == 2
    assert {*where} <= {*range(4)}
    assert go("files_update", [99999], 0).res == -errno.EBADF


def test_pipes(go: Any, slots: Ring) -> None:
    ends = array.array("i", [-1, -1])
    assert go.ok("pipe", ends, os.O_CLOEXEC) == 0
    reader, writer = ends
    os.write(writer, b"x")
    os.close(writer)
    assert read_all(reader) == b"x"
    assert go.ok("pipe_direct", ends, 0, 1) == 0
    assert go.ok("close_direct", 1) == go.ok("close_direct", 2) == 0
    assert go.ok("pipe_direct", ends) == 0
    assert {*ends} <= {*range(4)}


def test_names(go: Any, folder: int, tmp_path: Path) -> None:
    assert go.ok("mkdirat", folder, "one", 0o700) == 0
    assert go.ok("mkdir", tmp_path / "two") == 0
    assert go.ok("renameat", folder, "file", folder, "one/file") == 0
    assert go.ok("rename", tmp_path / "one/file", tmp_path / "two/file") == 0
    assert go.ok("linkat", folder, "two/file", None, tmp_path / "hard") == 0
    assert go.ok("link", tmp_path / "hard", tmp_path / "harder") == 0
    assert (tmp_path / "two/file").stat().st_nlink == 3
    assert go.ok("symlinkat", "hard", folder, "soft") == 0
    assert go.ok("symlink", "soft", tmp_path / "softer") == 0
    assert (tmp_path / "softer").read_bytes() == b"0123456789"
    assert go.ok("unlinkat", folder, "one", AT_REMOVEDIR) == 0
    assert go.ok("unlink", tmp_path / "softer") == 0
    assert sorted(os.listdir(folder)) == ["hard", "harder", "soft", "two"]
    with pytest.raises(FileExistsError):
        go("mkdir", tmp_path / "two").check()


def test_statx(go: Any, folder: int, file: Any) -> None:
    buffer = bytearray(256)
    assert go.ok("statx", folder, "file", 0, STATX_SIZE, buffer) == 0
    assert struct.unpack_from("=Q", buffer, 40) == (10,)
    file.truncate(77)
    assert go.ok("statx", file, "", AT_EMPTY_PATH, STATX_SIZE, buffer) == 0
    assert struct.unpack_from("=Q", buffer, 40) == (77,)


def test_extended_attributes(go: Any, file: Any, tmp_path: Path) -> None:
    cqe = go("setxattr", "user.one", b"first", tmp_path / "open")
    if cqe.res == -errno.EOPNOTSUPP:
        pytest.skip("this file system has no extended attributes, or this kernel none in io_uring")
    assert cqe.check() == 0
    assert go.ok("fsetxattr", file, "user.two", b"second", os.XATTR_CREATE) == 0
    value = bytearray(16)
    assert go.ok("getxattr", "user.two", value, tmp_path / "open") == 6
    assert value[:6] == b"second"
    assert go.ok("fgetxattr", file, "user.one", value) == 5
    assert value[:5] == b"first"
    assert go("fgetxattr", file, "user.one", bytearray()).res == 5
    assert go("fgetxattr", file, "user.one", bytearray(2)).res == -errno.ERANGE
    assert go("fgetxattr", file, "user.none", value).res == -errno.ENODATA


def test_lengths_and_syncs(go: Any, file: Any) -> None:
    assert go.ok("ftruncate", file, 5) == 0
    assert os.fstat(file.fileno()).st_size == 5
    cqe = go("fallocate", file, 0, 0, 8192)
    if cqe.res != -errno.EOPNOTSUPP:
        assert cqe.check() == 0
        assert os.fstat(file.fileno()).st_size == 8192
    assert go.ok("fsync", file) == go.ok("fsync", file, FsyncFlags.DATASYNC) == 0
    assert go("sync_file_range", file, 4096, 0, 2).check() == 0


def test_advice(go: Any, file: Any) -> None:
    assert go.ok("fadvise", file, 0, 4096, os.POSIX_FADV_WILLNEED) == 0
    assert go.ok("fadvise64", file, 0, 1 << 33, os.POSIX_FADV_NORMAL) == 0
    memory = mmap.mmap(-1, 3 * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[:] = b"x" * len(memory)
    middle = memoryview(memory)[mmap.PAGESIZE : 2 * mmap.PAGESIZE]
    assert go.ok("madvise", middle, mmap.MADV_DONTNEED) == 0
    assert memory[mmap.PAGESIZE - 1 : mmap.PAGESIZE + 1] == b"x\0"
    assert memory[2 * mmap.PAGESIZE - 1 : 2 * mmap.PAGESIZE + 1] == b"\0x"
    assert go.ok("madvise64", memory, mmap.MADV_DONTNEED) == 0
    assert bytes(memory) == bytes(len(memory))
    assert go("madvise", memoryview(memory)[1:], mmap.MADV_DONTNEED).res == -errno.EINVAL
    middle.release()
    memory.close()  # nothing pins it


def test_splice_and_tee(go: Any, file: Any) -> None:
    one, two = os.pipe(), os.pipe()
    try:
        assert go.ok("splice", file, 2, one[1], -1, 5) == 5
        assert go.ok("tee", one[0], two[1], 3) == 3
        assert os.read(two[0], 10) == b"234"
        # Not into the same file: the pipe holds the file's own page, and would copy it onto itself.
        assert go.ok("splice", one[0], -1, two[1], -1, 100) == 5
        assert os.read(two[0], 10) == b"23456"
        go.ring.register_files([file])
        assert go.ok("splice", 0, 1, one[1], -1, 3, fd_in_fixed=True) == 3
        assert os.read(one[0], 10) == b"123"
    finally:
        for end in (*one, *two):
            os.close(end)
