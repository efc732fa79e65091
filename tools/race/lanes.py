"""What many threads wait on: pipes, sockets, listeners, events, FIFOs, and how to account for each.

A thread uses a file by one blocking verb at a time (see threads.py), and tells the file what came of it.
"""

from __future__ import annotations

import abc
import contextlib
import io
import itertools
import os
import select
import socket
import tempfile
import threading
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from iocancel import blocking
from iocancel.errors import OperationTimedOut
from tools.race.check import Failure
from tools.race.sockets import tcp_pair

if TYPE_CHECKING:
    from tools.race.threads import Game, Worker

_WORDS = (1, 1, 2, 4, 8, 32, 128)


class Account:
    """Bytes of one way, in words of 8: the number of the write, and the place in it.

    Args:
        name: for the report.
        ordered: one thread at a time writes, and one at a time reads: then all is compared byte by byte, and
            parts of words may come. Else writes and reads are of whole words, each in one piece.
    """

    def __init__(self, name: str, ordered: bool) -> None:
        self.name, self.ordered = name, ordered
        self.reading, self.writing = threading.Lock(), threading.Lock()
        self._numbers = itertools.count()
        self._in: list[bytes] = []
        self._out: list[bytes] = []

    def payload(self, words: int) -> bytes:
        """The next write."""
        first = next(self._numbers) << 8
        return array("Q", range(first, first + words)).tobytes()

    def written(self, data: bytes, many: int) -> None:
        """So many bytes of it went in."""
        if not 0 <= many <= len(data):
            raise Failure(f"{self.name}: {many} bytes of {len(data)} were written")
        if not self.ordered and many % 8:
            raise Failure(f"{self.name}: a write was cut at {many} bytes, and it is written in one piece")
        self._in.append(data[:many])

    def received(self, data: bytes) -> None:
        """This came out."""
        if not self.ordered:
            if len(data) % 8:
                raise Failure(f"{self.name}: {len(data)} bytes came, which is no whole number of words")
            words = array("Q", data)
            for before, word in itertools.pairwise(words):
                if word != before + 1 and word & 255:
                    raise Failure(f"{self.name}: word {word:#x} came behind {before:#x}")
        self._out.append(data)

    def check(self) -> None:
        """All that went in came out, once."""
        went, came = b"".join(self._in), b"".join(self._out)
        if went == came:
            return
        if self.ordered:
            at = next(
                (i for i, (a, b) in enumerate(zip(went, came, strict=False)) if a != b),
                min(len(went), len(came)),
            )
            near = slice(max(0, at - 8), at + 16)
            raise Failure(
                f"{self.name}: {len(went)} bytes went in, {len(came)} came out, different from byte {at} on: "
                f"{went[near].hex(' ', 8)} went in, {came[near].hex(' ', 8)} came"
            )
        sent, got = sorted(array("Q", went)), sorted(array("Q", came))
        if sent == got:
            return
        twice = sorted({a for a, b in itertools.pairwise(got) if a == b})
        missing, strange = sorted(set(sent) - set(got)), sorted(set(got) - set(sent))
        raise Failure(
            f"{self.name}: {len(sent)} words went in and {len(got)} came out; missing "
            f"{list(map(hex, missing[:5]))} ({len(missing)}), twice {list(map(hex, twice[:5]))} "
            f"({len(twice)}), never written {list(map(hex, strange[:5]))} ({len(strange)})"
        )


class File(abc.ABC):
    """A file, and the verbs for it. Each returns what is done with its value, under the same locks."""

    def __init__(self, game: Game, name: str) -> None:
        self.game, self.name = game, name

    @abc.abstractmethod
    def use(self, worker: Worker) -> None:
        """One verb, or none where its turn is another thread's."""

    def verify(self) -> None:
        """All threads have ended: account for everything."""

    def close(self) -> None:
        """Close it."""


