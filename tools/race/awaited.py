"""What tasks wait on, by awaited verbs: bare files, and how to account for each (see `lanes`)."""

from __future__ import annotations

import abc
import contextlib
import errno
import itertools
import os
import select
import socket
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from iocancel.errors import OperationCancelled
from tools.race import lanes
from tools.race.check import Failure
from tools.race.sockets import tcp_pair

if TYPE_CHECKING:
    from tools.race.tasks import Game, Strand

_WORDS = (1, 1, 2, 4, 8, 32, 128)
_SLOT = 512  # bytes


class File(abc.ABC):
    """A file, and the verbs for it."""

    needs: tuple[str, ...] = ()
    """The verbs of an engine that it takes."""

    def __init__(self, game: Any, name: str) -> None:
        self.game, self.name = game, name

    @classmethod
    def plays(cls, game: Game) -> bool:
        """Whether the loop's engine has what it takes."""
        return all(game.hub.engine.supports(verb) for verb in cls.needs)

    @abc.abstractmethod
    async def play(self, strand: Strand) -> bool:
        """One verb; False where its turn is another task's."""

    async def finish(self) -> None:
        """All tasks have ended: account for everything."""

    def close(self) -> None:
        """Close it."""


class Bytes(File, abc.ABC):
    """Something that bytes go through."""

    account: lanes.Account

    async def play(self, strand: Strand) -> bool:
        """See File."""
        account, write = self.account, strand.rng.random() < 0.45
        turn = account.writing if write else account.reading
        if account.ordered and not turn.acquire(blocking=False):
            return False
        try:
            await (self.put(strand) if write else self.get(strand))
        finally:
            if account.ordered:
                turn.release()
        return True

    @abc.abstractmethod
    async def get(self, strand: Strand) -> None:
        """One read."""

    @abc.abstractmethod
    async def put(self, strand: Strand) -> None:
        """One write."""

    def size(self, strand: Strand) -> int:
        """Bytes to read."""
        words = strand.rng.choice(_WORDS)
        return words * 8 - (strand.rng.randrange(8) if self.account.ordered else 0)

    async def fill(
        self, strand: Strand, name: str, size: int, call: Callable[[bytearray], Awaitable[int]]
    ) -> None:
        """A verb that fills a buffer; beyond what it says nothing is written, and nothing where it raises."""
        memory = bytearray(b"\xa5" * size)
        many = 0
        try:
            many = await strand.verb(name, lambda: call(memory))
            self.account.received(bytes(memory[:many]))
        finally:
            if not 0 <= many <= size or memory[many:] != b"\xa5" * (size - many):
                raise Failure(f"{self.name}: {name} said {many} of {size} bytes, and has written others")

    async def put_all(self, strand: Strand, name: str, data: bytes, call: Callable[[], Any]) -> None:
        """A verb that writes all of it; what went before an exception is its `sent`."""
        try:
            await strand.verb(name, call)
        except BaseException as error:
            if isinstance(error, Failure):
                raise
            self.account.written(data, getattr(error, "sent", 0))
            raise
        self.account.written(data, len(data))


