"""What blocks, for every verb that can: made so, started, brought to its end, and looked at afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import tempfile
import termios
from array import array
from pathlib import Path
from typing import Any

from iocancel import Operation
from iocancel.uring import Ring

from ..support import BOUND, blocked_in, fill, until, until_blocked
from .helpers import drain, stops


def unacknowledged(sock: socket.socket) -> int:
    """How many bytes a TCP socket holds that its peer has not acknowledged (SIOCOUTQ)."""
    number: int = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]
    return number


def unsent(sock: socket.socket) -> int:
    """How many of these have not been sent yet (SIOCOUTQNSD, which Python does not name)."""
    number: int = struct.unpack("i", fcntl.ioctl(sock, 0x894B, bytes(4)))[0]
    return number


class Stage:
    """One operation that blocks until `finish`."""

    verb = ""
    finishes = True
    """Whether the test can bring about its end."""

    def __init__(self, engine: Any, stack: contextlib.ExitStack) -> None:
        self.engine = engine
        self.stack = stack
        self.set()

    def pipe(self) -> tuple[int, int]:
        """A pipe, closed at the end of the test."""
        ends = os.pipe()
        for end in ends:
            self.stack.callback(os.close, end)
        return ends

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Connected sockets, closed at the end of the test."""
        a, b = socket.socketpair()
        return self.stack.enter_context(a), self.stack.enter_context(b)

    def set(self) -> None:
        """Make what it waits for."""

    def start(self, **named: Any) -> Operation[Any]:
        """Start it."""
        raise NotImplementedError

    def runs(self) -> None:
        """Wait until it is where a cancel is to find it: for those that a thread executes."""
        if not stops(self.engine, self.verb):
            until_blocked("pipe_")  # one that no thread has taken up yet can still be cancelled

    def finish(self) -> None:
        """Bring about its end."""
        raise NotImplementedError

    def right(self, value: Any) -> bool:
        """Whether that is the value of one that `finish` has ended."""
        raise NotImplementedError

    def untouched(self) -> bool:
        """Whether one that was cancelled has done nothing, when `finish` came after its ending."""
        raise NotImplementedError


class Read(Stage):
    verb = "read"

    def set(self) -> None:
        self.read_end, self.write_end = self.pipe()

    def start(self, **named: Any) -> Operation[Any]:
        return self.engine.read(self.read_end, 16, **named)  # type: ignore[no-any-return]

    def finish(self) -> None:
        os.write(self.write_end, b"abc")

    def right(self, value: Any) -> bool:
        return bool(value == b"abc")

    def untouched(self) -> bool:
        return drain(self.read_end) == 3


class Readv(Read):
    verb = "readv"

    def start(self, **named: Any) -> Operation[Any]:
        self.buffers = [bytearray(2), bytearray(16)]
        return self.engine.readv(self.read_end, self.buffers, **named)  # type: ignore[no-any-return]

    def right(self, value: Any) -> bool:
        return bool(value == 3 and self.buffers[0] == b"ab" and self.buffers[1][:1] == b"c")


class Write(Stage):
    verb = "write"

    def set(self) -> None:
        self.read_end, self.write_end = self.pipe()
        self.there = fill(self.write_end)

    def start(self, **named: Any) -> Operation[Any]:
        return self.engine.write(self.write_end, b"abc", **named)  # type: ignore[no-any-return]

    def finish(self) -> None:
        self.got = 0
        while self.got < self.there:
            self.got += len(os.read(self.read_end, self.there - self.got))

    def right(self, value: Any) -> bool:
        return bool(value == 3 and os.read(self.read_end, 16) == b"abc")

    def untouched(self) -> bool:
        return drain(self.read_end) == 0


class Writev(Write):
    verb = "writev"

    def start(self, **named: Any) -> Operation[Any]:
        return self.engine.writev(self.write_end, [b"a", b"bc"], **named)  # type: ignore[no-any-return]


class Recv(Stage):
    verb = "recv"

    def set(self) -> None:
        self.sock, self.peer = self.pair()

    def start(self, **named: Any) -> Operation[Any]:
        return self.engine.recv(self.sock, 16, **named)  # type: ignore[no-any-return]

    def finish(self) -> None:
        self.peer.send(b"abc")

    def right(self, value: Any) -> bool:
        return bool(value == b"abc")

    def untouched(self) -> bool:
        return self.sock.recv(16, socket.MSG_DONTWAIT) == b"abc"


