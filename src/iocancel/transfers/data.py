"""Bytes that come from a file, and bytes that go to one."""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from iocancel.engines import ready
from iocancel.engines.ready import NOT_READY
from iocancel.errors import check
from iocancel.transfers.owned import Have, Owned, Side, Use
from iocancel.transfers.transfer import Transfer

if TYPE_CHECKING:
    from iocancel.operation.verbs import File

_IN, _OUT = select.POLLIN, select.POLLOUT


class Incoming(Side):
    """Bytes that come from a file."""

    def __init__(self, owner: Owned, file: File) -> None:
        super().__init__(owner, file, "receiving")
        self.is_socket = _is_socket(file)
        self._verb = "recv" if self.is_socket else "read"
        self._extra = 0 if self.is_socket else -1  # flags, or the file's own position
        self._ready: Any = ready.recv if self.is_socket else ready.read

    def begin(self, use: Use) -> None:
        """See Side."""
        super().begin(use)
        self.settle()

    def bring(self, use: Use, room: int, timeout: float | None) -> Have:
        """Wait until the file brings something, or its end; where it goes is `have`.

        Args:
            use: the call.
            room: how many bytes at most.
            timeout: seconds, None for ever.

        Raises:
            OSError: it has failed.
            TimeoutError, Cancelled: nothing has come.
            ValueError: the file was closed meanwhile.
        """
        transfer = self.call(use, timeout, self._verb)
        room = min(room, ready.ROOM)
        self.have = self.have._replace(source=transfer)
        file = self.number()
        many = transfer.attempt(self._ready, file, room, self._extra)
        if many == NOT_READY:
            verb, extra = self._verb, self._extra
            transfer.wait(
                lambda engine, number: getattr(engine, verb)(number, room, extra),
                file,
                _IN,
                self.owner.closed_error,
            )
        elif many < 0:
            self.have = self.have._replace(source=None)
            check(many, self._verb)
        return self.settle()

    def settle(self) -> Have:
        """Put what a call has brought behind what is kept."""
        have = self.have
        source = have.source
        if source is None:
            return have
        data = source.data()
        fresh = self.have = have._replace(source=None) if data is None else _behind(have, data)
        source.give_back()
        return fresh

    @staticmethod
    def take(have: Have, many: int) -> tuple[bytes, Have]:
        """The first bytes of what is kept, and what is left: for `commit`.

        Where there is nothing, it is the end that is taken.
        """
        start, end = have.start, min(have.end, have.start + many)
        data = bytes(have.kept[start:end])
        ended = have.ended and bool(data)
        if end == have.end:
            return data, Have({}, ended=ended)
        return data, Have({}, have.kept, end, have.end, ended)


def _behind(have: Have, data: bytes) -> Have:
    """Bytes behind those that are kept. Run again after an exception it does the same."""
    kept, start, end = have.kept, have.start, have.end
    if start == end:
        return Have(have.claims, data, 0, len(data), have.ended or not data)
    if not data:
        return Have(have.claims, kept, start, end, True)
    if isinstance(kept, bytes) or start > end - start:
        kept, start, end = bytearray(kept[start:end]), 0, end - start
    kept[end:] = data  # what is behind the end is of no meaning
    return Have(have.claims, kept, start, end + len(data), have.ended)


class Outgoing(Side):
    """Bytes that go to a file."""

    ended = False
    """Nothing can be sent any more."""

    def __init__(self, owner: Owned, file: File) -> None:
        super().__init__(owner, file, "sending")
        self.is_socket = _is_socket(file)
        self._verb = "send" if self.is_socket else "write"
        self._extra = 0 if self.is_socket else -1
        self._ready: Any = ready.send if self.is_socket else ready.write

    def push(self, transfer: Transfer, data: Any) -> None:
        """Wait until some of it is sent.

        Args:
            transfer: the call; its `many()` is the number of bytes, whatever is raised here.
            data: a buffer.
        """
        file = self.number()
        # Let go of at once: CPython crashes where a memoryview that is exported is garbage in a cycle, as an
        # exception's frames often are.
        with ready.from_buffer(ready.BYTES, data) as pin:
            many = transfer.attempt(self._ready, file, pin, len(pin), self._extra)
        if many == NOT_READY:
            verb, extra = self._verb, self._extra
            transfer.wait(
                lambda engine, number: getattr(engine, verb)(number, data, extra),
                file,
                _OUT,
                self.owner.closed_error,
            )
        elif many < 0:
            check(many, self._verb)

    def run(self, data: Any, timeout: Callable[[], float | None], whole: bool) -> int:
        """Send a part, or all of it.

        Args:
            data: a buffer.
            timeout: what each part has, in seconds.
            whole: all of it.

        Returns:
            How many bytes were sent.

        What is raised has `sent`: how many bytes went out before.
        """
        sent: tuple[int, Transfer | None] = (0, None)
        view = memoryview(data).cast("B")

        def body(use: Use) -> int:
            nonlocal sent
            if self.ended:
                raise BrokenPipeError(errno.EPIPE, f"{os.strerror(errno.EPIPE)}: after send_eof()")
            while True:
                transfer = self.call(use, timeout(), self._verb)
                sent = (sent[0], transfer)
                self.push(transfer, view[sent[0] :])
                sent = (sent[0] + transfer.many(), None)
                transfer.give_back()
                if not whole or sent[0] >= len(view):
                    return self.commit(use, Have({}), sent[0])

        def went() -> int:
            return sent[0] + (max(0, sent[1].many()) if sent[1] is not None else 0)

        count = -1
        try:
            try:
                return self.using(body)
            except BaseException as error:
                count = went()
                error.sent = count  # type: ignore[attr-defined]
                raise
        except BaseException as error:
            # No call here, so that no Ctrl-C comes in between; one that came in the handler above gets it.
            if count < 0:
                count = went()
            error.sent = count  # type: ignore[attr-defined]
            raise


def _is_socket(file: File) -> bool:
    if isinstance(file, socket.socket):
        return True
    if not isinstance(file, int) and not hasattr(file, "fileno"):
        raise TypeError(f"a file is an int or an object with fileno(), not {type(file).__name__}")
    return stat.S_ISSOCK(os.fstat(file if isinstance(file, int) else file.fileno()).st_mode)
