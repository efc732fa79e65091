"""Each verb, on each engine that can do it: what ends it, and that nothing happens after that."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import iocancel
from iocancel import Cancelled, CancelScope, FeatureUnavailable, move_on_after, pool, scope
from iocancel.operation import ANSWER

from .cases import CASES, Case
from .conftest import of_engine
from .helpers import BOUND, ENGINES, SHORT, Thread, exit_code, fork, forked, in_child, meanwhile, warm, whole

MAIN = threading.main_thread()
LACKING = {("libaio", "open"), ("libaio", "futex_wait")}
ROWS = [(engine, name) for engine in ENGINES for name in CASES if (engine, name) not in LACKING]
FILES = [row for row in ROWS if row[1] not in ("open", "waitid", "futex_wait", "sleep")]
NONBLOCKING = [row for row in FILES if row[1] not in ("poll", "splice", "tee", "connect")]


@contextlib.contextmanager
def set_up(engine: str, name: str, folder: Path) -> Iterator[Any]:
    with of_engine(engine) as found, contextlib.ExitStack() as stack:
        if not warm().supports(CASES[name].verb) and CASES[name].verb != "waitid":
            pytest.skip(f"{engine} has no {name} here")
        case: Any = CASES[name](stack, folder)
        case.pool = found
        yield case


@pytest.fixture(params=ROWS, ids="-".join)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A call of a verb on an engine."""
    engine, name = request.param
    with set_up(engine, name, tmp_path) as found:
        yield found


@pytest.fixture(params=FILES, ids="-".join)
def filed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """The same, of those that wait for a file."""
    engine, name = request.param
    with set_up(engine, name, tmp_path) as found:
        yield found


