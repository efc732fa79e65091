"""An echo server for asyncio that is stopped in the middle of everything, and has lost nothing.

Its clients get their deadline each, by `asyncio.timeout`; a client that is silent is dropped, and the request
that waited for it is gone from the kernel before its connection is closed.

    python examples/echo_server.py
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import iocancel.asyncio


async def serve(stream: Any, silence: float, said: list[str]) -> None:
    """Echo what a client sends, until it is silent for too long.

    Args:
        stream: an `iocancel.asyncio.Stream`.
        silence: how long, in seconds.
        said: where to tell how it ended.
    """
    async with stream:
        try:
            while True:
                async with asyncio.timeout(silence):
                    data = await stream.receive_some(4096)
                if not data:
                    said.append("a client has left")
                    return
                await stream.send_all(data)
        except TimeoutError:
            said.append("a client was silent")


async def listen(sock: socket.socket, silence: float, said: list[str]) -> None:
    """Accept clients, until this is cancelled."""
    async with iocancel.asyncio.Listener(sock) as listener, asyncio.TaskGroup() as group:
        while True:
            group.create_task(serve(await listener.accept(), silence, said))


async def client(address: Any, message: bytes) -> bytes:
    """Send something, and return what comes back."""
    sock = socket.socket()
    await iocancel.asyncio.connect(sock, address)
    async with iocancel.asyncio.Stream(sock) as stream:
        await stream.send_all(message)
        data: bytes = await stream.receive_exactly(len(message))
        return data


async def main() -> int:
    """Run it and show what happened."""
    sock = socket.create_server(("127.0.0.1", 0))
    address = sock.getsockname()
    said: list[str] = []
    server = asyncio.create_task(listen(sock, 0.5, said))
    print("echoed:", await client(address, b"hello"))
    silent = socket.create_connection(address)
    closed = await iocancel.asyncio.recv(silent, 1)  # until the server has had enough of it
    print("the silent client reads its end:", closed == b"")
    silent.close()
    engine = iocancel.asyncio.engine()
    server.cancel()
    await asyncio.wait([server])
    print("stopped:", server.cancelled(), "and in flight:", engine.in_flight)
    print("told:", ", ".join(sorted(said)))
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
