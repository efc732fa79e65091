"""One call of each verb that waits for something else than bytes, or moves them in the kernel: see Case."""

from __future__ import annotations

import math
import os
import select
import socket
from array import array
from collections.abc import Callable
from typing import Any

from iocancel.uring import Ring

from ..support import blocked_in
from .case import WORD, Case, drain
from .cases_data import Read
from .helpers import until


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
