"""Memory that the kernel is given: found, checked and pinned.

Each helper returns what has to live until the request's last completion, and its address where the
entry needs it. A pinned buffer is a live buffer export: Python refuses to resize or free it meanwhile.
"""

from __future__ import annotations

import itertools
import math
import operator
import os
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from iocancel import _lifetime
from iocancel._native import ffi, lib

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["MsgHdr", "SockAddr"]

_uintptr = ffi.typeof("uintptr_t")


def _new(kind: str) -> Any:
    """Zeroed memory for a C type, whose fields no type checker knows."""
    return ffi.new(kind)


def address(pin: Any) -> int:
    """The address of pinned memory, for an entry."""
    return int(ffi.cast(_uintptr, pin))


def readable(buf: ReadableBuffer, what: str = "buf") -> Any:
    """Pins memory that the kernel reads."""
    try:
        return ffi.from_buffer("uint8_t[]", buf)
    except (TypeError, ValueError, BufferError) as error:
        raise _bad_buffer(buf, what, "an object with a contiguous buffer", error) from None


def copied(buf: ReadableBuffer, what: str = "buf") -> bytes:
    """The bytes of a buffer, whatever its items are."""
    return bytes(ffi.buffer(readable(buf, what)))


def writable(buf: WriteableBuffer, what: str = "buf") -> Any:
    """Pins memory that the kernel writes to."""
    try:
        return ffi.from_buffer("uint8_t[]", buf, require_writable=True)
    except (TypeError, ValueError, BufferError) as error:
        raise _bad_buffer(buf, what, "an object with a writable, contiguous buffer", error) from None


def _bad_buffer(buf: object, what: str, wanted: str, error: Exception) -> TypeError:
    return TypeError(
        f"{what} takes {wanted} (bytearray, memoryview, mmap ...), not {type(buf).__name__}: {error}"
    )


def at_least(pin: Any, size: int, what: str) -> Any:
    """`pin`, when it is large enough for what the kernel writes there."""
    if len(pin) < size:
        raise ValueError(f"{what} has {len(pin)} bytes, the kernel needs {size}")
    return pin


def path_bytes(path: str | bytes | os.PathLike[str] | os.PathLike[bytes], what: str = "path") -> Any:
    """Pins a path as a C string."""
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise ValueError(f"{what} has a NUL byte in it: {path!r}")
    return ffi.new("char[]", raw)


def file_number(fd: Any, what: str = "fd") -> int:
    """The number of a file: an int, or of an object with a `fileno()`."""
    if type(fd) is int:
        return fd
    if isinstance(fd, float):
        raise TypeError(f"{what} takes an int or an object with fileno(), not float")
    fileno = getattr(fd, "fileno", None)
    try:
        return operator.index(fileno() if fileno is not None else fd)
    except TypeError:
        raise TypeError(f"{what} takes an int or an object with fileno(), not {type(fd).__name__}") from None


def timespec(seconds: float, what: str = "timeout") -> Any:
    """Pins a time in seconds as the kernel's timespec (nanoseconds; a float is rounded up)."""
    if isinstance(seconds, int):
        whole, nanoseconds = seconds, 0
    else:
        if not isinstance(seconds, float):
            raise TypeError(f"{what} takes seconds as float or int, not {type(seconds).__name__}")
        if not math.isfinite(seconds):
            raise ValueError(f"{what} takes a finite number of seconds, not {seconds}")
        whole = math.floor(seconds)
        nanoseconds = math.ceil((seconds - whole) * 1e9)
        if nanoseconds >= 1_000_000_000:
            whole, nanoseconds = whole + 1, 0
    if not 0 <= whole < 1 << 63:
        raise ValueError(f"{what} takes 0 to 2**63 - 1 seconds, not {seconds}")
    return ffi.new("struct ioc_timespec *", (whole, nanoseconds))


def _several(buffers: Sequence[ReadableBuffer], what: str) -> Sequence[ReadableBuffer]:
    if isinstance(buffers, bytes | bytearray | memoryview | str):
        raise TypeError(f"{what} takes a sequence of buffers, not one {type(buffers).__name__}")
    return buffers


# The views that something holds that may become garbage together with them: see `_Held`.
_views: dict[int, memoryview] = {}
_numbers = itertools.count()
# CPython before 3.11.9 and 3.12.3 clears a memoryview that is garbage also while it is exported, and crashes
# when the export ends (gh-77894).
_CLEARED_EARLY = sys.version_info < (3, 11, 9) or (3, 12) <= sys.version_info < (3, 12, 3)


class _Held(int):
    """Keeps a view out of the collector's reach for as long as it lives.

    The collector does not clear what `_views` has. This is no container, so it is not cleared either: it
    goes with the last that refers to it, and what exports the view goes at that moment or later. A cycle
    that goes through the view itself (its exporter refers to the message) is never collected: there is no
    order in which these Pythons could.
    """

    __slots__ = ()

    def __new__(cls, view: memoryview) -> _Held:
        """Hold `view`."""
        held = super().__new__(cls, next(_numbers))
        _views[int(held)] = view
        return held

    def __del__(self, let_go: Any = _views.pop) -> None:
        let_go(int(self), None)  # not by its name, which is gone before the last of these at interpreter exit


