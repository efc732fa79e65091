"""A loop's engine that is closed while something can't be stopped: who waits for it goes on all the same."""

from __future__ import annotations

import asyncio
import socket
import warnings

import pytest

import iocancel.asyncio as ours
from iocancel.asyncio import hub

from ..support import BOUND
from .helpers import World, in_flight


def test_who_waits_goes_on_where_closing_warns(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        here = hub.current()
        close = here.engine.close

        def warns(timeout: float) -> None:
            close(timeout)
            raise ResourceWarning("something still ran")  # as where warnings are errors

        monkeypatch.setattr(here.engine, "close", warns)
        task = asyncio.ensure_future(ours.sleep(BOUND))
        await in_flight()
        with pytest.raises(ResourceWarning):
            here.close()
        done, _ = await asyncio.wait([task], timeout=BOUND / 2)
        assert done

    with asyncio.Runner(loop_factory=world.loop) as runner:  # its engine is closed: nothing to look at there
        runner.run(main())


def test_a_listener_closes_whose_accept_still_ran(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        listener = ours.Listener(socket.create_server(("127.0.0.1", 0)))
        task = asyncio.ensure_future(listener.accept())
        await in_flight()
        here = hub.current()
        monkeypatch.setattr(here.engine._carrier, "cancel", lambda ops: None)  # nothing can be stopped
        task.cancel()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            here.close(0.1)
        with pytest.raises(asyncio.CancelledError):
            await task
        await listener.aclose()

    with asyncio.Runner(loop_factory=world.loop) as runner:  # its engine is closed: nothing to look at there
        runner.run(main())