class Bytes(File, abc.ABC):
    """Something that bytes go through."""

    take: int
    """A number to read the rest from, without waiting."""

    def __init__(self, game: Game, name: str, ordered: bool | None = None) -> None:
        super().__init__(game, name)
        if ordered is None:
            ordered = game.rng.random() < 0.6
        self.account = Account(name + (", in order" if ordered else ""), ordered)

    def use(self, worker: Worker) -> None:
        """See the base class."""
        account, write = self.account, worker.rng.random() < 0.5
        turn = account.writing if write else account.reading
        if account.ordered and not turn.acquire(blocking=False):
            return
        try:
            self.write(worker) if write else self.read(worker)
        finally:
            if account.ordered:
                turn.release()

    @abc.abstractmethod
    def read(self, worker: Worker) -> None:
        """One read."""

    @abc.abstractmethod
    def write(self, worker: Worker) -> None:
        """One write."""

    def size(self, worker: Worker) -> int:
        """Bytes to read."""
        words = worker.rng.choice(_WORDS)
        return words * 8 - (worker.rng.randrange(8) if self.account.ordered else 0)

    def received_into(self, worker: Worker, name: str, size: int, call: Callable[..., int]) -> None:
        """A verb that fills a buffer; beyond what it says nothing is written."""
        memory = bytearray(b"\xa5" * size)
        many = worker.verb(name, call, memory)
        if many is None:
            if memory != b"\xa5" * size:
                raise Failure(f"{self.name}: {name} was cancelled, and has written to its buffer")
            return
        if not 0 <= many <= size or memory[many:] != b"\xa5" * (size - many):
            raise Failure(f"{self.name}: {name} said {many} of {size} bytes, and has written others")
        self.account.received(bytes(memory[:many]))

    def sent_all(self, worker: Worker, name: str, data: bytes, call: Callable[..., Any]) -> None:
        """A verb that writes all of it; what went before an exception is its `sent`."""
        worker.sent = 0
        try:
            done = worker.verb(name, lambda timeout: call(timeout=timeout) or True)
            worker.sent = len(data) if done else worker.sent
        finally:
            self.account.written(data, worker.sent)

    def drain(self) -> None:
        """Take what is left."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.take, 65536):
                self.account.received(data)

    def verify(self) -> None:
        """See the base class."""
        self.drain()
        self.account.check()


class Pipe(Bytes):
    """A pipe with readers and writers; with O_NONBLOCK or without."""

    def __init__(self, game: Game, name: str, ordered: bool | None = None) -> None:
        super().__init__(game, name, ordered)
        self.reader, self.writer = os.pipe()
        self.take = os.open(f"/proc/self/fd/{self.reader}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        for end in (self.reader, self.writer):
            os.set_blocking(end, game.rng.random() < 0.7)

    def read(self, worker: Worker) -> None:
        """See the base class."""
        size, way = self.size(worker), worker.rng.random()
        if way < 0.6:
            data = worker.verb("read", lambda timeout: blocking.read(self.reader, size, timeout=timeout))
            if data is not None:
                self.account.received(data)
        elif way < 0.8:
            self.received_into(
                worker,
                "read",
                size,
                lambda memory, timeout: blocking.read(self.reader, memory, timeout=timeout),
            )
        else:
            self.received_into(
                worker,
                "readv",
                size,
                lambda memory, timeout: blocking.readv(
                    self.reader,
                    [memoryview(memory)[: size // 2], memoryview(memory)[size // 2 :]],
                    timeout=timeout,
                ),
            )

    def write(self, worker: Worker) -> None:
        """See the base class."""
        account, way, fd = self.account, worker.rng.random(), self.writer
        data = account.payload(worker.rng.choice(_WORDS))
        if way < 0.15 and account.ordered:
            data = b"".join(account.payload(255) for _ in range(40))  # more than it holds
            self.sent_all(
                worker, "write_all", data, lambda timeout: blocking.write_all(fd, data, timeout=timeout)
            )
            return
        if way < 0.8:
            many = worker.verb("write", lambda timeout: blocking.write(fd, data, timeout=timeout))
        else:
            half = len(data) // 2
            many = worker.verb(
                "writev", lambda timeout: blocking.writev(fd, [data[:half], data[half:]], timeout=timeout)
            )
        if many is not None:
            account.written(data, many)

    def close(self) -> None:
        """See the base class."""
        for end in (self.reader, self.writer, self.take):
            os.close(end)


class Stream(Bytes):
    """One direction of a pair of sockets."""

    def __init__(self, game: Game, name: str, ordered: bool | None = None) -> None:
        super().__init__(game, name, ordered)
        if self.account.ordered and game.rng.random() < 0.5:
            self.a, self.b = tcp_pair()
        else:
            self.a, self.b = socket.socketpair()
            if self.account.ordered:
                self.b.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)  # so that sends have to wait
        self.take = self.a.fileno()
        for each in (self.a, self.b):
            each.setblocking(game.rng.random() < 0.7)

    def read(self, worker: Worker) -> None:
        """See the base class."""
        size, way, sock = self.size(worker), worker.rng.random(), self.a
        if way < 0.5:
            data = worker.verb("recv", lambda timeout: blocking.recv(sock, size, timeout=timeout))
        elif way < 0.7:
            self.received_into(
                worker,
                "recv",
                size,
                lambda memory, timeout: blocking.recv_into(sock, memory, timeout=timeout),
            )
            return
        elif way < 0.85 or not self.account.ordered:
            found = worker.verb("recvmsg", lambda timeout: blocking.recvmsg(sock, size, timeout=timeout))
            data = None if found is None else found[0]
        else:
            flags = socket.MSG_WAITALL
            data = worker.verb("waitall", lambda timeout: blocking.recv(sock, size, flags, timeout=timeout))
        if data is not None:
            self.account.received(data)

    def write(self, worker: Worker) -> None:
        """See the base class."""
        account, way, sock = self.account, worker.rng.random(), self.b
        data = account.payload(worker.rng.choice(_WORDS))
        if way < 0.15 and account.ordered:
            data = b"".join(account.payload(255) for _ in range(20))
            self.sent_all(
                worker, "sendall", data, lambda timeout: blocking.sendall(sock, data, timeout=timeout)
            )
            return
        if way < 0.8:
            many = worker.verb("send", lambda timeout: blocking.send(sock, data, timeout=timeout))
        else:
            half = len(data) // 2
            many = worker.verb(
                "sendmsg", lambda timeout: blocking.sendmsg(sock, [data[:half], data[half:]], timeout=timeout)
            )
        if many is not None:
            account.written(data, many)

    def drain(self) -> None:
        """See the base class."""
        self.a.setblocking(False)
        self.b.shutdown(socket.SHUT_WR)
        select.select([self.a], [], [], 1.0)
        super().drain()

    def close(self) -> None:
        """See the base class."""
        self.a.close()
        self.b.close()


class _Raw(io.RawIOBase):
    """A file for `io.BufferedReader`: no more than what that needs."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self.timeout: float | None = None

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """What BufferedReader calls."""
        many: int = blocking.read(self._fd, buffer, timeout=self.timeout)
        return many