def _at_exit() -> None:
    if _views:  # this module's things are garbage, too, in the last collection
        _lifetime.keep_forever(_views)


_lifetime.last_at_exit(_at_exit)


def _lasting(buf: ReadableBuffer, what: str) -> tuple[Any, bool, list[_Held]]:
    """Pins memory for as long as the caller likes: the pin, whether it is read-only, and what else to keep.

    A request's pins are let go of when it ends; these may be garbage, in a cycle, with the caller's view.
    """
    held = [_Held(buf)] if _CLEARED_EARLY and isinstance(buf, memoryview) else []
    try:
        return ffi.from_buffer("uint8_t[]", buf, require_writable=True), False, held
    except (TypeError, ValueError, BufferError):
        return readable(buf, what), True, held


def iovecs(buffers: Sequence[ReadableBuffer], write: bool, what: str = "buffers") -> tuple[Any, list[Any]]:
    """Pins buffers and the array of iovecs that names them; `write`: the kernel writes to them."""
    pins = [(writable if write else readable)(b, what) for b in _several(buffers, what)]
    vector = _vector(pins)
    return vector, [vector, *pins]


def _vector(pins: list[Any]) -> Any:
    vector = ffi.new("struct iovec[]", max(len(pins), 1))
    for entry, pin in zip(vector, pins, strict=False):
        entry.iov_base = pin
        entry.iov_len = len(pin)
    return vector


class SockAddr:
    """A socket address in the kernel's form, for connect, bind, sendto, accept and messages.

    Args:
        family: the address family, as `socket.AF_INET`; None for an empty one that the kernel fills.
        value: the address in Python's form: (host, port) with a numeric host for AF_INET, (host, port,
            flow, scope) for AF_INET6, a path (str or bytes; a leading NUL is Linux's abstract space) for
            AF_UNIX; or raw bytes of a whole `struct sockaddr` for any family.

    Raises:
        ValueError: an address that is not of its family's form.
        TypeError: a value of another type.
    """

    __slots__ = ("_length", "_storage")

    def __init__(self, family: int | None = None, value: Any = None) -> None:
        size = lib.IOC_SIZEOF_SOCKADDR
        self._storage = bytearray(size)
        self._length = ffi.new("unsigned *", size)
        if family is None:
            return
        raw = _encode(int(family), value)
        if len(raw) > size:
            raise ValueError(f"the address has {len(raw)} bytes, a sockaddr at most {size}")
        self._storage[: len(raw)] = raw
        self._length[0] = len(raw)

    @property
    def family(self) -> int:
        """The address family, 0 where none was filled in."""
        return int.from_bytes(self._storage[:2], _ENDIAN)

    @property
    def raw(self) -> bytes:
        """The bytes of the `struct sockaddr`."""
        return bytes(self._storage[: min(self._length[0], len(self._storage))])

    @property
    def value(self) -> Any:
        """The address in Python's form, None where none was filled in, raw bytes for an unknown family."""
        return python_address(self.raw)

    def __repr__(self) -> str:
        return f"SockAddr({self.family}, {self.value!r})"


_ENDIAN = sys.byteorder


def _encode(family: int, value: Any) -> bytes:
    head: bytes = family.to_bytes(2, _ENDIAN)
    if isinstance(value, bytes | bytearray | memoryview) and family != socket.AF_UNIX:
        return bytes(value)
    parts: Any = value
    try:
        if family == socket.AF_INET:
            host, port = parts
            return b"".join((head, port.to_bytes(2, "big"), socket.inet_pton(socket.AF_INET, host), bytes(8)))
        if family == socket.AF_INET6:
            host, port, *rest = parts
            flow, scope = [*rest, 0, 0][:2]
            ends = port.to_bytes(2, "big"), flow.to_bytes(4, "big")
            return b"".join((head, *ends, socket.inet_pton(family, host), scope.to_bytes(4, _ENDIAN)))
        if family == socket.AF_UNIX:
            raw = os.fsencode(value) if not isinstance(value, bytearray | memoryview) else bytes(value)
            if len(raw) > 108 or (len(raw) == 108 and raw[:1] != b"\0"):
                raise ValueError("a path has at most 107 bytes")
            return head + raw + (b"" if raw[:1] == b"\0" else b"\0")
    except (TypeError, ValueError, AttributeError, OverflowError, OSError) as error:
        raise ValueError(f"not an address of family {family}: {value!r} ({error})") from None
    raise ValueError(f"family {family}: give the bytes of the whole struct sockaddr")


