"""The library's own record of the cancels that it sends, for what no tracepoint of the kernel tells.

Off, it costs nothing: every module that sends cancels has its C call under a global name, and gives that name
to `join` at its end. `record_to` puts a function of its own in its place, which writes down what the call is
about to send, and makes it; and takes it out again.

One line of JSON for each cancel, one write(2) (of a file opened with O_APPEND) for each call: so lines of
several threads and processes do not mix in a file. Nothing is locked: this runs in signal handlers. The line
is there before the kernel has the request; it says what was asked, never what became of it.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

_ENTRY = struct.Struct("=BBHiQQIIQHHIQQ")  # struct io_uring_sqe
_SIZE = 64
Line = tuple[int | None, str, int | None, int | None, int | None, int]
"""(the cancel's own user_data, the key's kind, the key, fd, opcode, flags)"""


class Point(NamedTuple):
    """A C call that sends cancels."""

    namespace: dict[str, Any]
    name: str
    call: Any
    wrap: Callable[[Recorder, Any], Any]


_points: list[Point] = []
_recorder: Recorder | None = None
_switching = threading.Lock()


def join(namespace: dict[str, Any], **names: str) -> None:
    """Say where a module has calls that send cancels.

    Args:
        namespace: the module's globals.
        names: the globals, and for each one which call it is: a method's name of `Recorder`.
    """
    with _switching:
        for name, kind in names.items():
            point = Point(namespace, name, namespace[name], getattr(Recorder, kind))
            _points.append(point)
            namespace[name] = point.call if _recorder is None else point.wrap(_recorder, point.call)


def record_to(path: str | bytes | os.PathLike[str] | None) -> None:
    """Have each cancel request that this library sends appended to a file, as a line of JSON.

    The environment's IOCANCEL_RECORD does the same for a whole program. docs/trace.md has the fields. A
    forked child goes on recording to the same file. When the file can't be written to any more (a full disk)
    that is told once, by sys.unraisablehook, and recording ends; cancels are sent all the same.

    Args:
        path: the file; it is made where it is not there. None ends the recording.

    Raises:
        OSError: the file can't be opened; nothing has changed then.
    """
    global _recorder
    recorder = None if path is None else Recorder(path)
    with _switching:
        _recorder = recorder
        for namespace, name, call, wrap in _points:
            namespace[name] = call if recorder is None else wrap(recorder, call)


class Recorder:
    """A file, and what stands before the calls."""

    def __init__(self, path: str | bytes | os.PathLike[str]) -> None:
        from iocancel._native import ffi, lib  # not before: what imports this is what it is imported by

        # Closed when no call uses it any more: a number that was closed may be another file's.
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._full = False
        self._ffi = ffi
        self._cancel, self._poll, self._timeout = (
            lib.IORING_OP_ASYNC_CANCEL,
            lib.IORING_OP_POLL_REMOVE,
            lib.IORING_OP_TIMEOUT_REMOVE,
        )
        self._wanted = bytes([self._cancel, self._poll, self._timeout])
        self._updates = lib.IORING_TIMEOUT_UPDATE | lib.IORING_LINK_TIMEOUT_UPDATE
        names = ("ALL", "FD", "ANY", "FD_FIXED", "USERDATA", "OP")
        self._flags = {name: getattr(lib, f"IORING_ASYNC_CANCEL_{name}") for name in names}
        self._told: dict[int, list[bytes]] = {}  # ring -> entries that the queue had no room for

    def __del__(self) -> None:
        fd = getattr(self, "_fd", -1)
        if fd >= 0:
            os.close(fd)

    # Writing

    def _write(
        self,
        system: str,
        mechanism: str,
        lines: Iterable[Line],
        *,
        ring: int | None = None,
        context: int | None = None,
    ) -> None:
        if self._full:
            return
        common: Mapping[str, object] = {
            "time": time.monotonic_ns(),
            "pid": os.getpid(),
            "tid": threading.get_native_id(),
            "system": system,
            "mechanism": mechanism,
            "ring": ring,
            "context": context,
        }
        head = json.dumps(common)[:-1]
        text = []
        for user_data, kind, key, fd, opcode, flags in lines:
            named = [name for name, bit in self._flags.items() if flags & bit] if flags else []
            rest = json.dumps(
                {
                    "user_data": user_data,
                    "key_kind": kind,
                    "key": key,
                    "fd": fd,
                    "opcode": opcode,
                    "flags": named,
                }
            )
            text.append(f"{head}, {rest[1:]}\n")
        left = memoryview("".join(text).encode())
        try:
            while True:
                if not left:
                    break
                left = left[os.write(self._fd, left) :]
        except OSError as error:
            self._full = True
            hook: Any = sys.unraisablehook
            hook(_Unraisable(error))

    def _key(self, flags: int, user_data: int, fd: int, opcode: int) -> tuple[str, int | None, Any, Any, int]:
        """What an ASYNC_CANCEL goes by: kind, key, fd, opcode, flags."""
        bits = self._flags
        if flags & bits["ANY"]:
            return "any", None, None, None, flags
        kinds: list[str] = []
        key = 0
        if flags & bits["OP"]:
            kinds, key = ["opcode"], opcode
        if flags & bits["FD"]:
            kinds, key = ["fd", *kinds], fd
        if flags & bits["USERDATA"] or not kinds:
            kinds, key = ["user_data", *kinds], user_data
        return (
            "+".join(kinds),
            key,
            fd if "fd" in kinds else None,
            opcode if "opcode" in kinds else None,
            flags,
        )

    def _line(self, raw: bytes) -> tuple[str, Line] | None:
        """An entry's mechanism and line; None for one that cancels nothing."""
        opcode, _, _, fd, _, addr, length, flags, user_data, *_ = _ENTRY.unpack(raw)
        if opcode == self._cancel:
            return "async_cancel", (user_data, *self._key(flags, addr, fd, length))
        if opcode == self._poll and not length:  # else it changes one
            return "poll_remove", (user_data, "user_data", addr, None, None, 0)
        if opcode == self._timeout and not flags & self._updates:
            return "timeout_remove", (user_data, "user_data", addr, None, None, 0)
        return None

    def _entries(self, ring: int, entries: list[bytes]) -> None:
        """Write down which of these cancel: one write for each run of one kind."""
        runs: list[tuple[str, list[Line]]] = []
        for raw in entries:
            found = self._line(raw)
            if found is None:
                continue
            if not runs or runs[-1][0] != found[0]:
                runs.append((found[0], []))
            runs[-1][1].append(found[1])
        for mechanism, lines in runs:
            self._write("uring", mechanism, lines, ring=ring)

    # The calls

    def enter(self, call: Any) -> Any:
        """ioc_enter: entries go in, among others such as cancel."""
        wanted = self._wanted

        def enter(handle: Any, raw: Any, count: int, wait: int, limit: int, out: Any, moved: Any) -> int:
            if not isinstance(raw, bytes) or not any(each in wanted for each in raw[::_SIZE]):
                return int(call(handle, raw, count, wait, limit, out, moved))
            ring = handle.fd
            entries = [raw[at : at + _SIZE] for at in range(0, count * _SIZE, _SIZE)]
            before = self._told.pop(ring, [])
            fresh = []
            for each in entries:
                if each in before:  # it is given once more, since there was no room
                    before.remove(each)
                else:
                    fresh.append(each)
            self._entries(ring, fresh)
            try:
                return int(call(handle, raw, count, wait, limit, out, moved))
            finally:
                done = moved[0] if moved else count
                if done < count:
                    self._told[ring] = entries[done:]

        return enter

    def push_many(self, call: Any) -> Any:
        """ioc_push_many: into the queue; the next enter sends them."""

        def push_many(handle: Any, entry: bytes, count: int, names: Any, addrs: Any, fds: Any) -> int:
            res = int(call(handle, entry, count, names, addrs, fds))
            found = self._line(entry) if res >= 0 else None
            if found is not None:
                mechanism, (name, kind, key, fd, opcode, flags) = found
                lines = (
                    (names[i] if names else name, kind, addrs[i] if addrs else key, fd, opcode, flags)
                    for i in range(count)
                )
                self._write("uring", mechanism, lines, ring=handle.fd)
            return res

        return push_many

    def cancel_many(self, call: Any) -> Any:
        """ioc_cancel_many: those of an engine."""

        def cancel_many(
            handle: Any, tokens: Any, many: int, answer: int, silent: int, out: Any, sent: Any
        ) -> int:
            lines = [(each | answer, "user_data", each, None, None, 0) for each in tokens]
            self._write("uring", "async_cancel", lines, ring=handle.fd)
            return int(call(handle, tokens, many, answer, silent, out, sent))

        return cancel_many

    def cancel_one(self, call: Any) -> Any:
        """ioc_cancel_one: one by user_data."""

        def cancel_one(handle: Any, target: int, user_data: int, how: int, seen: int) -> int:
            line = (user_data, *self._key(how >> 16, target, -1, 0))
            self._write("uring", "async_cancel", [line], ring=handle.fd)
            return int(call(handle, target, user_data, how, seen))

        return cancel_one

    def sync_cancel(self, call: Any) -> Any:
        """ioc_sync_cancel: it has no user_data of its own."""

        def sync_cancel(
            handle: Any, user_data: int, fd: int, flags: int, opcode: int, seconds: int, nanoseconds: int
        ) -> int:
            line = (None, *self._key(flags, user_data, fd, opcode))
            self._write("uring", "sync_cancel", [line], ring=handle.fd)
            return int(call(handle, user_data, fd, flags, opcode, seconds, nanoseconds))

        return sync_cancel

    def io_cancel(self, call: Any) -> Any:
        """ioc_laio_cancel: one request of Linux AIO's."""

        def io_cancel(c: Any, iocb: Any, out: Any) -> int:
            self._iocbs(c, [iocb])
            return int(call(c, iocb, out))

        return io_cancel

    def io_cancel_many(self, call: Any) -> Any:
        """ioc_laio_cancel_many, ioc_laio_cancel_each: some."""

        def io_cancel_many(c: Any, iocbs: list[Any], many: int, out: Any) -> Any:
            if many:
                self._iocbs(c, iocbs)
            return call(c, iocbs, many, out)

        return io_cancel_many

    def _iocbs(self, c: Any, iocbs: list[Any]) -> None:
        number = self._address
        lines = [(None, "iocb", number(each), None, None, 0) for each in iocbs]
        self._write("libaio", "io_cancel", lines, context=number(c.id))

    def aio_cancel(self, call: Any) -> Any:
        """ioc_aio_cancel: the C library's."""

        def aio_cancel(fd: int, c: Any) -> int:
            line = (None, "aiocb", self._address(c), fd, None, 0) if c else (None, "fd", fd, fd, None, 0)
            self._write("posix_aio", "aio_cancel", [line])
            return int(call(fd, c))

        return aio_cancel

    def _address(self, pointer: Any) -> int:
        return int(self._ffi.cast("uintptr_t", pointer))


class _Unraisable:
    """What `sys.unraisablehook` takes."""

    def __init__(self, error: OSError) -> None:
        self.exc_type, self.exc_value, self.exc_traceback = type(error), error, error.__traceback__
        self.err_msg, self.object = "The record of cancels ends here", record_to


def _in_child() -> None:
    global _switching
    _switching = threading.Lock()  # a thread that is not here may hold the old one


os.register_at_fork(after_in_child=_in_child)


def _from_environment() -> None:
    path = os.environ.get("IOCANCEL_RECORD")
    if path:
        try:
            record_to(path)
        except OSError as error:  # a program does not fail because nobody looks on
            warnings.warn(f"IOCANCEL_RECORD: no record is made: {error}", RuntimeWarning, stacklevel=2)


_from_environment()
__all__ = ["record_to"]
