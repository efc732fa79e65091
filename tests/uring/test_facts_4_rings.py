"""facts.md 4: cancelling on rings of each kind; and full completion queues (4.3)."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

import pytest

from iocancel import QueueFull
from iocancel.uring import CancelFlags, Features, SetupFlags, SqeFlags

from ..support import BOUND, GUEST, need, until
from .helpers import DEFER, RING_KINDS, Asked, need_flags

CANCELED, NOENT = -125, -2
MANY = 1000
KINDS = pytest.mark.parametrize("kind", RING_KINDS)


@KINDS
def test_each_kind_of_ring_cancels(open_ring: Callable[..., Asked], pipe: tuple[int, int], kind: str) -> None:
    asked = open_ring(8, RING_KINDS[kind])
    asked.go(1, "read", pipe[0], bytearray(8))
    asked.go(2, "poll_add", pipe[0], select.POLLIN)
    assert asked.cancel(1) == 0
    assert asked.end(1) == CANCELED
    assert asked.cancel(2) == 0
    assert asked.end(2) == CANCELED
    assert asked.cancel(2) == NOENT


@pytest.mark.parametrize("flags", [SetupFlags(0), SetupFlags.COOP_TASKRUN], ids=["default", "coop"])
def test_cancelled_from_elsewhere_while_the_owner_spins(
    open_ring: Callable[..., Asked], pipe: tuple[int, int], flags: SetupFlags
) -> None:
    """4.1: the completion shows without the owner's entering the ring; with COOP only a tick later."""
    need_flags(CancelFlags.FD_FIXED)  # as old as synchronous cancels: 6.0
    asked = open_ring(8, flags)
    asked.go(1, "read", pipe[0], bytearray(8))
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(asked.ring.register_sync_cancel(1)))
    thread.start()
    until(lambda: asked.ring.cq_ready, "the completion shows")
    thread.join(BOUND)
    assert answers == [0]
    assert [(cqe.user_data, cqe.res) for cqe in asked.ring.peek()] == [(1, CANCELED)]


def test_deferred_work_is_run_until_all_is_there(
    open_ring: Callable[..., Asked], pipes: Callable[[], tuple[int, int]]
) -> None:
    """4.2: one batch an enter; linked followers may need another. Waiting for all of them does it."""
    asked = open_ring(64, DEFER)
    for number in range(0, 30, 3):
        asked.put(number, "read", pipes()[0], bytearray(8), flags=SqeFlags.IO_LINK)
        asked.put(number + 1, "nop", flags=SqeFlags.IO_LINK)
        asked.put(number + 2, "nop")
    asked.ring.submit()
    need_flags(CancelFlags.ANY)
    assert asked.cancel(0, CancelFlags.ANY) == 10
    assert [asked.end(n) for n in range(30)] == [CANCELED] * 30


@KINDS
def test_nothing_is_lost_when_the_completion_queue_overflows(
    open_ring: Callable[..., Asked], pipe: tuple[int, int], kind: str
) -> None:
    """4.3: 16 places, 1,000 pending reads, one cancel of all: 1,001 completions."""
    need_flags(CancelFlags.ANY)
    asked = open_ring(8, RING_KINDS[kind], 16)
    assert asked.ring.cq_entries == 16
    buffer = bytearray(8)
    for number in range(MANY):
        put(asked, number, "read", pipe[0], buffer)
    put(asked, MANY, "cancel64", 0, CancelFlags.ANY)
    asked.ring.submit()
    got: dict[int, int] = {}
    while len(got) <= MANY:
        for cqe in asked.ring.wait(1, BOUND):
            assert cqe.user_data not in got, "told twice"
            got[cqe.user_data] = cqe.res
    assert got.pop(MANY) == MANY
    assert got == dict.fromkeys(range(MANY), CANCELED)
    assert asked.ring.cq_overflow == 0
    assert asked.ring.in_flight == 0
    assert asked.pending(0)


def put(asked: Asked, user_data: int, call: str, *args: object) -> None:
    """Prepare a request, submitting when the queue is full; SQPOLL's thread may need a while."""
    while True:
        try:
            asked.put(user_data, call, *args)
        except QueueFull:
            asked.ring.submit()
            continue
        return


