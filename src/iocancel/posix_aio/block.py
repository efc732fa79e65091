"""The control block: `Aiocb`."""

import errno
import os
from collections.abc import Callable
from typing import Any

from iocancel._native import ffi, lib
from iocancel.posix_aio.flags import LioOpcode
from iocancel.posix_aio.ledger import Request, Startable
from iocancel.posix_aio.notify import HasFileno, SigEvent, number

__all__ = ["Aiocb", "current", "prepare"]

_MAX = {"offset": 2**63 - 1, "nbytes": 2**63 - 1, "reqprio": 2**31 - 1}
_NONE = SigEvent.none()


def _integer(name: str, value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"Aiocb: {name} must be an int, not {type(value).__name__}")
    low = -_MAX[name] - 1 if name == "reqprio" else 0
    if not low <= value <= _MAX[name]:
        raise ValueError(f"Aiocb: {name}={value} is out of range ({low} to {_MAX[name]})")
    return int(value)


def _fildes(_name: str, value: object) -> object:
    number(value, "Aiocb")
    return value


def _nbytes(name: str, value: object) -> int | None:
    return None if value is None else _integer(name, value)


def _sigevent(_name: str, value: object) -> SigEvent:
    if value is None:
        return _NONE
    if not isinstance(value, SigEvent):
        raise TypeError(f"Aiocb: sigevent must be a SigEvent or None, not {type(value).__name__}")
    return value


def _opcode(_name: str, value: object) -> LioOpcode | None:
    if value is not None and not isinstance(value, LioOpcode):
        raise TypeError(f"Aiocb: lio_opcode must be a LioOpcode or None, not {value!r}")
    return value


_CHECKS: dict[str, Callable[[str, object], object]] = {
    "fildes": _fildes,
    "buf": lambda _name, value: value,
    "offset": _integer,
    "nbytes": _nbytes,
    "reqprio": _integer,
    "sigevent": _sigevent,
    "lio_opcode": _opcode,
}


class Aiocb(Startable):
    """An asynchronous I/O control block: what to read or write, where, and how its end is told.

    It can be started again once its operation has ended. While that is in progress nothing of it can be
    set; it, its buffer (which can't be resized) and its file object are kept alive, also when nobody
    else refers to them: an Aiocb that is collected meanwhile is a `ResourceWarning`, and its memory is
    freed some time after the operation's end.

    Args:
        fildes: a descriptor's number, or an object with `fileno()`, which is kept open by being kept
            alive. It is asked for its number at each start.
        buf: an object with a contiguous buffer: what is written, or a writable one to read into. None
            for `aio_fsync`.
        offset: where in the file, in bytes. Pipes and sockets have no such place, and files opened with
            O_APPEND are written at their end.
        nbytes: how many bytes, at most the buffer's length, which is the default.
        reqprio: by how much the priority of this one is lower than the caller's; 0 to 20
            (AIO_PRIO_DELTA_MAX) on glibc, otherwise the start fails with EINVAL. musl ignores it.
        sigevent: how the end is told; nothing is by default.
        lio_opcode: what `lio_listio` does with it; the other calls don't look at it.

    Attributes:
        fildes, buf, offset, nbytes, reqprio, sigevent, lio_opcode: the arguments; they can be set while
            nothing is in progress.

    Raises:
        TypeError: something of a wrong type.
        ValueError: a number out of range.
        RuntimeError: on setting an attribute of one that is in progress.

    POSIX, glibc 2.1, musl 1.1.9; man page: aio(7).
    """

    __slots__ = ("buf", "fildes", "lio_opcode", "nbytes", "offset", "reqprio", "sigevent")
    fildes: int | HasFileno
    buf: Any
    offset: int
    nbytes: int | None
    reqprio: int
    sigevent: SigEvent
    lio_opcode: LioOpcode | None

    def __init__(
        self,
        fildes: int | HasFileno,
        buf: Any = None,
        offset: int = 0,
        *,
        nbytes: int | None = None,
        reqprio: int = 0,
        sigevent: SigEvent | None = None,
        lio_opcode: LioOpcode | None = None,
    ) -> None:
        self._request = Request()
        self.fildes, self.buf, self.offset, self.nbytes = fildes, buf, offset, nbytes
        self.reqprio, self.lio_opcode = reqprio, lio_opcode
        self.sigevent = _NONE if sigevent is None else sigevent

    def __setattr__(self, name: str, value: object) -> None:
        check = _CHECKS.get(name)
        if check is not None:
            request = self._request
            if request.running():
                raise RuntimeError(
                    f"Aiocb.{name}: this control block is in progress ({request.what}): "
                    "wait until aio_error() is not EINPROGRESS"
                )
            value = check(name, value)
        object.__setattr__(self, name, value)

    def __reduce__(self) -> str:
        raise TypeError("an Aiocb can't be copied or pickled: the C library knows it by its address")

    def __repr__(self) -> str:
        error = self._request.error()
        state = {0: "done", lib.IOC_AIO_NEVER: "not started", lib.IOC_AIO_FORKED: "another process's"}
        return f"<Aiocb of {self.fildes!r}: {state.get(error) or errno.errorcode.get(error, error)}>"


