"""Each verb, in each world, on each engine that can do it: how it ends, and that "cancelled" means that
nothing was done.

What a call that was cancelled has left is looked for by plain system calls: the bytes, the connection, the
child's state are there, once. On trio a success that was first is returned, and the next checkpoint raises.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from ...blocking.case import Case
from ...blocking.cases import CASES
from .conftest import Row
from .loops import CAME, PAIRS, STOPPED, Started, World, same
from .moments import MOMENTS, untouched

SHORT = 0.02
LACKING = {("libaio", "open"), ("libaio", "futex_wait")}
ALL = [(*pair, name) for pair in PAIRS for name in CASES if (pair[1], name) not in LACKING]
# Giving a context of Linux AIO back takes 30 ms and more: with it each test is made in one of two worlds.
ROWS = [row for row in ALL if row[:2] != ("asyncio", "libaio")]
ENDING = [row for row in ROWS if row[2] != "sleep"]
"""Those that a test can bring to their end."""
NONBLOCKING = [
    row
    for row in ENDING
    if row[2] not in ("open", "waitid", "futex_wait", "poll", "splice", "tee", "connect")
    and row[0] != "debug"
]
every = pytest.mark.parametrize("row", ROWS, ids="-".join, indirect=True)
at_end = pytest.mark.parametrize(
    "row",
    [row for row in ALL if row[2] != "sleep" and row[:2] != ("trio", "libaio")],
    ids="-".join,
    indirect=True,
)
ending = pytest.mark.parametrize("row", ENDING, ids="-".join, indirect=True)


def endless(case: Case) -> bool:
    return type(case).ready is Case.ready


async def goes_on(world: World, case: Any) -> None:
    """What has ended has left nothing behind: the next call waits, and takes what comes."""
    assert not world.flying()
    if endless(case):
        return
    started = world.start(case.call)
    if not case.is_ready:
        await world.waits(started)
        case.ready()
    assert await world.ended(started) is CAME, f"{started.error!r}"
    assert case.right(started.value)


# It completes


@pytest.mark.parametrize(
    "row", [row for row in ENDING if row[2] != "futex_wait"], ids="-".join, indirect=True
)
def test_it_is_ready(row: Row) -> None:
    async def main(world: World, case: Any) -> None:
        case.ready()
        assert case.right(await case.call())

    row.run(main)


@ending
def test_it_waits(row: Row) -> None:
    async def main(world: World, case: Any) -> None:
        for _ in range(1 if case.name in ("waitid", "open") else 2):
            started = world.start(case.call)
            await world.waits(started)
            case.ready()
            assert await world.ended(started) is CAME, f"{started.error!r}"
            assert case.right(started.value)

    row.run(main)


@pytest.mark.parametrize("row", NONBLOCKING, ids="-".join, indirect=True)
def test_a_nonblocking_file_is_waited_for_all_the_same(row: Row) -> None:
    async def main(world: World, case: Any) -> None:
        os.set_blocking(case.fd, False)
        started = world.start(case.call)
        await world.waits(started)
        started.cancel()
        assert await world.ended(started) is STOPPED
        started = world.start(case.call)
        await world.waits(started)
        case.ready()
        assert await world.ended(started) is CAME, f"{started.error!r}"
        assert not os.get_blocking(case.fd)
        assert case.right(started.value)

    row.run(main)


# It is cancelled


@every
def test_a_cancel_before_its_first_step(row: Row) -> None:
    async def main(world: World, case: Any) -> None:
        if not endless(case) and case.stays:
            case.ready()
        started = world.start(case.call)
        started.cancel()
        assert await world.ended(started) is STOPPED
        if not endless(case) and case.stays:
            untouched(case)
        await goes_on(world, case)

    row.run(main)


@every
def test_a_cancel_of_its_own_before_its_call(row: Row) -> None:
    async def main(world: World, case: Any) -> None:
        async def call() -> Any:
            started.cancel()
            return await case.call()

        started: Started = world.start(call)
        assert await world.ended(started) is STOPPED
        if not endless(case):
            case.ready()
            untouched(case)
        await goes_on(world, case)

    row.run(main)


@every
def test_a_cancel_before_its_submission(row: Row) -> None:
    async def main(world: World, case: Any) -> None:
        engine = world.engine
        started = world.start(case.call)
        await world.until(lambda: engine._staged or engine.in_flight or started.done, "it is prepared")
        started.cancel()
        assert await world.ended(started) is STOPPED
        if not endless(case):
            case.ready()
            untouched(case)
        await goes_on(world, case)

    row.run(main)


@every
@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_a_cancel_in_flight(row: Row, times: int) -> None:
    async def main(world: World, case: Any) -> None:
        started = world.start(case.call)
        op = await world.waits(started)
        case.runs()
        for _ in range(times):
            started.cancel()
        assert await world.ended(started) is STOPPED
        assert op.done()
        assert op.cancelled()
        assert started.op in (op, None)
        if world.name != "trio":
            task: Any = started
            assert task.task.cancelling() == times
        if not endless(case):
            case.ready()
            untouched(case, started)
        await goes_on(world, case)

    row.run(main)


@every
def test_a_second_cancel_in_a_later_pass(row: Row) -> None:
    """It comes when the kernel has been asked, and changes nothing."""

    async def main(world: World, case: Any) -> None:
        carrier, calls = world.engine._carrier, []
        started = world.start(case.call)
        await world.waits(started)
        real = carrier.cancel

        def cancel(ops: Any) -> Any:
            calls.append(len(ops))
            value = real(ops)
            started.cancel()
            return value

        carrier.cancel = cancel
        started.cancel()
        assert await world.ended(started) is STOPPED
        assert calls
        carrier.cancel = real
        if not endless(case):
            case.ready()
            untouched(case)
        await goes_on(world, case)

    row.run(main)


@at_end
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_cancel_at_the_moment_of_its_completion(row: Row, moment: str) -> None:
    act, first = MOMENTS[moment]
    if (row.engine, row.name, moment) == ("libaio", "connect", "unseen"):
        return  # Nothing tells it when to try again but a clock.

    async def main(world: World, case: Any) -> None:
        carrier = world.engine._carrier
        before = carrier.__dict__.copy()
        started = world.start(case.call)
        op = await world.waits(started)
        case.runs()
        happened = act(world, case, op, started)
        await world.ended(started)
        assert happened()
        carrier.__dict__.pop("cancel", None)
        assert before.keys() == carrier.__dict__.keys()
        if moment == "woken" and started.ending is CAME:
            pass  # it was over by then
        else:
            same(world, started, first=first)
        if started.ending is CAME:
            assert case.right(started.value)
        else:
            untouched(case, started)
        await goes_on(world, case)

    row.run(main)


@every
def test_a_deadline(row: Row) -> None:
    async def main(world: World, case: Any) -> None:
        expired, _ = await world.within(SHORT, case.call)
        assert expired
        if not endless(case):
            case.ready()
            untouched(case)
        await goes_on(world, case)

    row.run(main)


@ending
def test_a_deadline_that_is_kept(row: Row) -> None:
    async def main(world: World, case: Any) -> None:
        if case.name != "futex_wait":
            case.ready()
            expired, value = await world.within(3600, case.call)
            assert not expired
            assert case.right(value)

    row.run(main)


@ending
def test_a_shield_holds(row: Row) -> None:
    async def main(world: World, case: Any) -> None:
        started = await world.shielded(case.call, case.ready)
        assert await world.ended(started) is CAME
        assert case.right(started.value)
        if world.delivers:
            assert started.raised_next, "behind the shield it is cancelled"
        await goes_on(world, case)

    row.run(main)


@every
def test_another_thread_cancels_it(row: Row) -> None:
    async def main(world: World, case: Any) -> None:
        post = world.poster()
        started = world.start(case.call)
        await world.waits(started)
        case.runs()
        thread = threading.Thread(target=lambda: post(started.cancel))
        thread.start()
        assert await world.ended(started) is STOPPED
        await world.until(lambda: not thread.is_alive(), "the thread's end")
        thread.join()
        if not endless(case):
            case.ready()
            untouched(case)
        await goes_on(world, case)

    row.run(main)
