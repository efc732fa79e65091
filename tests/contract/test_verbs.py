"""What each verb brings when nothing stands in its way, and how each fails."""

from __future__ import annotations

import array
import os
import select
import socket
from array import array as words
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iocancel import FeatureUnavailable, Reach
from iocancel.operation import VERBS

from .helpers import ON_FILES, C, need_verbs


def done(op: Any) -> Any:
    """Its value, once it has ended by itself."""
    assert op.wait() is C
    assert op.verdict is None
    assert not op.cancelled()
    value = op.result()
    assert op.result() is value, "asked again, it is the same"
    return value


# What they bring


def test_read(engine: Any, file: Any, pipe: tuple[int, int]) -> None:
    need_verbs(engine, "read")
    assert done(engine.read(file, 4, 2)) == b"2345"
    assert file.tell() == 0
    assert done(engine.read(file, 100, 8)) == b"89"
    assert done(engine.read(file, 4, 10)) == b""
    buffer = bytearray(b"....")
    assert done(engine.read(file, memoryview(buffer)[1:3], 0)) == 2
    assert buffer == b".01."
    os.write(pipe[1], b"abc")
    assert done(engine.read(pipe[0], 2)) == b"ab"
    os.close(pipe[1])
    assert done(engine.read(pipe[0], 2)) == b"c"
    assert done(engine.read(pipe[0], 2)) == b""


def test_read_and_write_move_the_position(engine: Any, file: Any) -> None:
    """-1 is the file's own position, as for read(2)."""
    need_verbs(engine, "read", "write")
    assert done(engine.read(file, 3)) == b"012"
    assert file.tell() == 3
    assert done(engine.write(file, b"xy")) == 2
    assert file.tell() == 5
    assert done(engine.read(file, 3)) == b"567"


def test_write(engine: Any, file: Any, pipe: tuple[int, int]) -> None:
    need_verbs(engine, "write")
    assert done(engine.write(file, b"abc", 2)) == 3
    assert os.pread(file.fileno(), 20, 0) == b"01abc56789"
    assert done(engine.write(pipe[1], bytearray(b"abc"))) == 3
    assert os.read(pipe[0], 8) == b"abc"


def test_readv_and_writev(engine: Any, file: Any) -> None:
    need_verbs(engine, "readv", "writev")
    assert done(engine.writev(file, [b"ab", b"", b"cde"], 1)) == 5
    first, second = bytearray(3), bytearray(10)
    assert done(engine.readv(file, [first, second], 0)) == 10
    assert first == b"0ab"
    assert second[:7] == b"cde6789"


@pytest.mark.parametrize("datasync", [False, True])
def test_fsync(engine: Any, file: Any, datasync: bool) -> None:
    need_verbs(engine, "fsync")
    assert done(engine.fsync(file, datasync=datasync)) is None


def test_poll(engine: Any, pipe: tuple[int, int]) -> None:
    need_verbs(engine, "poll")
    os.write(pipe[1], b"a")
    assert done(engine.poll(pipe[0], select.POLLIN)) == select.POLLIN
    assert done(engine.poll(pipe[1], select.POLLOUT)) == select.POLLOUT
    os.read(pipe[0], 1)
    os.close(pipe[1])
    assert done(engine.poll(pipe[0], select.POLLIN)) & select.POLLHUP


def test_recv_and_send(engine: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    need_verbs(engine, "recv", "send")
    a, b = pair
    assert done(engine.send(a, b"hello")) == 5
    assert done(engine.recv(b, 3)) == b"hel"
    assert done(engine.recv(b, 8, socket.MSG_PEEK)) == b"lo"
    buffer = bytearray(8)
    assert done(engine.recv(b, buffer)) == 2
    assert buffer[:2] == b"lo"
    a.shutdown(socket.SHUT_WR)
    assert done(engine.recv(b, 8)) == b""


def test_send_zc(engine: Any, tcp: tuple[socket.socket, socket.socket]) -> None:
    need_verbs(engine, "send_zc")
    data = bytearray(b"hello")
    op = engine.send_zc(tcp[0], data)
    assert done(op) == 5
    assert tcp[1].recv(8) == b"hello"
    assert op.memory_released.wait(10)
    data.extend(b"!")


def test_recvmsg_and_sendmsg(
    engine: Any, pair: tuple[socket.socket, socket.socket], pipe: tuple[int, int]
) -> None:
    need_verbs(engine, "recvmsg", "sendmsg")
    a, b = pair
    rights = array.array("i", [pipe[0]])
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
    assert done(engine.sendmsg(a, [b"he", b"llo"], ancillary)) == 5
    data, got, flags, _ = done(engine.recvmsg(b, 16, socket.CMSG_SPACE(4)))
    assert (data, flags) == (b"hello", 0)
    [(level, kind, raw)] = got
    assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
    [fd] = words("i", raw)
    assert os.fstat(fd).st_ino == os.fstat(pipe[0]).st_ino
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_datagrams(engine: Any) -> None:
    need_verbs(engine, "recvmsg", "sendmsg")
    kind = (socket.AF_INET, socket.SOCK_DGRAM)
    with socket.socket(*kind) as a, socket.socket(*kind) as b:
        a.bind(("127.0.0.1", 0))
        b.bind(("127.0.0.1", 0))
        assert done(engine.sendmsg(a, [b"hello"], address=b.getsockname())) == 5
        data, _, flags, address = done(engine.recvmsg(b, 3))
        assert (data, address) == (b"hel", a.getsockname())
        assert flags & socket.MSG_TRUNC


def test_accept(engine: Any, listener: socket.socket) -> None:
    need_verbs(engine, "accept")
    with socket.create_connection(listener.getsockname()) as client:
        conn, address = done(engine.accept(listener))
        with conn:
            assert address == client.getsockname()
            assert conn.getpeername() == address
            assert not conn.get_inheritable()


def test_connect(engine: Any, listener: socket.socket) -> None:
    need_verbs(engine, "connect")
    with socket.socket() as sock:
        assert done(engine.connect(sock, listener.getsockname())) is None
        with listener.accept()[0] as conn:
            assert conn.getpeername() == sock.getsockname()


def test_connect_in_its_own_domain(engine: Any, tmp_path: Path) -> None:
    need_verbs(engine, "connect")
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as sock:
        server.bind(path)
        server.listen()
        assert done(engine.connect(sock, path)) is None
        assert sock.getpeername() == path


def test_timeout(engine: Any) -> None:
    need_verbs(engine, "timeout")
    assert done(engine.timeout(0)) is None
    assert done(engine.timeout(0.01)) is None


def test_openat(engine: Any, tmp_path: Path) -> None:
    need_verbs(engine, "openat")
    fd = done(engine.openat(tmp_path / "new", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640))
    try:
        assert os.fstat(fd).st_mode & 0o777 == 0o640 & ~umask()
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)
    folder = os.open(tmp_path, os.O_PATH)
    try:
        os.close(done(engine.openat("new", os.O_RDONLY | os.O_NONBLOCK, dir_fd=folder)))
    finally:
        os.close(folder)


