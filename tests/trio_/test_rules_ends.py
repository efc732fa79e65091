"""trio's own rules hold for our verbs where a success beats the cancel, at Ctrl-C, and at a run's end."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

import iocancel.trio as ours
from iocancel import OperationCancelled
from iocancel.trio.hub import Hub, current

from ..support import open_fds, settle
from .helpers import SHORT, Blocking, in_flight, raised, run

# A success that beats the cancel


def test_a_value_that_was_first_is_delivered(pipe: tuple[int, int]) -> None:
    """The kernel has ended it; the cancel comes before the task goes on: the value is returned, and the next
    checkpoint raises."""

    async def main() -> None:
        seen: list[int] = []
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def opening() -> None:
                    seen.append(await ours.result(op))
                    await trio.lowlevel.checkpoint()
                    seen.append(-1)

                op = ours.engine().poll(pipe[0], select.POLLIN)
                await in_flight()
                os.write(pipe[1], b"x")
                scope.cancel()  # the kernel has completed it already
        assert scope.cancelled_caught
        assert seen == [select.POLLIN]

    run(main)


def test_a_read_beside_a_cancel_loses_nothing(pipe: tuple[int, int]) -> None:
    async def main() -> None:
        seen: list[bytes] = []
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def reading() -> None:
                    seen.append(await ours.read(pipe[0], 16))

                await in_flight()
                os.write(pipe[1], b"kept")
                scope.cancel()
        seen.append(b"".join(seen) or await ours.read(pipe[0], 16))
        assert seen[-1] == b"kept"

    run(main)


def test_the_first_of_two_that_wait_for_one_is_cancelled() -> None:
    async def main() -> None:
        op = ours.engine().timeout(1000.0)
        errors: list[BaseException | None] = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def second() -> None:
                errors.append(await raised(lambda: ours.result(op)))

            async def first() -> None:
                with scope:
                    await ours.result(op)

            scope = trio.CancelScope()
            nursery.start_soon(first)
            await in_flight()
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
        assert scope.cancelled_caught
        assert isinstance(errors[0], OperationCancelled)

    run(main)


@pytest.mark.parametrize("how", ["one", "many", "fd", "all"])
def test_a_cancel_by_the_engine(pipe: tuple[int, int], how: str) -> None:
    async def main() -> None:
        engine = ours.engine()
        op = engine.poll(pipe[0], select.POLLIN)
        errors: list[BaseException | None] = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def waiting() -> None:
                errors.append(await raised(lambda: ours.result(op)))

            await in_flight()
            if how == "one":
                op.cancel()
            elif how == "many":
                engine.cancel([op])
            elif how == "fd":
                engine.cancel_fd(pipe[0])
            else:
                engine.cancel_all()
        assert isinstance(errors[0], OperationCancelled)

    run(main)


def test_a_file_that_is_closed_while_others_begin_again(pipe: tuple[int, int]) -> None:
    async def main() -> None:
        errors: list[BaseException | None] = []
        number = os.dup(pipe[0])
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def stubborn() -> None:
                errors.append(await raised(lambda: ours.poll(number, 1)))
                errors.append(await raised(lambda: ours.poll(number, 1)))

            await in_flight()
            await ours.close_fd(number)
        assert isinstance(errors[0], OperationCancelled)
        assert isinstance(errors[1], OSError)

    run(main)


# Ctrl-C


async def interrupt(before: Callable[[], object] = int) -> None:
    """A Ctrl-C once the main task waits. In a system task, where none is raised."""
    await in_flight()
    before()
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c(blocks: Blocking) -> None:
    """In the main task's verb: its request is cancelled, and then KeyboardInterrupt is raised there."""
    seen: list[type[BaseException]] = []

    async def main() -> None:
        trio.lowlevel.spawn_system_task(interrupt)
        try:
            await blocks()
        except BaseException as error:
            seen.append(type(error))
            assert current().engine.in_flight == 0
            raise

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert seen == [KeyboardInterrupt]


def test_ctrl_c_loses_nothing(pipe: tuple[int, int]) -> None:
    """With the bytes there before it: they were read, or are in the pipe."""
    seen: list[bytes] = []

    async def main() -> None:
        trio.lowlevel.spawn_system_task(interrupt, lambda: os.write(pipe[1], b"kept"))
        seen.append(await ours.read(pipe[0], 16))
        await trio.lowlevel.checkpoint()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert (b"".join(seen) or os.read(pipe[0], 16)) == b"kept"


# trio.testing


