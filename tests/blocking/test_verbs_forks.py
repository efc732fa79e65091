"""Each verb while its process forks."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import iocancel
from iocancel import CancelScope, pool, scope

from .helpers import BOUND, ENGINES, SHORT, Thread, exit_code, fork, forked, in_child, meanwhile, whole
from .verbs_stage import MAIN, goes_on, set_up
from .verbs_stage import case as case


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
