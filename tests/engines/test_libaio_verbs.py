"""Every verb of the libaio engine: it completes, is cancelled, and fails with the true errno."""

from __future__ import annotations

import errno
import os
import pty
import select
import signal
import socket
import tempfile
import termios
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from iocancel import FeatureUnavailable, Outcome, Reach, Verdict
from iocancel.engines.libaio import LibaioEngine
from iocancel.operation import VERBS

from ..support import fill
from .libaio_stage import drain, ended, failed, flying, gone
from .libaio_stage import engine as engine

Pipe = tuple[int, int]


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[int]:
    """Open for both, as nobody's poll of Linux AIO takes it."""
    os.mkfifo(tmp_path / "fifo")
    fd = os.open(tmp_path / "fifo", os.O_RDWR)
    yield fd
    os.close(fd)


@pytest.fixture
def terminal() -> Iterator[Pipe]:
    master, slave = pty.openpty()
    tty.setraw(slave)
    yield master, slave
    os.close(master)
    os.close(slave)


# Pipes


def test_a_read_waits_for_the_bytes(engine: LibaioEngine, pipe: Pipe) -> None:
    op = engine.read(pipe[0], 16)
    flying(engine, op)
    os.write(pipe[1], b"bytes")
    assert ended(op) == b"bytes"


def test_what_is_there_is_taken_at_once(engine: LibaioEngine, pipe: Pipe) -> None:
    os.write(pipe[1], b"bytes")
    op = engine.read(pipe[0], 16)
    engine.submit()
    assert op.done()
    assert op.result() == b"bytes"


def test_a_read_at_the_end_is_empty(engine: LibaioEngine, pipe: Pipe) -> None:
    op = engine.read(pipe[0], 16)
    flying(engine, op)
    os.close(pipe[1])
    assert ended(op) == b""


def test_a_cancelled_read_took_nothing(engine: LibaioEngine, pipe: Pipe) -> None:
    buffer = bytearray(16)
    op = engine.read(pipe[0], buffer)
    flying(engine, op)
    with pytest.raises(BufferError):
        buffer.clear()
    gone(op)
    buffer.clear()
    os.write(pipe[1], b"bytes")
    assert os.read(pipe[0], 16) == b"bytes"


def test_several_buffers(engine: LibaioEngine, pipe: Pipe) -> None:
    parts = bytearray(2), bytearray(3)
    op = engine.readv(pipe[0], parts)
    flying(engine, op)
    assert ended(engine.writev(pipe[1], [b"by", b"", b"tes"])) == 5
    assert ended(op) == 5
    assert [bytes(part) for part in parts] == [b"by", b"tes"]


def test_a_write_waits_for_room(engine: LibaioEngine, pipe: Pipe) -> None:
    many = fill(pipe[1])
    op = engine.write(pipe[1], b"x" * 100_000)
    flying(engine, op)
    drain(pipe[0], many)
    wrote = ended(op)
    assert 0 < wrote <= 100_000
    drain(pipe[0], wrote)
    gone_op = engine.write(pipe[1], b"y")
    gone_op.cancel()
    assert gone_op.wait() is Outcome.CANCELLED
    assert not select.select([pipe[0]], [], [], 0)[0]


def test_a_cancelled_write_wrote_nothing(engine: LibaioEngine, pipe: Pipe) -> None:
    many = fill(pipe[1])
    op = engine.write(pipe[1], b"more")
    flying(engine, op)
    gone(op)
    drain(pipe[0], many)
    assert not select.select([pipe[0]], [], [], 0)[0]


def test_the_files_own_flags_stay(engine: LibaioEngine, pipe: Pipe) -> None:
    for fd, op in ((pipe[0], engine.read(pipe[0], 1)), (pipe[1], engine.write(pipe[1], b"x"))):
        assert ended(op)
        assert os.get_blocking(fd)


def test_nobody_reads_any_more(engine: LibaioEngine, pipe: Pipe) -> None:
    os.close(pipe[0])
    assert failed(engine.write(pipe[1], b"x")) == errno.EPIPE


