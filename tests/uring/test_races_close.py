"""Closing against other threads, which get in between wherever CPython lets them."""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from functools import partial
from types import FrameType

from iocancel.uring import Ring, limbo

from ..support import BOUND, few, resizable, until
from .stage import Bomb, Stage, Wrapped, places, swept


class Paused:
    """A submit in a thread that stops where it enters its entry into the ledger, until it is let go on."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._there, self._on = threading.Event(), threading.Event()
        self.raised: list[Exception] = []
        self._thread = threading.Thread(target=self._submit)
        self._thread.start()
        assert self._there.wait(BOUND)

    def _submit(self) -> None:
        def trace(frame: FrameType, event: str, arg: object) -> None:
            if frame.f_code.co_name == "_admit":
                self._there.set()
                self._on.wait(BOUND)

        sys.settrace(trace)
        try:
            self._ring.submit()
        except ValueError as error:
            self.raised.append(error)
        finally:
            sys.settrace(None)

    def go_on(self) -> None:
        self._on.set()
        self._thread.join(BOUND)
        assert not self._thread.is_alive()


def untouched(read_end: int, write_end: int, buffer: bytearray) -> bool:
    """Whether the kernel reads nothing into the buffer any more."""
    os.write(write_end, b"KERNEL")
    poll = select.poll()
    poll.register(read_end, select.POLLIN)
    return bool(poll.poll(0)) and not any(buffer)


def test_a_submit_that_goes_on_in_the_midst_of_a_close_writes_into_nothing_that_is_free() -> None:
    for nth in places():
        stage = Stage()
        stage.prepare(1)
        other = os.dup(stage.ring.fileno())  # the ring lives on, and so would the read
        submit = Paused(stage.ring)
        bomb = Bomb(nth, submit.go_on)
        try:
            with bomb:
                stage.ring.close(BOUND)
            submit.go_on()
            assert stage.ring.closed
            assert not resizable(stage.buffers[0]) or untouched(*stage.pipes[0], stage.buffers[0]), bomb.place
        finally:
            submit.go_on()
            os.close(other)
            stage.close()
        until(lambda: limbo.sweep() == 0, "what the kernel may write to is all free")
        if not bomb.place:
            swept(nth)
            return


def test_a_close_in_the_midst_of_a_submit_writes_into_nothing_that_is_free(in_a_thread: Wrapped) -> None:
    for nth in places():
        stage = Stage()
        stage.prepare(1)
        other = os.dup(stage.ring.fileno())
        bomb = Bomb(nth, in_a_thread(partial(stage.ring.close, 0.01)))  # this submit goes on only then
        try:
            with bomb:
                try:
                    stage.ring.submit()
                except ValueError as error:
                    assert "closed" in str(error)  # noqa: PT017 - it may be raised, or not
            assert not resizable(stage.buffers[0]) or untouched(*stage.pipes[0], stage.buffers[0]), bomb.place
        finally:
            os.close(other)
            stage.close()
        until(lambda: limbo.sweep() == 0, "what the kernel may write to is all free")
        if not bomb.place:
            swept(nth)
            return


def test_close_gets_through_to_a_ring_that_another_thread_never_leaves() -> None:
    for _ in range(few(10)):
        ring = Ring(8)
        begun = threading.Event()
        ended: list[str] = []

        def cancel(ring: Ring = ring, begun: threading.Event = begun, ended: list[str] = ended) -> None:
            try:
                while True:
                    ring.submit_cancel64(1, 2, n=1)
                    begun.set()
            except ValueError as error:
                ended.append(str(error))

        thread = threading.Thread(target=cancel)
        thread.start()
        assert begun.wait(BOUND)
        before = time.monotonic()
        try:
            ring.close(BOUND)
        finally:
            while thread.is_alive():
                ring.close(BOUND)
                thread.join(0.1)
        assert time.monotonic() - before < BOUND / 2
        assert ended == ["the ring is closed"]
