"""Waiting for events: times, signals, threads; and what an interruption may not lose."""

from __future__ import annotations

import dis
import errno
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from iocancel.libaio import Context, Event, Iocb, PollEvents

from ..support import few


@pytest.fixture
def ready(pipe: tuple[int, int]) -> Callable[[int], list[Iocb]]:
    """Makes polls that have ended when they are submitted."""
    return lambda many: [Iocb.poll(pipe[1], PollEvents.OUT, data=number) for number in range(many)]


def test_numbers(context: Context, ready: Callable[[int], list[Iocb]]) -> None:
    context.submit(ready(5))
    assert len(context.getevents(1, 1)) == 1
    assert len(context.getevents(2, 3)) == 3
    assert context.getevents(0, 0) == []
    assert len(context.getevents(0, 0x7FFFFFFF)) == 1
    assert context.getevents(0) == []


def test_time(context: Context, ready: Callable[[int], list[Iocb]]) -> None:
    assert context.getevents(timeout=0) == []
    start = time.monotonic()
    assert context.getevents(timeout=0.05) == []
    context.submit(ready(2))
    assert len(context.getevents(3, timeout=0.05)) == 2  # what there is when the time is up
    assert time.monotonic() - start >= 0.1
    context.submit(ready(2))
    assert len(context.getevents(2, timeout=3600)) == 2
    context.submit(ready(2))
    assert len(context.getevents(2, timeout=math.inf)) == 2
    context.submit(ready(1))
    assert len(context.getevents(1, timeout=1e300)) == 1


def test_wrong_numbers(context: Context) -> None:
    wrong: Any
    for wrong in (-1, 1 << 31, 1 << 70):
        with pytest.raises(ValueError, match="min_nr takes"):
            context.getevents(wrong)
        with pytest.raises(ValueError, match="nr takes"):
            context.getevents(0, wrong)
    with pytest.raises(ValueError, match="nr takes 3 to"):
        context.getevents(3, 2)
    for wrong in (-1, -0.5, math.nan, -math.inf):
        with pytest.raises(ValueError, match="timeout takes"):
            context.getevents(timeout=wrong)
        with pytest.raises(ValueError, match="timeout takes"):
            context.close(wrong)
    for wrong in ("1", b"1", [1], 1j):
        with pytest.raises(TypeError, match="timeout takes"):
            context.getevents(timeout=wrong)
        with pytest.raises(TypeError, match="min_nr takes"):
            context.getevents(wrong)
    with pytest.raises(TypeError, match="nr takes"):
        context.getevents(0, 1.5)  # type: ignore[arg-type]
    assert not context.closed


def test_many(ready: Callable[[int], list[Iocb]]) -> None:
    """More than one call of the kernel's brings at once."""
    many = few(5000)
    with Context(many) as context:
        iocbs = ready(many)
        assert context.submit(iocbs) == many
        events = context.getevents(many)
        assert sorted(event.data for event in events) == list(range(many))
        assert context.submit(iocbs) == many
        assert len(context.getevents(1)) == many


def test_a_refusal(context: Context, fake: Callable[..., None]) -> None:
    def refuse(c: object, least: int, most: int, deadline: int, out: Any) -> int:
        return -errno.ENOSYS

    with pytest.MonkeyPatch.context():
        fake(ioc_laio_getevents=refuse)
        with pytest.raises(OSError, match="io_getevents") as caught:
            context.getevents()
    assert caught.value.errno == errno.ENOSYS