def test_a_fifo_open_for_both(engine: LibaioEngine, fifo: int) -> None:
    """io_submit refuses its poll (facts 1.9): an epoll set stands in for it."""
    op = engine.read(fifo, 16)
    flying(engine, op)
    gone(op)
    op, other = engine.read(fifo, 2), engine.poll(fifo, select.POLLIN)
    flying(engine, op)
    assert ended(engine.write(fifo, b"bytes")) == 5
    assert ended(op) == b"by"
    assert ended(other) == select.POLLIN
    assert os.read(fifo, 16) == b"tes"
    many = fill(fifo)
    op = engine.write(fifo, b"z" * 100_000)
    flying(engine, op)
    drain(fifo, many)
    drain(fifo, ended(op))


def test_terminals(engine: LibaioEngine, terminal: Pipe) -> None:
    for here, there in (terminal, terminal[::-1]):
        op = engine.read(here, 16)
        flying(engine, op)
        gone(op)
        op = engine.read(here, 16)
        flying(engine, op)
        assert ended(engine.write(there, b"bytes")) == 5
        came = ended(op)
        while len(came) < 5:  # it may come in pieces
            came += ended(engine.read(here, 16))
        assert came == b"bytes"
        assert os.get_blocking(here)


@pytest.mark.parametrize("end", [0, 1], ids=["master", "slave"])
def test_a_full_terminal(engine: LibaioEngine, terminal: Pipe, end: int) -> None:
    many = 0
    while select.select([], [terminal[end]], [], 0)[1]:
        op = engine.write(terminal[end], b"z" * 1024)
        engine.submit()
        if not op.done():
            break
        many += op.result()
    else:
        op = engine.write(terminal[end], b"z" * 1024)
    flying(engine, op)
    gone(op)
    termios.tcflush(terminal[1], termios.TCIOFLUSH)
    assert ended(engine.write(terminal[end], b"z")) == 1
    assert many


def test_eventfds(engine: LibaioEngine) -> None:
    fd = os.eventfd(0)
    op = engine.read(fd, 8)
    flying(engine, op)
    assert ended(engine.write(fd, (5).to_bytes(8, "little"))) == 8
    assert int.from_bytes(ended(op), "little") == 5
    os.close(fd)


# Disks


@pytest.fixture
def disk() -> Iterator[int]:
    with tempfile.TemporaryFile(dir=os.environ.get("IOCANCEL_SCRATCH", "/var/tmp")) as file:
        file.write(b"0123456789")
        file.flush()
        file.seek(0)
        yield file.fileno()


def test_a_disks_file(engine: LibaioEngine, disk: int) -> None:
    assert ended(engine.read(disk, 4, 3)) == b"3456"
    assert ended(engine.write(disk, b"ab", 8)) == 2
    parts = bytearray(2), bytearray(3)
    assert ended(engine.readv(disk, parts, 6)) == 4
    assert bytes(parts[0] + parts[1][:2]) == b"67ab"
    assert ended(engine.writev(disk, [b"x", b"y"], 0)) == 2
    assert os.pread(disk, 3, 0) == b"xy2"
    assert os.lseek(disk, 0, os.SEEK_CUR) == 0
    assert ended(engine.fsync(disk)) is None
    assert ended(engine.fsync(disk, datasync=True)) is None
    assert ended(engine.read(disk, 4, 100)) == b""
    assert ended(engine.poll(disk, select.POLLIN)) == select.POLLIN


def test_the_files_own_position(engine: LibaioEngine, disk: int) -> None:
    ops = [engine.read(disk, 3), engine.read(disk, 3), engine.write(disk, b"x")]
    engine.wait(ops)
    assert [op.result() for op in ops] == [b"012", b"345", 1]
    assert os.lseek(disk, 0, os.SEEK_CUR) == 7
    op = engine.read(disk, 3)
    op.cancel()
    assert op.wait() is Outcome.CANCELLED
    assert os.lseek(disk, 0, os.SEEK_CUR) == 7


