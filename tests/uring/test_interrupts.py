"""Ctrl-C wherever CPython looks for signals: nothing lost, repeated, freed early, kept or leaked."""

from __future__ import annotations

import gc
import os
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from iocancel import _lifetime
from iocancel.uring import Features, Ring, SqeFlags, limbo

from ..support import BOUND, need, resizable, until
from .stage import PATIENCE, Bomb, Stage, all_free, places, played, swept

_ECANCELED = -125


def submit(stage: Stage, bomb: Bomb) -> None:
    stage.prepare()
    with suppress(KeyboardInterrupt), bomb:
        stage.ring.submit()
    stage.ring.submit()
    assert not any(resizable(buffer) for buffer in stage.buffers), "a pin was freed early"
    stage.feed()
    stage.settle((1, 1), (2, 1))


def submit_and_wait(stage: Stage, bomb: Bomb) -> None:
    stage.feed()
    stage.prepare()
    with suppress(KeyboardInterrupt), bomb:
        stage.ring.submit_and_wait(2, BOUND)
    stage.ring.submit()
    stage.settle((1, 1), (2, 1))


def submit_and_reap(stage: Stage, bomb: Bomb) -> None:
    stage.feed()
    stage.prepare()
    with suppress(KeyboardInterrupt), bomb:
        stage.note(stage.ring.submit_and_reap(2, BOUND))
    stage.ring.submit()
    stage.settle((1, 1), (2, 1))


def wait(stage: Stage, bomb: Bomb) -> None:
    stage.prepare()
    stage.ring.submit()
    stage.feed()
    with suppress(KeyboardInterrupt), bomb:
        stage.note(stage.ring.wait(2, BOUND))
    stage.settle((1, 1), (2, 1))


def peek(stage: Stage, bomb: Bomb) -> None:
    stage.feed()
    stage.prepare()
    stage.ring.submit_and_wait(2, BOUND)
    with suppress(KeyboardInterrupt), bomb:
        stage.note(stage.ring.peek())
    stage.settle((1, 1), (2, 1))


def submit_cancel64(stage: Stage, bomb: Bomb) -> None:
    stage.prepare(1)
    stage.ring.submit()
    _cancel(stage, bomb)


def submit_cancel64_of_a_poll(stage: Stage, bomb: Bomb) -> None:
    stage.ring.submit_poll_add(stage.pipes[0][0], select.POLLIN, 1)
    _cancel(stage, bomb)


def _cancel(stage: Stage, bomb: Bomb) -> None:
    with suppress(KeyboardInterrupt), bomb:
        stage.note(stage.ring.submit_cancel64(1, 9, n=2))
    stage.nop()
    if (9, 0) not in stage.got:  # it was not sent, so nothing has changed
        assert not stage.got
        stage.note(stage.ring.submit_cancel64(1, 9, n=2))
    stage.settle((1, _ECANCELED), (9, 0))


@pytest.mark.parametrize(
    "operation",
    [
        submit,
        submit_and_wait,
        submit_and_reap,
        wait,
        peek,
        submit_cancel64,
        submit_cancel64_of_a_poll,
    ],
    ids=lambda operation: operation.__name__,
)
def test_an_interrupt_loses_and_repeats_nothing(operation: Callable[[Stage, Bomb], None]) -> None:
    for nth in places():
        stage, bomb = Stage(), Bomb(nth)
        with played(stage, bomb):
            operation(stage, bomb)
            all_free(stage)
        if not bomb.place:
            swept(nth)
            return


def test_what_an_interrupted_wait_has_taken_is_not_waited_for_again() -> None:
    for nth in places():
        stage, bomb = Stage(), Bomb(nth)
        try:
            stage.prepare()
            stage.ring.submit()
            stage.feed()
            told = []
            with suppress(KeyboardInterrupt), bomb:
                told = stage.ring.wait(2, BOUND)
            before = time.monotonic()
            told = told or stage.ring.wait(2, PATIENCE)
            assert sorted(cqe.user_data for cqe in told) == [1, 2]
            assert time.monotonic() - before < PATIENCE / 2, f"it waited, after an interrupt at {bomb.place}"
        finally:
            stage.close()
        if not bomb.place:
            swept(nth)
            return


