"""What the running kernel can do, found out by doing it.

A kernel's version says little (distributions carry parts of newer ones), and a flag that is taken may
still not work: Debian's 6.1 takes USERDATA and OP beside FD and then cancels by the fd alone, which is
the wrong request. So the cancel flags are tried on live requests, once a process.
"""

from __future__ import annotations

import errno
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from iocancel import _record, errors
from iocancel._native import ffi, lib
from iocancel.uring.flags import CancelFlags
from iocancel.uring.opcodes import SINCE, Opcode

_ENTRY = struct.Struct("=BBHiQQIIQHHIQQ")
_CQE = struct.Struct("=QiI")
_ALL, _FD, _ANY = lib.IORING_ASYNC_CANCEL_ALL, lib.IORING_ASYNC_CANCEL_FD, lib.IORING_ASYNC_CANCEL_ANY
_FD_FIXED, _USERDATA = lib.IORING_ASYNC_CANCEL_FD_FIXED, lib.IORING_ASYNC_CANCEL_USERDATA
_OP = lib.IORING_ASYNC_CANCEL_OP
_POLLIN = 1
_CANCEL = 99  # the cancel's own user_data; the polls have 1 and 2

_found: dict[str, int] = {}
_enter, _sync_cancel = lib.ioc_enter, lib.ioc_sync_cancel


class Probe:
    """Which kinds of request the kernel has (io_uring_register(2), IORING_REGISTER_PROBE; Linux 5.6).

    Attributes:
        opcodes (frozenset[int]): the numbers of all kinds that it has, also such as `Opcode` does not know.
    """

    def __init__(self, opcodes: frozenset[int]) -> None:
        self.opcodes = opcodes

    def supports(self, opcode: int) -> bool:
        """Whether this kernel has the kind of request `opcode`."""
        return int(opcode) in self.opcodes

    def __repr__(self) -> str:
        lacking = [op.name for op in Opcode if op not in self.opcodes]
        without = " ".join(lacking) or "none"
        return f"<Probe of {platform.release()}: {len(self.opcodes)} kinds of request, without {without}>"


def read_probe(handle: Any) -> Probe:
    """Asks the kernel through the ring behind `handle`."""
    supported = ffi.new("uint8_t[]", 256)
    errors.check(
        lib.ioc_probe(handle, supported, 256),
        "io_uring_register_probe",
        feature="IORING_REGISTER_PROBE",
        since="5.6",
    )
    return Probe(frozenset(i for i in range(256) if supported[i]))


def lacking_feature(opcode: int, probe: Probe, feature: str, since: str) -> tuple[str, str]:
    """What a request that was refused with EINVAL needed and this kernel lacks, or ("", "")."""
    if not probe.supports(opcode):
        name = next((op.name for op in Opcode if op == opcode), str(opcode))
        return f"IORING_OP_{name}", SINCE.get(name, "")
    if feature and since and _version(platform.release()) < _version(since):
        return feature, since
    return "", ""


def setup_works(flags: int) -> bool:
    """Whether a ring can be set up with these flags."""
    handle = lib.ioc_ring_new()
    try:
        res = lib.ioc_ring_setup(handle, 8, flags, 0, 0, -1)
        if not res:
            lib.ioc_ring_exit(handle)
        return bool(res != -errno.EINVAL)
    finally:
        lib.ioc_ring_free(handle)


def _version(text: str) -> tuple[int, int]:
    major, minor, *_ = (*text.split(".", 2), "0")
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)


@contextmanager
def _small_ring() -> Iterator[Any]:
    handle = lib.ioc_ring_new()
    try:
        errors.check(lib.ioc_ring_setup(handle, 8, 0, 0, 0, -1), "io_uring_queue_init")
        try:
            yield handle
        finally:
            lib.ioc_ring_exit(handle)
    finally:
        lib.ioc_ring_free(handle)