@pytest.mark.parametrize("many", [100])
def test_nothing_is_lost_without_flags_either(
    open_ring: Callable[..., Asked], pipe: tuple[int, int], many: int
) -> None:
    """The same with a cancel for each, as a kernel without ANY needs it."""
    asked = open_ring(8, SetupFlags(0), 16)
    for number in range(many):
        put(asked, number, "poll_add", pipe[0], select.POLLIN)
    asked.ring.submit()
    got: dict[int, int] = {}
    for number in range(many):
        while True:
            try:
                put(asked, 1000 + number, "cancel64", number)
                asked.ring.submit()
            except QueueFull:  # the kernel takes no more while it has to keep so many
                for cqe in asked.ring.peek():
                    got[cqe.user_data] = cqe.res
                continue
            break
    while len(got) < 2 * many:
        for cqe in asked.ring.wait(1, BOUND):
            got[cqe.user_data] = cqe.res
    assert got == {**dict.fromkeys(range(many), CANCELED), **dict.fromkeys(range(1000, 1000 + many), 0)}
    assert asked.ring.cq_overflow == 0


def test_newest_first_in_batches(open_ring: Callable[..., Asked], pipe: tuple[int, int]) -> None:
    """10.11: 4,096 polls cancelled by user_data, newest first, 1,024 at a time, each batch reaped."""
    many, batch = (1024, 256) if GUEST else (4096, 1024)
    asked = open_ring(batch, SetupFlags(0), 4 * batch)
    for first in range(0, many, batch):
        asked.ring.prep_poll_add_many([pipe[0]] * batch, select.POLLIN, range(first, first + batch))
        assert asked.ring.submit() == batch
    newest_first = list(range(many - 1, -1, -1))
    got: list[int] = []
    for first in range(0, many, batch):
        targets = newest_first[first : first + batch]
        asked.ring.prep_cancel64_many(targets, 1 << 40)
        records = asked.ring.submit_and_reap(2 * batch, BOUND)
        while len(records) < 2 * batch:
            records += asked.ring.submit_and_reap(2 * batch - len(records), BOUND)
        assert {res for user_data, res, _ in records if user_data == 1 << 40} == {0}
        ended = {user_data: res for user_data, res, _ in records if user_data != 1 << 40}
        assert ended == dict.fromkeys(targets, CANCELED)
        got += ended
    assert sorted(got) == sorted(newest_first)
    assert asked.pending()


def test_newest_first_in_silence(open_ring: Callable[..., Asked], pipe: tuple[int, int]) -> None:
    """The same with the cancels' own completions suppressed: only the targets are told."""
    asked = open_ring(256)
    need(Features.CQE_SKIP in asked.ring.features, "CQE_SKIP_SUCCESS is of Linux 5.17")
    asked.ring.prep_poll_add_many([pipe[0]] * 256, select.POLLIN, range(256))
    asked.ring.submit()
    asked.ring.prep_cancel64_many(range(255, -1, -1), 1 << 40, sqe_flags=SqeFlags.CQE_SKIP_SUCCESS)
    records = asked.ring.submit_and_reap(256, BOUND)
    assert sorted((user_data, res) for user_data, res, _ in records) == [(n, CANCELED) for n in range(256)]
    assert asked.pending(1 << 40)


@KINDS
def test_a_registered_eventfd_counts(
    open_ring: Callable[..., Asked], pipe: tuple[int, int], kind: str
) -> None:
    asked = open_ring(8, RING_KINDS[kind])
    eventfd = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        asked.ring.register_eventfd(eventfd)
        asked.go(1, "poll_add", pipe[0], select.POLLIN)
        asked.go(2, "cancel64", 1)
        assert asked.end(1) == CANCELED
        assert asked.end(2) == 0
        # One for each, or one for both where they were posted together; DEFER_TASKRUN counts the work that
        # waits for its owner as well.
        counts = range(1, 9) if kind == "defer" else (1, 2)
        assert os.eventfd_read(eventfd) in counts
        asked.go(1, "poll_add", pipe[0], select.POLLIN)
        os.write(pipe[1], b"x")
        ready = select.poll()
        ready.register(eventfd, select.POLLIN)
        assert ready.poll(BOUND * 1000)
        assert asked.end(1) == select.POLLIN
        assert os.eventfd_read(eventfd) in (counts if kind == "defer" else (1,))
        asked.ring.unregister_eventfd()
        assert asked.ask("nop") == 0
        with pytest.raises(BlockingIOError):
            os.eventfd_read(eventfd)
    finally:
        os.close(eventfd)


def test_an_eventfd_for_what_comes_later_only(asked: Asked, pipe: tuple[int, int]) -> None:
    eventfd = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        asked.ring.register_eventfd(eventfd, only_async=True)
        assert asked.ask("nop") == 0
        with pytest.raises(BlockingIOError):
            os.eventfd_read(eventfd)
        asked.go(1, "poll_add", pipe[0], select.POLLIN)
        assert asked.cancel(1) == 0
        assert asked.end(1) == CANCELED
    finally:
        os.close(eventfd)