def current(aiocb: object, call: str) -> Request:
    """The last start of `aiocb`.

    Args:
        aiocb: what the caller gave for one.
        call: for messages.
    """
    if not isinstance(aiocb, Aiocb):
        raise TypeError(f"{call}: an Aiocb is needed, not {type(aiocb).__name__}")
    return aiocb._request


def _export(aiocb: Aiocb, asked: str, writable: bool) -> tuple[Any, int]:
    """The buffer's export and the number of bytes to move."""
    if aiocb.buf is None:
        raise ValueError(f"{asked}: this control block has no buffer: give it buf=")
    try:
        export = (
            ffi.from_buffer("char[]", aiocb.buf, require_writable=True)
            if writable
            else ffi.from_buffer("char[]", aiocb.buf)
        )
    except (TypeError, BufferError) as error:
        wanted = "writable, contiguous buffer (a bytearray, an mmap ...)" if writable else "contiguous buffer"
        given = type(aiocb.buf).__name__
        raise TypeError(f"{asked}: a {wanted} is needed, not this {given}: {error}") from None
    nbytes = len(export) if aiocb.nbytes is None else aiocb.nbytes
    if nbytes > len(export):
        length = len(export)
        ffi.release(export)
        raise ValueError(f"{asked}: nbytes is {nbytes}, but the buffer has {length} bytes")
    return export, nbytes


def prepare(aiocb: Aiocb, call: str, opcode: int, keeps: object = None) -> Request:
    """A request to start `aiocb` with, its arguments frozen and its buffer exported.

    Args:
        aiocb: the block.
        call: the call that will start it.
        opcode: LIO_READ, LIO_WRITE, or LIO_NOP for what moves no bytes.
        keeps: what else must live as long as the operation.
    """
    fd = number(aiocb.fildes, call)
    export, nbytes, what = None, 0, f"{call}(fd {fd})"
    if opcode != lib.LIO_NOP:
        export, nbytes = _export(aiocb, what, opcode == lib.LIO_READ)
        what = f"{call}(fd {fd}, {nbytes} bytes at {aiocb.offset})"
    c = ffi.new("struct ioc_aio *")
    request = Request(what, fd, c, export, (aiocb.buf, aiocb.fildes, aiocb.sigevent, keeps))
    address, sigevent = ffi.NULL if export is None else export, aiocb.sigevent._c
    result = lib.ioc_aio_fill(c, fd, address, nbytes, aiocb.offset, aiocb.reqprio, opcode, sigevent)
    if result:  # pragma: no cover - only where off_t has 32 bits
        raise OSError(-result, f"{os.strerror(-result)}: {what}")
    return request