class Buffered(Pipe):
    """A pipe that is read through `io.BufferedReader`, by read1 and peek: its read(n) drops what it has."""

    def __init__(self, game: Game, name: str) -> None:
        super().__init__(game, name, ordered=True)
        self.raw = _Raw(self.reader)
        self.buffer = io.BufferedReader(self.raw, game.rng.choice((16, 64, 1024)))

    def read(self, worker: Worker) -> None:
        """See the base class."""
        size = self.size(worker)

        def read1(timeout: float | None) -> bytes:
            self.raw.timeout = timeout
            return self.buffer.read1(size)

        def peek(timeout: float | None) -> bytes:
            self.raw.timeout = timeout
            return self.buffer.peek(1)

        if worker.rng.random() < 0.3:
            seen = worker.verb("peek", peek, buffered=True)
            if seen is not None:
                again = self.buffer.read1(len(seen))  # of what it has: no call
                if not seen or again != seen:
                    raise Failure(f"{self.name}: peek() showed {seen.hex()}, read1() had {again.hex()}")
                self.account.received(again)
        else:
            data = worker.verb("read1", read1, buffered=True)
            if data is not None:
                self.account.received(data)

    def drain(self) -> None:
        """See the base class."""
        os.set_blocking(self.reader, False)
        self.raw.timeout = 0
        with contextlib.suppress(OperationTimedOut):
            while True:
                self.account.received(self.buffer.read1(65536))

    def close(self) -> None:
        """See the base class."""
        self.buffer.close()
        super().close()


class Splice(Bytes):
    """Two pipes; what is written to the first is moved to the second, and read there."""

    def __init__(self, game: Game, name: str) -> None:
        super().__init__(game, name, ordered=True)
        self.ends = (*os.pipe(), *os.pipe())
        self.take = self.ends[2]
        self.moving = threading.Lock()

    def use(self, worker: Worker) -> None:
        """See the base class."""
        if worker.rng.random() < 0.5:
            super().use(worker)
        elif self.moving.acquire(blocking=False):
            size = worker.rng.choice(_WORDS) * 8
            try:
                many = worker.verb(
                    "splice",
                    lambda timeout: blocking.splice(self.ends[0], self.ends[3], size, timeout=timeout),
                )
            finally:
                self.moving.release()
            if many is not None and not 0 < many <= size:
                raise Failure(f"{self.name}: {many} of {size} bytes were moved")

    def read(self, worker: Worker) -> None:
        """See the base class."""
        size = self.size(worker)
        data = worker.verb("read", lambda timeout: blocking.read(self.take, size, timeout=timeout))
        if data is not None:
            self.account.received(data)

    def write(self, worker: Worker) -> None:
        """See the base class."""
        data = self.account.payload(worker.rng.choice(_WORDS))
        many = worker.verb("write", lambda timeout: blocking.write(self.ends[1], data, timeout=timeout))
        if many is not None:
            self.account.written(data, many)

    def drain(self) -> None:
        """See the base class."""
        for end in (self.ends[2], self.ends[0]):
            os.set_blocking(end, False)
            self.take = end
            super().drain()

    def close(self) -> None:
        """See the base class."""
        for end in self.ends:
            os.close(end)


