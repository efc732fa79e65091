"""Threads and handlers that get in between, at each place where CPython lets them."""

from __future__ import annotations

import os
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from iocancel import QueueFull
from iocancel.uring import BufRing, Cqe, CqeFlags, Ring

from ..support import BOUND, few, resizable
from .stage import Bomb, Stage, Wrapped, all_free, places, played, swept


@pytest.fixture
def quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("who", ["a handler", "a thread"])
def test_what_is_submitted_in_the_midst_of_a_submit_goes_out_once(who: str, in_a_thread: Wrapped) -> None:
    for nth in places():
        stage = Stage()
        stage.prepare()
        submit = stage.ring.submit
        bomb = Bomb(nth, submit if who == "a handler" else in_a_thread(submit))
        with played(stage, bomb):
            with bomb:
                stage.ring.submit()
            assert not any(resizable(buffer) for buffer in stage.buffers), bomb.place
            stage.feed()
            stage.settle((1, 1), (2, 1))
            stage.got.clear()
            stage.feed()  # a second read of the same entry would be told of now
            stage.settle()
            all_free(stage)
        if not bomb.place:
            swept(nth)
            return


def test_threads_that_submit_at_once_send_each_entry_once(quick_switches: None) -> None:
    many = few(10_000)
    seen: Counter[int] = Counter()
    ended: list[int] = []
    stop = False
    with Ring(1024, cq_entries=16384) as ring:

        def submit() -> None:
            while not stop:
                ring.submit()

        def reap() -> None:
            told = [cqe.user_data for cqe in ring.peek()]
            ended.extend(name for name in told if name == 1 << 40)
            seen.update(name for name in told if name < many)

        threads = [threading.Thread(target=submit) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for number in range(many):
                try:
                    ring.get_sqe().user_data = number
                except (ValueError, QueueFull):  # submitted by a thread before it had its number; no room
                    ring.submit()
                if number % 64 == 0:
                    reap()
        finally:
            stop = True
            for thread in threads:
                thread.join(BOUND)
        ring.submit()
        last = ring.get_sqe()
        last.user_data = 1 << 40
        ring.submit()
        deadline = time.monotonic() + BOUND
        while not ended:
            assert time.monotonic() < deadline
            reap()
        reap()
    assert not [number for number, times in seen.items() if times > 1]


def test_an_argument_that_submits_leaves_the_entry_as_it_was(pipe: tuple[int, int]) -> None:
    first, second = bytearray(8), bytearray(8)
    with Ring(8) as ring:
        sqe = ring.get_sqe()
        sqe.user_data = 1
        sqe.prep_read(pipe[0], first)

        class Offset:
            def __index__(self) -> int:
                ring.submit()
                return 0

            def __ge__(self, _: object) -> bool:
                return True

        with pytest.raises(ValueError, match="submitted already"):
            sqe.prep_read(pipe[0], second, Offset())  # type: ignore[arg-type]
        assert not resizable(first)
        assert resizable(second)
        os.write(pipe[1], b"x")
        [cqe] = ring.wait(1, BOUND)
        assert (cqe.user_data, cqe.res, bytes(first[:1])) == (1, 1, b"x")
        assert resizable(first)


def test_a_number_that_changes_when_it_is_asked_again_names_one_request(pipe: tuple[int, int]) -> None:
    class Two:
        asked = 0

        def __index__(self) -> int:
            self.asked += 1
            return 5 if self.asked == 1 else 7

    buffer = bytearray(8)
    with Ring(8) as ring:
        sqe = ring.get_sqe()
        sqe.user_data = 5
        sqe.prep_read(pipe[0], buffer)
        ring.submit()
        sqe = ring.get_sqe()
        two: Any = Two()
        sqe.user_data = two
        name = sqe.user_data
        ring.submit()
        [cqe] = ring.wait(1, BOUND)
        assert cqe.user_data == name
        assert not resizable(buffer)


@pytest.mark.parametrize("shared", [1, 2])
def test_what_is_reaped_in_the_midst_of_a_submit_of_the_same_number_frees_nothing_early(
    shared: int, in_a_thread: Wrapped
) -> None:
    for nth in places():
        stage = Stage()
        for ends, buffer in list(zip(stage.pipes, stage.buffers, strict=True))[:shared]:
            sqe = stage.ring.get_sqe()
            sqe.user_data = 7
            sqe.prep_read(ends[0], buffer)
        stage.ring.submit()
        del sqe
        read_end, write_end = os.pipe()
        buffer = bytearray(8)

        def reap(stage: Stage = stage) -> None:
            stage.feed()
            stage.note(stage.ring.wait(shared, BOUND))

        sqe = stage.ring.get_sqe()
        sqe.user_data = 7
        sqe.prep_read(read_end, buffer)
        del sqe
        bomb = Bomb(nth, in_a_thread(reap))
        try:
            with bomb:
                stage.ring.submit()
            if not bomb.place:
                reap()
            assert not resizable(buffer), "a pin was freed early"
            os.write(write_end, b"y")
            stage.settle(*[(7, 1)] * (shared + 1))
            all_free(stage)
            assert resizable(buffer), "a pin was kept"
        except AssertionError as error:
            error.add_note(f"at {bomb.place}")
            raise
        finally:
            stage.close()
            os.close(read_end)
            os.close(write_end)
        if not bomb.place:
            swept(nth)
            return


def test_what_is_submitted_in_the_midst_of_reaping_the_same_number_stays_pinned(in_a_thread: Wrapped) -> None:
    for nth in places():
        stage = Stage()
        stage.prepare(1)
        stage.ring.submit()
        os.write(stage.pipes[0][1], b"x")

        def submit(stage: Stage = stage) -> None:
            sqe = stage.ring.get_sqe()
            sqe.user_data = 1
            sqe.prep_read(stage.pipes[1][0], stage.buffers[1])
            stage.ring.submit()

        bomb = Bomb(nth, in_a_thread(submit))
        with played(stage, bomb):
            with bomb:
                stage.note(stage.ring.wait(1, BOUND))
            if not bomb.place:
                submit()
            assert not resizable(stage.buffers[1]), "a pin was freed early"
            os.write(stage.pipes[1][1], b"y")
            stage.settle((1, 1), (1, 1))
            all_free(stage)
        if not bomb.place:
            swept(nth)
            return


def test_two_threads_that_give_buffers_back_lose_none(quick_switches: None) -> None:
    group = BufRing(0, 1024, 64)

    def tail() -> int:
        return int(struct.unpack_from("=H", group._queue, 14)[0])

    def give_back(first: int) -> None:
        for number in range(first, first + 512):
            group.recycle(Cqe(0, 1, number << 16 | CqeFlags.BUFFER))

    for _ in range(few(200)):
        before = tail()
        threads = [threading.Thread(target=give_back, args=(first,)) for first in (0, 512)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(BOUND)
        assert (tail() - before) % 65536 == 1024
        given = [struct.unpack_from("=QIH", group._queue, 16 * i) for i in range(1024)]
        base = min(address for address, _, _ in given)
        assert sorted((address - base, number) for address, _, number in given) == [
            (64 * i, i) for i in range(1024)
        ]
