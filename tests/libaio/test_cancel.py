"""What io_cancel answers, and what becomes of the request; the same on kernels 5.10 to 7.2."""

from __future__ import annotations

import ctypes
import errno
import os
import pty
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iocancel import CancelNotFound, CancelTooLate
from iocancel.libaio import Context, Event, Iocb, PollEvents

from ..support import few


def not_found(context: Context, iocb: Iocb) -> str:
    with pytest.raises(CancelNotFound) as caught:
        context.cancel(iocb)
    assert caught.value.errno == errno.EINVAL
    assert "io_cancel" in str(caught.value)
    return str(caught.value)


def test_accepted_is_none_and_the_event_comes_with_0(context: Context, pipe: tuple[int, int]) -> None:
    iocb = Iocb.poll(pipe[0], data="mine")
    assert context.submit([iocb]) == 1
    assert iocb.in_flight
    assert context.in_flight == 1
    assert context.cancel(iocb) is None
    [event] = context.getevents()
    assert event == Event(iocb, "mine", 0, 0)
    assert event.check() == 0
    assert not iocb.in_flight
    assert context.in_flight == 0


def test_a_natural_end_has_the_events(context: Context, pipe: tuple[int, int]) -> None:
    iocb = Iocb.poll(pipe[0])
    context.submit([iocb])
    os.write(pipe[1], b"x")
    [event] = context.getevents()
    assert PollEvents.IN in PollEvents(event.res)
    assert event.res2 == 0
    assert event.check() == event.res


def test_not_found_says_what_is_known(context: Context, pipe: tuple[int, int]) -> None:
    iocb = Iocb.poll(pipe[0])
    assert "never submitted" in not_found(context, iocb)
    context.submit([iocb])
    with Context() as other:
        assert "another context" in not_found(other, iocb)
        assert iocb.in_flight
    context.cancel(iocb)
    assert "has ended or was cancelled" in not_found(context, iocb)  # before it is reaped
    context.getevents()
    assert "reaped already" in not_found(context, iocb)  # and after


def test_done_but_not_reaped_is_not_found(context: Context, pipe: tuple[int, int]) -> None:
    waiting, ready = Iocb.poll(pipe[0]), Iocb.poll(pipe[1], PollEvents.OUT)
    eventfd = os.eventfd(0)
    waiting.set_eventfd(eventfd)
    context.submit([waiting, ready])  # the second one is ready at submit
    not_found(context, ready)
    os.write(pipe[1], b"x")
    assert os.eventfd_read(eventfd) == 1  # it has ended
    not_found(context, waiting)
    assert {event.iocb for event in context.getevents(2)} == {waiting, ready}
    os.close(eventfd)


def test_submitted_again_it_can_be_cancelled_again(context: Context, pipe: tuple[int, int]) -> None:
    iocb = Iocb.poll(pipe[0])
    for _ in range(3):
        context.submit([iocb])
        assert context.cancel(iocb) is None
        assert [event.res for event in context.getevents()] == [0]


def test_direct_read_in_flight_is_not_found(
    context: Context, scratch: Path, direct: int, pages: Callable[[int], Any]
) -> None:
    memory = pages(1 << 20)
    iocb = Iocb.pread(direct, memory)
    context.submit([iocb])
    assert "only polls" in not_found(context, iocb)
    [event] = context.getevents()
    assert event.check() == 1 << 20
    assert memory[:] == scratch.read_bytes()[: 1 << 20]


@pytest.mark.parametrize("make", [Iocb.fsync, Iocb.fdsync])
def test_a_flush_in_flight_is_not_found(context: Context, scratch: Path, make: Callable[..., Iocb]) -> None:
    with scratch.open("r+b") as file:
        file.write(b"x" * 4096)
        file.flush()
        iocb = make(file)
        context.submit([iocb])
        assert "only polls" in not_found(context, iocb)
        [event] = context.getevents()
        assert event.check() == 0


def test_race_with_a_writer(context: Context) -> None:
    """Accepted goes with 0, not found with the events, and no byte is ever taken."""
    many = few(3000)
    start = threading.Barrier(2)
    ends = [os.pipe() for _ in range(2)]

    def write() -> None:
        for number in range(many):
            start.wait()
            os.write(ends[number % 2][1], b"x")
            start.wait()

    thread = threading.Thread(target=write)
    thread.start()
    seen = set()
    for number in range(many):
        read_end = ends[number % 2][0]
        iocb = Iocb.poll(read_end)
        context.submit([iocb])
        start.wait()
        try:
            accepted = context.cancel(iocb) is None
        except CancelNotFound:
            accepted = False
        [event] = context.getevents()
        assert event.iocb is iocb
        seen.add((accepted, event.res > 0))
        start.wait()
        assert os.read(read_end, 2) == b"x"
    thread.join()
    for end in ends[0] + ends[1]:
        os.close(end)
    # (True, True) is legal: a poll that is queued for its completion already can be accepted. Not found
    # with res 0 is not: nobody else has cancelled it.
    assert seen <= {(True, False), (False, True), (True, True)}


def test_the_event_may_come_later(context: Context, pipe: tuple[int, int]) -> None:
    """It is put up by a kernel worker: looking once without waiting may find nothing."""
    for _ in range(few(1000)):
        iocb = Iocb.poll(pipe[0])
        context.submit([iocb])
        context.cancel(iocb)
        at_once = context.getevents(0)
        assert len(at_once) <= 1
        [event] = at_once or context.getevents()
        assert (event.res, event.res2) == (0, 0)


