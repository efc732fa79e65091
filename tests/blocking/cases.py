"""One call of each verb that blocks: what ends it, and what it must leave alone."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import select
import socket
import struct
import termios
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import iocancel
from iocancel import pool
from iocancel.uring import Ring

from ..support import blocked_in
from .helpers import until

WORD = b"iocancel"


def readable(fd: int) -> int:
    """How many bytes a pipe or a socket holds."""
    raw = fcntl.ioctl(fd, termios.FIONREAD, bytes(4))
    number: int = struct.unpack("i", raw)[0]
    return number


def fill(fd: int) -> None:
    """Write until it takes no more, to the last byte."""
    was = os.get_blocking(fd)
    os.set_blocking(fd, False)
    for size in (1 << 16, 4096, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(fd, bytes(size))
    os.set_blocking(fd, was)


def drain(fd: int) -> bytes:
    """Read all that there is."""
    was = os.get_blocking(fd)
    os.set_blocking(fd, False)
    found = bytearray()
    with contextlib.suppress(BlockingIOError):
        while part := os.read(fd, 1 << 20):
            found += part
    os.set_blocking(fd, was)
    return bytes(found)


class Case:
    """A call that blocks until `ready` was called.

    `call` can be made again and again. Where `stays` is set what `ready` has brought stays until a call
    takes it.
    """

    verb = ""
    """What engines call it."""
    timed = True
    """It takes a timeout."""
    stays = True
    is_ready = False
    """It is ready, and stays so."""
    shared = True
    """What ends it ends a forked child's, too."""
    fd = -1
    """The number that it blocks on, which is the test's to close."""
    api: Any = iocancel
    """Whose verbs these are: those for plain threads, or those of an event loop, whose calls are awaited."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path) -> None:
        self.stack, self.folder = stack, folder
        self.set()

    def set(self) -> None:
        raise NotImplementedError

    def call(self, **named: Any) -> Any:
        raise NotImplementedError

    def ready(self) -> None:
        raise NotImplementedError

    def runs(self) -> None:
        """Wait until the kernel has looked its files up, which a worker of io_uring does later."""

    def system(self) -> str:
        """The name of the engine that carries it."""
        name: str = pool.current.name
        return name

    def right(self, value: Any) -> bool:
        raise NotImplementedError

    def right_in_child(self, value: Any) -> bool:
        """The same in a forked child, where `ready` was called by the parent."""
        return self.right(value)

    def other(self) -> tuple[int, Callable[[], bool]]:
        """A file of the same kind that is ready, and a look whether it was left alone."""
        raise NotImplementedError

    # What they are made of

    def pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        for end in ends:
            self.own(end)
        return ends

    def own(self, fd: int) -> int:
        was = os.fstat(fd)

        def close() -> None:
            with contextlib.suppress(OSError):
                now = os.fstat(fd)
                if (now.st_dev, now.st_ino) == (was.st_dev, was.st_ino):
                    os.close(fd)

        self.stack.callback(close)
        return fd

    def pair(self) -> tuple[int, int]:
        a, b = socket.socketpair()
        ends = a.detach(), b.detach()
        for end in ends:
            self.own(end)
        return ends


class Read(Case):
    verb = "read"

    def set(self) -> None:
        self.fd, self.peer = self.pipe()

    def call(self, **named: Any) -> Any:
        return self.api.read(self.fd, 100, **named)

    def ready(self) -> None:
        os.write(self.peer, WORD)

    def right(self, value: Any) -> bool:
        return bool(value == WORD)

    def other(self) -> tuple[int, Callable[[], bool]]:
        fd, peer = self.pipe()
        os.write(peer, b"the other's")
        return fd, lambda: readable(fd) == 11


class ReadTo(Read):
    def call(self, **named: Any) -> Any:
        self.buffer = bytearray(100)
        return self.api.read(self.fd, self.buffer, **named)

    def right(self, value: Any) -> bool:
        return bool(value == len(WORD) and self.buffer[:value] == WORD)


class Readv(Read):
    verb = "readv"

    def call(self, **named: Any) -> Any:
        self.buffers = bytearray(3), bytearray(100)
        return self.api.readv(self.fd, self.buffers, **named)

    def right(self, value: Any) -> bool:
        return bool(value == len(WORD) and b"".join(self.buffers)[:value] == WORD)


class Recv(Read):
    verb = "recv"

    def set(self) -> None:
        self.fd, self.peer = self.pair()

    def call(self, **named: Any) -> Any:
        return self.api.recv(self.fd, 100, **named)

    def other(self) -> tuple[int, Callable[[], bool]]:
        fd, peer = self.pair()
        os.write(peer, b"the other's")
        return fd, lambda: readable(fd) == 11


class RecvInto(Recv):
    def call(self, **named: Any) -> Any:
        self.buffer = bytearray(100)
        return self.api.recv_into(self.fd, self.buffer, **named)

    def right(self, value: Any) -> bool:
        return bool(value == len(WORD) and self.buffer[:value] == WORD)


class RecvMsg(Recv):
    verb = "recvmsg"

    def call(self, **named: Any) -> Any:
        return self.api.recvmsg(self.fd, 100, **named)

    def right(self, value: Any) -> bool:
        return bool(value[0] == WORD and value[1] == [])


class Write(Case):
    verb = "write"
    stays = False

    def set(self) -> None:
        self.peer, self.fd = self.pipe()
        fill(self.fd)

    def call(self, **named: Any) -> Any:
        return self.api.write(self.fd, WORD, **named)

    def ready(self) -> None:
        self.got = drain(self.peer)  # perhaps with what is written by that

    def right(self, value: Any) -> bool:
        got = self.got + drain(self.peer)
        fill(self.fd)
        # Once: what was cancelled before was not written.
        return bool(value == len(WORD) and got.strip(b"\0") == WORD)

    def right_in_child(self, value: Any) -> bool:
        return value in (len(WORD), None)  # who has read it is not known

    def other(self) -> tuple[int, Callable[[], bool]]:
        peer, fd = self.pipe()
        return fd, lambda: readable(peer) == 0


class WriteAll(Write):
    def call(self, **named: Any) -> Any:
        return self.api.write_all(self.fd, WORD, **named)

    def right(self, value: Any) -> bool:
        return value is None and super().right(len(WORD))


class Writev(Write):
    verb = "writev"

    def call(self, **named: Any) -> Any:
        return self.api.writev(self.fd, [WORD[:3], WORD[3:]], **named)


class Send(Write):
    verb = "send"

    def set(self) -> None:
        self.peer, self.fd = self.pair()
        fill(self.fd)

    def call(self, **named: Any) -> Any:
        return self.api.send(self.fd, WORD, **named)

    def other(self) -> tuple[int, Callable[[], bool]]:
        peer, fd = self.pair()
        return fd, lambda: readable(peer) == 0


class SendAll(Send):
    def call(self, **named: Any) -> Any:
        return self.api.sendall(self.fd, WORD, **named)

    def right(self, value: Any) -> bool:
        return value is None and super().right(len(WORD))


class SendMsg(Send):
    verb = "sendmsg"

    def call(self, **named: Any) -> Any:
        return self.api.sendmsg(self.fd, [WORD[:3], WORD[3:]], **named)


class Accept(Case):
    verb = "accept"

    def set(self) -> None:
        self.fd, self.address = self.listen()

    def listen(self) -> tuple[int, Any]:
        server = socket.create_server(("127.0.0.1", 0))
        address = server.getsockname()
        return self.own(server.detach()), address

    def call(self, **named: Any) -> Any:
        return self.api.accept(self.fd, **named)

    def ready(self) -> None:
        self.client = self.stack.enter_context(socket.create_connection(self.address))

    def right(self, value: Any) -> bool:
        sock, address = value
        with sock:
            return bool(address == self.client.getsockname() == sock.getpeername())

    def right_in_child(self, value: Any) -> bool:
        sock, address = value
        with sock:
            return bool(address == sock.getpeername())

    def other(self) -> tuple[int, Callable[[], bool]]:
        fd, address = self.listen()
        self.stack.enter_context(socket.create_connection(address))
        copy = self.own(os.dup(fd))
        poll = select.poll()
        poll.register(copy, select.POLLIN)
        return fd, lambda: bool(poll.poll(0))


class Connect(Case):
    """To a Unix socket whose backlog is full."""

    verb = "connect"
    stays = False

    def set(self) -> None:
        self.server = self.stack.enter_context(socket.socket(socket.AF_UNIX))
        self.path = str(self.folder / "socket")
        self.server.bind(self.path)
        self.server.listen(0)
        self.fill()
        self.sock = self.socket()
        self.fd = self.sock.fileno()

    def socket(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        fd = self.own(sock.detach())
        copy = socket.socket(fileno=fd)
        self.stack.callback(copy.detach)
        return copy

    def fill(self) -> None:
        while True:
            sock = self.stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.setblocking(False)
            try:
                sock.connect(self.path)
            except BlockingIOError:
                return

    def call(self, **named: Any) -> Any:
        return self.api.connect(self.sock, self.path, **named)

    def ready(self) -> None:
        self.server.accept()[0].close()

    def right(self, value: Any) -> bool:
        good = value is None and self.sock.getpeername() == self.path
        self.sock = self.socket()
        return good

    def other(self) -> tuple[int, Callable[[], bool]]:
        fresh = self.socket()
        fd = fresh.fileno()

        def alone() -> bool:
            try:
                fresh.getpeername()
            except OSError:
                return True
            return False

        return fd, alone


class Poll(Read):
    verb = "poll"
    stays = True

    def call(self, **named: Any) -> Any:
        return self.api.poll(self.fd, select.POLLIN, **named)

    def right(self, value: Any) -> bool:
        return bool(value == select.POLLIN and drain(self.fd) == WORD)


class Open(Case):
    """Of a FIFO that nobody writes to."""

    verb = "openat"

    def set(self) -> None:
        self.path = str(self.folder / "fifo")
        os.mkfifo(self.path)

    def call(self, **named: Any) -> Any:
        return self.api.open(self.path, **named)

    def ready(self) -> None:
        self.own(os.open(self.path, os.O_RDWR | os.O_CLOEXEC))
        self.is_ready = True

    def right(self, value: Any) -> bool:
        good = os.path.samestat(os.fstat(value), os.stat(self.path))
        os.close(value)
        return good


class Waitid(Case):
    verb = "waitid"
    shared = False

    def set(self) -> None:
        stdin, self.peer = os.pipe()
        os.set_inheritable(self.peer, False)
        self.pid = os.posix_spawnp("cat", ["cat"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, stdin, 0)])
        os.close(stdin)
        self.stack.callback(os.waitpid, self.pid, 0)
        self.own(self.peer)

    def call(self, **named: Any) -> Any:
        return self.api.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT, **named)

    def ready(self) -> None:
        os.close(self.peer)
        self.is_ready = True

    def right(self, value: Any) -> bool:
        return bool(value[0] == self.pid and value[3] == 0 and value[4] == os.CLD_EXITED)


class Splice(Read):
    verb = "splice"

    def set(self) -> None:
        self.fd, self.peer = self.pipe()
        self.end, self.into = self.pipe()

    def call(self, **named: Any) -> Any:
        return self.api.splice(self.fd, self.into, 100, **named)

    def runs(self) -> None:
        if self.system() == "uring":
            until(self.worker_waits, "a worker waits for the pipe")

    @staticmethod
    def worker_waits() -> bool:
        # What is inlined differs from kernel to kernel.
        return any(blocked_in(where) for where in ("ipipe_prep", "pipe_wait", "splice", "tee"))

    def right(self, value: Any) -> bool:
        return bool(value == len(WORD) and drain(self.end) == WORD)


class Tee(Splice):
    verb = "tee"

    def call(self, **named: Any) -> Any:
        return self.api.tee(self.fd, self.into, 100, **named)

    def right(self, value: Any) -> bool:
        return super().right(value) and drain(self.fd) == WORD


class Futex(Case):
    verb = "futex_wait"
    stays = shared = False

    def set(self) -> None:
        self.word = array("I", [7])

    def call(self, **named: Any) -> Any:
        return self.api.futex_wait(self.word, 7, **named)

    def ready(self) -> None:
        with Ring(4) as ring:
            ring.get_sqe().prep_futex_wake(self.word, 1)
            ring.submit()
            self.woken = ring.wait(1)[0].res

    def right(self, value: Any) -> bool:
        return value is None and self.woken == 1


class Sleep(Case):
    verb = "timeout"
    timed = stays = shared = False

    def set(self) -> None:
        """Nothing wakes it."""

    def call(self, **named: Any) -> Any:
        return self.api.sleep(math.inf)


CASES: dict[str, type[Case]] = {
    "read": Read,
    "read_to": ReadTo,
    "readv": Readv,
    "recv": Recv,
    "recv_into": RecvInto,
    "recvmsg": RecvMsg,
    "write": Write,
    "write_all": WriteAll,
    "writev": Writev,
    "send": Send,
    "sendall": SendAll,
    "sendmsg": SendMsg,
    "accept": Accept,
    "connect": Connect,
    "poll": Poll,
    "open": Open,
    "waitid": Waitid,
    "splice": Splice,
    "tee": Tee,
    "futex_wait": Futex,
    "sleep": Sleep,
}
