"""Many threads, one engine: one leads in the kernel, the others wait for their own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from iocancel import OperationTimedOut, Outcome

from ..support import BOUND, by_a_thread_that_is_gone, few, until
from .helpers import C, X, need_stopping, need_verbs, outcomes

THREADS = 8
EACH = few(200)


def together(work: Callable[[int], object], many: int = THREADS) -> None:
    """Do it in many threads; what one raises is raised here."""
    errors: list[BaseException] = []

    def run(i: int) -> None:
        try:
            work(i)
        except BaseException as error:  # noqa: BLE001 - raised in the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_each_waits_for_its_own(engine: Any, pipes: Callable[[], tuple[int, int]]) -> None:
    need_verbs(engine, "read", "write")
    ends = [pipes() for _ in range(THREADS)]
    got: list[bytes] = [b""] * THREADS

    def work(i: int) -> None:
        read_end, write_end = ends[i]
        for n in range(EACH):
            op = engine.read(read_end, 16)
            engine.write(write_end, b"%d;" % n).wait()
            assert op.wait() is C
            got[i] += op.result()

    together(work)
    assert got == [b"".join(b"%d;" % n for n in range(EACH))] * THREADS
    assert engine.in_flight == 0
    assert not engine._followers


def test_cancels_from_other_threads(engine: Any, pipes: Callable[[], tuple[int, int]]) -> None:
    """Each waits for what its neighbour cancels; every second one gets data instead."""
    need_stopping(engine, "read")
    ends = [pipes() for _ in range(THREADS)]
    ops: list[Any] = [None] * THREADS
    ends_of: list[list[Outcome]] = [[] for _ in range(THREADS)]
    barrier = threading.Barrier(THREADS, timeout=BOUND)

    def work(i: int) -> None:
        for n in range(max(5, EACH // 4)):
            ops[i] = engine.read(ends[i][0], 16)
            barrier.wait()
            neighbour = (i + 1) % THREADS
            if n % 2:
                ops[neighbour].cancel()
            else:
                os.write(ends[neighbour][1], b"x")
            ends_of[i].append(ops[i].wait())
            barrier.wait()

    together(work)
    assert ends_of == [[(C, X)[n % 2] for n in range(max(5, EACH // 4))]] * THREADS
    assert engine.in_flight == 0


def test_the_lead_is_handed_over(engine: Any, pipes: Callable[[], tuple[int, int]]) -> None:
    """Whoever led has what it waited for, and leaves; the others are not forgotten."""
    need_verbs(engine, "read")
    ends = [pipes() for _ in range(4)]
    led: list[int] = []
    ops = [engine.read(read_end, 4) for read_end, _ in ends]
    engine.submit()
    number_of: dict[int, int] = {}

    def work(i: int) -> None:
        number_of[threading.get_ident()] = i
        assert ops[i].wait() is C

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    left = set(range(4))
    while left:
        until(lambda: len(engine._followers) == len(left) - 1, "one leads, the others follow")
        until(lambda: engine._lead_thread in number_of and number_of[engine._lead_thread] in left, "who")
        leader = number_of[engine._lead_thread]
        led.append(leader)
        left.remove(leader)
        os.write(ends[leader][1], b"data")
        threads[leader].join(BOUND)
        assert not threads[leader].is_alive()
    assert sorted(led) == [0, 1, 2, 3]


def leading(engine: Any, op: Any) -> threading.Thread:
    """A thread that waits for an operation, and so leads."""
    thread = threading.Thread(target=op.wait)
    thread.start()
    until(lambda: engine._lead_thread == thread.ident, "it leads")
    return thread


def test_a_follower_is_settled_by_the_leader(engine: Any, pipes: Callable[[], tuple[int, int]]) -> None:
    need_verbs(engine, "read")
    (a, a_write), (b, b_write) = pipes(), pipes()
    first, second = engine.read(a, 4), engine.read(b, 4)
    engine.submit()
    thread = leading(engine, first)
    os.write(b_write, b"data")
    assert second.wait(BOUND) is C
    assert thread.is_alive()
    os.write(a_write, b"data")
    thread.join()
    assert first.outcome is C


def test_what_another_thread_prepares_goes_in(engine: Any, pipes: Callable[[], tuple[int, int]]) -> None:
    """While one leads the others' submits are done by it."""
    need_verbs(engine, "read", "write")
    (a, a_write), (b, b_write) = pipes(), pipes()
    first = engine.read(a, 4)
    engine.submit()
    thread = leading(engine, first)
    second = engine.write(b_write, b"data")
    engine.submit()
    assert os.read(b, 4) == b"data"
    assert second.wait(BOUND) is C
    os.write(a_write, b"data")
    thread.join()


