"""The kernel's lines put together, in odd orders: chains, workers, what was lost, thousands at once."""

from __future__ import annotations

import pytest

from iocancel._native import lib
from iocancel.trace.ebpf import Request as Asked
from iocancel.trace.endings import MANY
from iocancel.trace.telling import LINGER

from .lines import (
    CANCEL,
    LINK,
    ME,
    OTHER,
    POLL,
    READ,
    RING,
    SILENT,
    TIMEOUT,
    TIMEOUT_REMOVE,
    Kernel,
    ended,
    told,
)
from .lines import kernel as kernel

IO_LINK, ASYNC = lib.IOSQE_IO_LINK, lib.IOSQE_ASYNC


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