def test_wakes_a_thread_that_waits(
    context: Context, pipe: tuple[int, int], is_in_call: Callable[..., None]
) -> None:
    iocb = Iocb.poll(pipe[0])
    context.submit([iocb])
    got: list[Event] = []
    thread = threading.Thread(target=lambda: got.extend(context.getevents()))
    thread.start()
    is_in_call(thread, "io_getevents")
    context.cancel(iocb)
    thread.join()
    assert [(event.iocb, event.res) for event in got] == [(iocb, 0)]


def test_an_eventfd_counts_cancelled_requests(context: Context, pipe: tuple[int, int]) -> None:
    eventfd = os.eventfd(0)
    iocbs = [Iocb.poll(pipe[0]) for _ in range(5)]
    for iocb in iocbs:
        iocb.set_eventfd(eventfd)
    context.submit(iocbs)
    for iocb in iocbs:
        context.cancel(iocb)
    counted = 0
    while counted < 5:
        counted += os.eventfd_read(eventfd)
    assert counted == 5
    assert len(context.getevents(5)) == 5
    os.close(eventfd)


def test_closing_the_fd_ends_nothing(context: Context) -> None:
    read_end, write_end = os.pipe()
    polls = [Iocb.poll(read_end), Iocb.poll(read_end)]
    context.submit(polls)
    os.close(read_end)
    assert context.cancel(polls[0]) is None  # still armed, still cancellable
    assert context.getevents()[0].res == 0
    os.write(write_end, b"x")  # it holds the file open: this is no broken pipe
    [event] = context.getevents()
    assert event.iocb is polls[1]
    assert PollEvents.IN in PollEvents(event.res)
    os.close(write_end)


def sockets() -> tuple[list[int], list[object]]:
    one, two = socket.socketpair()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    return [one.fileno(), udp.fileno()], [one, two, udp]


def test_what_can_be_polled_and_cancelled(context: Context, pipe: tuple[int, int]) -> None:
    sock_fds, keep = sockets()
    epoll = select.epoll()
    eventfd = os.eventfd(0)
    timerfd = ctypes.CDLL(None, use_errno=True).timerfd_create(1, os.O_CLOEXEC)
    assert timerfd >= 0
    for fd in [pipe[0], eventfd, timerfd, epoll.fileno(), *sock_fds]:
        iocb = Iocb.poll(fd)
        context.submit([iocb])
        assert context.cancel(iocb) is None
        assert context.getevents()[0].res == 0
    for opened in keep:
        opened.close()  # type: ignore[attr-defined]
    epoll.close()
    os.close(eventfd)
    os.close(timerfd)


def test_a_regular_file_is_always_ready(context: Context, scratch: Path) -> None:
    with scratch.open("rb") as file:
        context.submit([Iocb.poll(file, PollEvents.IN | PollEvents.OUT)])
        [event] = context.getevents()
        assert PollEvents(event.res) >= PollEvents.IN


def test_two_wait_queues_are_refused_unless_ready(context: Context, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    both = os.open(fifo, os.O_RDWR)
    master, slave = pty.openpty()
    for fd, other in ((both, both), (master, slave)):
        iocb = Iocb.poll(fd)
        with pytest.raises(OSError, match="wait queue") as caught:
            context.submit([iocb])
        assert caught.value.errno == errno.EINVAL
        assert not iocb.in_flight
        assert context.in_flight == 0
        os.write(other, b"x\n")
        context.submit([iocb])
        assert context.getevents()[0].res > 0
    for fd in (both, master, slave):
        os.close(fd)


def test_a_kernel_that_hands_the_event_over(
    context: Context, pipe: tuple[int, int], fake: Callable[..., None]
) -> None:
    """Kernels before 3.10 answered 0 and gave the event with it; it is not queued then."""
    from iocancel._native import lib

    fake(ioc_laio_cancel=lambda c, block, out: hand_over(c, block, out))

    def hand_over(c: Any, block: Any, out: Any) -> int:
        assert lib.ioc_laio_cancel(c, block, out) == -errno.EINPROGRESS
        assert out.count == 0
        while lib.ioc_laio_getevents(c, 1, 1, -1, out) != 1:
            pass
        return 0

    other, iocb = Iocb.poll(pipe[1], PollEvents.OUT, data=1), Iocb.poll(pipe[0], data=2)
    context.submit([other])
    context.getevents()
    context.submit([iocb])
    assert context.cancel(iocb) == Event(iocb, 2, 0, 0)
    assert not iocb.in_flight
    assert context.getevents(0) == []


@pytest.mark.parametrize(
    ("answer", "error"), [(errno.EAGAIN, CancelTooLate), (errno.EFAULT, OSError), (errno.ENOSYS, OSError)]
)
def test_other_answers(
    context: Context,
    pipe: tuple[int, int],
    fake: Callable[..., None],
    answer: int,
    error: type[OSError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    iocb = Iocb.poll(pipe[0])
    context.submit([iocb])
    with monkeypatch.context():
        fake(ioc_laio_cancel=lambda *_: -answer)
        with pytest.raises(error) as caught:
            context.cancel(iocb)
        assert caught.value.errno == answer
        assert not isinstance(caught.value, CancelNotFound)


def test_an_interruption_behind_the_call_loses_nothing(
    context: Context, pipe: tuple[int, int], fake: Callable[..., None]
) -> None:
    """The answer is gone, the request is not."""

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    iocb = Iocb.poll(pipe[0])
    context.submit([iocb])
    fake(ioc_laio_cancel=interrupted)
    with pytest.raises(KeyboardInterrupt):
        context.cancel(iocb)
    assert iocb.in_flight
    os.write(pipe[1], b"x")
    [event] = context.getevents()
    assert event.res > 0
