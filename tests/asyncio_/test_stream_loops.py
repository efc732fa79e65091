"""A stream that outlives the loop that it was used in."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Coroutine
from typing import Any

import pytest

from iocancel.asyncio import Listener, Stream

from ..support import BOUND


async def bounded(call: Any) -> Any:
    async with asyncio.timeout(BOUND):
        return await call


def left_behind(call: Coroutine[Any, Any, Any]) -> None:
    """Begin a call, and close its loop while its request is in flight, without shutting it down."""
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        task = asyncio.ensure_future(call)
        for _ in range(5):
            await asyncio.sleep(0)
        task._log_destroy_pending = False  # type: ignore[attr-defined]

    loop.run_until_complete(begin())
    loop.close()


async def deaf(call: Any) -> None:
    """A wait that a cancel of the task can't end must not hang this test: its task is left."""
    task = asyncio.ensure_future(call)
    _, pending = await asyncio.wait([task], timeout=BOUND / 4)
    assert not pending, "it hangs"
    task.result()


def test_a_stream_is_closed_in_another_loop(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = Stream(pair[0])
    call = stream.receive_some()
    left_behind(call)
    closing = stream.aclose()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(deaf(closing))
    loop.close()
    assert pair[0].fileno() == -1
    call.close()


def test_a_listener_is_closed_in_another_loop(listener: socket.socket) -> None:
    mine = Listener(listener)
    call = mine.accept()
    left_behind(call)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(deaf(mine.aclose()))
    loop.close()
    assert listener.fileno() == -1
    call.close()


def test_bytes_that_come_to_the_old_request_are_received_in_another_loop(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    stream = Stream(pair[0])
    call = stream.receive_some()
    left_behind(call)
    call.close()  # the task is dropped
    pair[1].send(b"hello")

    async def body() -> None:
        assert await stream.receive_some() == b"hello"
        await stream.aclose()

    asyncio.run(bounded(body()))


@pytest.mark.filterwarnings("ignore:unclosed")
def test_it_is_collected_when_its_loop_is_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = Stream(pair[0].detach())
    call = stream.receive_some()
    left_behind(call)
    with pytest.MonkeyPatch.context() as patch:
        raised: list[Any] = []
        patch.setattr("sys.unraisablehook", raised.append)
        call.close()
        del call, stream
        gc.collect()
        assert raised == []
    assert pair[1].recv(1) == b""
