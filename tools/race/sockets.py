"""Sockets: streams, datagrams, connections."""

# ruff: noqa: ARG002 - each kind of file is handed what some kind needs

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

from iocancel import Outcome
from tools.race.actors import Actor, Words
from tools.race.check import Failure, Track

if TYPE_CHECKING:
    from tools.race.rounds import Hand

_DONTWAIT = socket.MSG_DONTWAIT
_LIMIT = 4096  # words that a stream may hold: nothing is cut then but between words
_LINGER = struct.pack("ii", 1, 0)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected TCP sockets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        a = socket.create_connection(server.getsockname())
        b, _ = server.accept()
    for each in (a, b):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)  # no port is kept waiting
    return a, b


class Stream(Actor):
    """One direction of a connected pair, `b` sends and `a` receives."""

    needs = ("recv", "send")
    whole = False

    def __init__(self, hand: Hand) -> None:
        super().__init__(hand)
        self.words = Words()
        self.a, self.b = self.pair(hand)
        # For what is left when `a` or `b` was closed by the engine.
        self.take, self.give = self.a.dup(), self.b.dup()
        self.sends = hand.rng.random() < 0.5
        self.ordered = not self.sends and hand.rng.random() < 0.4
        self.current: Track | None = None

    def pair(self, hand: Hand) -> tuple[socket.socket, socket.socket]:
        """The two sockets."""
        if hand.rng.random() < 0.4:
            return tcp_pair()
        a, b = socket.socketpair()
        if hand.rng.random() < 0.5:
            b.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)  # so that sends have to wait
        return a, b

    def arm(self, hand: Hand) -> None:
        """See the base class."""
        engine, rng = hand.engine, hand.rng
        message = rng.random() < 0.15
        objects = rng.random() < 0.3
        timeout = hand.timeout()
        words = rng.choice((1, 2, 8, 32))
        send = self.sends and rng.random() < 0.5
        own = rng.random() < 0.1
        if send:
            if self.words.offered > _LIMIT:
                return
            number, data = self.words.payload(words)
            track = hand.track(self, "send", number)
            view = hand.arena.holding(track, data)
            to: Any = self.b if objects else self.b.fileno()
            if message and engine.supports("sendmsg"):
                track.verb = "sendmsg"
                half = len(view) // 2
                op = engine.sendmsg(to, [view[:half], view[half:]], timeout=timeout)
            else:
                op = engine.send(to, view, timeout=timeout)
            hand.start(track, op, timeout)
            return
        if self.ordered and self.current is not None and not self.before(hand, self.current):
            return
        size = 32 * 8 if self.whole else words * 8
        of: Any = self.a if objects else self.a.fileno()
        track = hand.track(self, "recv", None)
        if message and engine.supports("recvmsg"):
            track.verb = "recvmsg"
            op = engine.recvmsg(of, size, timeout=timeout)
        elif own:
            op = engine.recv(of, size, timeout=timeout)
        elif not self.whole and engine.name == "uring" and rng.random() < 0.1:
            track.verb = "waitall"
            op = engine.recv(of, hand.arena.take(track, size), socket.MSG_WAITALL, timeout=timeout)
        else:
            op = engine.recv(of, hand.arena.take(track, size), timeout=timeout)
        if self.ordered:
            self.current = track
        hand.start(track, op, timeout)

    def act(self, hand: Hand) -> None:
        """See the base class."""
        rng = hand.rng
        words = rng.choice((1, 2, 8, 32))
        if not self.sends or rng.random() < 0.3:
            if self.words.offered <= _LIMIT:
                number, data = self.words.payload(words)
                with contextlib.suppress(BlockingIOError):
                    self.words.written(number, self.give.send(data, _DONTWAIT))
        else:
            with contextlib.suppress(BlockingIOError):
                self.words.received(
                    self.take.recv(4096 if self.whole else words * 8, _DONTWAIT), whole=self.whole
                )

    def target(self, hand: Hand) -> Any:
        """See the base class."""
        return hand.rng.choice((self.a, self.b))

    def ended(self, track: Track, outcome: Outcome, data: bytes) -> None:
        """See the base class."""
        if outcome is not Outcome.COMPLETED:
            return
        if track.verb.startswith("send"):
            self.words.written(track.extra, track.op.result())
        elif track.verb == "recvmsg":
            got, ancillary, flags, _ = track.op.result()
            if ancillary or flags & socket.MSG_TRUNC:
                track.fail(f"recvmsg: ancillary data {ancillary}, flags {flags:#x}")
            self.words.received(got, track, whole=self.whole)
        else:
            loose = track.verb == "waitall" and not self.ordered
            self.words.received(data, track, whole=self.whole, loose=loose)

    def release(self) -> None:
        """See the base class."""
        with contextlib.suppress(OSError):
            self.give.shutdown(socket.SHUT_RDWR)

    def verify(self) -> None:
        """See the base class."""
        with contextlib.suppress(BlockingIOError):
            while data := self.take.recv(65536 if not self.whole else 4096, _DONTWAIT):
                self.words.received(data, whole=self.whole)
        self.words.check(self, self.ordered)

    def close(self) -> None:
        """See the base class."""
        for each in (self.a, self.b, self.take, self.give):
            each.close()


