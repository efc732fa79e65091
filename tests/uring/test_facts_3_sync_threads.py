"""facts.md 3: synchronous cancels from other threads, on rings of other kinds, and with signals."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from iocancel import CancelNotFound, CancelTimeout, WrongThread
from iocancel.uring import CancelFlags, SetupFlags, SqeFlags

from ..support import BOUND, blocked_in, until, until_blocked
from .helpers import DEFER, INTERRUPTED, RING_KINDS, RUNS, Asked, need_flags

CANCELED, NOENT, ALREADY = -125, -2, -114
ALL, ANY = CancelFlags.ALL, CancelFlags.ANY


ENTER, REGISTER = 426, 427  # io_uring_enter, io_uring_register: the same on every architecture


def in_call(thread: int | None, call: int) -> bool:
    """Whether a thread is blocked in this system call."""
    return Path(f"/proc/self/task/{thread}/syscall").read_text().startswith(f"{call} ")


@pytest.fixture(autouse=True)
def has_it() -> None:
    need_flags(CancelFlags.FD_FIXED)  # of Linux 6.0, as synchronous cancels


@pytest.fixture
def running(request: pytest.FixtureRequest, open_ring: Callable[..., Asked], fifo: Path) -> Asked:
    """A ring (default, or the kind that the test asks for) with the open of a FIFO, 1, in a worker."""
    asked = open_ring(8, getattr(request, "param", SetupFlags(0)))
    asked.go(1, "openat", None, fifo, os.O_RDONLY, flags=SqeFlags.ASYNC)
    until_blocked("wait_for_partner")
    return asked


def in_thread(call: Callable[[], object]) -> object:
    """What a call gives, or raises, in another thread that lives until it is told to end."""
    found: list[object] = []

    def run() -> None:
        try:
            found.append(call())
        except Exception as error:  # noqa: BLE001
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(BOUND)
    return found[0]


@pytest.mark.parametrize("kind", ["default", "coop", "sqpoll"])
def test_from_another_thread(open_ring: Callable[..., Asked], pipe: tuple[int, int], kind: str) -> None:
    asked = open_ring(8, RING_KINDS[kind])
    asked.go(1, "read", pipe[0], bytearray(8))
    assert asked.pending(1)
    assert in_thread(lambda: asked.ring.register_sync_cancel(1)) == 0
    assert asked.end(1) == CANCELED


def test_from_another_thread_for_what_runs(running: Asked) -> None:
    answer = in_thread(lambda: running.ring.register_sync_cancel(1, timeout=BOUND))
    assert answer == 0 or isinstance(answer, CancelNotFound)
    assert running.end(1) in INTERRUPTED


def test_while_another_thread_waits(open_ring: Callable[..., Asked], pipe: tuple[int, int]) -> None:
    asked = open_ring(8)
    asked.go(1, "read", pipe[0], bytearray(8))
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.append(asked.end(1)))
    thread.start()
    until(lambda: in_call(thread.native_id, ENTER), "the thread waits for a completion")
    assert asked.ring.register_sync_cancel(1) == 0
    thread.join(BOUND)
    assert got == [CANCELED]


@pytest.mark.parametrize("flags", [SetupFlags.SINGLE_ISSUER, DEFER], ids=["single", "defer"])
def test_a_single_issuers_ring_refuses_other_threads(
    open_ring: Callable[..., Asked], pipe: tuple[int, int], flags: SetupFlags
) -> None:
    asked = open_ring(8, flags)
    asked.go(1, "read", pipe[0], bytearray(8))
    answer = in_thread(lambda: asked.ring.register_sync_cancel(1))
    assert isinstance(answer, WrongThread)
    assert answer.errno == 17
    assert isinstance(in_thread(asked.ring.submit), WrongThread)
    assert asked.ring.register_sync_cancel(1, timeout=1) == 0
    assert asked.end(1) == CANCELED


def test_deferred_completions_come_only_by_a_wait(
    open_ring: Callable[..., Asked], pipe: tuple[int, int]
) -> None:
    asked = open_ring(8, DEFER)
    asked.go(1, "read", pipe[0], bytearray(8))
    assert asked.ring.register_sync_cancel(1, timeout=1) == 0
    assert asked.ring.cq_ready == 0
    assert [cqe.res for cqe in asked.ring.peek()] == [CANCELED]


@pytest.mark.parametrize("running", [DEFER], indirect=True)
def test_deferred_and_running_in_a_worker(running: Asked) -> None:
    """The wake-up is lost (facts 3.6): so a call without a limit is refused, and one with may use it up."""
    with pytest.raises(ValueError, match="DEFER_TASKRUN"):
        running.ring.register_sync_cancel(1)
    try:
        assert running.ring.register_sync_cancel(1, timeout=0.3) == 0
    except (CancelTimeout, CancelNotFound):  # not found: 1 of 2,000 (3.5)
        pass
    assert running.end(1) in INTERRUPTED


@pytest.mark.parametrize("running", [DEFER], indirect=True)
def test_deferred_and_running_an_entry_does_it(running: Asked) -> None:
    assert running.cancel(1) in RUNS
    assert running.end(1) in INTERRUPTED


@pytest.mark.parametrize("running", [SetupFlags.SQPOLL], indirect=True)
def test_sqpoll_cannot_reach_what_runs(running: Asked) -> None:
    with pytest.raises(CancelNotFound):
        running.ring.register_sync_cancel(1)
    assert running.ring.register_sync_cancel(1, flags=ALL) == 0
    assert running.ring.register_sync_cancel(flags=ANY) == 0
    assert running.pending(1)
    assert blocked_in("wait_for_partner", "S") == 1
    # An entry interrupts it, and says -ENOENT as well (3.7).
    assert running.cancel(1) in (NOENT, ALREADY)
    assert running.end(1) in INTERRUPTED


class Enough(Exception):
    """What the handler of these tests raises."""


@pytest.mark.parametrize("running", [DEFER], indirect=True)
def test_a_signals_handler_runs_while_it_waits(
    running: Asked, alarm: Callable[[Callable[[], None]], None]
) -> None:
    """EINTR (3.2): the handler runs, and what it raises ends the call; the target is not lost."""
    main, over, sent = threading.get_ident(), threading.Event(), threading.Event()
    number = threading.get_native_id()

    def act() -> None:
        raise Enough

    def send() -> None:
        until(lambda: over.is_set() or in_call(number, REGISTER), "the call waits")
        if not over.is_set():
            sent.set()
            signal.pthread_kill(main, signal.SIGALRM)

    alarm(act)
    # The kernel wakes this thread once more, soon after it had a worker made: let that be over, or the
    # lost wake-up that this test uses is found again.
    running.go(2, "timeout", 0.1)
    running.end(2)
    thread = threading.Thread(target=send)
    thread.start()
    raised = False
    try:
        try:
            running.ring.register_sync_cancel(1, timeout=BOUND)
        finally:
            over.set()
            thread.join()
    except Enough:
        raised = True
    except CancelNotFound:
        pass
    assert raised == sent.is_set()
    assert running.end(1) in INTERRUPTED


@pytest.mark.parametrize("running", [DEFER], indirect=True)
def test_a_handler_that_raises_nothing_lets_it_go_on(
    running: Asked, alarm: Callable[[Callable[[], None]], None]
) -> None:
    calls: list[int] = []
    alarm(lambda: calls.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        # Found and ended; or ended between two looks; or the wake-up lost again (3.6).
        assert running.ring.register_sync_cancel(1, timeout=1) == 0
    except (CancelNotFound, CancelTimeout):
        pass
    until(lambda: calls, "the handler ran")
    assert running.end(1) in INTERRUPTED
