"""Cancel scopes for plain threads: trio's semantics."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

import iocancel
from iocancel import (
    Cancelled,
    CancelScope,
    checkpoint,
    current_effective_deadline,
    fail_after,
    fail_at,
    move_on_after,
    move_on_at,
)

from .helpers import BOUND, SHORT
from .scopes_stage import clean as clean
from .scopes_stage import later

# What is cancelled


def test_each_call_in_a_cancelled_scope_raises_until_it_is_left() -> None:
    with CancelScope() as inside:
        inside.cancel()
        for _ in range(3):
            with pytest.raises(Cancelled):
                checkpoint()
        with pytest.raises(Cancelled):
            iocancel.sleep(0)
        checkpoint()
    assert inside.cancelled_caught
    assert inside.cancel_called
    checkpoint()


def test_a_cancel_before_it_is_entered_counts() -> None:
    inside = CancelScope()
    inside.cancel()
    assert inside.cancel_called
    with inside:
        assert not inside.cancelled_caught
        checkpoint()
        raise AssertionError("it is cancelled")
    assert inside.cancelled_caught


def test_a_cancelled_scope_whose_block_does_nothing_has_caught_nothing() -> None:
    with CancelScope() as inside:
        inside.cancel()
    assert inside.cancel_called
    assert not inside.cancelled_caught


def test_other_exceptions_go_through_a_cancelled_scope() -> None:
    inside = CancelScope()
    inside.cancel()
    with pytest.raises(KeyError), inside:
        raise KeyError
    assert not inside.cancelled_caught


def test_cancelled_is_no_exception_that_code_catches_by_the_way() -> None:
    assert not issubclass(Cancelled, Exception)


def test_a_cancelled_that_nobody_asked_for_goes_through() -> None:
    with pytest.raises(Cancelled), CancelScope() as inside:
        raise Cancelled("made by hand")
    assert not inside.cancelled_caught


def test_the_outermost_of_the_cancelled_ones_catches() -> None:
    with CancelScope() as outer:
        with CancelScope() as middle:
            with CancelScope() as inner:
                inner.cancel()
                outer.cancel()
                middle.cancel()
                checkpoint()
            raise AssertionError("it goes on to the outermost")
        raise AssertionError("it goes on to the outermost")
    assert outer.cancelled_caught
    assert not middle.cancelled_caught
    assert not inner.cancelled_caught


def test_an_inner_one_ends_only_itself() -> None:
    with CancelScope() as outer:
        with CancelScope() as inner:
            inner.cancel()
            checkpoint()
        assert inner.cancelled_caught
        checkpoint()
    assert not outer.cancel_called


def test_an_outer_one_that_is_cancelled_on_the_way_out_catches() -> None:
    with CancelScope() as outer:
        with CancelScope() as inner:
            inner.cancel()
            try:
                checkpoint()
            finally:
                outer.cancel()
        raise AssertionError("the outer one is cancelled, too")
    assert outer.cancelled_caught
    assert not inner.cancelled_caught


def test_a_shield_keeps_out_what_is_around_it_and_not_its_own() -> None:
    with CancelScope() as outer:
        outer.cancel()
        with CancelScope(shield=True) as shield:
            checkpoint()
            with CancelScope():
                checkpoint()
            shield.cancel()
            checkpoint()
        assert shield.cancelled_caught, "the one around it is not asked"
        checkpoint()
    assert outer.cancelled_caught


def test_a_shield_goes_up_and_down() -> None:
    with CancelScope() as outer:
        with CancelScope() as shield:
            outer.cancel()
            with pytest.raises(Cancelled):
                checkpoint()
            shield.shield = True
            checkpoint()
            assert shield.shield
            shield.shield = False
            checkpoint()
        raise AssertionError("the shield is down")
    assert outer.cancelled_caught
    assert not shield.cancelled_caught


def test_a_shield_hides_the_deadlines_around_it() -> None:
    outer_at, inner_at = later(), later() + 1
    with move_on_at(outer_at), CancelScope(deadline=inner_at) as inner:
        assert current_effective_deadline() == outer_at
        inner.shield = True
        assert current_effective_deadline() == inner_at


def test_exception_groups_lose_what_was_cancelled() -> None:
    cause = KeyError("the cause")
    group = BaseExceptionGroup(
        "all", [Cancelled("1"), ValueError("2"), BaseExceptionGroup("some", [Cancelled("3")])]
    )
    inside = CancelScope()
    inside.cancel()
    with pytest.raises(BaseExceptionGroup) as caught, inside:
        raise group from cause
    assert inside.cancelled_caught
    assert caught.group_contains(ValueError)
    assert not caught.group_contains(Cancelled)
    assert caught.value.__cause__ is cause


def test_a_group_of_nothing_else_is_caught_and_one_of_others_goes_through() -> None:
    with CancelScope() as inside:
        inside.cancel()
        raise BaseExceptionGroup("all", [Cancelled("1"), Cancelled("2")])
    assert inside.cancelled_caught
    group = ExceptionGroup("others", [ValueError("1")])
    inside = CancelScope()
    inside.cancel()
    with pytest.raises(ExceptionGroup) as caught, inside:
        raise group
    assert caught.value is group
    assert not inside.cancelled_caught


# Deadlines


def test_a_deadline_is_seconds_from_the_entry() -> None:
    inside = move_on_after(BOUND)
    assert inside.deadline == math.inf
    before = time.monotonic()
    with inside:
        assert before + BOUND <= inside.deadline <= time.monotonic() + BOUND
        assert current_effective_deadline() == inside.deadline


def test_the_effective_deadline_is_the_first() -> None:
    assert current_effective_deadline() == math.inf
    first, second = later(), later() + 1
    with move_on_at(second):
        assert current_effective_deadline() == second
        with move_on_at(first) as inside:
            assert current_effective_deadline() == first
            with move_on_at(second):
                assert current_effective_deadline() == first
            inside.cancel()
            assert current_effective_deadline() == -math.inf
        assert current_effective_deadline() == second


def test_a_deadline_of_now_lets_nothing_begin() -> None:
    with move_on_after(0) as inside:
        checkpoint()
        raise AssertionError("it is over")
    assert inside.cancelled_caught
    assert inside.cancel_called


def test_a_deadline_in_the_past_counts_before_the_block() -> None:
    inside = move_on_at(time.monotonic() - 1)
    assert inside.cancel_called, "as in trio"
    with inside:
        checkpoint()
        raise AssertionError("it is over")


def test_a_deadline_that_passes_behind_the_block_has_cancelled_nothing() -> None:
    with move_on_at(later()) as inside:
        pass
    inside.deadline = time.monotonic() - 1
    assert not inside.cancel_called


def test_what_has_passed_can_not_be_put_off() -> None:
    with move_on_after(0) as inside:
        with pytest.raises(Cancelled):
            checkpoint()
        inside.deadline = math.inf
        checkpoint()
    assert inside.cancelled_caught


@pytest.mark.usefixtures("engine_pool")
def test_fail_after_raises_and_says_how_long() -> None:
    with pytest.raises(TimeoutError, match=r"0\.02 s") as caught, fail_after(SHORT) as inside:
        iocancel.sleep(BOUND)
    assert inside.cancelled_caught
    assert isinstance(caught.value.__cause__, Cancelled)
    with fail_after(BOUND):
        checkpoint()
    with pytest.raises(TimeoutError), fail_at(time.monotonic()):
        checkpoint()
    with pytest.raises(KeyError), fail_after(0):
        raise KeyError


def test_fail_after_inside_of_what_was_cancelled_raises_no_timeout() -> None:
    with CancelScope() as outer, fail_after(0):
        outer.cancel()
        checkpoint()
    assert outer.cancelled_caught


@pytest.mark.parametrize("make", [move_on_after, fail_after], ids=["move_on_after", "fail_after"])
def test_arguments(make: Any) -> None:
    with pytest.raises(ValueError, match="-1"):
        make(-1)
    with pytest.raises(ValueError, match="nan"):
        make(math.nan)
    wrong: Any
    for wrong in ("1", None, True):
        with pytest.raises(TypeError):
            make(wrong)
        with pytest.raises(TypeError):
            CancelScope(deadline=wrong)
    with pytest.raises(TypeError, match="shield"):
        make(1, shield=1)
    inside = make(1, shield=True)
    assert inside.shield
    with pytest.raises(TypeError):
        inside.deadline = "now"
    with pytest.raises(TypeError):
        inside.shield = None


def test_repr() -> None:
    inside = CancelScope(deadline=later())
    assert "new" in repr(inside)
    with inside:
        assert "active" in repr(inside)
        assert "deadline=" in repr(inside)
    assert "left" in repr(inside)
    inside.cancel()
    assert "cancelled" in repr(inside)
