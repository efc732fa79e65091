"""Worker threads that a cancel ends."""

from __future__ import annotations

import contextvars
import gc
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

import iocancel
import iocancel.trio as ours
from iocancel import Cancelled, CancelScope, pool

from ..support import BOUND
from .helpers import SHORT, raised, run


@pytest.fixture(autouse=True)
def own_pool(nothing_left_behind: None) -> Iterator[None]:
    """The threads' engines are given back with the test."""
    before, pool.current = pool.current, pool.Pool()
    yield
    pool.current.close()
    pool.current = before


class Reading:
    """A blocking read in a thread, and when it has begun.

    Args:
        fd: an empty pipe's.
        then: what the function does with the `Cancelled` that ends it; raises it again, if it is not given.
    """

    def __init__(self, fd: int, then: Callable[[Cancelled], Any] | None = None) -> None:
        self._fd, self._then = fd, then
        self._token = trio.lowlevel.current_trio_token()
        self.begun = trio.Event()
        self.error: BaseException | None = None

    def __call__(self) -> Any:
        self._token.run_sync_soon(self.begun.set)
        try:
            return iocancel.read(self._fd, 16)
        except Cancelled as error:
            self.error = error
            if self._then is None:
                raise
            return self._then(error)


async def cancelled(reading: Reading, **options: Any) -> tuple[Any, bool]:
    """Cancel a thread once it has begun: what it brings, or raises, and whether the scope caught it."""
    came: Any = None
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def cancel() -> None:
                await reading.begun.wait()
                scope.cancel()

            try:
                came = await ours.to_thread(reading, **options)
            except Exception as error:  # noqa: BLE001 - looked at by the test
                came = error
    return came, scope.cancelled_caught


def test_a_value_and_the_context() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    def add(a: int, b: int) -> tuple[int, int, bool]:
        return a + b, variable.get(), threading.current_thread() is threading.main_thread()

    async def main() -> None:
        variable.set(7)
        with trio.testing.assert_checkpoints():
            assert await ours.to_thread(add, 1, 2) == (3, 7, False)
        with pytest.raises(OSError, match="descriptor"):
            await ours.to_thread(iocancel.read, -1, 16)

    run(main)


def test_a_coroutine_function_is_refused() -> None:
    async def main() -> None:
        function: Any = trio.sleep
        with pytest.raises(TypeError, match="asynchronous"):
            await ours.to_thread(function, 0)

    run(main)


def test_a_deadline_ends_a_read(pipe: tuple[int, int]) -> None:
    async def main() -> None:
        with trio.move_on_after(SHORT) as scope:
            await ours.to_thread(iocancel.read, pipe[0], 16)
        assert scope.cancelled_caught
        os.write(pipe[1], b"kept")
        assert await ours.to_thread(iocancel.read, pipe[0], 16) == b"kept"

    run(main)


def test_cancelled_and_caught(pipe: tuple[int, int]) -> None:
    async def main() -> None:
        reading = Reading(pipe[0])
        assert await cancelled(reading) == (None, True)
        assert isinstance(reading.error, Cancelled)

    run(main)


def test_a_value_in_spite_of_the_cancel_is_delivered(pipe: tuple[int, int]) -> None:
    async def main() -> None:
        came, _ = await cancelled(Reading(pipe[0], lambda _: "all the same"))
        assert came == "all the same"

    run(main)


def test_an_exception_that_comes_with_the_cancel(pipe: tuple[int, int]) -> None:
    def fail(_: Cancelled) -> None:
        raise ValueError("while cleaning up")

    async def main() -> None:
        came, _ = await cancelled(Reading(pipe[0], fail))
        assert type(came) is ValueError

    run(main)


def test_groups_and_strays(pipe: tuple[int, int]) -> None:
    stray = Cancelled("from elsewhere")

    def both(error: Cancelled) -> None:
        raise BaseExceptionGroup("both", [error, ValueError("other")])

    def only(error: Cancelled) -> None:
        raise BaseExceptionGroup("one", [BaseExceptionGroup("in one", [error])])

    def by_hand() -> None:
        raise stray

    def own() -> None:
        with CancelScope():
            scope = iocancel.current_scope()
            assert scope is not None
            outer: Any = scope._parent
            outer.cancel()
            iocancel.read(pipe[0], 16)

    async def main() -> None:
        came, _ = await cancelled(Reading(pipe[0], both))
        assert isinstance(came, ExceptionGroup)
        assert [type(each) for each in came.exceptions] == [ValueError]
        assert await cancelled(Reading(pipe[0], only)) == (None, True)
        error = await raised(lambda: ours.to_thread(by_hand))
        assert type(error) is RuntimeError
        assert error.__cause__ is stray
        error = await raised(lambda: ours.to_thread(own))
        assert type(error) is RuntimeError

    run(main)