class RecvMsg(Recv):
    verb = "recvmsg"

    def start(self, **named: Any) -> Operation[Any]:
        return self.engine.recvmsg(self.sock, 16, **named)  # type: ignore[no-any-return]

    def right(self, value: Any) -> bool:
        return bool(value[0] == b"abc" and value[1] == [])


class Send(Stage):
    verb = "send"

    def set(self) -> None:
        self.sock, self.peer = self.pair()
        self.there = fill(self.sock.fileno())

    def start(self, **named: Any) -> Operation[Any]:
        return self.engine.send(self.sock, b"abc", **named)  # type: ignore[no-any-return]

    def finish(self) -> None:
        self.got = 0
        while self.got < self.there:
            self.got += len(self.peer.recv(self.there - self.got))

    def right(self, value: Any) -> bool:
        return bool(value == 3 and self.peer.recv(16) == b"abc")

    def untouched(self) -> bool:
        return drain(self.peer.fileno()) == 0


class SendMsg(Send):
    verb = "sendmsg"

    def start(self, **named: Any) -> Operation[Any]:
        return self.engine.sendmsg(self.sock, [b"a", b"bc"], **named)  # type: ignore[no-any-return]


class SendZc(Send):
    verb = "send_zc"

    def set(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:  # Unix sockets have no zero-copy
            self.sock = self.stack.enter_context(socket.create_connection(server.getsockname()))
            self.peer = self.stack.enter_context(server.accept()[0])
        self.there = 0
        # TCP moves bytes on for a while: it is full when it takes nothing, and nothing is under way any more.
        while more := fill(self.sock.fileno()):
            self.there += more
            until(lambda: unsent(self.sock) == unacknowledged(self.sock), "the peer takes nothing more")

    def start(self, **named: Any) -> Operation[Any]:
        op: Operation[Any] = self.engine.send_zc(self.sock, b"abc", **named)
        self.op = op
        return op

    def right(self, value: Any) -> bool:
        # Its memory is the kernel's until the peer has taken the bytes.
        return super().right(value) and self.op.memory_released.wait(BOUND)


class Accept(Stage):
    verb = "accept"

    def set(self) -> None:
        self.listener = self.stack.enter_context(socket.create_server(("127.0.0.1", 0)))

    def start(self, **named: Any) -> Operation[Any]:
        return self.engine.accept(self.listener, **named)  # type: ignore[no-any-return]

    def finish(self) -> None:
        self.client = self.stack.enter_context(socket.create_connection(self.listener.getsockname()))

    def right(self, value: Any) -> bool:
        conn, address = value
        with conn:
            self.client.send(b"hello")
            return bool(address == self.client.getsockname() and conn.recv(8) == b"hello")

    def untouched(self) -> bool:
        with self.listener.accept()[0] as conn:  # it is still in the listener's queue
            return bool(conn.getpeername() == self.client.getsockname())


class Connect(Stage):
    """To a listener whose queue is full: the kernel drops the SYN, and sends it again after a second."""

    verb = "connect"

    def set(self) -> None:
        self.listener = self.stack.enter_context(socket.socket())
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(0)
        # One more than the queue's length fits in.
        self.first = self.stack.enter_context(socket.create_connection(self.listener.getsockname()))
        self.sock = self.stack.enter_context(socket.socket())

    def start(self, **named: Any) -> Operation[Any]:
        return self.engine.connect(self.sock, self.listener.getsockname(), **named)  # type: ignore[no-any-return]

    def finish(self) -> None:
        self.stack.enter_context(self.listener.accept()[0])

    def right(self, value: Any) -> bool:
        return value is None and bool(self.sock.getpeername() == self.listener.getsockname())

    def untouched(self) -> bool:
        # What is cancelled is the wait: the socket itself may go on connecting, as after connect(2)'s EINTR.
        return True


class Poll(Stage):
    verb = "poll"

    def set(self) -> None:
        self.read_end, self.write_end = self.pipe()

    def start(self, **named: Any) -> Operation[Any]:
        return self.engine.poll(self.read_end, select.POLLIN, **named)  # type: ignore[no-any-return]

    def finish(self) -> None:
        os.write(self.write_end, b"abc")

    def right(self, value: Any) -> bool:
        return bool(value & select.POLLIN)

    def untouched(self) -> bool:
        return drain(self.read_end) == 3


class Timeout(Stage):
    verb = "timeout"
    finishes = False

    def start(self, **named: Any) -> Operation[Any]:
        return self.engine.timeout(3600)  # type: ignore[no-any-return]

    def untouched(self) -> bool:
        return True


class Open(Stage):
    """Of a FIFO, which waits for the other end: in a worker."""

    verb = "openat"

    def set(self) -> None:
        folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.path = Path(folder) / "fifo"
        os.mkfifo(self.path)

    def start(self, **named: Any) -> Operation[Any]:
        return self.engine.openat(self.path, os.O_RDONLY, **named)  # type: ignore[no-any-return]

    def runs(self) -> None:
        if self.engine.name == "uring":
            until_blocked("wait_for_partner")

    def finish(self) -> None:
        self.stack.callback(os.close, os.open(self.path, os.O_RDWR))

    def right(self, value: Any) -> bool:
        os.close(value)
        return True

    def untouched(self) -> bool:
        return True


class Splice(Stage):
    """From an empty pipe: in a worker."""

    verb = "splice"

    def set(self) -> None:
        self.read_end, self.write_end = self.pipe()
        self.far_read, self.far_write = self.pipe()

    def start(self, **named: Any) -> Operation[Any]:
        return self.engine.splice(self.read_end, self.far_write, 16, **named)  # type: ignore[no-any-return]

    def runs(self) -> None:
        if self.engine.name == "uring":
            until(self._blocked, "a worker waits for the pipe")

    def _blocked(self) -> bool:
        # ipipe_prep of both; what is inlined differs from kernel to kernel.
        return bool(blocked_in("ipipe_prep") or blocked_in("pipe_wait") or blocked_in("splice"))

    def finish(self) -> None:
        os.write(self.write_end, b"abc")

    def right(self, value: Any) -> bool:
        return bool(value == 3 and os.read(self.far_read, 16) == b"abc")

    def untouched(self) -> bool:
        return drain(self.read_end) == 3 and drain(self.far_read) == 0


class Tee(Splice):
    verb = "tee"

    def start(self, **named: Any) -> Operation[Any]:
        return self.engine.tee(self.read_end, self.far_write, 16, **named)  # type: ignore[no-any-return]

    def _blocked(self) -> bool:
        return bool(super()._blocked() or blocked_in("tee"))


class Waitid(Stage):
    verb = "waitid"

    def set(self) -> None:
        self.go_on, self.write_end = os.pipe()
        self.pid = os.posix_spawn(
            "/bin/cat", ["cat"], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, self.go_on, 0)]
        )
        os.close(self.go_on)
        self.stack.callback(self._reap)

    def _reap(self) -> None:
        if self.write_end >= 0:
            self.finish()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def start(self, **named: Any) -> Operation[Any]:
        return self.engine.waitid(os.P_PID, self.pid, **named)  # type: ignore[no-any-return]

    def finish(self) -> None:
        os.close(self.write_end)
        self.write_end = -1

    def right(self, value: Any) -> bool:
        return bool(value[0] == self.pid and value[3] == 0 and value[4] == os.CLD_EXITED)

    def untouched(self) -> bool:
        return os.waitpid(self.pid, 0) == (self.pid, 0)  # nobody has taken it


class Futex(Stage):
    verb = "futex_wait"

    def set(self) -> None:
        self.word = array("I", [7])

    def start(self, **named: Any) -> Operation[Any]:
        return self.engine.futex_wait(self.word, 7, **named)  # type: ignore[no-any-return]

    def finish(self) -> None:
        self.woken = self._wake()

    def _wake(self) -> int:
        with Ring(4) as ring:
            ring.get_sqe().prep_futex_wake(self.word, 1)
            ring.submit()
            return ring.wait(1)[0].res

    def right(self, value: Any) -> bool:
        return value is None and self.woken == 1

    def untouched(self) -> bool:
        return self.woken == 0  # nobody waited any more


STAGES = {
    stage.verb: stage
    for stage in (
        *(Read, Readv, Write, Writev, Recv, RecvMsg, Send, SendMsg, SendZc, Accept, Connect),
        *(Poll, Timeout, Open, Splice, Tee, Waitid, Futex),
    )
}
"""Of the verbs that can block; fsync and close can not, on what tests have."""
