"""How verbs fail: with the true errno, on every engine."""

from __future__ import annotations

import os
import socket
from array import array as words
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .helpers import ON_FILES, F, need_verbs, readable

NOWHERE = 1 << 19
"""A number that no file has."""


def fails(op: Any, kind: type[OSError], number: int) -> None:
    """It does, by a plain exception of its own kind."""
    assert op.wait() is F
    assert not op.cancelled()
    with pytest.raises(OSError) as raised:
        op.result()
    assert type(raised.value) is kind
    assert raised.value.errno == number
    assert op.exception() is raised.value
    assert not op.cancel()


@pytest.mark.parametrize("verb", ON_FILES)
def test_on_a_number_that_no_file_has(engine: Any, verb: str) -> None:
    need_verbs(engine, verb)
    fails(ON_FILES[verb](engine, NOWHERE), OSError, 9)


@pytest.mark.parametrize("verb", ON_FILES)
def test_on_a_file_that_was_closed_before_its_submit(engine: Any, verb: str, file: Any) -> None:
    """Looked up at the submit: EBADF, and whoever got the number meanwhile is not touched."""
    need_verbs(engine, verb)
    if verb == "close":
        pytest.skip("it takes a number, no file")
    here, there = os.pipe()
    with open(here, "rb", buffering=0) as reader:
        op = ON_FILES[verb](engine, reader)
        number = reader.fileno()
        reader.close()
        os.dup2(file.fileno(), number)
        try:
            fails(op, OSError, 9)
            assert op.verdict is None
            assert os.pread(number, 16, 0) == b"0123456789"
            assert file.tell() == 0
        finally:
            os.close(number)
            os.close(there)


@pytest.mark.parametrize("verb", ["splice", "tee"])
def test_the_source_was_closed_before_its_submit(
    engine: Any, verb: str, pipes: Callable[[], tuple[int, int]]
) -> None:
    """Both files are asked again: bytes of whoever has the number now stay where they are."""
    need_verbs(engine, verb)
    (source, _), (read_end, write_end), (other, other_write) = pipes(), pipes(), pipes()
    os.write(other_write, b"theirs")
    with open(source, "rb", buffering=0) as reader:
        op = getattr(engine, verb)(reader, write_end, 16)
    os.dup2(other, source)
    try:
        fails(op, OSError, 9)
    finally:
        os.close(source)
    assert readable(other) == 6
    assert readable(read_end) == 0


def test_the_folder_was_closed_before_its_submit(engine: Any, tmp_path: Path) -> None:
    need_verbs(engine, "openat")

    class Folder:
        number = os.open(tmp_path, os.O_PATH)

        def fileno(self) -> int:
            return self.number

    folder = Folder()
    op = engine.openat("new", os.O_WRONLY | os.O_CREAT, dir_fd=folder)
    os.close(folder.number)
    folder.number = -1
    fails(op, OSError, 9)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("verb", ["recv", "send", "recvmsg", "sendmsg", "accept", "connect"])
def test_no_socket(engine: Any, verb: str, pipe: tuple[int, int]) -> None:
    need_verbs(engine, verb)
    fails(ON_FILES[verb](engine, pipe[0]), OSError, 88)  # ENOTSOCK


def test_a_folder_is_not_read(engine: Any, tmp_path: Path) -> None:
    need_verbs(engine, "read")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        fails(engine.read(fd, 1), IsADirectoryError, 21)
    finally:
        os.close(fd)


def test_nobody_reads_the_pipe(engine: Any, pipe: tuple[int, int]) -> None:
    need_verbs(engine, "write")
    os.close(pipe[0])
    fails(engine.write(pipe[1], b"a"), BrokenPipeError, 32)


@pytest.mark.parametrize("verb", ["send", "sendmsg"])
def test_the_peer_is_gone(engine: Any, verb: str, pair: tuple[socket.socket, socket.socket]) -> None:
    """And no SIGPIPE kills the process."""
    need_verbs(engine, verb)
    pair[1].close()
    fails(ON_FILES[verb](engine, pair[0]), BrokenPipeError, 32)


def test_the_peer_resets(engine: Any, tcp: tuple[socket.socket, socket.socket]) -> None:
    need_verbs(engine, "recv")
    op = engine.recv(tcp[0], 1)
    engine.submit()
    tcp[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    tcp[1].close()
    fails(op, ConnectionResetError, 104)


def test_nobody_listens(engine: Any) -> None:
    need_verbs(engine, "connect")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    with socket.socket() as sock:
        fails(engine.connect(sock, address), ConnectionRefusedError, 111)


def test_it_does_not_listen(engine: Any) -> None:
    need_verbs(engine, "accept")
    with socket.socket() as sock:
        fails(engine.accept(sock), OSError, 22)


def test_fsync_of_a_pipe(engine: Any, pipe: tuple[int, int]) -> None:
    need_verbs(engine, "fsync")
    fails(engine.fsync(pipe[0]), OSError, 22)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDONLY | os.O_NONBLOCK])
def test_no_such_file(engine: Any, tmp_path: Path, flags: int) -> None:
    """Its ENOENT is a file's: not that of a cancel which found nothing."""
    need_verbs(engine, "openat")
    fails(engine.openat(tmp_path / "none", flags), FileNotFoundError, 2)


def test_a_file_that_is_there_already(engine: Any, tmp_path: Path) -> None:
    need_verbs(engine, "openat")
    (tmp_path / "there").touch()
    fails(engine.openat(tmp_path / "there", os.O_CREAT | os.O_EXCL), FileExistsError, 17)


def test_no_child(engine: Any) -> None:
    need_verbs(engine, "waitid")
    fails(engine.waitid(os.P_PID, os.getpid()), ChildProcessError, 10)


def test_a_futex_with_another_value(engine: Any) -> None:
    need_verbs(engine, "futex_wait")
    fails(engine.futex_wait(words("I", [1]), 2), BlockingIOError, 11)