class Connections(File):
    """A listener, those who connect to it, and those who accept."""

    MOST = 40

    def __init__(self, game: Game, name: str) -> None:
        super().__init__(game, name)
        self.family = game.rng.choice((socket.AF_INET, socket.AF_UNIX))
        self.listener = socket.socket(self.family)
        self.listener.bind(("127.0.0.1", 0) if self.family == socket.AF_INET else "")
        # A full queue has a connect wait on io_uring, and fail where the call must not block.
        few = self.family == socket.AF_UNIX and game.options.engine == "uring" and game.rng.random() < 0.5
        self.listener.listen(2 if few else 2 * self.MOST)
        name_ = self.listener.getsockname()
        self.address: Any = name_.decode() if isinstance(name_, bytes) else name_
        self.listener.setblocking(game.rng.random() < 0.5)
        self.ids = itertools.count()
        self.clients: dict[int, socket.socket] = {}
        self.made: set[int] = set()
        self.accepted: list[socket.socket] = []
        self.accepting = threading.Lock()

    def use(self, worker: Worker) -> None:
        """See the base class."""
        if worker.rng.random() < 0.5:
            self.accept(worker)
            return
        number = next(self.ids)
        if number >= self.MOST:
            return
        client = self.clients[number] = socket.socket(self.family)
        client.setblocking(worker.rng.random() < 0.8 or self.family == socket.AF_UNIX)

        def connect(timeout: float | None) -> bool:
            blocking.connect(client, self.address, timeout=timeout)
            return True

        done = False
        try:
            done = worker.verb("connect", connect) is not None
        finally:
            self.connected(number, done)

    def accept(self, worker: Worker) -> None:
        """One accept."""
        pair = worker.verb("accept", lambda timeout: blocking.accept(self.listener, timeout=timeout))
        if pair is not None:
            if os.get_inheritable(pair[0].fileno()):
                raise Failure(f"{self.name}: an accepted socket is inherited by children")
            self.accepted.append(pair[0])

    def connected(self, number: int, done: bool) -> None:
        """A connect has ended. A cancelled one may have got there: then it is in the listener's queue."""
        client = self.clients[number]
        try:
            client.getpeername()
        except OSError:
            if done:
                raise Failure(f"{self.name}: connect() returned, and it is not connected") from None
            client.close()  # also where it was under way
        else:
            try:
                client.send(number.to_bytes(8, "little"), socket.MSG_DONTWAIT)
            except ConnectionError as error:
                raise Failure(f"{self.name}: connection {number} was closed, not accepted: {error}") from None
            self.made.add(number)

    def verify(self) -> None:
        """See the base class."""
        self.listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.accepted.append(self.listener.accept()[0])
        came = []
        for conn in self.accepted:
            conn.settimeout(5)
            data = conn.recv(8)
            if data:  # else its client was closed before it knew
                came.append(int.from_bytes(data, "little"))
        if len(came) != len(set(came)):
            raise Failure(f"{self.name}: a connection came twice")
        if set(came) != self.made:
            lost = sorted(self.made - set(came))
            raise Failure(f"{self.name}: of {len(self.made)} connections {len(lost)} were lost: {lost[:5]}")

    def close(self) -> None:
        """See the base class."""
        for each in (self.listener, *self.clients.values(), *self.accepted):
            each.close()


class Event(File):
    """An eventfd that is polled."""

    def __init__(self, game: Game, name: str) -> None:
        super().__init__(game, name)
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.set = 0

    def use(self, worker: Worker) -> None:
        """See the base class."""
        way = worker.rng.random()
        if way < 0.3:
            self.set += 1
            os.eventfd_write(self.fd, 1)
        elif way < 0.5:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.fd)
        else:
            mask = worker.verb("poll", lambda timeout: blocking.poll(self.fd, select.POLLIN, timeout=timeout))
            if mask is not None and (mask != select.POLLIN or not self.set):
                raise Failure(f"{self.name}: a poll for POLLIN ended with {mask:#x}, after {self.set} writes")

    def close(self) -> None:
        """See the base class."""
        os.close(self.fd)


class Fifo(File):
    """Opens of a FIFO: each waits for the other end."""

    def __init__(self, game: Game, name: str) -> None:
        super().__init__(game, name)
        self.folder = tempfile.TemporaryDirectory()
        self.path = f"{self.folder.name}/fifo"
        os.mkfifo(self.path)

    def use(self, worker: Worker) -> None:
        """See the base class."""
        flags = worker.rng.choice((os.O_RDONLY, os.O_WRONLY))
        fd = worker.verb("open", lambda timeout: blocking.open(self.path, flags, timeout=timeout))
        if fd is not None:
            right = os.path.samestat(os.fstat(fd), os.stat(self.path)) and not os.get_inheritable(fd)
            os.close(fd)
            if not right:
                raise Failure(f"{self.name}: fd {fd} is not the FIFO's, or is inherited")

    def close(self) -> None:
        """See the base class."""
        self.folder.cleanup()
