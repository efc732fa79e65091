"""Memory and files that the kernel is given: found, checked, and pinned by a live buffer export.

Python refuses to resize or to free a buffer for as long as its pin lives.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from iocancel._native import ffi
from iocancel.libaio.flags import whole

_INT_MIN, _INT_MAX = -(1 << 31), (1 << 31) - 1


def file_number(fd: object, what: str) -> int:
    """The number of a file: an int, or of an object with a `fileno()`.

    Raises:
        TypeError: for anything else.
        ValueError: for a number that no C int holds; what an object's `fileno()` raises when it is closed.
    """
    if isinstance(fd, float):
        raise TypeError(f"{what} takes an int or an object with fileno(), not float")
    fileno = getattr(fd, "fileno", None)
    try:
        return whole(fd if fileno is None else fileno(), what, _INT_MIN, _INT_MAX)
    except TypeError:
        raise TypeError(f"{what} takes an int or an object with fileno(), not {type(fd).__name__}") from None


def pieces(buffers: Iterable[Any]) -> tuple[Any, ...]:
    """The buffers of a vector.

    Raises:
        TypeError: for a single buffer, and for what can't be iterated.
    """
    try:
        if not isinstance(buffers, str | bytes | bytearray | memoryview):
            return tuple(buffers)
    except TypeError:
        pass
    raise TypeError(f"buffers takes several buffers, as a list, not {type(buffers).__name__}")


def pin(buffers: tuple[Any, ...], writable: bool, vector: bool) -> tuple[int, int, Any]:
    """The address and the length that the kernel is given, and what must live until the event.

    Args:
        buffers: one buffer; several of them with `vector`, as iovecs.
        writable: the kernel writes to them.
        vector: whether there is a vector.

    Raises:
        TypeError: for what is not contiguous memory, or must be writable and is not.
    """
    pins = [_export(buffer, writable) for buffer in buffers]
    if not vector:
        return _address(pins[0]), len(pins[0]), pins
    # An iovec is an address and a length, both of the size of a pointer.
    vectors = ffi.new("uintptr_t[]", [number for pin in pins for number in (_address(pin), len(pin))])
    return _address(vectors), len(pins), (pins, vectors)


def _export(buffer: Any, writable: bool) -> Any:
    try:
        if writable:
            return ffi.from_buffer("char[]", buffer, require_writable=True)
        return ffi.from_buffer("char[]", buffer)
    except (TypeError, ValueError, BufferError) as error:
        kind = "writable, contiguous" if writable else "contiguous"
        wanted = f"buffer takes an object with {kind} memory (bytearray, memoryview, mmap ...)"
        raise TypeError(f"{wanted}, not {type(buffer).__name__}: {error}") from None


def _address(pin: Any) -> int:
    return int(ffi.cast("uintptr_t", pin))