def umask() -> int:
    was = os.umask(0)
    os.umask(was)
    return was


def test_close_later(engine: Any, pipe: tuple[int, int]) -> None:
    need_verbs(engine, "close")
    assert done(engine.close_later(pipe[1])) is None
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(pipe[1])


def test_splice_and_tee(engine: Any, pipes: Callable[[], tuple[int, int]], file: Any) -> None:
    need_verbs(engine, "splice", "tee")
    (a, b), (c, d) = pipes(), pipes()
    os.write(b, b"hello")
    assert done(engine.tee(a, d, 16)) == 5
    assert os.read(c, 16) == b"hello"
    assert done(engine.splice(a, d, 3)) == 3
    assert os.read(c, 16) == b"hel"
    assert done(engine.splice(a, file, 16, offset_dst=4)) == 2
    assert os.pread(file.fileno(), 16, 0) == b"0123lo6789"


def test_waitid(engine: Any) -> None:
    need_verbs(engine, "waitid")
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 7"], {})
    assert done(engine.waitid(os.P_PID, pid)) == (pid, os.getuid(), 17, 7, os.CLD_EXITED)


# What is not there


ARGUMENTS: dict[str, Callable[[Any, Any], Any]] = {
    **ON_FILES,
    "openat": lambda engine, fd: engine.openat("/"),
    "timeout": lambda engine, fd: engine.timeout(0),
    "waitid": lambda engine, fd: engine.waitid(os.P_PID, os.getpid()),
    "futex_wait": lambda engine, fd: engine.futex_wait(words("I", [1]), 1),
}


@pytest.mark.parametrize("verb", sorted(ARGUMENTS))
def test_an_engine_does_it_or_says_that_it_does_not(engine: Any, verb: str, pipe: tuple[int, int]) -> None:
    if engine.supports(verb):
        assert isinstance(engine.reach(verb), Reach)
        return
    assert engine.reach(verb) is None
    with pytest.raises(FeatureUnavailable) as raised:
        ARGUMENTS[verb](engine, pipe[0])
    # It has brought nothing: there is nothing to close (no fd 0, above all), or to warn of.
    assert raised.value.feature
    if engine.name != "uring":  # which is not there by the kernel's doing
        assert "uring" in str(raised.value), "it names the engine that can"
    assert engine.in_flight == 0


def test_the_list_of_verbs_is_whole() -> None:
    assert set(ARGUMENTS) == {verb for verb in VERBS if not verb.endswith("_multishot")}


def test_an_unknown_verb(engine: Any) -> None:
    assert not engine.supports("fly")
    assert engine.reach("fly") is None


@pytest.mark.parametrize("verb", sorted(ON_FILES))
def test_no_file_at_all(engine: Any, verb: str) -> None:
    need_verbs(engine, verb)
    with pytest.raises(TypeError):
        ON_FILES[verb](engine, "name")
    assert engine.in_flight == 0


def test_no_time_at_all(engine: Any, pipe: tuple[int, int]) -> None:
    need_verbs(engine, "read")
    for wrong, error in ((-1, ValueError), (float("nan"), ValueError), ("1", TypeError), (True, TypeError)):
        with pytest.raises(error):
            engine.read(pipe[0], 1, timeout=wrong)
    with pytest.raises(TypeError):
        engine.read(pipe[0], "no buffer")
    with pytest.raises(TypeError):
        engine.read(pipe[0], b"not writable")
    assert engine.in_flight == 0