@pytest.fixture(params=[row for row in ROWS if CASES[row[1]].stays], ids="-".join)
def staying(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """The same, of those where what comes stays until a call takes it."""
    engine, name = request.param
    with set_up(engine, name, tmp_path) as found:
        yield found


@pytest.fixture(params=NONBLOCKING, ids="-".join)
def nonblocking(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """The same, of those that O_NONBLOCK means something to."""
    engine, name = request.param
    with set_up(engine, name, tmp_path) as found:
        os.set_blocking(found.fd, False)
        yield found


def goes_on(case: Case) -> None:
    """What has ended has left nothing behind: the next call is whole, and takes what comes."""
    whole()
    if case.timed and not case.is_ready:
        with pytest.raises(TimeoutError):
            case.call(timeout=0)
    if case.stays:
        if not case.is_ready:
            case.ready()
        assert case.right(case.call())
    elif type(case).ready is not Case.ready:
        thread = Thread(case.call)
        thread.until_blocked()
        case.ready()
        assert case.right(thread.join())
    else:
        with move_on_after(0):
            case.call()
    whole()


# Deadlines


def test_a_timeout_ends_it(case: Any) -> None:
    if not case.timed:
        began = time.monotonic()
        iocancel.sleep(SHORT)
        assert time.monotonic() >= began + SHORT
    else:
        began = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            case.call(timeout=SHORT)
        assert time.monotonic() >= began + SHORT
        assert not hasattr(caught.value, "operation")
    goes_on(case)


def test_a_scopes_deadline_ends_it(case: Any) -> None:
    began = time.monotonic()
    with move_on_after(SHORT) as inside:
        case.call()
        raise AssertionError("it was to end")
    assert inside.cancelled_caught
    assert time.monotonic() >= began + SHORT
    goes_on(case)


def test_the_earlier_of_two_deadlines_ends_it(case: Any) -> None:
    if not case.timed:
        with move_on_after(BOUND) as inside:
            iocancel.sleep(SHORT)
        assert not inside.cancelled_caught
    else:
        with move_on_after(BOUND) as inside, pytest.raises(TimeoutError):
            case.call(timeout=SHORT)
        assert not inside.cancelled_caught
        with move_on_after(SHORT) as inside:
            case.call(timeout=BOUND)
        assert inside.cancelled_caught
    goes_on(case)


# Cancels


def test_a_cancel_before_it_starts(case: Any) -> None:
    with CancelScope() as inside:
        Thread(inside.cancel).join()
        if case.stays:
            case.ready()
        case.call()
        raise AssertionError("it was to raise")
    assert inside.cancelled_caught
    whole()
    if case.stays:
        assert case.right(case.call()), "it had happened"
    else:
        goes_on(case)


def test_a_cancel_from_another_thread_while_it_is_in_flight(case: Any) -> None:
    with CancelScope() as inside, meanwhile(inside.cancel):
        case.call()
    assert inside.cancelled_caught
    goes_on(case)


def test_the_call_of_a_thread_is_cancelled_by_the_main_thread(case: Any) -> None:
    inside = CancelScope()

    def run() -> None:
        with inside:
            case.call()
            raise AssertionError("it was to raise")

    thread = Thread(run)
    thread.until_blocked()
    inside.cancel()
    thread.join()
    assert inside.cancelled_caught
    goes_on(case)


class Hooked:
    """Does something between what an engine's carrier does."""

    def __init__(self, carrier: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.real = carrier.go
        self.batches = 0
        monkeypatch.setattr(carrier, "go", self.go)
        self.first: Callable[[], object] | None = None
        self.behind: Callable[[], object] | None = None
        self.carrier = carrier

    def ended(self) -> bool:
        return any(token < ANSWER for token, _, _ in self.carrier.records())

    def go(self, batch: Any, wait: bool, timeout: float | None) -> None:
        first, behind = self.first, self.behind
        if batch is not None and first is not None:
            self.first = None
            self.real(batch, False, 0)
            first()
            if behind is None:
                return
            deadline = time.monotonic() + BOUND
            while not self.ended():
                assert time.monotonic() < deadline, "it did not end"
                self.real(None, True, 1.0)
            self.behind = None
            behind()
            return
        self.real(batch, wait, timeout)


def test_a_cancel_at_the_very_moment_of_its_completion(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if type(case).ready is Case.ready:
        ends_of_time(case, monkeypatch)
        return
    hooked = Hooked(warm()._carrier, monkeypatch)
    with CancelScope() as inside:
        hooked.first, hooked.behind = case.ready, lambda: Thread(inside.cancel).join()
        assert case.right(case.call()), "what had come is returned"
        assert hooked.behind is None
        with pytest.raises(Cancelled):
            case.call()
        case.call()
        raise AssertionError("each call raises")
    assert inside.cancelled_caught
    monkeypatch.undo()
    goes_on(case)


def ends_of_time(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sleep is over, and just then its scope is cancelled: it has slept, and the next one raises."""
    hooked = Hooked(warm()._carrier, monkeypatch)
    with CancelScope() as inside:
        hooked.first, hooked.behind = lambda: None, lambda: Thread(inside.cancel).join()
        iocancel.sleep(SHORT)
        iocancel.sleep(0)
        raise AssertionError("the next one raises")
    assert inside.cancelled_caught
    monkeypatch.undo()
    goes_on(case)


def test_a_cancel_on_its_way_when_it_completes(staying: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either it has happened, and the value is here, or it has not, and what came is there for the next."""
    case = staying
    hooked = Hooked(warm()._carrier, monkeypatch)

    def both() -> None:
        case.ready()
        Thread(inside.cancel).join()

    with CancelScope() as inside:
        hooked.first = both
        value = case.call()
        assert case.right(value)
        with pytest.raises(Cancelled):
            case.call()
    monkeypatch.undo()
    if inside.cancelled_caught:
        whole()
        assert case.right(case.call())
    goes_on(case)


def test_a_signals_handler_cancels_it(case: Any, handler: Any) -> None:
    with CancelScope() as inside:
        handler(inside.cancel)
        assert MAIN.ident is not None
        ident = MAIN.ident
        with meanwhile(lambda: signal.pthread_kill(ident, signal.SIGUSR1)):
            case.call()
    assert inside.cancelled_caught
    goes_on(case)


def test_ctrl_c_ends_it(case: Any) -> None:
    """It comes to another thread, so nothing but the wake-up interrupts this one."""
    with pytest.raises(KeyboardInterrupt) as caught, meanwhile(lambda: signal.raise_signal(signal.SIGINT)):
        case.call()
    assert not hasattr(caught.value, "operation")
    goes_on(case)


def test_ctrl_c_ends_it_inside_of_scopes(case: Any) -> None:
    ident = MAIN.ident
    assert ident is not None
    number = ident
    with (
        CancelScope() as inside,
        pytest.raises(KeyboardInterrupt),
        CancelScope(shield=True),
        meanwhile(lambda: signal.pthread_kill(number, signal.SIGINT)),
    ):
        case.call()
    assert not inside.cancel_called
    goes_on(case)


def test_a_shield_holds(case: Any) -> None:
    if type(case).ready is Case.ready:
        with CancelScope() as outer:
            with CancelScope(shield=True) as shield, meanwhile(outer.cancel):
                iocancel.sleep(SHORT)
            assert not shield.cancelled_caught
            iocancel.sleep(0)
            raise AssertionError("behind the shield it is cancelled")
        assert outer.cancelled_caught
        return
    outer = CancelScope()
    entered, readied = threading.Event(), threading.Event()
    values: list[Any] = []

    def run() -> None:
        with outer:
            with CancelScope(shield=True):
                entered.set()
                value = case.call()
                assert readied.wait(BOUND)
                values.append(case.right(value))
            values.append("behind the shield")
            case.call()
            raise AssertionError("behind the shield it is cancelled")

    thread = Thread(run)
    thread.until_blocked()
    outer.cancel()
    thread.until_blocked()
    assert not values
    case.ready()
    readied.set()
    thread.join()
    assert values == [True, "behind the shield"]
    assert outer.cancelled_caught
    whole()


# Files that go


def ended(case: Any, thread: Thread, inside: CancelScope) -> None:
    inside.cancel()
    thread.join()
    assert inside.cancelled_caught
    whole()


def test_its_fd_is_closed_meanwhile(filed: Any) -> None:
    inside = CancelScope()

    def run() -> None:
        with inside:
            filed.call()
            raise AssertionError("nothing ended it")

    thread = Thread(run)
    thread.until_blocked()
    filed.runs()
    os.close(filed.fd)
    thread.until_blocked()
    ended(filed, thread, inside)


def reused(case: Any, thread: Thread) -> None:
    number, alone = case.other()
    keep = case.own(os.dup(number))
    old = case.own(os.dup(case.fd))
    os.dup2(number, case.fd, inheritable=False)
    case.ready()
    value, error = None, None
    try:
        value = thread.join()
    except OSError as caught:
        error = caught
    assert alone(), "the other file was touched"
    os.dup2(old, case.fd, inheritable=False)
    os.close(old)
    os.close(keep)
    if error is None:
        assert case.right(value)
    else:  # libaio looks the number up again
        assert case.pool.name == "libaio"
        assert error.errno == errno.EBADF
    whole()


def test_its_fd_is_another_files_meanwhile(filed: Any) -> None:
    thread = Thread(filed.call)
    thread.until_blocked()
    filed.runs()
    reused(filed, thread)


def test_its_nonblocking_fd_is_another_files_meanwhile(nonblocking: Any) -> None:
    thread = Thread(nonblocking.call)
    thread.until_blocked()
    reused(nonblocking, thread)


# O_NONBLOCK


def test_a_nonblocking_file_is_waited_for_all_the_same(nonblocking: Any) -> None:
    thread = Thread(nonblocking.call)
    thread.until_blocked()
    nonblocking.ready()
    assert nonblocking.right(thread.join())
    assert not os.get_blocking(nonblocking.fd)
    with pytest.raises(TimeoutError):
        nonblocking.call(timeout=SHORT)
    with CancelScope() as inside, meanwhile(inside.cancel):
        nonblocking.call()
    assert inside.cancelled_caught
    with (
        pytest.raises(KeyboardInterrupt) as caught,
        meanwhile(lambda: signal.raise_signal(signal.SIGINT)),
    ):
        nonblocking.call()
    assert not hasattr(caught.value, "operation")
    goes_on(nonblocking)


# Forks


def works_in_child(parents: Any) -> None:
    """A child has a pool of its own, and its signals ring nowhere."""
    assert pool.current is not parents
    assert signal.set_wakeup_fd(-1) == -1, "signals' numbers are written to a number that is closed"
    read_end, write_end = os.pipe()
    with pytest.raises(TimeoutError):
        iocancel.read(read_end, 1, timeout=SHORT)
    os.write(write_end, b"x")
    assert iocancel.read(read_end, 1, timeout=BOUND) == b"x"
    whole()
    assert len(pool.current) == 1


def test_another_thread_forks_meanwhile(case: Any) -> None:
    thread = Thread(case.call) if case.shared else Thread(lambda: stopped(case))
    thread.until_blocked()
    assert forked(lambda: works_in_child(case.pool)) == 0
    thread.until_blocked()
    if case.shared:
        case.ready()
        assert case.right(thread.join())
    else:
        stop(thread)
    whole()


STOPS: list[CancelScope] = []


def stopped(case: Any) -> None:
    with CancelScope() as inside:
        STOPS.append(inside)
        case.call()
        raise AssertionError("it was to raise")
    assert inside.cancelled_caught


def stop(thread: Thread) -> None:
    STOPS.pop().cancel()
    thread.join()


@pytest.mark.parametrize("name", ["read", "sleep"])
@pytest.mark.parametrize("engine", ENGINES)
def test_another_thread_forks_while_the_main_thread_waits(engine: str, name: str, tmp_path: Path) -> None:
    """Whose signals ring in an engine: the child has that setting, too, and must not keep it."""
    with set_up(engine, name, tmp_path) as case:
        forks_while_it_waits(case)


def forks_while_it_waits(case: Any) -> None:
    codes = []

    def act() -> None:
        try:
            codes.append(forked(lambda: works_in_child(case.pool)))
        finally:
            inside.cancel()

    with CancelScope() as inside, meanwhile(act):
        case.call()
    assert inside.cancelled_caught
    assert codes == [0]
    goes_on(case)


def test_a_signals_handler_forks_in_the_very_call(case: Any, handler: Any) -> None:
    """The parent's call is cancelled; the child's goes on, with an engine of a pool of its own."""
    pids: list[int] = []
    parents = case.pool

    def both() -> None:
        pids.append(fork())
        if pids[0] or not case.shared:
            inside.cancel()

    handler(both)
    ident = MAIN.ident
    assert ident is not None
    number = ident
    value = None
    me = os.getpid()
    try:
        with CancelScope() as inside, meanwhile_in(me, lambda: signal.pthread_kill(number, signal.SIGUSR1)):
            value = case.call()
    finally:
        if os.getpid() != me:
            in_child(lambda: child_of(case, value, inside, parents))
    assert inside.cancelled_caught
    whole()
    if case.shared:
        case.ready()
    assert exit_code(pids[0]) == 0
    whole()


@contextlib.contextmanager
def meanwhile_in(process: int, act: Callable[[], object]) -> Iterator[None]:
    """`meanwhile`, but for a child that comes out of it: its thread is the parent's."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(meanwhile(act))
        try:
            yield
        finally:
            if os.getpid() != process:
                stack.pop_all()


def child_of(case: Any, value: Any, inside: CancelScope, parents: Any) -> None:
    if case.shared:
        assert case.right_in_child(value)
        assert not inside.cancel_called
    else:
        assert inside.cancelled_caught
    assert scope.local.here.calls == []
    works_in_child(parents)


# What an engine does not have


@pytest.mark.parametrize(("engine", "name"), sorted(LACKING))
def test_what_an_engine_has_not_says_who_has_it(engine: str, name: str, tmp_path: Path) -> None:
    with of_engine(engine), contextlib.ExitStack() as stack:
        case = CASES[name](stack, tmp_path)
        with pytest.raises(FeatureUnavailable, match="uring") as caught:
            case.call(timeout=SHORT)
        assert caught.value.running == engine
        with CancelScope() as inside:
            inside.cancel()
            with pytest.raises(Cancelled):
                case.call()
        whole()
