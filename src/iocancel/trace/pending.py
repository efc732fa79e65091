"""What a joiner keeps: requests in flight, cancels that are not complete, and the rings that they are on."""

from __future__ import annotations

import errno
from typing import Any

from iocancel.trace.events import IO_CANCEL, LINK_TIMEOUT, POLL_REMOVE, TIMEOUT_REMOVE, Target
from iocancel.uring.opcodes import Opcode

# What these can end, and nothing else.
_ONLY = {TIMEOUT_REMOVE: int(Opcode.TIMEOUT), POLL_REMOVE: int(Opcode.POLL_ADD)}
_ETIME = -errno.ETIME
_RUNNING = frozenset([-errno.EALREADY, -errno.EBUSY, -errno.ETIME])  # found; ETIME: a synchronous one's bound
_VERDICTS = {-errno.ENOENT: "not found", -errno.ECANCELED: "not run", **dict.fromkeys(_RUNNING, "too late")}
# EINPROGRESS is io_cancel's success since 3.10.
_AIO_VERDICTS: dict[int | None, str] = {
    -errno.EINPROGRESS: "cancelled",
    0: "cancelled",
    -errno.EINVAL: "not found",
    -errno.EAGAIN: "too late",
}
# Flags of a request that changes another one: TIMEOUT_UPDATE and LINK_TIMEOUT_UPDATE; any of a poll's.
_UPDATES = {TIMEOUT_REMOVE: 1 << 1 | 1 << 4, POLL_REMOVE: -1}


class Request:
    """One of io_uring's, in flight."""

    __slots__ = (
        "by",
        "flags",
        "head",
        "nobodys",
        "older",
        "opcode",
        "own",
        "tid",
        "time",
        "timeout",
        "user_data",
    )

    def __init__(self, time: int, tid: int, opcode: int, user_data: int, flags: int = 0) -> None:
        self.time = time
        self.flags = flags
        self.head: Request | None = None  # of the chain that it is in, behind that
        self.tid = tid  # who has submitted it
        self.opcode = opcode
        self.user_data = user_data
        self.own: Pending | None = None  # what it is, where it is a cancel itself
        self.by: Pending | None = None  # the cancel that was seen to hit it
        self.nobodys = False  # it is to end since what it was linked to has failed
        self.timeout: Pending | None = None  # the link timeout behind it
        self.older: Request | None = None  # of the same user_data, where that is all there is to tell them


class Ring:
    """What is in flight on one."""

    __slots__ = ("aimed", "fd", "full", "live", "names", "open")

    def __init__(self, fd: int | None) -> None:
        self.fd = fd
        self.live: dict[int, Request] = {}
        self.names: dict[int, int] | None = None  # by user_data: where in `live`; once it is asked for
        # Its cancels that may still end something. Dicts, since they leave in any order.
        self.open: dict[Pending, None] = {}
        self.full: dict[Pending, None] = {}  # those that have as many candidates as are kept
        self.aimed: dict[int, dict[Pending, None]] = {}  # those of which it is known what they go by

    def add(self, pending: Pending) -> None:
        """One more cancel."""
        key = pending.fields.get("key")
        (self.open if key is None else self.aimed.setdefault(key, {}))[pending] = None

    def remove(self, pending: Pending) -> None:
        """It is told."""
        self.open.pop(pending, None)
        self.full.pop(pending, None)
        key = pending.fields.get("key")
        aimed = None if key is None else self.aimed.get(key)
        if key is not None and aimed is not None:
            aimed.pop(pending, None)
            if not aimed:
                del self.aimed[key]


class Pending:
    """A cancel whose event is not complete."""

    __slots__ = (
        "answered",
        "candidates",
        "fields",
        "given",
        "here",
        "hit",
        "mechanism",
        "out",
        "place",
        "result",
        "ring",
        "said",
        "silent",
        "targets",
        "time",
    )

    def __init__(self, time: int, mechanism: str, ring: Ring | None, fields: dict[str, Any]) -> None:
        self.time = time
        self.mechanism = mechanism
        self.ring = ring
        self.fields = fields
        self.result: int | None = None
        self.answered: int | None = None
        self.silent = False
        self.here = False  # it runs in the call that submits it
        self.given: Request | None = None  # of a link timeout: what has ended before it is known by what
        self.said: dict[str, Any] = {}  # what its program has written down
        self.place: int | None = None  # among its ring's requests
        self.out = False  # told already
        self.hit = 0  # requests that it was seen to hit, and that have not ended
        self.targets: list[Target] = []
        self.candidates: list[Target] = []  # what it, or another one, has ended

    def wants(self, request: Request | None) -> bool:
        """Whether it may be what has ended this, though it was not seen to."""
        only = _ONLY.get(self.mechanism)
        if (self.fields.get("flags") or 0) & _UPDATES.get(self.mechanism, 0):
            return False  # it changes something
        if request is not None and (
            self.time < request.time or (only is not None and request.opcode != only)
        ):
            return False
        found = len(self.targets) + self.hit
        if self.result is None or self.result in _RUNNING:
            return not found
        return self.result >= 0 and found < max(1, self.result)

    def whole(self) -> bool:
        """Whether nothing more is to come."""
        result = self.result
        if result is None or self.hit:
            return False
        if result in _RUNNING:
            return bool(self.targets)
        return result < 0 or len(self.targets) >= max(1, result)

    def verdict(self) -> str:
        """See `Cancel`."""
        result = self.result
        if self.mechanism == IO_CANCEL:
            return _AIO_VERDICTS.get(result, "unknown" if result is None else "rejected")
        if result is None:
            return "cancelled" if self.targets else "unknown"
        if result >= 0:
            return "cancelled" if self.targets or self.candidates or self.hit or result else "accepted"
        if self.mechanism == LINK_TIMEOUT and result == _ETIME:
            return "cancelled"
        return _VERDICTS.get(result, "rejected")
