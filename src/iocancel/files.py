"""File objects and a socket that fit the standard library, with blocking calls that can be ended.

`RawFile` is an `io.RawIOBase`, `BufferedReader` reads from one and never loses a byte, and `Socket` is a
`socket.socket`. What is built on those (`pickle.load`, `http.client`, `io.BufferedWriter` ...) gains
deadlines, scopes and Ctrl-C unchanged: TimeoutError and `Cancelled` go through it.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, Any

from iocancel.operation.core import expiry
from iocancel.reading import Reading, wanted
from iocancel.transfers import Have, Incoming, Outgoing, Owned, Side, Use

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from iocancel.operation.verbs import File

_MODES = {"rb": (True, False), "wb": (False, True), "r+b": (True, True), "rb+": (True, True)}


class RawFile(Reading, io.RawIOBase):
    """An unbuffered file over a number or an object with `fileno()`: a pipe, a tty, a socket, a device.

        with io.BufferedWriter(iocancel.RawFile(fd, "wb", timeout=1)) as out:
            pickle.dump(value, out)

    Args:
        file: the file.
        mode: "rb", "wb" or "r+b".
        timeout: seconds that each call may wait; None for ever. The attribute can be set at any time.
        closefd: whether `close` closes the file.

    Each call ends by its timeout (TimeoutError), by a scope around it (`Cancelled`), by an exception of a
    signal's handler, or when another thread closes it (ValueError). What had come by then is kept, and
    returned first by the next call.

    `io.BufferedReader` around it drops bytes that it has already taken when one of its reads is cut short:
    only its `read1`, `peek` and `readinto1` are safe then. `iocancel.BufferedReader` never does.
    `io.TextIOWrapper` drops the part of a line that it has taken. `io.BufferedWriter` keeps what it could not
    write, but writes a part again if Ctrl-C came just behind the writing of it.
    """

    _size = io.DEFAULT_BUFFER_SIZE

    def __init__(
        self, file: File, mode: str = "rb", *, timeout: float | None = None, closefd: bool = True
    ) -> None:
        super().__init__()
        if mode not in _MODES:
            raise ValueError(f"mode takes {', '.join(_MODES)}, not {mode!r}")
        self.mode = mode
        self._reads, self._writes = _MODES[mode]
        self._timeout: float | None = None
        self.timeout = timeout
        self._file = file
        owned = Owned(type(self).__name__)
        self._incoming = Incoming(owned, file)
        self._outgoing = Outgoing(owned, file)
        if closefd:
            owned.own(file)
        self._owned = owned

    @property
    def timeout(self) -> float | None:
        """Seconds that each call may wait; None for ever."""
        return self._timeout

    @timeout.setter
    def timeout(self, value: float | None) -> None:
        if value is not None:
            expiry(value)  # says what is wrong with it
        self._timeout = value

    @property
    def name(self) -> Any:
        """What it was given, or its number."""
        return self._file if isinstance(self._file, int) else self._incoming.number()

    def readable(self) -> bool:
        """Whether it was opened for reading."""
        self._open()
        return self._reads

    def writable(self) -> bool:
        """Whether it was opened for writing."""
        self._open()
        return self._writes

    def seekable(self) -> bool:
        """Whether it has a position: a disk's file."""
        self._open()
        try:
            os.lseek(self._incoming.number(), 0, os.SEEK_CUR)
        except OSError:
            return False
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move the position (lseek(2)); returns it."""
        incoming = self._incoming

        def body(use: Use) -> int:
            have = incoming.have
            ahead = have.end - have.start if whence == os.SEEK_CUR else 0
            place = os.lseek(incoming.number(), offset - ahead, whence)
            return incoming.commit(use, Have({}), place)

        return incoming.using(body)

    def tell(self) -> int:
        """The position."""
        self._open()
        have = self._incoming.have
        return os.lseek(self._incoming.number(), 0, os.SEEK_CUR) - (have.end - have.start)

    def fileno(self) -> int:
        """The file's number."""
        self._open()
        return self._incoming.number()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self.fileno())

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Wait for bytes, and put those that there are into a buffer.

        Returns:
            How many; 0 at the end.

        Raises:
            TimeoutError, Cancelled, OSError, RuntimeError: see `Stream.receive_some`.
            ValueError: it is closed, or was meanwhile.
        """
        self._can(self._reads, "reading")
        view = memoryview(buffer).cast("B")
        many = len(view)
        if not many:
            return 0
        incoming = self._incoming

        def body(use: Use) -> int:
            have = incoming.have
            if have.start == have.end and not have.ended:
                have = incoming.bring(use, many, self.timeout)
            data, after = incoming.take(have, many)
            view[: len(data)] = data
            return incoming.commit(use, after, len(data))

        return incoming.using(body)

    def readall(self) -> bytes:
        """Read up to the end. Raises: as `readinto`, and then nothing was taken."""
        return self._take(sys.maxsize, whole=True)

    def _begin(self) -> Incoming:
        self._can(self._reads, "reading")
        return self._incoming

    def _patience(self) -> float | None:
        return self.timeout

    def write(self, data: ReadableBuffer, /) -> int:
        """Write what there is room for.

        Returns:
            How many bytes.

        Raises:
            As `readinto`. The exception's `sent` says how many bytes were written all the same.
        """
        self._can(self._writes, "writing")
        return self._outgoing.run(data, lambda: self.timeout, whole=False)

    def close(self) -> None:
        """End the calls that wait in it, which raise ValueError, and close it. From any thread."""
        try:
            super().close()
        finally:
            owned = getattr(self, "_owned", None)  # none where __init__ has raised
            if owned is not None:
                owned.close()

    def __del__(self) -> None:
        owned = getattr(self, "_owned", None)
        if owned is not None:
            owned.forgotten(self)
        self.close()

    def _open(self) -> None:
        if self._owned.closing:
            raise self._owned.closed_error()

    def _can(self, can: bool, what: str) -> None:
        self._open()
        if not can:
            raise io.UnsupportedOperation(f"{self!r} was not opened for {what}")

    def __repr__(self) -> str:
        state = "closed" if self._owned.closing else f"fd={self._incoming.number()}"
        return f"<{type(self).__name__} {state} mode={self.mode!r}>"


class _Foreign(Incoming):
    """What comes from a raw file of another kind."""

    def __init__(self, owner: Owned, raw: io.RawIOBase) -> None:
        self._raw = raw
        Side.__init__(self, owner, -1, "receiving")

    def bring(self, use: Use, room: int, timeout: float | None) -> Have:  # noqa: ARG002
        """See Incoming."""
        result = _Result(bytearray(room))
        self.have = self.have._replace(source=result)
        # One step of C: the number is stored before any signal's exception.
        result.many.extend(map(self._raw.readinto, (result.buffer,)))
        if result.many == [None]:
            raise BlockingIOError(errno.EAGAIN, f"{os.strerror(errno.EAGAIN)}: read")
        return self.settle()


class _Result:
    """A foreign read's."""

    def __init__(self, buffer: bytearray) -> None:
        self.buffer = buffer
        self.many: list[int | None] = []

    def data(self) -> bytes | None:
        """See Transfer."""
        if not self.many or self.many[0] is None:
            return None
        return bytes(self.buffer[: self.many[0]])

    def give_back(self) -> None:
        """See Transfer."""


