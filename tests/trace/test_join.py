"""The kernel's lines put together, one order after the other; what they say on each kernel is in data/."""

from __future__ import annotations

from typing import Any

import pytest

from iocancel._native import lib
from iocancel.trace.ebpf import Request as Asked
from iocancel.trace.endings import MANY
from iocancel.trace.events import Cancel
from iocancel.trace.join import Joiner
from iocancel.trace.telling import LINGER

ME, OTHER, WORKER = 100, 200, 300
RING = 0xFFFF0000
CANCEL, READ, POLL = lib.IORING_OP_ASYNC_CANCEL, lib.IORING_OP_READ, lib.IORING_OP_POLL_ADD
TIMEOUT, TIMEOUT_REMOVE, POLL_REMOVE = (
    lib.IORING_OP_TIMEOUT,
    lib.IORING_OP_TIMEOUT_REMOVE,
    lib.IORING_OP_POLL_REMOVE,
)
LINK = lib.IORING_OP_LINK_TIMEOUT
SILENT = lib.IOSQE_CQE_SKIP_SUCCESS


class Kernel:
    """Says what a kernel would, a microsecond after the last."""

    def __init__(self) -> None:
        self.found: list[Cancel] = []
        self.strays: list[int] = []
        self.joiner = Joiner(self.found.append, lambda tid: (tid // 100 * 100, f"p{tid}"), self.strays.append)
        self.now = 1_000_000
        self.joiner.create(RING, 7)

    def later(self, ns: int = 1000) -> int:
        self.now += ns
        return self.now

    def submit(self, req: int | None, user_data: int, opcode: int, flags: int = 0, tid: int = ME) -> None:
        self.joiner.submit(self.later(), tid, RING, req, user_data, opcode, flags)

    def add(self, req: int | None, user_data: int, tid: int = ME, **more: Any) -> None:
        self.later()
        self.joiner.task_add(tid, more.get("interrupted", False), RING, req, user_data, more.get("mask", 0))

    def done(self, req: int | None, user_data: int, res: int, tid: int = ME, cflags: int = 0) -> None:
        self.joiner.complete(self.later(), tid, RING, req, user_data, res, cflags)

    def one(self) -> Cancel:
        assert len(self.found) == 1, self.found
        return self.found[0]


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


def ended(cancel: Cancel) -> list[tuple[int | None, str | None, str | None, bool]]:
    return [(each.user_data, each.op, each.ending, each.seen) for each in cancel.targets]


def test_a_read_that_waits_by_a_poll(kernel: Kernel) -> None:
    kernel.submit(0x10, 1, READ)
    kernel.submit(0x20, 2, CANCEL)
    kernel.add(0x10, 1)
    kernel.done(0x20, 2, 0)
    assert kernel.found == [], "its target has not ended"
    kernel.done(0x10, 1, -125)
    cancel = kernel.one()
    assert (cancel.pid, cancel.tid, cancel.comm) == (ME, ME, "p100")
    assert (cancel.system, cancel.mechanism, cancel.ring, cancel.ring_fd) == (
        "uring",
        "async_cancel",
        RING,
        7,
    )
    assert (cancel.user_data, cancel.result, cancel.ending, cancel.verdict) == (2, 0, "0", "cancelled")
    assert (cancel.latency, cancel.targets[0].latency) == (2000, 3000)
    assert ended(cancel) == [(1, "READ", "ECANCELED", True)]


def test_the_target_ends_before_the_answer(kernel: Kernel) -> None:
    kernel.submit(0x10, 1, READ)
    kernel.submit(0x20, 2, CANCEL)
    kernel.add(0x10, 1)
    kernel.done(0x10, 1, -125)
    assert kernel.found == []
    kernel.done(0x20, 2, 0)
    assert ended(kernel.one()) == [(1, "READ", "ECANCELED", True)]


@pytest.mark.parametrize(
    ("res", "verdict", "name"),
    [(-2, "not found", "ENOENT"), (-114, "too late", "EALREADY"), (-22, "rejected", "EINVAL")],
)
def test_what_the_answer_says(kernel: Kernel, res: int, verdict: str, name: str) -> None:
    kernel.submit(0x20, 2, CANCEL)
    kernel.done(0x20, 2, res)
    kernel.joiner.advance(kernel.later(3 * LINGER))
    cancel = kernel.one()
    assert (cancel.verdict, cancel.ending, cancel.targets) == (verdict, name, ())


def test_many_in_one_call(kernel: Kernel) -> None:
    """The answers come behind all that was submitted, and the endings behind those: each has its own."""
    for i in range(3):
        kernel.submit(0x10 + i, i, READ)
    for i in range(3):
        kernel.submit(0x20 + i, 10 + i, CANCEL)
        kernel.add(0x10 + i, i)
    for i in range(3):
        kernel.done(0x20 + i, 10 + i, 0)
    for i in (2, 0, 1):
        kernel.done(0x10 + i, i, -125)
    assert [(each.user_data, each.targets[0].user_data) for each in kernel.found] == [
        (12, 2),
        (10, 0),
        (11, 1),
    ]
    assert kernel.strays == []


def test_all_of_them(kernel: Kernel) -> None:
    for i in range(3):
        kernel.submit(0x10 + i, i, READ)
    kernel.submit(0x20, 9, CANCEL)
    for i in range(3):
        kernel.add(0x10 + i, i)
    kernel.done(0x20, 9, 3)
    for i in range(3):
        assert kernel.found == []
        kernel.done(0x10 + i, i, -125)
    assert [each.user_data for each in kernel.one().targets] == [0, 1, 2]


def test_a_wake_up_in_between_is_no_cancel(kernel: Kernel) -> None:
    """Data come by an interrupt, or for another request, while a cancel runs."""
    kernel.submit(0x10, 1, READ)
    kernel.submit(0x11, 3, READ)
    kernel.submit(0x20, 2, CANCEL)
    kernel.add(0x10, 1, interrupted=True)
    kernel.add(0x11, 3, mask=1)
    kernel.done(0x20, 2, -2)
    kernel.done(0x10, 1, 5)
    kernel.done(0x11, 3, 5)
    cancel = kernel.one()
    assert (cancel.verdict, cancel.targets) == ("not found", ())


def test_what_a_worker_had_is_found_by_elimination(kernel: Kernel) -> None:
    kernel.submit(0x10, 1, READ)
    kernel.submit(0x20, 2, CANCEL)
    kernel.done(0x20, 2, -114)
    kernel.done(0x10, 1, -4, tid=WORKER)
    assert ended(kernel.one()) == [(1, "READ", "EINTR", False)]


def test_two_that_may_have_ended_it(kernel: Kernel) -> None:
    """Nobody knows which: it is counted, and neither has it."""
    kernel.submit(0x10, 1, READ)
    kernel.submit(0x20, 2, CANCEL)
    kernel.submit(0x21, 3, CANCEL, tid=OTHER)
    kernel.done(0x20, 2, -114)
    kernel.done(0x21, 3, -114, tid=OTHER)
    kernel.done(0x10, 1, -125, tid=WORKER)
    assert kernel.strays == [ME]
    kernel.joiner.advance(kernel.later(3 * LINGER))
    assert [each.targets for each in kernel.found] == [(), ()]
    assert {each.verdict for each in kernel.found} == {"too late"}


def test_only_its_kind(kernel: Kernel) -> None:
    """A removed timer's cancel can't have ended the read that ends just then."""
    kernel.submit(0x10, 1, READ)
    kernel.submit(0x11, 2, TIMEOUT)
    kernel.submit(0x20, 3, TIMEOUT_REMOVE)
    kernel.done(0x20, 3, 0)
    kernel.done(0x10, 1, -4)
    assert kernel.strays == [ME]
    kernel.done(0x11, 2, -125)
    assert ended(kernel.one()) == [(2, "TIMEOUT", "ECANCELED", False)]
    kernel.submit(0x12, 4, POLL)
    kernel.submit(0x21, 5, POLL_REMOVE)
    kernel.add(0x12, 4)
    kernel.done(0x21, 5, 0)
    kernel.done(0x12, 4, -125)
    assert ended(kernel.found[-1]) == [(4, "POLL_ADD", "ECANCELED", True)]


def test_an_update_cancels_nothing(kernel: Kernel) -> None:
    kernel.submit(0x11, 2, TIMEOUT)
    kernel.submit(0x20, 3, TIMEOUT_REMOVE)
    kernel.done(0x20, 3, 0)
    kernel.joiner.advance(kernel.later(3 * LINGER))
    assert (kernel.one().verdict, kernel.one().targets) == ("accepted", ())


# Silence


def test_silence_is_success_when_the_call_returns(kernel: Kernel) -> None:
    kernel.submit(0x10, 1, READ)
    kernel.submit(0x20, 2, CANCEL, SILENT)
    kernel.add(0x10, 1)
    kernel.done(0x10, 1, -125)
    assert kernel.found == []
    kernel.joiner.exit_enter(ME)
    assert (kernel.one().verdict, kernel.one().result, kernel.one().latency) == ("cancelled", 0, None)


def test_silence_is_success_when_its_place_is_used_again(kernel: Kernel) -> None:
    kernel.submit(0x10, 1, READ)
    kernel.submit(0x20, 2, CANCEL, SILENT)
    kernel.add(0x10, 1)
    kernel.done(0x10, 1, -125)
    kernel.submit(0x20, 3, READ)
    assert kernel.one().verdict == "cancelled"


def test_what_it_says_before_that_counts(kernel: Kernel) -> None:
    kernel.submit(0x20, 2, CANCEL, SILENT)
    kernel.done(0x20, 2, -2)
    kernel.joiner.exit_enter(ME)
    assert kernel.one().verdict == "not found"


# Link timeouts


@pytest.mark.parametrize("head_first", [True, False])
def test_a_link_timeout_that_fires(kernel: Kernel, head_first: bool) -> None:
    kernel.submit(0x10, 1, READ)
    kernel.submit(0x20, 2, LINK)
    kernel.joiner.link(RING, 0x20, 0x10)
    kernel.later(LINGER * 5)
    kernel.joiner.advance(kernel.now)
    assert kernel.found == []
    endings = [(0x10, 1, -125), (0x20, 2, -62)]
    for req, user_data, res in endings if head_first else endings[::-1]:
        kernel.done(req, user_data, res)
    cancel = kernel.one()
    assert (cancel.mechanism, cancel.verdict, cancel.ending) == ("link_timeout", "cancelled", "ETIME")
    assert ended(cancel) == [(1, "READ", "ECANCELED", True)]


@pytest.mark.parametrize("head_first", [True, False])
def test_a_link_timeout_that_does_not(kernel: Kernel, head_first: bool) -> None:
    kernel.submit(0x10, 1, READ)
    kernel.submit(0x20, 2, LINK)
    kernel.joiner.link(RING, 0x20, 0x10)
    endings = [(0x10, 1, 4), (0x20, 2, -125)]
    for req, user_data, res in endings if head_first else endings[::-1]:
        kernel.done(req, user_data, res)
    kernel.joiner.advance(kernel.later(3 * LINGER))
    assert kernel.found == []
    assert kernel.strays == []


def test_what_was_linked_to_a_failure_is_nobodys(kernel: Kernel) -> None:
    kernel.submit(0x10, 1, READ)
    kernel.submit(0x11, 2, READ)
    kernel.joiner.fail_link(RING, 0x11)
    kernel.done(0x10, 1, -9)
    kernel.done(0x11, 2, -125)
    assert kernel.strays == []


# Other ways


def test_rejected_before_it_was_submitted(kernel: Kernel) -> None:
    kernel.joiner.failed(kernel.later(), ME, RING, 0x20, 2, CANCEL, 0x77, 0x40, -22)
    kernel.done(0x20, 2, -22)
    cancel = kernel.one()
    assert (cancel.verdict, cancel.ending, cancel.key, cancel.flags, cancel.fd) == (
        "rejected",
        "EINVAL",
        0x77,
        0x40,
        None,
    )


def test_a_synchronous_cancel(kernel: Kernel) -> None:
    kernel.submit(0x10, 1, READ)
    kernel.joiner.enter_register(kernel.later(), OTHER, 5, 24)
    kernel.add(0x10, 1, tid=OTHER)
    kernel.joiner.register(kernel.later(), OTHER, RING, 24, 0)
    kernel.joiner.exit_register(kernel.later(), OTHER, 0)
    kernel.done(0x10, 1, -125)
    cancel = kernel.one()
    assert (cancel.mechanism, cancel.tid, cancel.ring_fd, cancel.ring) == ("sync_cancel", OTHER, 5, RING)
    assert cancel.latency == 2000
    assert ended(cancel) == [(1, "READ", "ECANCELED", True)]


def test_a_synchronous_cancel_on_what_is_no_ring(kernel: Kernel) -> None:
    kernel.joiner.enter_register(kernel.later(), OTHER, 5, 24)
    kernel.joiner.exit_register(kernel.later(), OTHER, -9)
    assert (kernel.one().verdict, kernel.one().ending, kernel.one().ring) == ("rejected", "EBADF", None)


def test_other_registrations_are_none(kernel: Kernel) -> None:
    kernel.joiner.enter_register(kernel.later(), OTHER, 5, 2)
    kernel.joiner.register(kernel.later(), OTHER, RING, 2, 0)
    kernel.joiner.exit_register(kernel.later(), OTHER, 0)
    kernel.joiner.advance(kernel.later(3 * LINGER))
    assert kernel.found == []


@pytest.mark.parametrize(
    ("ret", "verdict"), [(-115, "cancelled"), (0, "cancelled"), (-22, "not found"), (-14, "rejected")]
)
def test_io_cancel(kernel: Kernel, ret: int, verdict: str) -> None:
    kernel.joiner.enter_io_cancel(kernel.later(), ME, 0x7F00, 0x5500, 0x6600)
    kernel.joiner.exit_io_cancel(kernel.later(), ME, ret)
    cancel = kernel.one()
    assert (cancel.system, cancel.verdict, cancel.result, cancel.latency) == ("libaio", verdict, ret, 1000)
    args = cancel.asdict()["args"]
    assert [(each["name"], each["type"], each["value"]) for each in args] == [
        ("ctx_id", "io_context_t", 0x7F00),
        ("iocb", "struct iocb*", 0x5500),
        ("result", "struct io_event*", 0x6600),
    ]


# Without addresses (Linux 5.10)


def test_by_user_data(kernel: Kernel) -> None:
    """There the target completes within the cancel."""
    kernel.submit(None, 1, READ)
    kernel.submit(None, 2, CANCEL)
    kernel.done(None, 1, -125)
    kernel.done(None, 2, 0)
    assert ended(kernel.one()) == [(1, "READ", "ECANCELED", True)]


def test_a_cancel_with_its_targets_user_data(kernel: Kernel) -> None:
    kernel.submit(None, 1, READ)
    kernel.submit(None, 1, CANCEL)
    kernel.done(None, 1, -125)
    kernel.done(None, 1, 0)
    assert ended(kernel.one()) == [(1, "READ", "ECANCELED", True)]


# The ends


def test_submitted_before_the_tracing_began(kernel: Kernel) -> None:
    kernel.submit(0x20, 2, CANCEL)
    kernel.add(0x10, 1)
    kernel.done(0x20, 2, 0)
    kernel.done(0x10, 1, -125)
    assert ended(kernel.one()) == [(1, None, "ECANCELED", True)]


def test_the_end_of_the_tracing(kernel: Kernel) -> None:
    """What is not whole is told as far as it is known, once."""
    kernel.submit(0x10, 1, READ)
    kernel.submit(0x20, 2, CANCEL)
    kernel.add(0x10, 1)
    kernel.joiner.finish()
    kernel.joiner.finish()
    cancel = kernel.one()
    assert (cancel.verdict, cancel.result, cancel.latency) == ("unknown", None, None)


def test_a_new_ring_where_another_was(kernel: Kernel) -> None:
    kernel.submit(0x10, 1, READ)
    kernel.joiner.create(RING, 9)
    kernel.submit(0x20, 2, CANCEL)
    kernel.done(0x20, 2, -2)
    assert kernel.one().ring_fd == 9


# Odd orders

IO_LINK, ASYNC = lib.IOSQE_IO_LINK, lib.IOSQE_ASYNC


def told(kernel: Kernel) -> dict[int | None, tuple[str, list[int | None]]]:
    return {
        each.user_data: (each.verdict, [target.user_data for target in each.targets]) for each in kernel.found
    }


def test_a_chain_of_cancels(kernel: Kernel) -> None:
    """The head runs when the chain is complete, not the one that was submitted last."""
    kernel.submit(0x10, 1, POLL)
    kernel.submit(0x11, 2, POLL)
    kernel.submit(0x20, 8, CANCEL, IO_LINK)
    kernel.submit(0x21, 9, CANCEL)
    kernel.joiner.link(RING, 0x21, 0x20)
    kernel.add(0x10, 1)
    kernel.done(0x20, 8, 0)
    kernel.done(0x10, 1, -125)
    kernel.add(0x11, 2)
    kernel.done(0x21, 9, 0)
    kernel.done(0x11, 2, -125)
    assert told(kernel) == {8: ("cancelled", [1]), 9: ("cancelled", [2])}


def test_silence_of_one_that_waits_for_another(kernel: Kernel) -> None:
    """It has not run when the call returns, nor a second later."""
    kernel.submit(0x10, 1, TIMEOUT, IO_LINK)
    kernel.submit(0x20, 2, CANCEL, SILENT)
    kernel.joiner.link(RING, 0x20, 0x10)
    kernel.joiner.exit_enter(ME)
    kernel.joiner.advance(kernel.later(3 * LINGER))
    assert kernel.found == []
    kernel.done(0x10, 1, -62)
    kernel.done(0x20, 2, -2)
    assert kernel.one().verdict == "not found"


def test_an_answer_that_takes_long(kernel: Kernel) -> None:
    """Of a request behind another one, and of a call that waits."""
    kernel.submit(0x10, 1, TIMEOUT, IO_LINK)
    kernel.submit(0x20, 2, CANCEL)
    kernel.joiner.link(RING, 0x20, 0x10)
    kernel.joiner.enter_register(kernel.later(), OTHER, 5, 24)
    kernel.joiner.advance(kernel.later(3 * LINGER))
    kernel.joiner.advance(kernel.later(3 * LINGER))
    assert kernel.found == []
    kernel.done(0x20, 2, -2)
    kernel.joiner.exit_register(kernel.later(), OTHER, -62)
    kernel.joiner.advance(kernel.later(3 * LINGER))
    assert [each.verdict for each in kernel.found] == ["not found", "too late"]


@pytest.mark.parametrize("seen", [True, False])
def test_a_cancel_of_what_has_a_link_timeout(kernel: Kernel, seen: bool) -> None:
    kernel.submit(0x10, 1, READ, IO_LINK)
    kernel.submit(0x20, 2, LINK)
    kernel.joiner.link(RING, 0x20, 0x10)
    kernel.submit(0x30, 3, CANCEL)
    if seen:
        kernel.add(0x10, 1)
    kernel.done(0x30, 3, 0)
    kernel.done(0x10, 1, -125)
    kernel.done(0x20, 2, -125)
    assert ended(kernel.one()) == [(1, "READ", "ECANCELED", seen)]
    assert kernel.one().user_data == 3


def test_no_room_for_completions(kernel: Kernel) -> None:
    """An event of its own tells of them."""
    kernel.submit(0x10, 1, READ)
    kernel.submit(0x20, 2, CANCEL, SILENT)
    kernel.joiner.overflow(kernel.later(), ME, RING, 2, -2, 0)
    kernel.joiner.exit_enter(ME)
    assert kernel.one().verdict == "not found"
    kernel.submit(0x11, 3, READ)
    kernel.submit(0x20, 3, CANCEL)  # of the same name
    kernel.add(0x11, 3)
    kernel.joiner.overflow(kernel.later(), ME, RING, 3, 0, 0)
    kernel.joiner.overflow(kernel.later(), ME, RING, 3, -125, 0)
    assert ended(kernel.found[1]) == [(3, "READ", "ECANCELED", True)]


def test_other_calls_are_about_something_else(kernel: Kernel) -> None:
    """Another process's synchronous cancel, and io_cancel, that have not returned."""
    kernel.submit(0x10, 1, READ)
    kernel.joiner.enter_register(kernel.later(), OTHER, 5, 24)
    kernel.done(0x10, 1, -125)
    kernel.submit(0x10, 1, READ)
    kernel.joiner.enter_io_cancel(kernel.later(), ME, 1, 2, 3)
    kernel.done(0x10, 1, -125)
    kernel.joiner.exit_io_cancel(kernel.later(), ME, -22)
    kernel.joiner.exit_register(kernel.later(), OTHER, -2)
    assert [each.targets for each in kernel.found] == [(), ()]
    assert kernel.strays == [ME, ME]


def test_it_is_known_what_it_aims_at(kernel: Kernel) -> None:
    """Nothing else is its target, and neither is that of one that changes a timeout."""
    keys = {0x20: (77, 0), 0x21: (1, 1 << 1)}  # IORING_TIMEOUT_UPDATE
    kernel.joiner.asked = lambda time, req, name: Asked(
        time, ME, ME, req, name, 0, keys[req][0], None, keys[req][1]
    )
    kernel.submit(0x10, 1, TIMEOUT)
    kernel.submit(0x20, 2, CANCEL)
    kernel.submit(0x21, 3, TIMEOUT_REMOVE)
    kernel.done(0x20, 2, 0)
    kernel.done(0x21, 3, 0)
    kernel.done(0x10, 1, -125)
    kernel.joiner.advance(kernel.later(3 * LINGER))
    assert told(kernel) == {2: ("accepted", []), 3: ("accepted", [])}
    assert kernel.strays == [ME]


def test_what_was_found_and_takes_its_time(kernel: Kernel) -> None:
    """Its task has not come for it (DEFER_TASKRUN)."""
    kernel.submit(0x10, 1, READ)
    kernel.submit(0x20, 2, CANCEL)
    kernel.add(0x10, 1)
    kernel.done(0x20, 2, 0)
    kernel.joiner.advance(kernel.later(3 * LINGER))
    assert kernel.one().verdict == "cancelled"


def test_another_request_at_its_place(kernel: Kernel) -> None:
    """Events were lost: what was known of the place is not true of what ends there."""
    kernel.submit(0x10, 1, READ)
    kernel.submit(0x20, 2, CANCEL)
    kernel.add(0x10, 5)
    kernel.done(0x20, 2, 0)
    kernel.done(0x10, 5, -125)
    assert ended(kernel.one()) == [(5, None, "ECANCELED", True)]


def test_silence_means_nothing_where_events_were_lost(kernel: Kernel) -> None:
    kernel.submit(0x20, 2, CANCEL, SILENT)
    kernel.joiner.lose()
    kernel.joiner.exit_enter(ME)
    kernel.submit(0x20, 3, READ)
    kernel.joiner.advance(kernel.later(3 * LINGER))
    assert kernel.one().verdict == "unknown"


def test_thousands_at_once(kernel: Kernel) -> None:
    """Each has a few candidates only; not all the others', which is their square."""
    for i in range(2000):
        kernel.submit(0x10000 + i, i, TIMEOUT)
    for i in range(2000):
        kernel.submit(0x20000 + i, 1 << 20 | i, TIMEOUT_REMOVE)
    for i in range(2000):
        kernel.done(0x20000 + i, 1 << 20 | i, 0)
    for i in range(2000):
        kernel.done(0x10000 + i, i, -125)
    kernel.joiner.advance(kernel.later(3 * LINGER))
    assert len(kernel.found) == 2000
    assert {each.verdict for each in kernel.found} == {"cancelled"}
    assert {len(each.candidates) for each in kernel.found} == {MANY}
    assert kernel.strays == [ME] * 2000


def test_a_polling_threads_cancels_are_forgotten(kernel: Kernel) -> None:
    """Its calls never return."""
    for i in range(10_000):
        kernel.submit(0x20 + i % 2, i, CANCEL, SILENT)
    assert len(kernel.joiner._silent[ME]) <= 1024


def test_a_completion_that_is_no_requests(kernel: Kernel) -> None:
    """IORING_OP_MSG_RING puts into another ring what its caller likes."""
    kernel.submit(0x20, 2, CANCEL)
    kernel.done(0, 5, -125)
    kernel.done(0x20, 2, 0)
    kernel.joiner.advance(kernel.later(3 * LINGER))
    assert kernel.one().targets == ()