@pytest.fixture
def alarm() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Lets a signal handler run in a moment."""
    before = signal.getsignal(signal.SIGALRM)

    def start(handler: Callable[[], None]) -> None:
        signal.signal(signal.SIGALRM, lambda *_: handler())
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)  # again, should the first come before the wait

    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_signal_handlers_run_and_the_wait_goes_on(
    context: Context, pipe: tuple[int, int], alarm: Callable[[Callable[[], None]], None]
) -> None:
    ran: list[float] = []

    def handler() -> None:
        ran.append(time.monotonic())
        if len(ran) == 3:
            os.write(pipe[1], b"x")

    context.submit([Iocb.poll(pipe[0])])
    start = time.monotonic()
    alarm(handler)
    [event] = context.getevents()
    assert event.res > 0
    assert len(ran) >= 3
    assert context.getevents(timeout=0.1) == []  # the time goes on, too
    assert time.monotonic() - start >= 0.1


def test_an_exception_of_a_handler_passes(
    context: Context, pipe: tuple[int, int], alarm: Callable[[Callable[[], None]], None]
) -> None:
    class Stop(BaseException):
        pass

    def handler() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise Stop

    iocbs = [Iocb.poll(pipe[0]), Iocb.poll(pipe[1], PollEvents.OUT)]
    context.submit(iocbs)
    alarm(handler)
    with pytest.raises(Stop):
        context.getevents(2)  # one is there and was reaped, the other one is not
    assert [event.iocb for event in context.getevents()] == iocbs[1:]
    os.write(pipe[1], b"x")
    assert [event.iocb for event in context.getevents()] == iocbs[:1]


def test_a_handler_may_use_the_context(
    context: Context, pipe: tuple[int, int], alarm: Callable[[Callable[[], None]], None]
) -> None:
    inner: list[Event] = []
    begun: list[bool] = []  # on a slow machine the alarm comes again while its handler still runs
    late = Iocb.poll(pipe[0])

    def handler() -> None:
        if not begun:
            begun.append(True)
            context.submit([Iocb.poll(pipe[1], PollEvents.OUT)])
            inner.extend(context.getevents())
            context.cancel(late)

    context.submit([late])
    alarm(handler)
    [event] = context.getevents()
    assert event.iocb is late
    assert len(inner) == 1


def test_a_handler_may_close_it(pipe: tuple[int, int], alarm: Callable[[Callable[[], None]], None]) -> None:
    context = Context()
    ended: list[Event] = []
    context.submit([Iocb.poll(pipe[0])])
    alarm(lambda: ended.extend(context.close()))
    with pytest.raises(ValueError, match="closed"):
        context.getevents()
    assert [event.res for event in ended] == [0]


def test_many_threads_wait(
    context: Context, ready: Callable[[int], list[Iocb]], is_in_call: Callable[..., None]
) -> None:
    """Each event goes to one of them, and each gets what it has asked for."""
    got: list[list[Event]] = []
    threads = [threading.Thread(target=lambda: got.append(context.getevents(3, 3))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        is_in_call(thread, "io_getevents")
    for iocb in ready(12):
        context.submit([iocb])
    # Two threads may hold one or two events each in the end, if they waited for three together: no more
    # are needed than that each takes its three.
    for thread in threads:
        thread.join()
    assert [len(events) for events in got] == [3] * 4
    assert len({event.iocb for events in got for event in events}) == 12


CHECKS = ("RESUME", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT")


class Interrupt:
    """Raises KeyboardInterrupt at the n-th point of the library where a signal handler could.

    The interpreter looks for signals at the start of a function, at a jump back, and behind a call of
    something written in C. Nowhere else, and so nowhere else here.
    """

    def __init__(self, number: int) -> None:
        self.left = number
        self.after_call: dict[FrameType, bool] = {}
        self.names: dict[Any, dict[int, str]] = {}

    def __call__(self, frame: FrameType, what: str, value: object) -> Any:
        if f"{os.sep}libaio{os.sep}" not in frame.f_code.co_filename or "tests" in frame.f_code.co_filename:
            if frame.f_back is not None:
                self.after_call[frame.f_back] = False
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if what == "call" and frame.f_back is not None:
            self.after_call[frame.f_back] = False  # that was Python code, and its RESUME is the point
        if what == "opcode":
            code = frame.f_code
            if code not in self.names:
                self.names[code] = {i.offset: i.opname for i in dis.get_instructions(code)}
            name = self.names[code][frame.f_lasti]
            point = self.after_call.get(frame, False) or name in CHECKS
            self.after_call[frame] = name.startswith("CALL")
            if point:
                self.left -= 1
                if self.left == 0:
                    sys.settrace(None)
                    raise KeyboardInterrupt
        return self

    def __enter__(self) -> None:
        sys.settrace(self)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        self.after_call.clear()  # the frames, and with them all that they hold


def use(context: Context, iocbs: list[Iocb], got: list[Event]) -> None:
    context.submit(iocbs)
    context.cancel(iocbs[-1])
    got += context.getevents(3)


def close(context: Context, iocbs: list[Iocb], got: list[Event]) -> None:
    context.submit(iocbs)
    got += context.close()


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="it knows where CPython looks for signals")
@pytest.mark.parametrize("work", [use, close])
def test_a_keyboard_interrupt_anywhere_loses_nothing(work: Any) -> None:
    """At each point, in turn: no byte, no event, no memory, no request."""
    before, number, step, reached = sys.gettrace(), 0, 1 if few(100) == 100 else 23, True
    with Context() as other:
        while reached:
            number += step
            reached = interrupted_at(number, work, other)
    sys.settrace(before)
    # It has got through; from 3.12 on the interpreter shows a tracer fewer of the places.
    assert number > (100 if sys.version_info < (3, 12) else 30)


def interrupted_at(
    number: int, work: Callable[[Context, list[Iocb], list[Event]], None], other: Context
) -> bool:
    data_r, data_w = os.pipe()
    idle_r, idle_w = os.pipe()
    os.set_blocking(data_r, False)
    os.write(data_w, b"12")
    context = Context()
    memory = [bytearray(1), bytearray(1)]
    reads = [Iocb.pread(data_r, piece, data=piece) for piece in memory]
    polls = [Iocb.poll(idle_r), Iocb.poll(idle_r)]
    iocbs = [*reads, *polls]
    got: list[Event] = []
    reached = False
    try:
        with Interrupt(number):
            work(context, iocbs, got)
    except KeyboardInterrupt:
        reached = True
    flying = [iocb for iocb in iocbs if iocb.in_flight]
    assert len(flying) == context.in_flight  # the ledger is true
    os.write(idle_w, b"x")
    if context.closed:
        got += context.close()
    ledger = context._kernel.ledger
    while ledger.flight or ledger.ready or ledger.late:
        got += context.getevents(1)
    ended = [event.iocb for event in got]
    assert len(set(ended)) == len(ended)  # each once
    assert set(flying) <= set(ended)
    taken = sum(event.res for event in got if event.iocb in reads)
    assert os.read(data_r, 9) == b"12"[taken:] if taken < 2 else taken == 2  # each byte is somewhere
    for piece in memory:
        piece.append(0)  # nothing is pinned any more
    assert other.submit(polls) == 2  # and all can be used again
    assert len(other.getevents(2)) == 2
    assert context.close() == []
    for end in (data_r, data_w, idle_r, idle_w):
        os.close(end)
    return reached
