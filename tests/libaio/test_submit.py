"""What can be asked for, and what io_submit does with it."""

from __future__ import annotations

import array
import copy
import errno
import gc
import os
import pickle
import socket
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iocancel import QueueFull
from iocancel.libaio import Context, Event, Iocb, IoprioClass, Opcode, PollEvents, RwFlags, ioprio


def done(context: Context, iocb: Iocb) -> int:
    assert context.submit([iocb]) == 1
    [event] = context.getevents()
    assert event.iocb is iocb
    return event.check()


def test_read_write_and_flush(context: Context, scratch: Path) -> None:
    with scratch.open("r+b", buffering=0) as file:
        assert done(context, Iocb.pwrite(file, b"hello world", 100)) == 11
        assert done(context, Iocb.fsync(file)) == 0
        assert done(context, Iocb.fdsync(file.fileno())) == 0
        into = bytearray(5)
        assert done(context, Iocb.pread(file, into, 106)) == 5
        assert into == b"world"
        assert done(context, Iocb.pread(file, into, 1 << 40)) == 0  # behind the end
        assert done(context, Iocb.pread(file, bytearray())) == 0


def test_vectors(context: Context, scratch: Path) -> None:
    with scratch.open("r+b", buffering=0) as file:
        assert (
            done(context, Iocb.pwritev(file, [b"abc", memoryview(b"defg")[1:], array.array("B", b"h")], 7))
            == 7
        )
        one, two = bytearray(4), array.array("B", bytes(3))
        assert done(context, Iocb.preadv(file, iter((one, memoryview(two))), 7)) == 7
        assert bytes(one) + two.tobytes() == b"abcefgh"
        assert done(context, Iocb.preadv(file, [])) == 0
        with pytest.raises(OSError, match="io_submit") as caught:
            context.submit([Iocb.pwritev(file, [b"x"] * 1025)])
        assert caught.value.errno == errno.EINVAL


def test_rw_flags(context: Context, pipe: tuple[int, int], scratch: Path) -> None:
    with scratch.open("r+b", buffering=0) as file:
        end = os.fstat(file.fileno()).st_size
        assert done(context, Iocb.pwrite(file, b"end", 0, rw_flags=RwFlags.APPEND | RwFlags.DSYNC)) == 3
        assert os.pread(file.fileno(), 3, end) == b"end"
        iocb = Iocb.pwrite(file, b"x", rw_flags=RwFlags.SYNC)
        assert iocb.rw_flags is RwFlags.SYNC
        iocb.rw_flags = 0
        assert iocb.rw_flags == RwFlags(0)
        assert done(context, iocb) == 1
        with pytest.raises(OSError, match="rw_flags") as caught:
            context.submit([Iocb.pread(file, bytearray(1), rw_flags=RwFlags.NOSIGNAL | RwFlags.ATOMIC)])
        assert caught.value.errno in (errno.EOPNOTSUPP, errno.EINVAL)  # not for reads, or not known


def test_priorities(context: Context, scratch: Path) -> None:
    with scratch.open("r+b", buffering=0) as file:
        idle = Iocb.pread(file, bytearray(8), ioprio=ioprio(IoprioClass.IDLE))
        assert idle.ioprio == ioprio(IoprioClass.IDLE)
        assert done(context, idle) == 8
        idle.ioprio = ioprio(IoprioClass.BE, 7)
        assert done(context, idle) == 8
        idle.ioprio = None
        assert idle.ioprio is None
        idle.ioprio = 7 << 13  # a class that no kernel has
        with pytest.raises(OSError, match="priority") as caught:
            context.submit([idle])
        assert caught.value.errno == errno.EINVAL
        idle.ioprio = ioprio(IoprioClass.RT, 3)
        if os.geteuid():
            with pytest.raises(PermissionError, match="privilege"):
                context.submit([idle])


def test_only_reads_and_writes_have_flags_and_priorities(pipe: tuple[int, int]) -> None:
    poll = Iocb.poll(pipe[0])
    with pytest.raises(ValueError, match="only reads and writes"):
        poll.rw_flags = RwFlags.NOWAIT
    with pytest.raises(ValueError, match="only reads and writes"):
        poll.ioprio = 0


def test_sockets(context: Context) -> None:
    one, two = socket.socketpair()
    with one, two:
        assert done(context, Iocb.pwrite(one, b"hello")) == 5
        into = bytearray(9)
        assert done(context, Iocb.pread(two, into)) == 5
        two.setblocking(False)
        context.submit([Iocb.pread(two, into)])
        with pytest.raises(BlockingIOError, match="pread"):
            context.getevents()[0].check()


