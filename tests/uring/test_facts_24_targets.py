"""facts.md 2.4: what a cancel answers for each kind of target, and how that ends; none in workers."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterator

import pytest

from iocancel import OperationCancelled
from iocancel.uring import CancelFlags, MsgHdr, Opcode, Ring, SqeFlags, TimeoutFlags, cancel_flags
from iocancel.uring.prep_wait import EPOLL_EVENT_SIZE

from ..support import need, until
from .helpers import INTERRUPTED, Asked, need_flags, need_op

CANCELED, NOENT, ALREADY, TIME = -125, -2, -114, -62
WAITALL = socket.MSG_WAITALL

Start = Callable[[Asked], None]


@pytest.fixture
def targets(
    pipe: tuple[int, int], pair: tuple[socket.socket, socket.socket], listener: socket.socket
) -> dict[str, Start]:
    """Requests that wait without a worker, each as number 1."""

    def group(asked: Asked) -> int:
        need_op(asked.ring, Opcode.SEND_ZC)  # as old as multishot receives: Linux 6.0
        asked.ring.register_buf_ring(8, 64, 3)
        return 3

    def multishot_read(asked: Asked) -> None:
        need_op(asked.ring, Opcode.READ_MULTISHOT)
        asked.go(1, "read_multishot", pipe[0], 0, -1, group(asked))

    def multishot_timeout(asked: Asked) -> None:
        need_op(asked.ring, Opcode.SENDMSG_ZC)  # 6.1; the flag is of 6.4
        asked.go(1, "timeout", 3600.0, 0, TimeoutFlags.MULTISHOT)
        asked.ring.submit()
        if not asked.pending(1):
            need(asked.end(1) != -22, "multishot timeouts are of Linux 6.4")

    def multishot_accept(asked: Asked) -> None:
        need_flags(CancelFlags.ALL)  # both are of 5.19
        asked.go(1, "multishot_accept", listener)

    return {
        "pipe read": lambda a: a.go(1, "read", pipe[0], bytearray(8)),
        "pipe readv": lambda a: a.go(1, "readv", pipe[0], [bytearray(8), bytearray(8)]),
        "socket read": lambda a: a.go(1, "read", pair[0], bytearray(8)),
        "recv": lambda a: a.go(1, "recv", pair[0], bytearray(8)),
        "recv multishot": lambda a: a.go(1, "recv_multishot", pair[0], group(a)),
        "read multishot": multishot_read,
        "accept": lambda a: a.go(1, "accept", listener),
        "accept multishot": multishot_accept,
        "poll": lambda a: a.go(1, "poll_add", pipe[0], select.POLLIN),
        "poll multishot": lambda a: a.go(1, "poll_multishot", pipe[0], select.POLLIN),
        "timeout": lambda a: a.go(1, "timeout", 3600.0),
        "timeout for completions": lambda a: a.go(1, "timeout", 3600.0, 1000),
        "timeout multishot": multishot_timeout,
    }


KINDS = [
    "pipe read",
    "pipe readv",
    "socket read",
    "recv",
    "recv multishot",
    "read multishot",
    "accept",
    "accept multishot",
    "poll",
    "poll multishot",
    "timeout",
    "timeout for completions",
    "timeout multishot",
]


@pytest.mark.parametrize("kind", KINDS)
def test_what_waits_without_a_worker_is_cancelled(asked: Asked, targets: dict[str, Start], kind: str) -> None:
    targets[kind](asked)
    assert asked.pending(1)
    assert asked.cancel(1) == 0
    cqe = asked.next(1)
    assert cqe.res == CANCELED
    assert not cqe.more
    with pytest.raises(OperationCancelled):
        cqe.check()
    assert asked.cancel(1) == NOENT


def test_targets_are_all_tried(targets: dict[str, Start]) -> None:
    assert set(KINDS) == set(targets)


def test_a_pipe_read_with_async(asked: Asked, pipe: tuple[int, int]) -> None:
    """A worker takes it, and hands it on to a poll; on 5.10 (facts 9.2) it reads there.

    A cancel that finds the worker on its way to the poll is told -EALREADY, and the read then waits on
    as if nobody had asked (6.18: about 1 of 1,000 under load): so it has to be asked again.
    """
    asked.go(1, "read", pipe[0], bytearray(8), flags=SqeFlags.ASYNC)
    verdicts = [asked.cancel(1)]

    def ended() -> bool:
        if not asked.pending(1):
            return True
        verdicts.append(asked.cancel(1))
        return False

    until(ended, "the read has ended")
    assert set(verdicts) <= {0, ALREADY, NOENT}
    res = asked.end(1)
    assert res == CANCELED or (res in INTERRUPTED and 0 not in verdicts)


@pytest.mark.parametrize("kind", ["poll", "accept", "recv"])
def test_multishot_that_has_fired_is_cancelled_all_the_same(
    asked: Asked, targets: dict[str, Start], kind: str, pipe: tuple[int, int],
    pair: tuple[socket.socket, socket.socket], listener: socket.socket,
) -> None:  # fmt: skip
    targets[f"{kind} multishot"](asked)
    if kind == "poll":
        os.write(pipe[1], b"x")
    elif kind == "recv":
        pair[1].send(b"x")
    else:
        socket.create_connection(listener.getsockname()).close()
    first = asked.next(1)
    assert first.res > 0
    assert first.more
    if kind == "accept":
        os.close(first.res)
    assert asked.cancel(1) == 0
    last = asked.next(1)
    assert last.res == CANCELED
    assert not last.more


def test_multishot_timeout_ends_by_itself_with_its_last(asked: Asked) -> None:
    need_op(asked.ring, Opcode.SENDMSG_ZC)
    asked.go(1, "timeout", 0.001, 3, TimeoutFlags.MULTISHOT)
    first = asked.next(1)
    need(first.res == TIME, "multishot timeouts are of Linux 6.4")
    assert first.more
    assert asked.next(1).more
    last = asked.next(1)
    assert last.res == TIME
    assert not last.more
    assert asked.cancel(1) == NOENT


@pytest.fixture
def futexes(asked: Asked) -> array[int]:
    need_op(asked.ring, Opcode.FUTEX_WAIT)
    words = array("I", [0])
    for user_data in (1, 2, 3):
        asked.go(user_data, "futex_wait", words, 0)
    assert asked.pending(1, 2, 3)
    return words


@pytest.mark.usefixtures("futexes")
def test_a_futex_answers_1(asked: Asked) -> None:
    for user_data in (2, 1, 3):
        assert asked.cancel(user_data) == 1  # not 0 (facts 2.4)
        assert asked.end(user_data) == CANCELED


@pytest.mark.usefixtures("futexes")
@pytest.mark.parametrize(
    ("flags", "res"),
    [(CancelFlags.ANY | CancelFlags.ALL, 1), (CancelFlags.ANY, 3)],
)
def test_three_futexes_are_undercounted(asked: Asked, flags: CancelFlags, res: int) -> None:
    assert asked.cancel(0, flags) == res
    assert [asked.end(n) for n in (1, 2, 3)] == [CANCELED] * 3


def test_three_futexes_of_one_user_data_are_undercounted(asked: Asked) -> None:
    need_op(asked.ring, Opcode.FUTEX_WAIT)
    word = array("I", [0])
    for _ in range(3):
        asked.go(1, "futex_wait", word, 0)
    assert asked.cancel(1, CancelFlags.ALL) == 1
    assert asked.ends(1, 3) == [CANCELED] * 3


@pytest.fixture
def child() -> Iterator[int]:
    """A process that lives until it is told to end."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid


@pytest.mark.parametrize("flags", [CancelFlags(0), CancelFlags.ALL])
def test_waitid_answers_1(asked: Asked, child: int, flags: CancelFlags) -> None:
    need_op(asked.ring, Opcode.WAITID)
    many = 2 if flags else 1
    for _ in range(many):
        asked.go(1, "waitid", os.P_PID, child, os.WEXITED)
    assert asked.pending(1)
    assert asked.cancel(1, flags) == 1  # not 0, and not 2
    assert asked.ends(1, many) == [CANCELED] * many
    assert os.waitpid(child, os.WNOHANG) == (0, 0)  # it was not waited for


def test_epoll_wait_can_be_cancelled(asked: Asked, pipe: tuple[int, int]) -> None:
    need_op(asked.ring, Opcode.EPOLL_WAIT)
    with select.epoll() as epoll:
        epoll.register(pipe[0], select.EPOLLIN)
        asked.go(1, "epoll_wait", epoll, bytearray(4 * EPOLL_EVENT_SIZE))
        assert asked.pending(1)
        assert asked.cancel(1) == 0
        assert asked.end(1) == CANCELED


# 5.15's io_uring (in Debian's 5.10) forgets what went before the cancel: -ECANCELED, and the bytes are gone.
FORGETS = -125