def test_a_deadline_while_another_leads(engine: Any, pipes: Callable[[], tuple[int, int]]) -> None:
    need_stopping(engine, "read")
    (a, a_write), (b, b_write) = pipes(), pipes()
    first, second = engine.read(a, 4), engine.read(b, 4)
    engine.submit()
    thread = leading(engine, first)
    assert second.wait(0.01) is X
    assert isinstance(second.exception(), TimeoutError)
    assert not first.done()
    os.write(a_write, b"data")
    thread.join()
    os.write(b_write, b"left")
    assert os.read(b, 8) == b"left"


def test_a_deadline_that_only_the_leader_can_keep(engine: Any, pipes: Callable[[], tuple[int, int]]) -> None:
    """Nobody waits for it: the leader, who waits for something else, ends it."""
    need_stopping(engine, "read")
    (a, a_write), (b, _) = pipes(), pipes()
    first = engine.read(a, 4)
    engine.submit()
    thread = leading(engine, first)
    second = engine.read(b, 4, timeout=0.05)
    engine.submit()
    until(second.done, "the leader has ended it")
    assert second.outcome is X
    assert isinstance(second.exception(), OperationTimedOut)
    assert not first.done()
    os.write(a_write, b"data")
    thread.join()


def test_many_wait_for_the_same(engine: Any, pipe: tuple[int, int]) -> None:
    need_verbs(engine, "read")
    op = engine.read(pipe[0], 4)
    engine.submit()
    found: list[Any] = []

    def feed() -> None:
        until(lambda: len(engine._followers) == THREADS - 1, "all wait")
        os.write(pipe[1], b"data")

    thread = threading.Thread(target=feed)
    thread.start()
    together(lambda i: found.append(op.wait()))
    thread.join()
    assert found == [C] * THREADS
    assert op.result() == b"data"


def test_bulk_cancels_while_others_wait(engine: Any, pipe: tuple[int, int]) -> None:
    need_stopping(engine, "read")
    ops = [[engine.read(pipe[0], 1) for _ in range(EACH)] for _ in range(THREADS)]
    engine.submit()

    def work(i: int) -> None:
        if i % 2:
            engine.cancel(ops[i] + ops[i - 1])
        engine.wait(ops[i])

    together(work)
    assert outcomes(op for each in ops for op in each) == {X}


def test_a_thread_that_ends_with_operations_in_flight(engine: Any, pipe: tuple[int, int]) -> None:
    """It completes, though io_uring cancels what a thread has submitted when that thread is gone.

    When it is next woken (facts 5.7), and is handed over again: tests/engines/test_submitters.py.
    """
    need_verbs(engine, "read")
    op = by_a_thread_that_is_gone(engine, lambda: engine.read(pipe[0], 4))
    os.write(pipe[1], b"data")
    assert op.wait(BOUND) is C
    assert op.result() == b"data"


def test_and_they_can_still_be_cancelled(engine: Any, pipe: tuple[int, int]) -> None:
    need_stopping(engine, "read")
    op = by_a_thread_that_is_gone(engine, lambda: engine.read(pipe[0], 4))
    assert op.cancel()
    assert op.wait() is X
