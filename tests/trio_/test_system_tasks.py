"""System tasks that clean up, shielded, when the main task has ended."""

from __future__ import annotations

import socket

import trio

import iocancel.trio as ours

from ..support import BOUND
from .helpers import in_flight


def test_a_system_task_can_wait_in_its_clean_up() -> None:
    """What it waits for is not cancelled with the watcher of the engine's file."""
    mine, peer = socket.socketpair()
    found: list[bytes] = []

    async def send_later() -> None:
        await in_flight()
        peer.send(b"y")

    async def system() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(BOUND):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(send_later)
                    found.append(await ours.recv(mine, 1))

    async def main() -> None:
        trio.lowlevel.spawn_system_task(system)
        await ours.sleep(0)  # the engine is there before, and its watcher is cancelled with the other ones

    with mine, peer:
        trio.run(main)
    assert found == [b"y"]
