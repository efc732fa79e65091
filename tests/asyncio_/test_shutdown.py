"""The end of a loop, in all the ways that loops end, with operations in flight: no hang, nothing left."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import iocancel.asyncio as ours
from iocancel import OperationCancelled
from iocancel.asyncio.hub import current

from ..support import BOUND, few, open_fds, settle
from .helpers import Blocking, World, in_flight, raised


def ended(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a loop's engine is closed."""
    hub: Any = getattr(loop, "_iocancel", None)
    return hub is None or hub.engine.closed


def test_run_returns_while_tasks_wait(world: World, blocks: Blocking) -> None:
    """asyncio.run cancels them."""
    errors: list[BaseException | None] = []

    async def main() -> list[Any]:
        async def wait() -> None:
            try:
                await blocks()
            except BaseException as error:
                errors.append(error)
                raise

        tasks = [asyncio.ensure_future(wait()) for _ in range(3)]
        await in_flight(3)
        return tasks

    with asyncio.Runner(loop_factory=world.loop) as runner:
        loop = runner.get_loop()
        runner.run(main())
    assert [type(each) for each in errors] == [asyncio.CancelledError] * 3
    assert ended(loop)


def test_asyncgens_are_shut_down_while_tasks_wait(world: World, blocks: Blocking) -> None:
    """Nobody has cancelled them: their engine is closed under them, and they learn it."""

    async def main() -> Any:
        task = asyncio.ensure_future(raised(blocks()))
        await in_flight()
        return task

    loop = world.loop()
    try:
        task = loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_asyncgens())
        assert ended(loop)
        assert isinstance(loop.run_until_complete(task), OperationCancelled)
    finally:
        loop.close()


def test_a_loop_that_is_closed_without_it(world: World) -> None:
    """Its engine goes with it when it is collected."""

    async def main() -> None:
        await ours.sleep(0)

    loop = world.loop()
    loop.run_until_complete(main())
    loop.close()


def test_a_loop_that_is_closed_with_operations_in_flight(world: World, blocks: Blocking) -> None:
    """Nobody hears of them any more. They are cancelled when the loop is collected, and that is told."""

    async def main() -> None:
        task = asyncio.ensure_future(blocks())
        await in_flight()
        task._log_destroy_pending = False  # type: ignore[attr-defined]

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        loop = world.loop()
        loop.run_until_complete(main())
        loop.close()
        del loop
        gc.collect()
    assert [each.category for each in seen if "in_flight=1" in str(each.message)] == [ResourceWarning]


def test_a_verb_behind_the_shutdown(world: World, pipe: tuple[int, int]) -> None:
    """It has an engine of its own, and that one is closed, too."""

    async def main() -> bytes:
        os.write(pipe[1], b"x")
        await ours.sleep(0)
        return bytes(await ours.read(pipe[0], 16))

    loop = world.loop()
    try:
        assert loop.run_until_complete(main()) == b"x"
        loop.run_until_complete(loop.shutdown_asyncgens())
        assert ended(loop)
        assert loop.run_until_complete(main()) == b"x"
        assert loop.run_until_complete(main()) == b"x"
    finally:
        loop.close()


def test_a_verb_in_another_generators_end(world: World) -> None:
    """Generators are closed all at once: one that awaits a verb there gets its value, or is told."""
    seen: list[Any] = []

    async def main() -> None:
        async def generator() -> Any:
            try:
                yield 1
            finally:
                seen.append(await raised(ours.sleep(0)))

        made = generator()
        await anext(made)
        await ours.sleep(0)
        seen.append(made)  # nobody closes it but the loop

    with asyncio.Runner(loop_factory=world.loop) as runner:
        runner.run(main())
    assert len(seen) == 2
    assert seen[1] is None or isinstance(seen[1], OperationCancelled)
    seen.clear()


def test_two_loops_in_two_threads(world: World, pipes: Callable[[], tuple[int, int]]) -> None:
    """Each has its engine."""
    engines: list[Any] = []
    both = threading.Barrier(2, timeout=BOUND)
    errors: list[BaseException] = []

    def run() -> None:
        reads, writes = pipes()

        async def main() -> None:
            task = asyncio.ensure_future(ours.read(reads, 16))
            await in_flight()
            engines.append(ours.engine())
            both.wait()
            os.write(writes, b"own")
            assert await task == b"own"
            both.wait()
            task = asyncio.ensure_future(ours.read(reads, 16))
            await in_flight()
            task.cancel()
            assert type(await raised(task)) is asyncio.CancelledError

        try:
            world.run(main)
        except BaseException as error:  # noqa: BLE001 - raised by the test
            errors.append(error)
            both.abort()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(BOUND)
    assert not errors
    first, second = engines
    assert first is not second
    engines.clear()


def test_many_loops_one_after_the_other(world: World, pipe: tuple[int, int]) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(ours.read(pipe[0], 16))
        await in_flight()
        os.write(pipe[1], b"x")
        assert await task == b"x"

    world.run(main)
    settle()
    before = len(open_fds())
    for _ in range(few(20)):
        world.run(main)
    settle()
    assert len(open_fds()) == before


def test_a_loop_without_a_verb_has_nothing_of_ours(world: World) -> None:
    async def main() -> None:
        assert not hasattr(asyncio.get_running_loop(), "_iocancel")
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=world.loop) as runner:
        runner.run(main())


def test_a_loop_that_stops_and_goes_on(world: World, pipe: tuple[int, int]) -> None:
    async def begin() -> Any:
        task = asyncio.ensure_future(ours.read(pipe[0], 16))
        await in_flight()
        return task

    loop = world.loop()
    try:
        task = loop.run_until_complete(begin())
        os.write(pipe[1], b"x")
        assert loop.run_until_complete(task) == b"x"
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def test_no_loop_runs() -> None:
    coroutine = ours.sleep(0)
    with pytest.raises(RuntimeError, match="no running event loop"):
        coroutine.send(None)
    with pytest.raises(RuntimeError, match="no running event loop"):
        current()
