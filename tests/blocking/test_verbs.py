"""Each verb, on each engine that can do it: what ends it, and that nothing happens after that."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import iocancel
from iocancel import Cancelled, CancelScope, FeatureUnavailable, move_on_after
from iocancel.operation import ANSWER

from .case import Case
from .cases import CASES
from .conftest import of_engine
from .helpers import BOUND, SHORT, Thread, meanwhile, warm, whole
from .verbs_stage import LACKING, MAIN, goes_on
from .verbs_stage import case as case
from .verbs_stage import staying as staying

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