def test_direct_reads_run_to_their_end(engine: LibaioEngine, tmp_path: Path) -> None:
    import mmap

    folder = Path(os.environ.get("IOCANCEL_SCRATCH", "/var/tmp"))
    path = folder / f"iocancel-direct-{os.getpid()}"
    path.write_bytes(b"z" * (1 << 20))
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError as error:
        pytest.skip(f"no O_DIRECT in {folder} (IOCANCEL_SCRATCH names another folder): {error}")
    finally:
        path.unlink()
    memory = [mmap.mmap(-1, 1 << 16) for _ in range(16)]
    ops = [engine.read(fd, each, n << 16) for n, each in enumerate(memory)]
    engine.submit()
    engine.cancel(ops)
    engine.wait(ops)
    for op, each in zip(ops, memory, strict=True):
        assert op.result() == 1 << 16
        assert op.verdict in (None, Verdict.NOT_FOUND)
        assert each[:] == b"z" * (1 << 16)
        each.close()
    os.close(fd)


# Between files


def test_splice(
    engine: LibaioEngine, pipe: Pipe, pair: tuple[socket.socket, socket.socket], disk: int
) -> None:
    left, right = pair
    op = engine.splice(left, pipe[1], 16)
    flying(engine, op)
    gone(op)
    op = engine.splice(left, pipe[1], 16)
    flying(engine, op)
    right.send(b"bytes")
    assert ended(op) == 5
    assert ended(engine.splice(pipe[0], left, 16)) == 5
    assert right.recv(16) == b"bytes"
    assert ended(engine.splice(disk, pipe[1], 4, offset_src=1)) == 4
    assert ended(engine.splice(pipe[0], disk, 4, offset_dst=6)) == 4
    assert os.pread(disk, 10, 0) == b"0123451234"
    many = fill(pipe[1])
    right.send(b"more")
    op = engine.splice(left, pipe[1], 16)
    flying(engine, op)
    drain(pipe[0], many)
    assert ended(op) == 4
    assert os.read(pipe[0], 16) == b"more"


def test_tee(engine: LibaioEngine, pipes: Callable[[], Pipe]) -> None:
    (r1, w1), (r2, w2) = pipes(), pipes()
    op = engine.tee(r1, w2, 16)
    flying(engine, op)
    gone(op)
    op = engine.tee(r1, w2, 16)
    flying(engine, op)
    os.write(w1, b"bytes")
    assert ended(op) == 5
    assert os.read(r1, 16) == os.read(r2, 16) == b"bytes"


# Readiness, time, processes


def test_poll(engine: LibaioEngine, pipe: Pipe) -> None:
    op = engine.poll(pipe[0], select.POLLIN)
    flying(engine, op)
    gone(op)
    op = engine.poll(pipe[0], select.POLLIN)
    flying(engine, op)
    os.write(pipe[1], b"x")
    assert ended(op) == select.POLLIN
    assert ended(engine.poll(pipe[1], select.POLLOUT | select.POLLPRI)) == select.POLLOUT
    os.close(pipe[1])
    assert ended(engine.poll(pipe[0], 0)) == select.POLLHUP


def test_timeout(engine: LibaioEngine) -> None:
    long, short = engine.timeout(1000), engine.timeout(0.01)
    assert ended(short) is None
    assert not long.done()
    gone(long)
    ops = [engine.timeout(1000) for _ in range(500)]
    engine.submit()
    engine.cancel_all()
    engine.wait(ops)
    assert ended(engine.timeout(0)) is None
    assert len(engine._carrier._alarms) < 500