class Pipe(Bytes):
    """A pipe with readers and writers; with O_NONBLOCK or without."""

    def __init__(self, game: Any, name: str) -> None:
        super().__init__(game, name)
        self.pipe = lanes.Pipe(game, name)
        self.account = self.pipe.account

    async def get(self, strand: Strand) -> None:
        """See Bytes."""
        size, way, verbs, fd = self.size(strand), strand.rng.random(), self.game.verbs, self.pipe.reader
        if way < 0.7:
            self.account.received(await strand.verb("read", partial(verbs.read, fd, size)))
        elif way < 0.85:
            await self.fill(strand, "read into", size, partial(verbs.read, fd))
        else:
            half = size // 2

            async def readv(memory: bytearray) -> int:
                # Buffers of their own: Python before 3.11.9 and 3.12.3 crashes where it collects a memoryview
                # that is still pinned, as one may be in a round that has failed.
                parts = bytearray(memory[:half]), bytearray(memory[half:])
                try:
                    return int(await verbs.readv(fd, parts))
                finally:
                    memory[:] = b"".join(parts)

            await self.fill(strand, "readv", size, readv)

    async def put(self, strand: Strand) -> None:
        """See Bytes."""
        account, way, verbs, fd = self.account, strand.rng.random(), self.game.verbs, self.pipe.writer
        if way < 0.05 and account.ordered:
            data = b"".join(account.payload(255) for _ in range(40))  # more than it holds
            await self.put_all(strand, "write_all", data, partial(verbs.write_all, fd, data))
            return
        data = account.payload(strand.rng.choice(_WORDS))
        if way < 0.85:
            many = await strand.verb("write", partial(verbs.write, fd, data))
        else:
            half = len(data) // 2
            many = await strand.verb("writev", partial(verbs.writev, fd, [data[:half], data[half:]]))
        account.written(data, many)

    async def finish(self) -> None:
        """See File."""
        self.pipe.verify()

    def close(self) -> None:
        """See File."""
        self.pipe.close()


class Stream(Bytes):
    """One direction of a pair of sockets."""

    def __init__(self, game: Any, name: str) -> None:
        super().__init__(game, name)
        self.pair = lanes.Stream(game, name)
        self.account = self.pair.account

    async def get(self, strand: Strand) -> None:
        """See Bytes."""
        size, way, verbs, sock = self.size(strand), strand.rng.random(), self.game.verbs, self.pair.a
        if way < 0.6:
            data = await strand.verb("recv", partial(verbs.recv, sock, size))
        elif way < 0.8:
            await self.fill(strand, "recv_into", size, partial(verbs.recv_into, sock))
            return
        else:
            data = (await strand.verb("recvmsg", partial(verbs.recvmsg, sock, size)))[0]
        self.account.received(data)

    async def put(self, strand: Strand) -> None:
        """See Bytes."""
        account, way, verbs, sock = self.account, strand.rng.random(), self.game.verbs, self.pair.b
        if way < 0.1 and account.ordered:
            data = b"".join(account.payload(255) for _ in range(20))
            await self.put_all(strand, "sendall", data, partial(verbs.sendall, sock, data))
            return
        data = account.payload(strand.rng.choice(_WORDS))
        if way < 0.85:
            many = await strand.verb("send", partial(verbs.send, sock, data))
        else:
            half = len(data) // 2
            many = await strand.verb("sendmsg", partial(verbs.sendmsg, sock, [data[:half], data[half:]]))
        account.written(data, many)

    async def finish(self) -> None:
        """See File."""
        self.pair.verify()

    def close(self) -> None:
        """See File."""
        self.pair.close()


class Splice(Bytes):
    """Two pipes; what is written to the first is moved to the second, and read there."""

    needs = ("splice",)

    def __init__(self, game: Any, name: str) -> None:
        super().__init__(game, name)
        self.two = lanes.Splice(game, name)
        self.account = self.two.account

    async def play(self, strand: Strand) -> bool:
        """See File."""
        two, size = self.two, strand.rng.choice(_WORDS) * 8
        if strand.rng.random() < 0.6:
            return await super().play(strand)
        if not two.moving.acquire(blocking=False):
            return False
        try:
            call = partial(self.game.verbs.splice, two.ends[0], two.ends[3], size)
            # What was moved when the cancel came is there.
            many = await strand.verb("splice", call, late=lambda op: op.result())
        finally:
            two.moving.release()
        if not 0 < many <= size:
            raise Failure(f"{self.name}: {many} of {size} bytes were moved")
        return True

    async def get(self, strand: Strand) -> None:
        """See Bytes."""
        call = partial(self.game.verbs.read, self.two.ends[2], self.size(strand))
        self.account.received(await strand.verb("read", call))

    async def put(self, strand: Strand) -> None:
        """See Bytes."""
        data = self.account.payload(strand.rng.choice(_WORDS))
        many = await strand.verb("write", partial(self.game.verbs.write, self.two.ends[1], data))
        self.account.written(data, many)

    async def finish(self) -> None:
        """See File."""
        self.two.verify()

    def close(self) -> None:
        """See File."""
        self.two.close()