def test_an_interrupted_close_closes_all_the_same_or_is_begun_again() -> None:
    for nth in places():
        stage, bomb = Stage(), Bomb(nth)
        stage.prepare(1)
        stage.ring.submit()
        stage.prepare(2)
        try:
            with suppress(KeyboardInterrupt), bomb:
                stage.ring.close(PATIENCE)
            stage.close()
            assert stage.ring.closed
            assert stage.ring._handle.fd == -1, "the ring's fd was left open"
            until(lambda: limbo.sweep() == 0, "what the kernel may write to is all free")
            all_free(stage)
        except BaseException as error:
            error.add_note(f"at {bomb.place}")
            raise
        if not bomb.place:
            swept(nth)
            return


def lives_on(nth: int, *spared: str) -> Bomb:
    """Closes, with an interrupt, a ring with a silent read, whose other fd keeps closing from ending it."""
    kept = _lifetime.kept()
    with Ring(1) as ring:
        need(ring.features & Features.CQE_SKIP, "CQE_SKIP_SUCCESS needs Linux 5.17")
    stage, bomb = Stage(), Bomb(nth, spared=spared)
    buffer = stage.buffers[0]
    stage.prepare(1, SqeFlags.CQE_SKIP_SUCCESS)
    stage.ring.submit()
    other = os.dup(stage.ring.fileno())
    try:
        with suppress(KeyboardInterrupt), bomb:
            stage.ring.close(0.001)
        if not stage.ring.closed:
            stage.ring.close(0.001)
        pinned = not resizable(buffer)
        os.write(stage.pipes[0][1], b"KERNEL")
        poll = select.poll()
        poll.register(stage.pipes[0][0], select.POLLIN)
        assert pinned or (poll.poll(0) and not any(buffer)), f"freed early by an interrupt at {bomb.place}"
    finally:
        os.close(other)
        stage.close()
    until(lambda: limbo.sweep() == 0, "what the kernel may write to is all free")
    del _lifetime._kept[kept:]  # where there was no time for a barrier; the reference itself stays
    return bomb


def test_an_interrupted_close_keeps_what_the_kernel_still_uses() -> None:
    for nth in places():
        if not lives_on(nth, "sweep", "wait", "_barrier", "keep").place:
            swept(nth)
            return


def test_an_interrupted_sweep_keeps_what_the_kernel_still_uses() -> None:
    before = set(os.listdir("/proc/self/fd"))
    try:
        for nth in places():
            if not lives_on(nth).place:
                swept(nth)
                return
    finally:
        # A pipe whose making is interrupted before its numbers are stored is lost, as anywhere in Python.
        for number in set(os.listdir("/proc/self/fd")) - before:
            with suppress(OSError):
                os.close(int(number))


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # it was made, and nobody had it yet to close it
def test_an_interrupted_set_up_leaks_no_ring() -> None:
    for nth in places():
        fds, bomb = len(os.listdir("/proc/self/fd")), Bomb(nth)
        ring = None
        with suppress(KeyboardInterrupt), bomb:
            ring = Ring(8)
        if ring is not None:
            ring.close()
        del ring
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == fds, f"an fd was leaked at {bomb.place}"
        if not bomb.place:
            swept(nth)
            return


def test_closing_is_quick_after_an_interrupted_submit_of_an_accept() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for nth in places():
            stage, bomb = Stage(), Bomb(nth)
            stage.ring.get_sqe().prep_accept(listener)
            with suppress(KeyboardInterrupt), bomb:
                stage.ring.submit()
            try:
                stage.close()
            except AssertionError as error:
                error.add_note(f"at {bomb.place}")
                raise
            if not bomb.place:
                swept(nth)
                return