class Datagrams(Stream):
    """Messages: each comes whole, or not at all."""

    whole = True

    def pair(self, hand: Hand) -> tuple[socket.socket, socket.socket]:
        """See the base class."""
        kind = hand.rng.choice((socket.SOCK_DGRAM, socket.SOCK_SEQPACKET))
        return socket.socketpair(socket.AF_UNIX, kind)

    def release(self) -> None:
        """See the base class."""
        self.take.shutdown(socket.SHUT_RDWR)


class Connections(Actor):
    """A listener, those who connect to it, and those who accept."""

    needs = ("accept", "connect")
    refusals = frozenset([-errno.ECONNREFUSED])

    def __init__(self, hand: Hand) -> None:
        super().__init__(hand)
        self.tcp = hand.rng.random() < 0.5
        if self.tcp:
            self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
            self.address: Any = self.listener.getsockname()
        else:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind("")
            self.listener.listen(128)
            # As text: an address in bytes is a whole sockaddr to the library.
            self.address = self.listener.getsockname().decode()
        self.rest = self.listener.dup()
        self.ids = itertools.count()
        self.clients: dict[int, socket.socket] = {}
        self.sent: set[int] = set()
        self.accepted: list[socket.socket] = []

    def _client(self) -> socket.socket:
        client = socket.socket(socket.AF_INET if self.tcp else socket.AF_UNIX)
        if self.tcp:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
        return client

    def arm(self, hand: Hand) -> None:
        """See the base class."""
        timeout = hand.timeout()
        if hand.rng.random() < 0.6:
            track = hand.track(self, "accept", None)
            hand.start(track, hand.engine.accept(self.listener, timeout=timeout), timeout)
            return
        if len(self.clients) >= 60:
            return
        number = next(self.ids)
        client = self.clients[number] = self._client()
        track = hand.track(self, "connect", number)
        hand.start(track, hand.engine.connect(client, self.address, timeout=timeout), timeout)

    def act(self, hand: Hand) -> None:
        """See the base class."""
        if len(self.clients) >= 60:
            return
        number = next(self.ids)
        client = self.clients[number] = self._client()
        client.connect(self.address)  # the listener's queue has room for all
        self._send_id(number)

    def _send_id(self, number: int) -> None:
        self.clients[number].send(number.to_bytes(8, "little"), _DONTWAIT)
        self.sent.add(number)

    def target(self, hand: Hand) -> Any:
        """See the base class."""
        return self.listener

    def ended(self, track: Track, outcome: Outcome, data: bytes) -> None:
        """See the base class."""
        if track.verb == "connect":
            number = track.extra
            client = self.clients[number]
            try:
                client.getpeername()
                connected = True
            except OSError:
                connected = False
            if outcome is Outcome.COMPLETED and not connected:
                track.fail("it is said to be connected, and is not")
            if connected:  # a cancelled one may have got there: then it is in the listener's queue
                self._send_id(number)
        elif outcome is Outcome.COMPLETED:
            conn, _ = track.op.result()
            if conn.fileno() != track.op._res:
                track.fail("the socket is not the fd that was accepted")
            if os.get_inheritable(conn.fileno()):
                track.fail("an accepted socket is inherited by children")
            self.accepted.append(conn)

    def verify(self) -> None:
        """See the base class."""
        self.rest.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.accepted.append(self.rest.accept()[0])
        came = []
        for conn in self.accepted:
            conn.settimeout(5)
            came.append(int.from_bytes(conn.recv(8), "little"))
        if len(came) != len(set(came)):
            raise Failure(f"{self}: a connection came twice")
        if set(came) != self.sent:
            lost = sorted(self.sent - set(came))
            raise Failure(
                f"{self}: of {len(self.sent)} connections {len(lost)} were lost: clients {lost[:5]}"
            )

    def close(self) -> None:
        """See the base class."""
        for each in (self.listener, self.rest, *self.clients.values(), *self.accepted):
            each.close()