class Connections(File):
    """A listener, those who connect to it, and those who accept."""

    needs = ("connect",)

    def __init__(self, game: Any, name: str) -> None:
        super().__init__(game, name)
        self.party = lanes.Connections(game, name)

    async def play(self, strand: Strand) -> bool:
        """See File."""
        party, verbs = self.party, self.game.verbs
        if strand.rng.random() < 0.5:
            await self.accept(strand)
            return True
        number = next(party.ids)
        if number >= party.MOST:
            return False
        client = party.clients[number] = socket.socket(party.family)
        client.setblocking(strand.rng.random() < 0.8 or party.family == socket.AF_UNIX)
        done = False
        try:
            await strand.verb("connect", partial(verbs.connect, client, party.address), late=_nothing)
            done = True
        finally:
            party.connected(number, done)
        return True

    async def accept(self, strand: Strand) -> None:
        """One accept."""
        party = self.party
        call = partial(self.game.verbs.accept, party.listener)
        pair = await strand.verb("accept", call, lost=lambda pair: pair[0].close())
        if os.get_inheritable(pair[0].fileno()):
            raise Failure(f"{self.name}: an accepted socket is inherited by children")
        party.accepted.append(pair[0])

    async def finish(self) -> None:
        """See File."""
        self.party.verify()

    def close(self) -> None:
        """See File."""
        self.party.close()


class Event(File):
    """An eventfd that is polled."""

    def __init__(self, game: Any, name: str) -> None:
        super().__init__(game, name)
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.set = 0

    def shake(self, strand: Strand) -> bool:
        """Write to it, or read from it."""
        way = strand.rng.random()
        if way < 0.25:
            self.set += 1
            os.eventfd_write(self.fd, 1)
        elif way < 0.5:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.fd)
        return way < 0.5

    def check(self, mask: int) -> None:
        """What a poll for POLLIN has told."""
        if mask != select.POLLIN or not self.set:
            raise Failure(f"{self.name}: a poll for POLLIN ended with {mask:#x}, after {self.set} writes")

    async def play(self, strand: Strand) -> bool:
        """See File."""
        if not self.shake(strand):
            call = partial(self.game.verbs.poll, self.fd, select.POLLIN)
            self.check(await strand.verb("poll", call))
        return True

    def close(self) -> None:
        """See File."""
        os.close(self.fd)