def _cancel_among_two(
    handle: Any, fds: tuple[int, int], flags: int, fd: int, key: int, op: int
) -> tuple[int, set[int]]:
    """Polls 1 and 2, on one fd each, and one cancel: its result, and which polls it hit."""

    def cancel(name: int, fd: int, key: int, op: int, flags: int) -> bytes:
        return _ENTRY.pack(lib.IORING_OP_ASYNC_CANCEL, 0, 0, fd, 0, key, op, flags, name, 0, 0, 0, 0, 0)

    polls = [
        _ENTRY.pack(lib.IORING_OP_POLL_ADD, 0, 0, fds[i], 0, 0, 0, _POLLIN, i + 1, 0, 0, 0, 0, 0)
        for i in range(2)
    ]
    records, other = ffi.new("struct ioc_cqe[]", 8), ffi.new("unsigned[]", 8)
    out = ffi.new("struct ioc_out *", (0, 8, 0, 2, other, records))
    tried = b"".join([*polls, cancel(_CANCEL, fd, key, op, flags)])
    # Then each poll by its user_data, which every kernel can: -ENOENT says that the first cancel hit it.
    left = b"".join(cancel(_CANCEL + i, -1, i, 0, 0) for i in (1, 2))
    errors.check(_enter(handle, tried, 3, 0, -1, ffi.NULL, ffi.NULL), "io_uring_enter")
    errors.check(_enter(handle, left, 2, 5, -1, out, ffi.NULL), "io_uring_enter")
    while out.n < 5:
        res = _enter(handle, ffi.NULL, 0, 5 - out.n, -1, out, ffi.NULL)
        if res != -errno.EINTR:
            errors.check(res, "io_uring_enter")
    results = {user_data: res for user_data, res, _ in _CQE.iter_unpack(ffi.buffer(records, 5 * _CQE.size))}
    return results[_CANCEL], {i for i in (1, 2) if results[_CANCEL + i] == -errno.ENOENT}


def cancel_flags() -> CancelFlags:
    """The cancel flags that work here: taken by the kernel, and acted on as they should be.

    Found out once a process, by cancelling one of two live polls with each.

    Raises:
        EngineUnavailable: no ring can be had.
    """
    if "flags" not in _found:
        _found["flags"] = _try_flags()
    return CancelFlags(_found["flags"])


def _try_flags() -> int:
    works = 0
    first, second = os.eventfd(0), os.eventfd(0)
    fds = (first, second)
    # flag, then a cancel that must hit exactly these polls: flags, fd, user_data, opcode -> hit
    tries: list[tuple[int, list[tuple[int, int, int, int, set[int]]]]] = [
        (_ALL, [(_ALL, -1, 2, 0, {2})]),
        (_FD, [(_FD, second, 0, 0, {2})]),
        (_ANY, [(_ANY | _ALL, -1, 0, 0, {1, 2})]),
        (
            _USERDATA,
            [
                (_USERDATA, -1, 2, 0, {2}),
                (_USERDATA | _FD, first, 2, 0, set()),
                (_USERDATA | _FD, second, 2, 0, {2}),
            ],
        ),
        (
            _OP,
            [
                (_OP | _ALL, -1, 0, lib.IORING_OP_POLL_ADD, {1, 2}),
                (_OP | _FD, first, 0, lib.IORING_OP_READ, set()),
                (_OP | _FD, second, 0, lib.IORING_OP_POLL_ADD, {2}),
            ],
        ),
    ]
    try:
        with _small_ring() as handle:
            for flag, cases in tries:
                if all(
                    _cancel_among_two(handle, fds, f, fd, key, op)[1] == hit for f, fd, key, op, hit in cases
                ):
                    works |= flag
            files = ffi.new("int[]", [first, second])
            registered = works & _FD and not lib.ioc_register(handle, lib.IORING_REGISTER_FILES, files, 2)
            if registered and _cancel_among_two(handle, fds, _FD | _FD_FIXED, 1, 0, 0)[1] == {2}:
                works |= _FD_FIXED
    finally:
        os.close(first)
        os.close(second)
    return works


def sync_cancel_works() -> bool:
    """Whether the kernel has synchronous cancels (Linux 6.0): asked of an empty ring, once a process."""
    if "sync" not in _found:
        with _small_ring() as handle:
            _found["sync"] = _sync_cancel(handle, 1, -1, 0, 0, -1, -1) == -errno.ENOENT
    return bool(_found["sync"])


def sync_opcode_works() -> bool:
    """Whether a synchronous cancel can go by opcode (Linux 6.6; 6.1 refuses it)."""
    if "sync_op" not in _found:
        with _small_ring() as handle:
            res = _sync_cancel(handle, 0, -1, _OP, lib.IORING_OP_POLL_ADD, -1, -1)
        _found["sync_op"] = res == -errno.ENOENT and bool(cancel_flags() & CancelFlags.OP)
    return bool(_found["sync_op"])


def require_cancel_flags(flags: int) -> None:
    """Refuses OP, and USERDATA beside others, where the kernel would cancel the wrong request.

    The other flags are the kernel's to refuse: those that lack them answer -EINVAL and touch nothing.

    Raises:
        FeatureUnavailable: this kernel does not act on the flag.
    """
    if flags & _OP or (flags & _USERDATA and flags & _FD):
        lacking = flags & (_OP | _USERDATA) & ~cancel_flags()
        if lacking:
            names = " | ".join(f"IORING_ASYNC_CANCEL_{flag.name}" for flag in CancelFlags if flag & lacking)
            raise errors.feature_unavailable(names, "6.6", "io_uring_prep_cancel")


_record.join(globals(), _enter="enter", _sync_cancel="sync_cancel")
