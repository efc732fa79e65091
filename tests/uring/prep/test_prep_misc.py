"""Groups of buffers, messages to rings, futexes, children, epoll sets and nothing, run."""

import array
import errno
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from iocancel.errors import FeatureUnavailable
from iocancel.uring import MsgRingFlags, Ring
from iocancel.uring.prep_wait import EPOLL_EVENT_SIZE, child_state, epoll_events


@pytest.fixture
def other(no_file_is_left_open: None) -> Iterator[Ring]:
    with Ring(8) as ring:
        yield ring


@pytest.fixture
def epoll(no_file_is_left_open: None) -> Iterator[select.epoll]:
    with select.epoll() as made:
        yield made


def test_a_nop(go: Any) -> None:
    assert go.ok("nop") == 0


def test_provided_buffers(go: Any, pipe: tuple[int, int]) -> None:
    memory = bytearray(32)
    assert go.ok("provide_buffers", memory, 8, 5, 2) >= 0
    with pytest.raises(BufferError):
        memory.append(0)  # the kernel's until the ring is closed
    os.write(pipe[1], b"abc")
    cqe = go("read", pipe[0], None, 0, nbytes=8, buf_group=5)  # 5.10 takes no length as 0
    assert cqe.check() == 3
    assert cqe.buffer_id in range(2, 6)
    at = 8 * (cqe.buffer_id - 2)
    assert memory[at : at + 3] == b"abc"
    assert go.ok("remove_buffers", 9, 5) == 3
    assert go("remove_buffers", 9, 5).res in (0, -errno.ENOENT)
    assert go("read", pipe[0], None, 0, buf_group=5).res == -errno.ENOBUFS


def test_messages_to_another_ring(go: Any, other: Ring) -> None:
    for target in (other, other.fileno()):
        assert go.ok("msg_ring", target, -7, 4711) == 0
        [cqe] = other.wait(1, timeout=20)
        assert (cqe.user_data, cqe.res, cqe.flags) == (4711, -7, 0)
    assert other.in_flight == 0
    assert go("msg_ring", 0, 1, 1).res == -errno.EBADFD


def test_a_message_to_the_ring_itself(go: Any) -> None:
    number = go.start("msg_ring", go.ring, 99, 4711)
    assert {(c.user_data, c.res) for c in go.wait(2)} == {(number, 0), (4711, 99)}


def test_messages_with_flags(go: Any, other: Ring) -> None:
    assert go.ok("msg_ring_cqe_flags", other, 7, 4711, 0, 0x50008) == 0
    [cqe] = other.wait(1, timeout=20)
    assert (cqe.user_data, cqe.res, cqe.flags) == (4711, 7, 0x50008)


def test_files_sent_to_another_ring(go: Any, ring: Ring, other: Ring) -> None:
    with tempfile.TemporaryFile() as file:
        ring.register_files([file, -1])
        other.register_files([-1] * 4)
        assert go.ok("msg_ring_fd", other, 0, 2, 4711) == 0
        [cqe] = other.wait(1, timeout=20)
        assert (cqe.user_data, cqe.res) == (4711, 0)
        taken = {2, go.ok("msg_ring_fd_alloc", other, 0, 4712, MsgRingFlags.CQE_SKIP)}
        taken.add(go.ok("msg_ring_fd", other, 0, -1, 4713, MsgRingFlags.CQE_SKIP))
        assert len(taken) == 3
        assert other.wait(1, timeout=0) == []
        assert go("msg_ring_fd", other, 1, 2, 4711, MsgRingFlags.CQE_SKIP).res == -errno.EBADF
    assert other.in_flight == 0


def test_a_discard_of_no_block_device(go: Any) -> None:
    with tempfile.TemporaryFile() as file, pytest.raises(OSError):
        go("cmd_discard", file, 0, 4096).check()


