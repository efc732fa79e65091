"""What is ready is tried first, by one call of C that never waits, whose result no exception can hide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iocancel.engines import ready
from iocancel.engines.ready import Attempt
from iocancel.operation.values import number_of, sensible

if TYPE_CHECKING:
    from iocancel.scope import Here

_from_buffer, _release, _BYTES = ready.from_buffer, ready.release, ready.BYTES


def attempt(here: Here) -> Attempt:
    """Where C leaves its result. A signal's handler that makes a call meanwhile takes another one."""
    now: Attempt = here.attempt or Attempt()
    here.attempt = None
    now.calls += 1
    return now


def to_buffer(now: Attempt, call: Any, number: int, buffer: Any, extra: int) -> int:
    """Try to read into the caller's buffer; NOT_READY, another negated errno, or how many bytes."""
    return _tried(now, call, number, _from_buffer(_BYTES, buffer, True), extra)


def of_buffer(now: Attempt, call: Any, number: int, data: Any, extra: int) -> int:
    """Try to write what is in the caller's buffer."""
    return _tried(now, call, number, _from_buffer(_BYTES, data), extra)


def _tried(now: Attempt, call: Any, number: int, pin: Any, extra: int) -> int:
    try:
        many: int = call(now.told, number, pin, len(pin), extra)
        return many
    finally:
        # Not left to the collector: a memoryview in a cycle with its own export crashes CPython, and an
        # exception's frames are such cycles easily.
        _release(pin)


def bring(
    error: BaseException,
    now: Attempt,
    name: str,
    number: int,
    many: int | None = None,
    data: bytes | None = None,
    as_bytes: bool = False,
) -> None:
    """Put on an exception what an attempt had brought when it came.

    Args:
        error: the exception.
        now: the attempt.
        name, number: the verb's, and the file's.
        many: what C has returned, as far as that is known.
        data: the bytes, as far as they were taken out of the attempt.
        as_bytes: the verb's value are bytes, and not their number.
    """
    came = now.came() if many is None else many
    if came < 0:
        return
    value = None if not as_bytes else now.data[:came] if data is None else data
    error.operation = ready.taken(name, number, came, value)  # type: ignore[attr-defined]


__all__ = ["attempt", "bring", "number_of", "of_buffer", "sensible", "to_buffer"]