def test_a_pipe_that_is_empty(
    context: Context, pipe: tuple[int, int], is_in_call: Callable[..., None]
) -> None:
    """A blocking read of it blocks io_submit; other threads run on."""
    into = bytearray(4)
    iocb = Iocb.pread(pipe[0], into)
    thread = threading.Thread(target=context.submit, args=([iocb],))
    thread.start()
    is_in_call(thread, "io_submit")
    assert iocb.in_flight
    assert context.getevents(0) == []
    os.write(pipe[1], b"data")
    thread.join()
    assert context.getevents()[0].res == 4
    os.set_blocking(pipe[0], False)
    context.submit([iocb])
    [event] = context.getevents()
    assert event.res == -errno.EAGAIN


def test_poll_events(context: Context, pipe: tuple[int, int]) -> None:
    assert PollEvents.OUT in PollEvents(done(context, Iocb.poll(pipe[1], PollEvents.OUT)))
    nothing = Iocb.poll(pipe[0], PollEvents(0))
    context.submit([nothing])
    os.write(pipe[1], b"x")
    assert context.getevents(0) == []  # it did not ask for that
    os.close(pipe[1])
    [event] = context.getevents()
    assert PollEvents(event.res) == PollEvents.HUP  # but that comes unasked


def test_in_flight_it_is_left_alone(context: Context, pipe: tuple[int, int]) -> None:
    read, poll = Iocb.pread(pipe[0], bytearray(1)), Iocb.poll(pipe[0], data=1)
    os.set_blocking(pipe[0], False)
    context.submit([poll, read])
    for iocb in (poll, read):
        with pytest.raises(ValueError, match="is in flight"):
            context.submit([iocb])
        with Context() as other, pytest.raises(ValueError, match="is in flight"):
            other.submit([iocb])
        for name, value in (("data", 2), ("rw_flags", RwFlags.NOWAIT), ("ioprio", 0)):
            with pytest.raises(ValueError, match="can't be changed"):
                setattr(iocb, name, value)
        with pytest.raises(ValueError, match="can't be changed"):
            iocb.set_eventfd(None)
    assert context.in_flight == 2
    assert context.cancel(poll) is None
    assert len(context.getevents(2)) == 2
    poll.data = 2
    assert poll.data == 2


def test_twice_in_one_list(context: Context, pipe: tuple[int, int]) -> None:
    iocb, other = Iocb.poll(pipe[0]), Iocb.poll(pipe[0])
    with pytest.raises(ValueError, match="twice"):
        context.submit([other, iocb, iocb])
    assert not iocb.in_flight
    assert not other.in_flight
    assert context.in_flight == 0
    assert context.getevents(0) == []


def test_partly_submitted(context: Context, pipe: tuple[int, int]) -> None:
    """The first ones that are right count; asked again, the wrong one says why."""
    good, bad, behind = Iocb.poll(pipe[0]), Iocb.poll(1 << 20), Iocb.poll(pipe[0])
    assert context.submit([good, bad, behind]) == 1
    assert (good.in_flight, bad.in_flight, behind.in_flight) == (True, False, False)
    with pytest.raises(OSError, match="fd=1048576") as caught:
        context.submit([bad, behind])
    assert caught.value.errno == errno.EBADF
    assert context.submit([behind]) == 1
    context.cancel(good)
    context.cancel(behind)
    context.getevents(2)


def test_full(pipe: tuple[int, int]) -> None:
    """The kernel makes more room than was asked for; then it is EAGAIN, and nothing is lost."""
    with Context(1) as context:
        iocbs = [Iocb.poll(pipe[0]) for _ in range(5000)]
        some = context.submit(iocbs)
        with pytest.raises(QueueFull, match="reap events"):
            context.submit(iocbs[some:])
        assert 1 <= some < 5000
        assert context.in_flight == some
        assert sum(iocb.in_flight for iocb in iocbs) == some
        for iocb in iocbs[:some]:
            context.cancel(iocb)
        assert len(context.getevents(some)) == some
        assert context.submit(iocbs[some : some + 1]) == 1
        assert [event.res for event in context.close()] == [0]


def test_nothing_to_submit(context: Context) -> None:
    assert context.submit([]) == 0
    assert context.submit(iter(())) == 0


def test_wrong_things(context: Context, pipe: tuple[int, int]) -> None:
    iocb = Iocb.poll(pipe[0])
    wrong: Any
    for wrong in (iocb, None, 3):
        with pytest.raises(TypeError, match="as a list"):
            context.submit(wrong)
    for wrong in ([iocb, None], ["x"], "x"):
        with pytest.raises(TypeError, match="Iocb is wanted"):
            context.submit(wrong)
    assert not iocb.in_flight
    with pytest.raises(TypeError, match="class methods"):
        Iocb()
    for function in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="copied or pickled"):
            function(iocb)
        with pytest.raises(TypeError, match="copied or pickled"):
            function(context)