def test_futexes(go: Any) -> None:
    futex = array.array("I", [5])
    assert go("futex_wait", futex, 4).res in (-errno.EAGAIN, -errno.EINVAL)
    number = go.start("futex_wait", futex, 5)
    wake = go.start("futex_wake", futex, 3)
    assert {c.user_data: c.res for c in go.wait(2)} == {number: 0, wake: 1}
    number = go.start("futex_wait", futex, 5, 0b01)
    assert go.ok("futex_wake", futex, 1, 0b10) == 0
    assert go.cancel(number).res == -errno.ECANCELED
    futex.append(1)  # nothing pins it


def test_several_futexes(go: Any) -> None:
    futexes = [array.array("I", [n]) for n in range(3)]
    number = go.start("futex_waitv", [(futex, n) for n, futex in enumerate(futexes)])
    wake = go.start("futex_wake", futexes[2], 1)
    assert {c.user_data: c.res for c in go.wait(2)} == {number: 2, wake: 1}
    number = go.start("futex_waitv", [(futexes[0], 0)])
    assert go.cancel(number).res == -errno.ECANCELED


def test_a_child(go: Any) -> None:
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", "input(); raise SystemExit(7)"], stdin=subprocess.PIPE
    )
    info = bytearray(128)
    try:
        number = go.start("waitid", os.P_PID, child.pid, os.WEXITED | os.WNOWAIT, info)
        assert child.stdin is not None
        child.stdin.write(b"\n")
        child.stdin.close()
        [cqe] = go.wait()
        assert (cqe.user_data, cqe.check()) == (number, 0)
        expected = child.pid, os.getuid(), signal.SIGCHLD, 7, os.CLD_EXITED
        assert child_state(info) == expected
        result = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert result is not None
        assert tuple(result) == expected
        assert go.ok("waitid", os.P_PID, child.pid, os.WEXITED | os.WNOWAIT) == 0
        assert child.wait() == 7
    finally:
        child.kill()
        child.communicate()
    assert go("waitid", os.P_PID, child.pid, os.WEXITED).res == -errno.ECHILD


def test_an_epoll_set_is_changed(go: Any, pipe: tuple[int, int], epoll: select.epoll) -> None:
    reader, writer = pipe
    os.write(writer, b"x")
    assert go.ok("epoll_ctl", epoll, reader, 1, select.EPOLLIN, reader) == 0
    assert epoll.poll(0) == [(reader, select.EPOLLIN)]
    assert go.ok("epoll_ctl", epoll, reader, 3, select.EPOLLIN, 42) == 0
    assert epoll.poll(0) == [(42, select.EPOLLIN)]
    assert go.ok("epoll_ctl", epoll, reader, 2) == 0
    assert epoll.poll(0) == []
    assert go("epoll_ctl", epoll, reader, 2).res == -errno.ENOENT


def by_fd(buffer: bytearray, count: int) -> set[tuple[int, int]]:
    """Events by the low half of their data: select.epoll sets no other."""
    return {(data & 0xFFFFFFFF, events) for data, events in epoll_events(buffer, count)}


def test_an_epoll_set_is_waited_for(go: Any, pipe: tuple[int, int], epoll: select.epoll) -> None:
    reader, writer = pipe
    try:
        assert go("epoll_ctl", epoll, reader, 1, select.EPOLLIN, (1 << 40) + 1).check() == 0
    except FeatureUnavailable as error:
        pytest.skip(str(error))
    buffer = bytearray(4 * EPOLL_EVENT_SIZE)
    number = go.start("epoll_wait", epoll, buffer)
    epoll.register(writer, select.EPOLLOUT)
    [cqe] = go.wait()
    assert (cqe.user_data, cqe.res) == (number, 1)
    assert by_fd(buffer, cqe.res) == {(writer, select.EPOLLOUT)}
    os.write(writer, b"x")
    count = go.ok("epoll_wait", epoll, buffer)
    assert by_fd(buffer, count) == {(writer, select.EPOLLOUT), (1, select.EPOLLIN)}
    assert ((1 << 40) + 1, select.EPOLLIN) in epoll_events(buffer, count)
    epoll.unregister(writer)
    os.read(reader, 1)
    assert go.cancel(go.start("epoll_wait", epoll, buffer)).res == -errno.ECANCELED