def python_address(raw: bytes) -> Any:
    """Python's form of an address, None for none, the raw bytes for an unknown family."""
    if len(raw) < 2:
        return None
    family = int.from_bytes(raw[:2], _ENDIAN)
    if family == socket.AF_INET and len(raw) >= 8:
        return socket.inet_ntop(socket.AF_INET, raw[4:8]), int.from_bytes(raw[2:4], "big")
    if family == socket.AF_INET6 and len(raw) >= 28:
        return (
            socket.inet_ntop(socket.AF_INET6, raw[8:24]),
            int.from_bytes(raw[2:4], "big"),
            int.from_bytes(raw[4:8], "big"),
            int.from_bytes(raw[24:28], _ENDIAN),
        )
    if family == socket.AF_UNIX:
        name = raw[2:]
        return bytes(name) if name[:1] == b"\0" else os.fsdecode(name.split(b"\0", 1)[0])
    return raw if family else None


def socket_address(value: Any, sock: Any) -> SockAddr:
    """A `SockAddr` from what a caller gave: one, raw bytes, or Python's form beside a socket object."""
    if isinstance(value, SockAddr):
        return value
    if (
        isinstance(value, bytes)
        and value[:1] == b"\0" != value[1:2]
        and getattr(sock, "family", None) == socket.AF_UNIX
    ):
        return SockAddr(socket.AF_UNIX, value)  # an abstract address, as `getsockname()` gives it
    if isinstance(value, bytes | bytearray | memoryview):
        if len(value) < 2:
            raise ValueError(f"a raw socket address starts with its family: {bytes(value)!r}")
        made = SockAddr()
        if len(value) > len(made._storage):
            raise ValueError(f"the address has {len(value)} bytes, a sockaddr at most {len(made._storage)}")
        made._storage[: len(value)] = value
        made._length[0] = len(value)
        return made
    family = getattr(sock, "family", None)
    if not isinstance(family, int):
        raise TypeError(
            "addr takes a SockAddr or raw bytes; Python's own form only beside a socket object, "
            f"whose family it needs: got {value!r}"
        )
    return SockAddr(family, value)


def pin_sockaddr(addr: SockAddr, fill: bool = False) -> tuple[Any, Any]:
    """The pinned storage of an address and its length (pinned, too: the kernel writes both).

    `fill`: the kernel is to write an address there; all of the storage is its room, whatever was there.
    """
    if not isinstance(addr, SockAddr):
        raise TypeError(f"addr takes a SockAddr, not {type(addr).__name__}")
    if fill:
        addr._length[0] = len(addr._storage)
    return ffi.from_buffer("uint8_t[]", addr._storage), addr._length


class MsgHdr:
    """A `struct msghdr` for sendmsg and recvmsg, with the memory that it names (recvmsg(2)).

    Args:
        buffers: what is sent, or (writable) where to receive.
        name: the address to send to, or an empty `SockAddr` to be told the sender's.
        control: ancillary data to send (bytes, as CMSG(3) lays it out), or a writable buffer for it.

    One `MsgHdr` belongs to one request at a time.
    """

    __slots__ = ("_c", "_control", "_name", "_pins", "_readonly")

    def __init__(
        self,
        buffers: Sequence[ReadableBuffer],
        *,
        name: SockAddr | None = None,
        control: ReadableBuffer | None = None,
    ) -> None:
        given = [_lasting(b, "buffers") for b in _several(buffers, "buffers")]
        vector = _vector([pin for pin, _, _ in given])
        self._c = _new("struct ioc_msghdr *")
        self._c.msg_iov, self._c.msg_iovlen = vector, len(given)
        self._name = None if name is None else (name, *pin_sockaddr(name))
        self._control = None
        if control is not None:
            given.append(_lasting(control, "control"))
            self._control = given[-1][0]
        self._readonly = any(readonly for _, readonly, _ in given)
        self._pins = [vector, given]
        self._fill(False)

    def _fill(self, write: bool) -> None:
        """Sets what the kernel overwrites when it receives; `write`: it will, all room is its own."""
        if self._name is not None:
            _, storage, length = self._name
            self._c.msg_name = storage
            self._c.msg_namelen = len(storage) if write else min(length[0], len(storage))
        if self._control is not None:
            self._c.msg_control, self._c.msg_controllen = self._control, len(self._control)
        self._c.msg_flags = 0

    def _room(self) -> tuple[int, int]:
        """How many bytes there are for an address, and for ancillary data."""
        return (len(self._name[1]) if self._name else 0), (0 if self._control is None else len(self._control))

    @property
    def flags(self) -> int:
        """What the kernel said of a received message (MSG_TRUNC, MSG_CTRUNC ...)."""
        return int(self._c.msg_flags)

    @property
    def name(self) -> Any:
        """The address in Python's form, or None."""
        if self._name is None:
            return None
        return python_address(bytes(self._name[1])[: self._c.msg_namelen])

    @property
    def controllen(self) -> int:
        """How many bytes of ancillary data the message has."""
        return int(self._c.msg_controllen)


def message(msg: MsgHdr, write: bool) -> tuple[Any, list[Any]]:
    """The struct of a message, ready to be sent, or (`write`) to be received into; and what lives with it."""
    if not isinstance(msg, MsgHdr):
        raise TypeError(f"msg takes a MsgHdr, not {type(msg).__name__}")
    if write and msg._readonly:
        raise TypeError("a message to receive takes writable buffers")
    msg._fill(write)
    return msg._c, [msg._c, msg]
