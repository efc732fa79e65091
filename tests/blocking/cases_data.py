"""One call of each verb that moves bytes: see Case."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from .case import WORD, Case, drain, fill, readable


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
