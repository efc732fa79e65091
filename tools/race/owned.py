"""Files that own what they read: `iocancel.BufferedReader`, `iocancel.Stream`, `iocancel.Listener`.

What had come by the time a call was cut short is the next call's: also in the middle of a read of many bytes.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import iocancel
from tools.race import lanes
from tools.race.check import Failure

if TYPE_CHECKING:
    from tools.race.threads import Game, Worker


class Reader(lanes.Pipe):
    """A pipe that is read through our own buffered reader: reads of many bytes, and lines, too."""

    def __init__(self, game: Game, name: str) -> None:
        super().__init__(game, name, ordered=True)
        self.raw = iocancel.RawFile(self.reader, closefd=False)
        self.buffer = iocancel.BufferedReader(self.raw, game.rng.choice((16, 64, 1024)))

    def read(self, worker: Worker) -> None:
        """See the base class."""
        size, way, buffer = self.size(worker), worker.rng.random(), self.buffer

        def call(timeout: float | None) -> bytes:
            self.raw.timeout = timeout
            if way < 0.4:
                return buffer.read(size)
            if way < 0.6:
                return buffer.read1(size)
            if way < 0.7:
                return buffer.readline(size)
            if way < 0.8:
                return buffer.peek()
            memory = bytearray(size)
            many = buffer.readinto(memory) if way < 0.9 else buffer.readinto1(memory)
            return bytes(memory[:many])

        data = worker.verb("buffered", call, buffered=True)
        if data is None:
            return
        if way < 0.4 and len(data) != size:
            raise Failure(f"{self.name}: read({size}) returned {len(data)} bytes, and no end has come")
        if 0.7 <= way < 0.8:
            again = buffer.read1(len(data))
            if not data or again != data:
                raise Failure(f"{self.name}: peek() showed {data.hex()}, read1() had {again.hex()}")
        self.account.received(data)

    def drain(self) -> None:
        """See the base class."""
        os.close(self.writer)
        self.writer = -1
        self.raw.timeout = 5
        self.account.received(self.buffer.read())

    def close(self) -> None:
        """See the base class."""
        self.buffer.close()
        for end in (self.reader, self.writer, self.take):
            if end >= 0:
                os.close(end)


class Owned(lanes.Bytes):
    """One direction of two connected `iocancel.Stream`s."""

    def __init__(self, game: Game, name: str) -> None:
        super().__init__(game, name, ordered=True)
        a, b = socket.socketpair()
        b.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)  # so that sends have to wait
        self.a, self.b = iocancel.Stream(a), iocancel.Stream(b)

    def read(self, worker: Worker) -> None:
        """See the base class."""
        size = self.size(worker)
        data = worker.verb(
            "receive_some", lambda timeout: self.a.receive_some(size, timeout=timeout), buffered=True
        )
        if data is not None:
            self.account.received(data)

    def write(self, worker: Worker) -> None:
        """See the base class."""
        words = worker.rng.choice((1, 8, 255))
        data = b"".join(self.account.payload(words) for _ in range(worker.rng.choice((1, 1, 10))))

        def send_all(timeout: float | None) -> None:
            self.b.send_all(data, timeout=timeout)

        self.sent_all(worker, "send_all", data, send_all)

    def drain(self) -> None:
        """See the base class."""
        self.b.send_eof()
        while data := self.a.receive_some(timeout=5):
            self.account.received(data)

    def close(self) -> None:
        """See the base class."""
        self.a.close()
        self.b.close()


class Listened(lanes.Connections):
    """A listener that owns its connections."""

    def __init__(self, game: Game, name: str) -> None:
        super().__init__(game, name)
        self.owner = iocancel.Listener(self.listener)
        self.streams: list[iocancel.Stream] = []

    def accept(self, worker: Worker) -> None:
        """See the base class: one thread at a time."""
        if not self.accepting.acquire(blocking=False):
            return
        try:
            stream = worker.verb(
                "Listener.accept", lambda timeout: self.owner.accept(timeout=timeout), buffered=True
            )
        finally:
            self.accepting.release()
        if stream is not None:
            self.streams.append(stream)

    def verify(self) -> None:
        """See the base class."""
        self.listener.setblocking(False)
        self.accepted += [socket.socket(fileno=os.dup(stream.fileno())) for stream in self.streams]
        super().verify()

    def close(self) -> None:
        """See the base class."""
        for stream in self.streams:
            stream.close()
        self.owner.close()
        super().close()
