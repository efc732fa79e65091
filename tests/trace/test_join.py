"""The kernel's lines put together, one order after the other; what they say on each kernel is in data/."""

from __future__ import annotations

import pytest

from iocancel.trace.telling import LINGER

from .lines import (
    CANCEL,
    LINK,
    ME,
    OTHER,
    POLL,
    POLL_REMOVE,
    READ,
    RING,
    SILENT,
    TIMEOUT,
    TIMEOUT_REMOVE,
    WORKER,
    Kernel,
    ended,
)
from .lines import kernel as kernel


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
