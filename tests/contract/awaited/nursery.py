"""trio as a world of these tests."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import trio

import iocancel.trio

from .loops import Call, Started, World


class InTrio(Started):
    def __init__(self, call: Call, nursery: trio.Nursery) -> None:
        super().__init__(call)
        self.scope = trio.CancelScope()
        self.over = False
        nursery.start_soon(self._run)

    async def _run(self) -> None:
        try:
            with self.scope:
                try:
                    self.value = await self.call()
                    self.came = True
                except BaseException as error:
                    self.error = error
                    raise
                try:
                    await trio.lowlevel.checkpoint_if_cancelled()
                except trio.Cancelled:
                    self.raised_next = True
                    raise
        except Exception as error:  # noqa: BLE001 - looked at by the test
            self.error = error
        finally:
            self.over = True

    def cancel(self) -> None:
        self.scope.cancel()

    @property
    def done(self) -> bool:
        return self.over

    @property
    def stopped(self) -> bool:
        return self.scope.cancelled_caught


class Trio(World):
    """trio."""

    name = "trio"
    delivers = True

    def __init__(self) -> None:
        super().__init__()
        self.verbs = iocancel.trio
        self._nursery: Any = None

    def go(self, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        found: list[Any] = []

        async def root() -> None:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                try:
                    found.append(await main())
                except BaseException as error:  # noqa: BLE001 - raised below, in no group
                    found.extend([None, error])
                    nursery.cancel_scope.cancel()

        trio.run(root)
        if len(found) > 1:
            raise found[1]
        return found[0]

    def start(self, call: Call) -> Started:
        return InTrio(call, self._nursery)

    async def one_pass(self) -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def within(self, seconds: float, call: Call) -> tuple[bool, Any]:
        value: Any = None
        with trio.move_on_after(seconds) as scope:
            value = await call()
        return scope.cancelled_caught, value

    async def shielded(self, call: Call, behind: Callable[[], object]) -> Started:
        async def inside() -> Any:
            with trio.CancelScope(shield=True):
                return await call()

        started = self.start(inside)
        await self.waits(started)
        started.cancel()
        for _ in range(3):
            await self.one_pass()
        assert not started.done
        behind()
        return started

    def poster(self) -> Callable[[Callable[[], object]], None]:
        token = trio.lowlevel.current_trio_token()
        return lambda act: (trio.from_thread.run_sync(act, trio_token=token), None)[1]


__all__ = ["Trio"]
