"""Awaited files that own what they read: streams, listeners, and operations that bring many values.

What had come by the time a call was cancelled is the next call's; what a multishot operation had brought is
in its `leftovers`.
"""

from __future__ import annotations

import os
import select
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

from tools.race import lanes
from tools.race.awaited import _WORDS, Bytes, Connections, Event
from tools.race.check import Failure

if TYPE_CHECKING:
    from tools.race.tasks import Game, Strand


class Owned(Bytes):
    """One direction of two connected streams."""

    @classmethod
    def plays(cls, game: Game) -> bool:
        """See File."""
        return hasattr(game.verbs, "Stream")

    def __init__(self, game: Any, name: str) -> None:
        super().__init__(game, name)
        self.account = lanes.Account(name, ordered=True)
        if game.rng.random() < 0.3:
            take, give = os.pipe()
            a: Any = take
            b: Any = give
        else:
            a, b = socket.socketpair()
            b.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)  # so that sends have to wait
            for each in (a, b):
                each.setblocking(game.rng.random() < 0.7)
        self.a, self.b = game.verbs.Stream(a), game.verbs.Stream(b)

    async def get(self, strand: Strand) -> None:
        """See Bytes."""
        size = self.size(strand)
        if strand.rng.random() < 0.75:
            name, call = "receive_some", partial(self.a.receive_some, size)
        else:
            name, call = "receive_exactly", partial(self.a.receive_exactly, size)
        data = await strand.verb(name, call)
        if (name == "receive_exactly" and len(data) != size) or not 0 < len(data) <= size:
            raise Failure(f"{self.name}: {name}({size}) has returned {len(data)} bytes")
        self.account.received(data)

    async def put(self, strand: Strand) -> None:
        """See Bytes."""
        words = strand.rng.choice((1, 8, 255))
        data = b"".join(self.account.payload(words) for _ in range(strand.rng.choice((1, 1, 10))))
        await self.put_all(strand, "send_all", data, partial(self.b.send_all, data))

    async def finish(self) -> None:
        """See File."""
        await self.b.aclose()
        while data := await self.a.receive_some():
            self.account.received(data)
        self.account.check()
        await self.a.aclose()

    def close(self) -> None:
        """See File: of a round that has failed."""
        for stream in (self.a, self.b):
            if not stream.closed:
                stream._closing = True
                stream._close_files()


class Listened(Connections):
    """A listener that owns its connections: one task at a time accepts."""

    @classmethod
    def plays(cls, game: Game) -> bool:
        """See File."""
        return hasattr(game.verbs, "Listener") and super().plays(game)

    def __init__(self, game: Any, name: str) -> None:
        super().__init__(game, name)
        self.owner = game.verbs.Listener(self.party.listener)
        self.streams: list[Any] = []

    async def accept(self, strand: Strand) -> None:
        """See Connections."""
        accepting = self.party.accepting
        if not accepting.acquire(blocking=False):
            return
        try:
            self.streams.append(await strand.verb("Listener.accept", self.owner.accept))
        finally:
            accepting.release()

    async def finish(self) -> None:
        """See File."""
        party = self.party
        party.accepted += [socket.socket(fileno=os.dup(stream.fileno())) for stream in self.streams]
        kept, self.owner._op = self.owner._op, None  # what came late, and no call has asked for
        if kept is not None and kept._kind.name == "accept" and kept.exception() is None:
            party.accepted.append(kept.result()[0])
        party.verify()
        for stream in self.streams:
            await stream.aclose()
        await self.owner.aclose()

    def close(self) -> None:
        """See File."""
        for each in (self.owner, *self.streams):
            if not each.closed:
                each._closing = True
                each._close_files()
        super().close()


class Chunks(Bytes):
    """One direction of a pair of sockets, received by multishot operations."""

    @classmethod
    def plays(cls, game: Game) -> bool:
        """See File."""
        return hasattr(game.verbs, "recv_multishot")

    def __init__(self, game: Any, name: str) -> None:
        super().__init__(game, name)
        self.pair = lanes.Stream(game, name, ordered=True)
        self.account = self.pair.account

    async def get(self, strand: Strand) -> None:
        """See Bytes."""
        rng = strand.rng
        chunks = self.game.verbs.recv_multishot(
            self.pair.a, rng.choice((8, 64, 1024)), buffers=rng.choice((2, 8))
        )
        try:
            async with chunks:
                for _ in range(rng.choice((1, 2, 4))):
                    self.account.received(await strand.verb("next chunk", chunks.__anext__))
        finally:
            for data in chunks.leftovers:
                self.account.received(data)

    async def put(self, strand: Strand) -> None:
        """See Bytes."""
        data = self.account.payload(strand.rng.choice(_WORDS))
        self.account.written(
            data, await strand.verb("send", partial(self.game.verbs.send, self.pair.b, data))
        )

    async def finish(self) -> None:
        """See File."""
        self.pair.verify()

    def close(self) -> None:
        """See File."""
        self.pair.close()


class Accepts(Connections):
    """A listener, by multishot accepts."""

    @classmethod
    def plays(cls, game: Game) -> bool:
        """See File."""
        return hasattr(game.verbs, "accept_multishot") and super().plays(game)

    async def accept(self, strand: Strand) -> None:
        """See Connections."""
        conns = self.game.verbs.accept_multishot(self.party.listener)
        try:
            async with conns:
                for _ in range(strand.rng.choice((1, 2, 4))):
                    self.party.accepted.append((await strand.verb("next connection", conns.__anext__))[0])
        finally:
            self.party.accepted += [pair[0] for pair in conns.leftovers]


class Polls(Event):
    """An eventfd, by multishot polls: each is told of what came before and of what comes meanwhile."""

    @classmethod
    def plays(cls, game: Game) -> bool:
        """See File."""
        return hasattr(game.verbs, "poll_multishot")

    async def play(self, strand: Strand) -> bool:
        """See File."""
        if self.shake(strand):
            return True
        masks = self.game.verbs.poll_multishot(self.fd, select.POLLIN)
        try:
            async with masks:
                for _ in range(strand.rng.choice((1, 2, 4))):
                    self.check(await strand.verb("next mask", masks.__anext__))
        finally:
            for mask in masks.leftovers:
                self.check(mask)
        return True