@pytest.mark.parametrize("by", ["pid", "pidfd"])
def test_waitid(engine: LibaioEngine, pipe: Pipe, by: str) -> None:
    pid = os.posix_spawn("/bin/cat", ["cat"], os.environ, file_actions=[
        (os.POSIX_SPAWN_DUP2, pipe[0], 0), (os.POSIX_SPAWN_CLOSE, pipe[1])
    ])  # fmt: skip
    fd = os.pidfd_open(pid)
    what = (os.P_PID, pid) if by == "pid" else (os.P_PIDFD, fd)
    op = engine.waitid(*what)
    flying(engine, op)
    gone(op)
    assert ended(engine.waitid(*what, os.WEXITED | os.WNOHANG))[0] == 0
    op = engine.waitid(*what)
    flying(engine, op)
    os.close(pipe[1])
    assert ended(op) == (pid, os.getuid(), signal.SIGCHLD, 0, os.CLD_EXITED)
    os.close(fd)
    assert failed(engine.waitid(os.P_PID, pid)) == errno.ECHILD
    with pytest.raises(FeatureUnavailable, match="uring"):
        engine.waitid(os.P_ALL, 0)
    with pytest.raises(FeatureUnavailable, match="uring"):
        engine.waitid(os.P_PID, pid, os.WSTOPPED)


def test_close_later(engine: LibaioEngine) -> None:
    fd = os.eventfd(0)
    assert ended(engine.close_later(fd)) is None
    assert failed(engine.close_later(fd)) == errno.EBADF


# Errors


def test_the_true_errno(engine: LibaioEngine, pipe: Pipe) -> None:
    bad = os.eventfd(0)
    os.close(bad)
    for op in (
        engine.read(bad, 1),
        engine.write(bad, b"x"),
        engine.recv(bad, 1),
        engine.recvmsg(bad, 1),
        engine.sendmsg(bad, [b"x"]),
        engine.accept(bad),
        engine.connect(bad, b"\2\0"),
        engine.poll(bad, 1),
        engine.fsync(bad),
        engine.splice(bad, pipe[1], 1),
        engine.tee(pipe[0], bad, 1),
    ):
        assert failed(op) == errno.EBADF
        assert op.name in str(op.exception())
    assert failed(engine.write(pipe[0], b"x")) == errno.EBADF
    assert failed(engine.recv(pipe[0], 1)) == errno.ENOTSOCK
    assert failed(engine.fsync(pipe[0])) == errno.EINVAL
    with pytest.raises(TypeError, match="buffer"):
        engine.read(pipe[0], b"constant")
    with pytest.raises(ValueError, match="offset"):
        engine.read(pipe[0], 1, -2)


def test_another_file_by_then(engine: LibaioEngine, pipes: Callable[[], Pipe]) -> None:
    """A poll stays at its file: the call must not go to the next file of the same number."""
    (r1, w1), (r2, w2) = pipes(), pipes()
    op = engine.read(r1, 16)
    flying(engine, op)
    keep = os.dup(r1)
    os.dup2(r2, r1)
    os.write(w2, b"another's")
    os.write(w1, b"bytes")
    assert failed(op) == errno.EBADF
    assert os.read(r2, 16) == b"another's"
    assert os.read(keep, 16) == b"bytes"
    os.dup2(keep, r1)
    os.close(keep)


def test_what_is_not_here_names_who_has_it(engine: LibaioEngine, pipe: Pipe) -> None:
    made: dict[str, Callable[[], Any]] = {
        "futex_wait": lambda: engine.futex_wait(bytearray(4), 0),
        "openat": lambda: engine.openat("/dev/null"),
        "send_zc": lambda: engine.send_zc(pipe[1], b"x"),
    }
    for name in sorted(VERBS):
        lacks = name in made or name.endswith("_multishot")
        assert engine.supports(name) is not lacks
        assert (engine.reach(name) is None) is lacks
    for name, call in made.items():
        with pytest.raises(FeatureUnavailable, match=f"libaio has no {name}: the uring engine has") as caught:
            call()
        assert caught.value.feature == name
    assert engine.in_flight == 0
    assert engine.reach("read") is Reach.TOTAL
    assert engine.reach("fsync") is Reach.NONE
