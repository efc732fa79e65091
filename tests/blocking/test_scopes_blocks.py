"""Cancel scopes for plain threads: their blocks, while a call waits, and Ctrl-C."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import time
from collections.abc import Generator
from typing import Any

import pytest

import iocancel
from iocancel import (
    CancelScope,
    checkpoint,
    current_scope,
    move_on_after,
    move_on_at,
    scope,
)
from iocancel.testing import interrupt_everywhere

from .helpers import BOUND, SHORT, Thread, meanwhile, whole
from .scopes_stage import STEP, later
from .scopes_stage import clean as clean

# Blocks


def test_current_scope() -> None:
    assert current_scope() is None
    with CancelScope() as outer:
        assert current_scope() is outer
        with CancelScope(shield=True) as inner:
            assert current_scope() is inner
        assert current_scope() is outer
        assert Thread(current_scope).join() is None, "each thread has its own"
    assert current_scope() is None


def test_a_scope_is_entered_once() -> None:
    inside = CancelScope()
    with inside, pytest.raises(RuntimeError, match="entered before"), inside:
        pass
    with pytest.raises(RuntimeError, match="entered before"), inside:
        pass


def test_a_scope_is_left_by_the_thread_that_entered_it() -> None:
    inside = CancelScope()
    inside.__enter__()
    thread = Thread(lambda: inside.__exit__(None, None, None))
    with pytest.raises(RuntimeError, match="thread"):
        thread.join()
    assert current_scope() is inside
    inside.__exit__(None, None, None)
    with pytest.raises(RuntimeError, match="once"):
        inside.__exit__(None, None, None)


def test_a_scope_that_is_left_before_what_is_inside_of_it_says_so() -> None:
    with CancelScope() as around:
        outer, inner = CancelScope(), CancelScope()
        outer.__enter__()
        inner.__enter__()
        with pytest.raises(RuntimeError, match="before"):
            outer.__exit__(None, None, None)
        inner.__exit__(None, None, None)
        assert current_scope() is around


def generator(inside: CancelScope) -> Generator[int, None, None]:
    with inside:
        yield 1
        checkpoint()
        yield 2


def test_a_generators_scope_is_its_callers_until_it_is_left() -> None:
    inside = CancelScope()
    values = generator(inside)
    assert next(values) == 1
    assert current_scope() is inside
    inside.cancel()
    assert list(values) == []
    assert inside.cancelled_caught
    assert current_scope() is None


def test_a_generator_that_is_closed_late_takes_no_scope_of_its_callers_with_it() -> None:
    values = generator(CancelScope())
    next(values)
    with move_on_at(later()) as mine:
        with contextlib.suppress(RuntimeError):  # it says so, or does not
            values.close()
        assert current_scope() is mine
        mine.cancel()
        checkpoint()
        raise AssertionError("the caller's own scope has no effect any more")
    assert mine.cancelled_caught


def test_a_scope_that_is_dropped_is_none_any_more() -> None:
    left = CancelScope()
    left.__enter__()
    left.cancel()
    del left
    gc.collect()
    assert current_scope() is None
    checkpoint()


def test_a_scope_in_an_exit_stack() -> None:
    with contextlib.ExitStack() as stack:
        inside = stack.enter_context(move_on_after(BOUND))
        inside.cancel()
        checkpoint()
        raise AssertionError("it is cancelled")
    assert inside.cancelled_caught


# While a call waits


@pytest.mark.usefixtures("engine_pool")
class TestWhileItWaits:
    def test_the_deadline_is_set_earlier(self, pipe: tuple[int, int]) -> None:
        with move_on_after(10 * BOUND) as inside:

            def earlier() -> None:
                inside.deadline = time.monotonic() + SHORT

            with meanwhile(earlier):
                iocancel.read(pipe[0], 1)
        assert inside.cancelled_caught
        whole()

    def test_the_deadline_is_put_off(self, pipe: tuple[int, int]) -> None:
        with move_on_after(BOUND) as inside:
            before = inside.deadline

            def later_then_data() -> None:
                inside.deadline = before + BOUND
                os.write(pipe[1], b"x")

            with meanwhile(later_then_data):
                assert iocancel.read(pipe[0], 1) == b"x"
            assert inside.deadline == before + BOUND
        whole()

    def test_a_deadline_is_taken_away(self, pipe: tuple[int, int]) -> None:
        """It would be over in a moment; whichever comes first, nothing is lost."""
        with move_on_after(10 * SHORT) as inside:  # `meanwhile` has to see it in flight

            def never() -> None:
                inside.deadline = math.inf
                os.write(pipe[1], b"x")

            with meanwhile(never):
                assert iocancel.read(pipe[0], 1) == b"x"
        if inside.cancelled_caught:
            assert iocancel.read(pipe[0], 1, timeout=BOUND) == b"x"
        whole()

    def test_a_shield_comes_down(self, pipe: tuple[int, int]) -> None:
        with CancelScope() as outer, CancelScope(shield=True) as shield:
            outer.cancel()

            def down() -> None:
                shield.shield = False

            with meanwhile(down):
                iocancel.read(pipe[0], 1)
        assert outer.cancelled_caught
        assert not shield.cancelled_caught
        whole()

    def test_a_shield_goes_up_and_keeps_out_what_comes_then(self, pipe: tuple[int, int]) -> None:
        with CancelScope() as outer:
            with CancelScope() as shield:

                def up() -> None:
                    shield.shield = True
                    outer.cancel()
                    os.write(pipe[1], b"x")

                with meanwhile(up):
                    assert iocancel.read(pipe[0], 1) == b"x"
            checkpoint()
        assert outer.cancelled_caught
        whole()

    def test_an_outer_scope_is_cancelled(self, pipe: tuple[int, int]) -> None:
        with CancelScope() as outer:
            with CancelScope() as inner, meanwhile(outer.cancel):
                iocancel.read(pipe[0], 1)
            raise AssertionError("it goes on to the outer one")
        assert outer.cancelled_caught
        assert not inner.cancelled_caught
        whole()

    def test_many_cancels_are_one(self, pipe: tuple[int, int]) -> None:
        def many() -> None:
            for _ in range(20):
                inside.cancel()

        with CancelScope() as inside, meanwhile(many):
            iocancel.read(pipe[0], 1)
        assert inside.cancelled_caught
        whole()

    def test_a_thread_that_sleeps_is_woken(self) -> None:
        inside = CancelScope()

        def run() -> None:
            with inside:
                iocancel.sleep_forever()

        thread = Thread(run)
        thread.until_blocked()
        inside.cancel()
        thread.join()
        assert inside.cancelled_caught

    def test_sleep_until_and_nothing_to_sleep(self) -> None:
        until = time.monotonic() + SHORT
        iocancel.sleep_until(until)
        assert time.monotonic() >= until
        iocancel.sleep_until(until)
        iocancel.sleep(0)
        with pytest.raises(ValueError):
            iocancel.sleep(-1)


@pytest.mark.usefixtures("engine_pool")
@pytest.mark.parametrize("verb", ["write_all", "sendall"])
def test_what_has_nothing_to_send_raises_all_the_same(verb: str, pair: Any) -> None:
    with CancelScope() as inside:
        inside.cancel()
        getattr(iocancel, verb)(pair[0], b"")
        raise AssertionError("every verb raises")
    assert inside.cancelled_caught


# Ctrl-C


class Block:
    def __init__(self) -> None:
        self.scope: Any = CancelScope()

    def run(self) -> None:
        with self.scope as inside:
            assert inside is self.scope


@pytest.mark.parametrize("places", ["opcodes", "signals"])
def test_ctrl_c_at_the_beginning_or_the_end_of_a_block(places: Any) -> None:
    def check(block: Block, place: str) -> None:
        here = scope.local.here
        # At the entry of a function nothing of it has run: then only its being dropped ends it.
        # Python looks for signals at no RETURN_VALUE, and no try covers one.
        ending = any(f"in {name}" in place for name in ("__exit__", "_leave"))
        if place and not ending and not place.startswith("RETURN_VALUE"):
            assert here.stack == []
        block.scope.cancel()
        block.scope = None
        assert current_scope() is None
        checkpoint()
        with CancelScope() as next_one:
            next_one.cancel()
            checkpoint()
        assert next_one.cancelled_caught

    swept = interrupt_everywhere(
        Block, Block.run, check, modules=["iocancel.scope"], places=places, step=STEP
    )
    assert swept.places > (30 if places == "opcodes" else 3)


@pytest.mark.parametrize("places", ["opcodes", "signals"])
def test_ctrl_c_where_a_cancel_is_caught(places: Any) -> None:
    """The interrupt goes through, and the scope around it is as it was."""

    class Nested:
        def __init__(self) -> None:
            self.ended = False

        def run(self) -> None:
            with CancelScope() as outer:
                self.outer = outer
                with CancelScope() as inner:
                    inner.cancel()
                    checkpoint()
                assert current_scope() is outer
                checkpoint()
            self.ended = True

    def check(nested: Nested, place: str) -> None:
        assert nested.ended == (not place)
        nested.__dict__.clear()
        assert current_scope() is None
        checkpoint()

    interrupt_everywhere(Nested, Nested.run, check, modules=["iocancel.scope"], places=places, step=STEP)