@pytest.mark.parametrize("number", [-1, 1 << 20])
def test_bad_fds(context: Context, number: int) -> None:
    for iocb in (Iocb.poll(number), Iocb.pread(number, bytearray(1)), Iocb.fsync(number)):
        with pytest.raises(OSError, match="io_submit") as caught:
            context.submit([iocb])
        assert caught.value.errno == errno.EBADF


def test_a_file_object_is_asked_at_submit(context: Context, pipe: tuple[int, int]) -> None:
    one, two = socket.socketpair()
    iocb, notified = Iocb.poll(one), Iocb.poll(pipe[1], PollEvents.OUT)
    notified.set_eventfd(one)
    one.close()
    two.close()
    with pytest.raises(OSError, match="io_submit") as caught:
        context.submit([iocb])
    assert caught.value.errno == errno.EBADF
    with pytest.raises(ValueError, match=r"eventfd of .* is closed"):
        context.submit([notified])
    with pytest.raises(ValueError, match="eventfd's number"):
        notified.set_eventfd(-1)
    notified.set_eventfd(pipe[0])  # no eventfd
    with pytest.raises(OSError, match="io_submit"):
        context.submit([notified])
    notified.set_eventfd(None)
    assert done(context, notified)


def test_descriptions(pipe: tuple[int, int]) -> None:
    poll, read = Iocb.poll(pipe[0], PollEvents.IN | PollEvents.OUT), Iocb.pread(pipe[0], bytearray(1), 4)
    assert "poll" in repr(poll)
    assert "IN|OUT" in repr(poll)
    assert "offset=4" in repr(read)
    assert (poll.opcode, read.opcode) == (Opcode.POLL, Opcode.PREAD)
    assert Iocb.fdsync(pipe[0]).call == "fdatasync"
    assert "fsync" in repr(Iocb.fsync(pipe[0]))


class Weird(bytearray):
    """A buffer that can be watched."""


def test_memory_stays_while_in_flight(context: Context, pipe: tuple[int, int]) -> None:
    """What the kernel was given is neither freed nor resized before its event was reaped."""
    os.write(pipe[1], b"abcd")
    one, two = Weird(b"...."), Weird(b"....")
    iocbs = [Iocb.pread(pipe[0], one), Iocb.pwritev(pipe[1], [two, b"x"])]
    one.append(0)  # not yet pinned
    assert context.submit(iocbs) == 2
    for buffer in (one, two):
        with pytest.raises(BufferError):
            buffer.append(0)
        with pytest.raises(BufferError):
            buffer.clear()
    dies = [weakref.ref(thing) for thing in (one, two, *iocbs)]
    del one, two, buffer, iocbs
    gc.collect()
    assert all(die() is not None for die in dies)
    events = context.getevents(2)
    buffers: list[Any] = [dies[0](), dies[1]()]
    for free in buffers:
        assert free is not None
        free.append(0)  # free again, though the requests are still there
    del free, buffers, events
    assert all(die() is None for die in dies)  # and no cycle holds them


def test_a_buffer_is_looked_at_again_at_submit(context: Context, pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"abcdefgh")
    buffer = bytearray(2)
    iocb = Iocb.pread(pipe[0], buffer)
    assert done(context, iocb) == 2
    buffer += b"..."
    assert done(context, iocb) == 5
    assert buffer == b"cdefg"
    view = memoryview(bytearray(1))
    late = Iocb.pread(pipe[0], view)
    view.release()
    other = Iocb.poll(pipe[0])
    with pytest.raises(TypeError, match="buffer takes"):
        context.submit([other, late])
    assert not other.in_flight
    assert not late.in_flight


def test_direct_reads(context: Context, direct: int, pages: Callable[[int], Any], scratch: Path) -> None:
    memories = [pages(1 << 16) for _ in range(32)]
    iocbs = [Iocb.pread(direct, memory, number << 16) for number, memory in enumerate(memories)]
    assert context.submit(iocbs) == 32
    for memory in memories:
        with pytest.raises(BufferError):
            memory.close()
    events: list[Event] = []
    while len(events) < 32:
        events += context.getevents()
    assert {event.check() for event in events} == {1 << 16}
    assert b"".join(memory[:] for memory in memories) == scratch.read_bytes()[: 32 << 16]