def test_from_thread(pipe: tuple[int, int]) -> None:
    async def double(number: int) -> int:
        await trio.lowlevel.checkpoint()
        return 2 * number

    def within() -> int:
        trio.from_thread.check_cancelled()
        return trio.from_thread.run(double, 2) + trio.from_thread.run_sync(int, "3")

    async def main() -> None:
        assert await ours.to_thread(within) == 7

    run(main)


def test_check_cancelled_and_run_when_cancelled(pipe: tuple[int, int]) -> None:
    """In a thread that swallows our Cancelled, trio's own looks and calls raise trio's."""

    def look(_: Cancelled) -> None:
        trio.from_thread.check_cancelled()

    def call(_: Cancelled) -> None:
        trio.from_thread.run(trio.sleep_forever)

    async def main() -> None:
        for then in (look, call):
            assert await cancelled(Reading(pipe[0], then)) == (None, True)

    run(main)


def test_a_thread_in_from_thread_run_is_cancelled() -> None:
    async def main() -> None:
        begun = trio.Event()

        async def wait() -> None:
            begun.set()
            await trio.sleep_forever()

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.to_thread, trio.from_thread.run, wait)
                await begun.wait()
                scope.cancel()
        assert scope.cancelled_caught

    run(main)


def test_the_limiter() -> None:
    """What waits for its turn, and is cancelled, never runs."""
    ran: list[str] = []

    async def main() -> None:
        limiter = trio.CapacityLimiter(1)
        goes_on, begun = threading.Event(), trio.Event()
        token = trio.lowlevel.current_trio_token()

        def first() -> None:
            token.run_sync_soon(begun.set)
            assert goes_on.wait(BOUND)

        async def second() -> None:
            with scope:
                await ours.to_thread(ran.append, "second", limiter=limiter)

        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:

            async def one() -> None:
                await ours.to_thread(first, limiter=limiter)

            nursery.start_soon(one)
            await begun.wait()
            nursery.start_soon(second)
            await trio.testing.wait_all_tasks_blocked()
            assert limiter.statistics().tasks_waiting == 1
            scope.cancel()
            while not scope.cancelled_caught:
                await trio.lowlevel.checkpoint()
            goes_on.set()
        assert limiter.borrowed_tokens == 0
        assert not ran

    run(main)


def test_cancelled_before(pipe: tuple[int, int]) -> None:
    async def main() -> None:
        ran: list[int] = []
        with trio.CancelScope() as scope:
            scope.cancel()
            await ours.to_thread(ran.append, 1)
        assert scope.cancelled_caught
        assert not ran

    run(main)


def test_a_cancel_while_the_end_is_awaited(pipe: tuple[int, int]) -> None:
    """The task is kept until the function is done; shields and further cancels change nothing."""

    async def main() -> None:
        goes_on, cleaning = threading.Event(), trio.Event()
        token = trio.lowlevel.current_trio_token()

        def cleanup(error: Cancelled) -> None:
            token.run_sync_soon(cleaning.set)
            assert goes_on.wait(BOUND)
            raise error

        reading = Reading(pipe[0], cleanup)
        over: list[bool] = []
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            @nursery.start_soon
            async def waiting() -> None:
                with scope:
                    await ours.to_thread(reading)
                over.append(scope.cancelled_caught)

            await reading.begun.wait()
            scope.cancel()
            await cleaning.wait()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert not over
            goes_on.set()
        assert over == [True]

    run(main)


def test_abandoned(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_value))

    async def main() -> None:
        goes_on = threading.Event()

        def cleanup(_: Cancelled) -> None:
            assert goes_on.wait(BOUND)
            raise ValueError("too late")

        reading = Reading(pipe[0], cleanup)
        assert await cancelled(reading, abandon_on_cancel=True) == (None, True)
        assert not told
        goes_on.set()
        while not told:
            await trio.lowlevel.checkpoint()

    run(main)
    assert [type(each) for each in told] == [ValueError]


def test_ctrl_c_ends_the_thread(pipe: tuple[int, int]) -> None:
    """trio's own run_sync goes on until its thread returns."""
    seen: list[type[BaseException]] = []

    async def main() -> None:
        reading = Reading(pipe[0])

        @trio.lowlevel.enable_ki_protection
        async def interrupt() -> None:
            await reading.begun.wait()
            os.kill(os.getpid(), signal.SIGINT)

        trio.lowlevel.spawn_system_task(interrupt)
        try:
            await ours.to_thread(reading)
        except BaseException as error:
            seen.append(type(error))
            assert isinstance(reading.error, Cancelled)
            raise

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert seen == [KeyboardInterrupt]


def test_nothing_is_kept() -> None:
    class Thing:
        pass

    def fail(thing: Thing) -> None:
        raise ValueError("fail")

    async def main() -> None:
        thing = Thing()
        seen = weakref.ref(thing)
        await raised(lambda thing=thing: ours.to_thread(fail, thing))  # type: ignore[misc]
        await ours.to_thread(id, thing)
        del thing
        gc.collect()
        assert seen() is None

    run(main)