class BufferedReader(Reading, io.BufferedIOBase):
    """A buffered reader that never loses a byte: its position moves when a call returns, and only then.

        with iocancel.BufferedReader(iocancel.RawFile(fd, timeout=1)) as file:
            line = file.readline()

    After any exception (TimeoutError, `Cancelled`, KeyboardInterrupt ...) the next call finds all the bytes
    again. `io.BufferedReader` drops those that it has already taken when the file's read raises within its
    `read(n)`, `readinto` or `readline`: only its `read1`, `peek` and `readinto1` make one read each and are
    safe. (That is why the standard library's `socket.makefile` refuses to go on after a timeout.)

    Args:
        raw: a `RawFile`; or any `io.RawIOBase`.
        buffer_size: how many bytes at most are asked for at once.

    One thread at a time: a second one that reads meanwhile gets a RuntimeError. Any thread may close it; over
    a `RawFile` that ends a call that waits.

    The library that calls it may keep what it was given until it raises itself: what `pickle.load` had read
    of a value when its writer stalled is gone with it.
    """

    def __init__(self, raw: Any, buffer_size: int = io.DEFAULT_BUFFER_SIZE) -> None:
        super().__init__()
        if buffer_size <= 0:
            raise ValueError("buffer_size takes a number > 0")
        if not raw.readable():
            raise OSError("the raw file is not readable")
        self._raw = raw
        self._size = buffer_size
        # Of a RawFile its own: what is read ahead stays there, also behind `detach`.
        self._incoming = raw._incoming if isinstance(raw, RawFile) else _Foreign(Owned("file"), raw)

    @property
    def raw(self) -> Any:
        """The raw file."""
        if self._raw is None:
            raise ValueError("raw stream has been detached")
        return self._raw

    def detach(self) -> Any:
        """Part from the raw file, and return it. A `RawFile` has what was read ahead; another one has not."""
        raw, self._raw = self.raw, None
        return raw

    # What it reads

    def read(self, size: int | None = -1, /) -> bytes:
        """Read so many bytes, fewer only at the end; None or a negative number: all up to the end.

        Raises: as `RawFile.readinto`, and then nothing was taken.
        """
        return self._take(wanted(size), whole=True)

    def read1(self, size: int = -1, /) -> bytes:
        """Read at most so many bytes, with one read of the file at most, and none where some are there."""
        return self._take(self._size if size < 0 else size, whole=False)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer, or what there is up to the end; returns how many bytes."""
        return self._take_into(buffer, whole=True)

    def readinto1(self, buffer: WriteableBuffer, /) -> int:
        """The same with one read of the file at most."""
        return self._take_into(buffer, whole=False)

    def peek(self, size: int = 0, /) -> bytes:  # noqa: ARG002
        """Look at what is there (not `size`), without taking it; one read of the file where nothing is."""
        incoming = self._begin()

        def body(use: Use) -> bytes:
            have = self._fill(use, 1, whole=False)
            data = bytes(have.kept[have.start : have.end])
            return incoming.commit(use, have._replace(claims={}), data)

        return incoming.using(body)

    # The file

    @property
    def closed(self) -> bool:
        """Whether the raw file is closed."""
        return bool(self.raw.closed)

    def close(self) -> None:
        """Close the raw file."""
        if self._raw is not None:
            self._raw.close()

    def readable(self) -> bool:
        """It is."""
        return bool(self.raw.readable())

    def seekable(self) -> bool:
        """Whether the raw file has a position."""
        return bool(self.raw.seekable())

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move the position, and drop what was read ahead; returns it."""
        if isinstance(self.raw, RawFile):
            return self.raw.seek(offset, whence)
        incoming = self._begin()

        def body(use: Use) -> int:
            have = incoming.have
            ahead = have.end - have.start if whence == os.SEEK_CUR else 0
            place = int(self.raw.seek(offset - ahead, whence))
            return incoming.commit(use, Have({}), place)

        return incoming.using(body)

    def tell(self) -> int:
        """The position."""
        if isinstance(self.raw, RawFile):
            return self.raw.tell()
        have = self._incoming.have
        return int(self.raw.tell()) - (have.end - have.start)

    def fileno(self) -> int:
        """The raw file's number."""
        return int(self.raw.fileno())

    def isatty(self) -> bool:
        """Whether the raw file is a terminal."""
        return bool(self.raw.isatty())

    @property
    def name(self) -> Any:
        """The raw file's."""
        return self.raw.name

    @property
    def mode(self) -> Any:
        """The raw file's."""
        return self.raw.mode

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._raw!r}>"

    # How

    def _begin(self) -> Incoming:
        if self.raw.closed:
            raise ValueError(f"{self!r}: closed")
        return self._incoming

    def _patience(self) -> float | None:
        return self._raw.timeout if isinstance(self._raw, RawFile) else None

    def _take_into(self, buffer: WriteableBuffer, *, whole: bool) -> int:
        incoming = self._begin()
        view = memoryview(buffer).cast("B")
        if not len(view):
            return 0

        def body(use: Use) -> int:
            data, after = incoming.take(self._fill(use, len(view), whole=whole), len(view))
            view[: len(data)] = data
            return incoming.commit(use, after, len(data))

        return incoming.using(body)


__all__ = ["BufferedReader", "RawFile"]