def test_mock_clock_jumps_while_io_is_pending(pipe: tuple[int, int]) -> None:
    """trio's autojump does not know of I/O, nor of its own: when all tasks are blocked the clock jumps to the
    next deadline, though a read is pending that would end soon. Our deadlines are the kernel's and not the
    clock's: `iocancel.trio.sleep` takes real time under it."""

    async def main() -> float:
        began = trio.current_time()
        with trio.move_on_after(3600) as scope:
            await ours.read(pipe[0], 16)
        assert scope.cancelled_caught
        await ours.sleep(0)
        return trio.current_time() - began

    clock = trio.testing.MockClock(autojump_threshold=0)

    async def checked() -> float:
        value = await main()
        assert current().engine.in_flight == 0
        return value

    assert trio.run(checked, clock=clock) == pytest.approx(3600)


def test_wait_all_tasks_blocked(pipe: tuple[int, int]) -> None:
    """A task in our verb counts as blocked; and what it waits for is with the kernel by then."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.read, pipe[0], 16)
            await trio.testing.wait_all_tasks_blocked()
            assert current().engine.in_flight == 1
            os.write(pipe[1], b"x")

    run(main)


def test_a_sequencer(pipe: tuple[int, int]) -> None:
    order: list[str] = []

    async def main() -> None:
        steps = trio.testing.Sequencer()

        async def reader() -> None:
            async with steps(0):
                order.append("reads")
            order.append((await ours.read(pipe[0], 16)).decode())
            async with steps(2):
                order.append("end")

        async def writer() -> None:
            async with steps(1):
                order.append("writes")
                await ours.write(pipe[1], b"bytes")
                while "bytes" not in order:
                    await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader)
            nursery.start_soon(writer)

    run(main)
    assert order == ["reads", "writes", "bytes", "end"]


# Runs


def test_two_runs_one_after_the_other(blocks: Blocking) -> None:
    engines: list[Any] = []

    async def main() -> None:
        with trio.move_on_after(SHORT):
            await blocks()
        engines.append(ours.engine())

    run(main)
    settle()
    before = len(open_fds())
    run(main)
    settle()
    assert len(open_fds()) == before
    assert engines[0] is not engines[1]
    assert all(each.closed for each in engines)
    engines.clear()


def test_a_run_without_a_verb_has_nothing_of_ours() -> None:
    async def main() -> None:
        await trio.lowlevel.checkpoint()
        assert not instruments()
        root = trio.lowlevel.current_root_task()
        assert root is not None
        tasks = [task.name for nursery in root.child_nurseries for task in nursery.child_tasks]
        assert tasks
        assert not [name for name in tasks if "iocancel" in name]

    trio.run(main)


def instruments() -> list[Any]:
    """Ours, of this run."""
    from trio._core import _run

    return [each for each in _run.GLOBAL_RUN_CONTEXT.runner.instruments["_all"] if isinstance(each, Hub)]


class AtTheEnd(trio.abc.Instrument):
    """Looks at a run's end for what is left of ours."""

    def __init__(self) -> None:
        self.left: list[Any] | None = None

    def after_run(self) -> None:
        self.left = instruments()


def test_the_instrument_is_removed_at_the_end(pipe: tuple[int, int]) -> None:
    last = AtTheEnd()

    async def main() -> None:
        with trio.move_on_after(SHORT):
            await ours.read(pipe[0], 16)
        assert len(instruments()) == 1

    run(main, instruments=[last])
    assert last.left == []


def test_a_system_task_that_waits_at_the_end(blocks: Blocking) -> None:
    """trio cancels system tasks when the main task has ended: ours that watches is one of them."""
    errors: list[BaseException | None] = []

    async def waiting() -> None:
        error = await raised(blocks)
        errors.append(error)
        if isinstance(error, trio.Cancelled):
            raise error

    async def main() -> None:
        trio.lowlevel.spawn_system_task(waiting)
        await in_flight()

    trio.run(main)
    assert len(errors) == 1
    assert isinstance(errors[0], trio.Cancelled | OperationCancelled)


def test_a_system_task_that_begins_at_the_end(pipe: tuple[int, int]) -> None:
    """A verb in a system task's cleanup."""
    seen: list[Any] = []

    async def cleaning() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                seen.append(await raised(lambda: ours.sleep(0)))
                os.write(pipe[1], b"x")
                seen.append(await ours.read(pipe[0], 16))

    async def main() -> None:
        trio.lowlevel.spawn_system_task(cleaning)
        await ours.sleep(0)
        await trio.testing.wait_all_tasks_blocked()

    trio.run(main)
    assert seen[0] is None or isinstance(seen[0], OperationCancelled)
    assert seen[1] == b"x"


def test_no_run() -> None:
    coroutine = ours.sleep(0)
    with pytest.raises(RuntimeError, match="context"):
        coroutine.send(None)