class Disk(File):
    """A disk's file: slots with an owner each, and a part that is only read."""

    def __init__(self, game: Any, name: str) -> None:
        super().__init__(game, name)
        self.file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self.fd = self.file.fileno()
        self.fixed = game.rng.randbytes(16384)
        os.write(self.fd, self.fixed)
        self.slots: list[bytes] = []
        self.moving = False
        self.position = 0
        os.lseek(self.fd, 0, os.SEEK_SET)

    async def play(self, strand: Strand) -> bool:
        """See File."""
        rng, verbs = strand.rng, self.game.verbs
        way = rng.random()
        offset, size = rng.randrange(16384), rng.choice((1, 64, 512, 512, 4096, 5000))
        if way < 0.5:
            abandon = rng.random() < 0.2
            call = partial(verbs.read, self.fd, size, offset, abandon_on_cancel=abandon)
            data = await strand.verb(
                "pread", call, lambda op: self.same(op.result(), size, offset), begun_before=abandon
            )
            self.same(data, size, offset)
        elif way < 0.65:
            memory = bytearray(size)
            call = partial(verbs.read, self.fd, memory, offset)
            many = await strand.verb("pread into", call, late=_nothing)
            self.same(bytes(memory[:many]), size, offset)
        elif way < 0.8:
            return await self.move(strand, size)
        elif way < 0.83:
            await strand.verb("fsync", partial(verbs.fsync, self.fd), late=_nothing)
        elif len(self.slots) < 32:
            await self.write(strand)
        return True

    def same(self, data: bytes, size: int, offset: int) -> None:
        """A read of the fixed part."""
        if data[: len(self.fixed) - offset] != self.fixed[offset : offset + len(data)] or not data:
            raise Failure(f"{self.name}: a read of {size} bytes at {offset} brought other bytes")
        if len(data) < min(size, len(self.fixed) - offset):
            raise Failure(f"{self.name}: a read of {size} bytes at {offset} brought {len(data)}")

    async def move(self, strand: Strand, size: int) -> bool:
        """A read at the file's position, which a cancelled one has not moved."""
        if self.moving:
            return False
        self.moving = True
        at = os.lseek(self.fd, strand.rng.randrange(8192), os.SEEK_SET)
        data = b""
        read, memory = self.game.verbs.read, bytearray(size)
        try:
            if strand.rng.random() < 0.5:
                data = await strand.verb("read on", partial(read, self.fd, size), late=_nothing)
            else:
                many = await strand.verb("read on into", partial(read, self.fd, memory), late=_nothing)
                data = bytes(memory[:many])
            self.same(data, size, at)
        finally:
            self.moving = False
            now = os.lseek(self.fd, 0, os.SEEK_CUR)
            if now != at + len(data):
                raise Failure(f"{self.name}: {len(data)} bytes were read at {at}, and it is at {now}")
        return True

    async def write(self, strand: Strand) -> None:
        """A slot's first and only write: it happened, or did not."""
        number = len(self.slots)
        data = number.to_bytes(8, "little") * (_SLOT // 8) if number else b"\xff" * _SLOT
        self.slots.append(b"")
        offset = 16384 + number * _SLOT
        done: list[Any] = []
        try:
            many = await strand.verb(
                "pwrite", partial(self.game.verbs.write, self.fd, data, offset), late=done.append
            )
            if many != _SLOT:
                raise Failure(f"{self.name}: {many} of {_SLOT} bytes were written to a disk's file")
            done.append(many)
        finally:
            if done:
                self.slots[number] = data

    async def finish(self) -> None:
        """See File."""
        for number, data in enumerate(self.slots):
            found = os.pread(self.fd, _SLOT, 16384 + number * _SLOT)
            if found.strip(b"\0") != data.strip(b"\0"):
                raise Failure(f"{self.name}: slot {number} holds {found[:8].hex()}, not {data[:8].hex()}")

    def close(self) -> None:
        """See File."""
        self.file.close()


class Asked:
    """An operation of the loop's engine, and who has asked for its cancel."""

    def __init__(self, op: Any) -> None:
        self.op = op
        self.stopped = self.counted = False


class Requests(Bytes):
    """A pipe that is read by operations of the loop's engine, awaited by `result()`: by two at once, too."""

    def __init__(self, game: Any, name: str) -> None:
        super().__init__(game, name)
        self.pipe = lanes.Pipe(game, name, ordered=False)
        os.set_blocking(self.pipe.reader, True)  # else it ends at once where there is nothing
        self.account = self.pipe.account
        self.last: Asked | None = None
        self.all: list[Asked] = []

    async def get(self, strand: Strand) -> None:
        """See Bytes."""
        rng, verbs = strand.rng, self.game.verbs
        asked = self.last
        if asked is None or asked.op.done() or rng.random() < 0.7:
            asked = self.last = Asked(verbs.engine().read(self.pipe.reader, self.size(strand)))
            self.all.append(asked)
        else:
            asked.stopped = True  # by a cancel of whoever else waits for it, who may be told behind us
        abandon = rng.random() < 0.3
        if rng.random() < 0.2:
            asked.stopped = True
            self.game.world.later(rng.randrange(3), asked.op.cancel)
        op = asked.op
        try:
            await strand.verb(
                "result",
                lambda: verbs.result(op, abandon_on_cancel=abandon),
                late=lambda _: self.take(asked),
                begun_before=True,
            )
        except OperationCancelled:
            if not asked.stopped:
                raise Failure(f"{self.name}: {op!r} was cancelled, and nobody has asked for it") from None
        except self.game.world.cancelled:
            asked.stopped = True
            if not abandon and not op.done():
                raise Failure(f"{self.name}: its wait has ended before {op!r}") from None
            raise
        else:
            self.take(asked)
        finally:
            self.all = [each for each in self.all if not each.op.done() or not self.take(each)]

    def take(self, asked: Asked) -> bool:
        """Account for what it has brought, once; whether it has ended."""
        if not asked.counted and asked.op.done():
            asked.counted = True
            if asked.op.exception() is None:
                self.account.received(asked.op.result())
            elif not asked.op.cancelled():
                raise Failure(f"{self.name}: {asked.op!r}: {asked.op.exception()!r}")
        return bool(asked.op.done())

    async def put(self, strand: Strand) -> None:
        """See Bytes."""
        data = self.account.payload(strand.rng.choice(_WORDS))
        many = await strand.verb("write", partial(self.game.verbs.write, self.pipe.writer, data))
        self.account.written(data, many)

    async def finish(self) -> None:
        """See File."""
        for asked in self.all:
            if not self.take(asked):
                raise Failure(f"{self.name}: {asked.op!r} has not ended")
        self.last, self.all = None, []
        self.pipe.verify()

    def close(self) -> None:
        """See File."""
        self.pipe.close()


class Pair:
    """What `Closed` closes."""

    def __init__(self, name: str) -> None:
        self.a, self.b = tcp_pair()
        for each in (self.a, self.b):
            each.setblocking(False)
        self.account = lanes.Account(name, ordered=True)
        self.closing = False


class Closed(File):
    """A connection that is closed by `close_fd` while others wait on it, and the next one."""

    def __init__(self, game: Any, name: str) -> None:
        super().__init__(game, name)
        self.numbers = itertools.count()
        self.pair = Pair(name)
        self.old: list[Pair] = []

    async def play(self, strand: Strand) -> bool:
        """See File."""
        way, pair, verbs = strand.rng.random(), self.pair, self.game.verbs
        if way < 0.1:
            await self.shut(strand)
            return True
        reading, writing = pair.account.reading, pair.account.writing
        try:
            if way < 0.4:
                if not writing.acquire(blocking=False):
                    return False
                try:
                    data = pair.account.payload(strand.rng.choice(_WORDS))
                    pair.account.written(data, await strand.verb("send", partial(verbs.send, pair.b, data)))
                finally:
                    writing.release()
            elif way < 0.6:
                await strand.verb("poll", partial(verbs.poll, pair.a, select.POLLIN))
            elif reading.acquire(blocking=False):
                try:
                    call = partial(verbs.recv, pair.a, strand.rng.choice(_WORDS) * 8)
                    pair.account.received(await strand.verb("recv", call))
                finally:
                    reading.release()
            else:
                return False
        except OSError as error:
            right = isinstance(error, OperationCancelled) or error.errno in _CLOSED
            if not pair.closing or not right:
                raise Failure(f"{self.name}: {error!r}, closing: {pair.closing}") from error
            strand.events.append(["it was closed"])
        return True

    async def shut(self, strand: Strand) -> None:
        """Close it."""
        pair, self.pair = self.pair, Pair(f"{self.name}.{next(self.numbers)}")
        self.old.append(pair)
        pair.closing = True
        abort = strand.rng.random() < 0.3
        await strand.verb("close_fd", partial(self.game.verbs.close_fd, pair.a, abort=abort), late=_nothing)
        if pair.a.fileno() != -1:
            raise Failure(f"{self.name}: close_fd has returned, and it is open")

    async def finish(self) -> None:
        """See File: what came is what went, as far as it came."""
        for pair in self.old:
            went, came = b"".join(pair.account._in), b"".join(pair.account._out)
            if not went.startswith(came):
                raise Failure(f"{pair.account.name}: {len(came)} bytes came, and are not the first that went")
        pair = self.pair
        pair.b.shutdown(socket.SHUT_WR)
        pair.a.settimeout(5.0)
        while data := pair.a.recv(65536):
            pair.account.received(data)
        pair.account.check()

    def close(self) -> None:
        """See File."""
        for pair in (*self.old, self.pair):
            pair.a.close()
            pair.b.close()


_CLOSED = frozenset([errno.EBADF, errno.EPIPE, errno.ECONNRESET])


class Fifo(File):
    """Opens of a FIFO, which wait for the other end; the wait for some is given up at a cancel."""

    needs = ("openat",)

    def __init__(self, game: Any, name: str) -> None:
        super().__init__(game, name)
        self.fifo = lanes.Fifo(game, name)

    async def play(self, strand: Strand) -> bool:
        """See File."""
        rng, path = strand.rng, self.fifo.path
        flags, abandon = rng.choice((os.O_RDONLY, os.O_WRONLY)), rng.random() < 0.5
        call = partial(self.game.verbs.open, path, flags, abandon_on_cancel=abandon)
        # One that came late is closed with its operation.
        fd = await strand.verb("open", call, late=_nothing, lost=os.close, begun_before=abandon)
        right = os.path.samestat(os.fstat(fd), os.stat(path)) and not os.get_inheritable(fd)
        os.close(fd)
        if not right:
            raise Failure(f"{self.name}: fd {fd} is not the FIFO's, or is inherited")
        return True

    def close(self) -> None:
        """See File."""
        self.fifo.close()


class Child(File):
    """A process, whose ending tasks wait for: one of them is told."""

    MOST = 2

    def __init__(self, game: Any, name: str) -> None:
        super().__init__(game, name)
        self.numbers = itertools.count()
        self.pid = self.end = -1
        self.told = 0
        self.made = 0

    @classmethod
    def plays(cls, game: Game) -> bool:
        """See File."""
        return game.rng.random() < 0.3

    def begin(self) -> None:
        """Start one, which ends when its input does."""
        take, self.end = os.pipe()
        try:
            actions = [(os.POSIX_SPAWN_DUP2, take, 0)]
            self.pid = os.posix_spawn("/bin/cat", ["cat"], {}, file_actions=actions)
        finally:
            os.close(take)
        self.made += 1

    async def play(self, strand: Strand) -> bool:
        """See File."""
        if self.pid < 0:
            if self.made == self.MOST:
                return False
            self.begin()
        elif strand.rng.random() < 0.1 and self.end >= 0:
            os.close(self.end)
            self.end = -1
        pid = self.pid
        try:
            found = await strand.verb("waitid", partial(self.game.verbs.waitid, os.P_PID, pid, os.WEXITED))
        except ChildProcessError:  # another one was told, or is about to be
            return True
        if (found.si_pid, found.si_status, self.end) != (pid, 0, -1) or self.pid != pid:
            raise Failure(f"{self.name}: waitid() of {pid} has brought {found}")
        self.told += 1
        self.pid = -1
        return True

    async def finish(self) -> None:
        """See File."""
        if self.pid >= 0:
            if self.end >= 0:
                os.close(self.end)
                self.end = -1
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
                self.told += 1
            self.pid = -1
        if self.told != self.made:
            raise Failure(f"{self.name}: {self.made} processes have ended, {self.told} were told of")

    def close(self) -> None:
        """See File."""
        if self.end >= 0:
            os.close(self.end)
        if self.pid >= 0:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)


def _nothing(_: Any) -> None:
    """It may have happened; its file knows, or it changes nothing."""