@pytest.mark.parametrize("call", ["recv", "recvmsg"])
def test_a_partial_receive_ends_with_its_bytes(
    asked: Asked, pair: tuple[socket.socket, socket.socket], call: str
) -> None:
    buffer = bytearray(10)
    pair[1].send(b"abc")
    asked.go(1, call, pair[0], buffer if call == "recv" else MsgHdr([buffer]), WAITALL)
    assert asked.cancel(1) == 0
    res = asked.end(1)
    assert res == 3 or (res == FORGETS and not cancel_flags())
    assert buffer[:3] == b"abc"
    pair[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        pair[0].recv(8)


def test_a_partial_send_ends_with_its_bytes(asked: Asked, pair: tuple[socket.socket, socket.socket]) -> None:
    data = os.urandom(1 << 22)
    asked.go(1, "send", pair[0], data, WAITALL)
    assert asked.cancel(1) == 0
    sent = asked.end(1)
    received = b""
    while select.select([pair[1]], [], [], 0)[0]:
        received += pair[1].recv(1 << 20)
    assert 0 < len(received) < len(data)
    assert received == data[: len(received)]
    assert sent == len(received) or (sent == FORGETS and not cancel_flags())


def test_other_rings_are_not_seen(
    open_ring: Callable[..., Asked], asked: Asked, pipe: tuple[int, int]
) -> None:
    other = open_ring()
    asked.go(1, "poll_add", pipe[0], select.POLLIN)
    assert other.cancel(1) == NOENT
    if CancelFlags.FD in cancel_flags():
        assert other.cancel_fd(pipe[0]) == NOENT
        assert other.cancel(0, CancelFlags.ANY) == 0
    assert asked.pending(1)


def test_completed_and_not_reaped_is_not_found(asked: Asked, pipe: tuple[int, int]) -> None:
    asked.go(1, "poll_add", pipe[0], select.POLLIN)
    os.write(pipe[1], b"x")
    ready = select.poll()
    ready.register(asked.ring.fileno(), select.POLLIN)
    assert ready.poll(20_000)
    assert asked.cancel(1) == NOENT
    assert asked.end(1) == select.POLLIN


def test_the_ring_of_a_target_says_what_it_was(pipe: tuple[int, int]) -> None:
    with Ring(8) as ring:
        target = object()
        sqe = ring.get_sqe()
        sqe.prep_read(pipe[0], bytearray(8))
        sqe.data = target
        ring.submit()
        sqe = ring.get_sqe()
        sqe.prep_cancel(target)
        ring.submit()
        by_call = {cqe.call: cqe for cqe in ring.wait(2)}
        assert by_call["io_uring_prep_cancel"].res == 0
        assert by_call["io_uring_prep_read"].res == CANCELED
        assert by_call["io_uring_prep_read"].data is target
