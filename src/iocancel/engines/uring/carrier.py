"""Operations to io_uring and back. The way is short: entries are made at the call, joined, and one call of C
moves them into the queue, submits, waits and brings what has come.

Facts that this rests on (docs/kernel-facts.md has more):

- A cancel whose success is not to be told (CQE_SKIP_SUCCESS, Linux 5.17) tells its failure all the same,
  in the very call that submits it.
- Completions that outnumber the queue are kept by the kernel and come as it is emptied.
- Only the thread that submits may wait and reap here: the kernel cancels what a thread that exits submitted.
- The wait's own timeout also covers requests that a worker executes, where link timeouts never fire.
- The ring's fd polls readable while completions are in the queue, or kept by the kernel for want of room.
"""

from __future__ import annotations

import errno
import math
import socket
import time
import weakref
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from iocancel import _record, errors
from iocancel._native import ffi, lib
from iocancel.engines.uring import entries as _entries
from iocancel.engines.uring import multishot
from iocancel.engines.uring.ring import EngineRing, open_ring
from iocancel.engines.uring.submitters import Origin, this_thread
from iocancel.operation import ANSWER, OTHER, Operation, Reach
from iocancel.operation.operation import CALLER
from iocancel.uring.core import RECORD
from iocancel.uring.sqe import FEATURE_SINCE

_ENTER_AGAIN = frozenset([-errno.EINTR, -errno.ETIME, -errno.EBUSY, -errno.EAGAIN])
_WAKE = OTHER | 1
_POLLIN = 1
_SOON = 0.001  # seconds until what the kernel did not take is given to it again
_PATIENCE = 5.0  # seconds for what a worker is executing to end, once its deadline has passed
# Plain numbers: an enum's `&` takes a microsecond.
_WAITALL = int(socket.MSG_WAITALL)
_unpack = RECORD.unpack_from
_WITH_FLAGS = {"recv": 1, "send": 1, "recvmsg": 2, "sendmsg": 2}  # where prepare's arguments have them
_NULL = ffi.NULL
_from_buffer, _TOKENS = ffi.from_buffer, ffi.typeof("uint64_t[]")
_sync_cancel = lib.ioc_sync_cancel
_enter, _cancel_many, _came = lib.ioc_enter, lib.ioc_cancel_many, lib.ioc_came


class UringBatch:
    """Entries on their way in."""

    __slots__ = ("_links", "moved", "ops", "raw")

    def __init__(self, ops: Sequence[Operation[Any]], moved: Any) -> None:
        self.ops = ops
        self.raw: bytes = ops[0]._entry if len(ops) == 1 else b"".join([op._entry for op in ops])
        # C's counter is the carrier's: it is known what was taken of one batch before the next is made.
        self.moved = moved
        moved[0] = 0
        self._links = len(self.raw) != 64 * len(ops)

    def taken(self) -> int:
        """How many operations are in the queue. C counts entries: one with a link timeout has two."""
        moved: int = self.moved[0]
        if not self._links:
            return moved
        for i, op in enumerate(self.ops):
            if moved <= 0:
                return i
            moved -= len(op._entry) // 64
        return len(self.ops)


class UringCarrier:
    """See iocancel.operation.carrier."""

    name = "uring"
    keeps_deadlines = True
    oldest_first = False

    def __init__(self, entries: int | None, pooled: bool = False) -> None:
        self._pooled = pooled
        self._ring = open_ring(entries, pooled)
        wake = lib.ioc_wake_new(pooled)
        if wake == _NULL:
            number = ffi.errno
            self._ring.close()
            errors.check(-number, "eventfd")
        self._wake = ffi.gc(wake, lib.ioc_wake_free)
        self._armed = False
        self._moved = ffi.new("unsigned *")
        self._watched = False  # by an event loop: armed all the time
        self.alarms = False
        self._behind, self._behind_at = False, 0.0  # entries are left in the queue; when to give them again
        self._sent = ffi.new("unsigned[2]")  # see ioc_cancel_many
        # A cancel that succeeds need not say so, where the kernel can keep silent (5.17).
        self._silent = lib.IOSQE_CQE_SKIP_SUCCESS if self._ring.features & lib.IORING_FEAT_CQE_SKIP else 0
        try:
            self._opcodes = self._ring.probe()
        except OSError:  # a seccomp filter that lets rings be set up
            self._ring.close()
            raise
        self._prepare: dict[str, Callable[..., None]] = {}
        self._groups = 0
        self._stuck = 0
        # Synchronous cancels (6.0): nothing is there yet to be found.
        self._stops = _sync_cancel(self._ring._handle, 1, -1, 0, 0, 0, 0) == -errno.ENOENT
        self._fill_table()

    def _fill_table(self) -> None:
        for name, (opcode, since, make) in _entries.TABLE.items():
            if self._opcodes.supports(opcode):
                # What a cancelled MSG_WAITALL has sent or received is told from 6.0 on; before, it ends with
                # -ECANCELED all the same (5.10: 219,264 bytes sent), so it is not offered there.
                whole = self._opcodes.supports(lib.IORING_OP_SEND_ZC) or name not in _WITH_FLAGS
                self._prepare[name] = make if whole else _in_parts(make, name)
            else:
                self._prepare[name] = _lacking(name, since)

    poll_entry = staticmethod(_entries.poll_entry)
    stream_entry = staticmethod(_entries.stream_entry)

    def attach(self, engine: Any) -> None:
        """The engine that this belongs to: at the interpreter's end it goes first."""
        self._ring.engine = weakref.ref(engine)

    def fileno(self) -> int:
        """See Carrier: the ring's own fd."""
        # In this order: a leader in another thread who looks at the first changes the second before that.
        self._watched = True
        if not self._armed:
            self._arm()
        return self._ring.fileno()

    def alarm(self) -> float | None:
        """See Carrier: only for what the kernel has not taken when it was given."""
        if self._behind:
            return self._behind_at
        return time.monotonic() + _SOON if self._watched and not self._armed else None

    # In

    def prepare(self, op: Operation[Any], *args: Any) -> None:
        """See Carrier."""
        if op._items is not None:
            args[0].fill(op)
            return
        self._prepare[op._kind.name](op, *args)
        if op._expires is not None:
            _entries.link_timeout(op)

    def batch(self, ops: Sequence[Operation[Any]]) -> UringBatch:
        """See Carrier."""
        batch = UringBatch(ops, self._moved)
        submitter = this_thread()
        if submitter is not None and not self._pooled:  # whose verbs end before their calls do
            origin = Origin(submitter, batch.raw)
            for op in ops:
                op._origin = origin
        return batch

    def go(self, batch: Any, wait: bool, timeout: float | None) -> None:
        """See Carrier."""
        ring = self._ring
        handle, out = ring._handle, ring.out
        if not self._armed and (wait or self._watched):
            self._arm()
        limit = -1 if timeout is None else max(0, math.ceil(timeout * 1e9))
        if batch is None:
            # What an earlier call has left in the queue goes, too.
            many = 0
            res = _enter(handle, _NULL, 0, wait, limit, out, _NULL)
        else:
            raw = batch.raw
            many = len(raw) // 64
            res = _enter(handle, raw, many, wait, limit, out, batch.moved)
        if self._watched and (res < many or self._behind):
            self._look_behind(res)
        if res < 0:
            self._refused(res)
        else:
            self._stuck = 0

    def _look_behind(self, res: int) -> None:
        """Whether the kernel has left entries in the queue, as it does behind one that it refuses at once."""
        self._behind_at = time.monotonic() + (_SOON if res < 0 else 0.0)
        self._behind = lib.ioc_sq_ready(self._ring._handle) > 0
        self.alarms = self._behind or not self._armed

    def _refused(self, res: int) -> None:
        """The kernel did not take what it was given, for now or for good."""
        if res not in _ENTER_AGAIN:
            self._ring.took(res, "io_uring_enter")
        if res in (-errno.EBUSY, -errno.EAGAIN) and not self._ring.out.n:
            self._stuck += 1
            if self._stuck > 1000:  # no memory, time after time
                self._stuck = 0
                self._ring.took(res, "io_uring_enter")

    def _arm(self) -> None:
        """Have the wake-up's eventfd polled by the ring."""
        res = lib.ioc_poll_one(self._ring._handle, self._wake.fd, _POLLIN, _WAKE)
        self._armed = res > 0
        self.alarms = self._behind or (self._watched and not self._armed)
        if res < 0:
            self._refused(res)

    def cancel(self, ops: Sequence[Operation[Any]]) -> bool:
        """See Carrier."""
        tokens = array("Q", [op._token for op in ops])
        many = len(tokens)
        ring, sent = self._ring, self._sent
        sent[0] = sent[1] = 0
        res = _cancel_many(
            ring._handle, _from_buffer(_TOKENS, tokens), many, ANSWER, self._silent, ring.out, sent
        )
        if res < 0:
            ring.took(res, "io_uring_enter")
        return bool(sent[1] == many == ring.out.n)

    def stop(self, op: Operation[Any]) -> bool:
        """See Carrier. "Not found" may also be not submitted yet; -ETIME is what a worker executes."""
        if not self._stops:
            return False
        if not op._why:  # before its ending can be seen
            op._why = CALLER
        return bool(_sync_cancel(self._ring._handle, op._token, -1, 0, 0, 0, 0) == 0)

    # Out

    def records(self) -> list[tuple[int, int, int]]:
        """See Carrier."""
        ring = self._ring
        many = ring.out.n
        if not many:
            return []
        if many == 1:
            return [_unpack(ring.view)]
        return list(RECORD.iter_unpack(ring.view[: many * 16]))

    def forget(self, many: int) -> None:  # noqa: ARG002
        """See Carrier: nothing is reaped between `records` and this."""
        self._ring.out.n = 0

    def own(self, token: int, res: int) -> None:  # noqa: ARG002
        """A record of the carrier's own."""
        if token == _WAKE:
            lib.ioc_wake_clear(self._wake)
            self.alarms = self._watched  # until it is armed again
            self._armed = False
            if self._watched:
                self._arm()

    def wake(self) -> None:
        """See Carrier."""
        lib.ioc_wake_set(self._wake)

    def came(self) -> bool:
        """Whether a `go` that does not wait would bring something."""
        return _came(self._ring._handle) != 0

    @property
    def bell(self) -> Any:
        """The wake-up: see iocancel.engines.bell."""
        return self._wake

    # About

    def failure(self, op: Operation[Any]) -> OSError:
        """See Carrier."""
        call = f"io_uring {op._kind.call}"
        try:
            if op._res in (-errno.EINVAL, -errno.EOPNOTSUPP) and op._feature:
                errors.check(op._res, call, feature=op._feature, since=FEATURE_SINCE.get(op._feature, ""))
            errors.check(op._res, call)
        except OSError as error:
            return error
        raise AssertionError(op._res)

    def supports(self, name: str) -> bool:
        """See Carrier."""
        row = _entries.TABLE.get(name)
        if row is not None:
            return self._opcodes.supports(row[0])
        return name in multishot.NAMES and multishot.works(name)

    def reach(self, name: str) -> Reach:
        """See Carrier."""
        return _entries.REACH.get(name, Reach.TOTAL)

    def patience(self, op: Operation[Any]) -> float:  # noqa: ARG002
        """See Carrier."""
        return _PATIENCE

    def multishot(self, engine: Any, verb: str, args: tuple[Any, ...]) -> Any:
        """See Repeating."""
        return multishot.Native(self, engine, verb, args)

    def next_group(self) -> int:
        """A number for a group of buffers."""
        taken = self._ring._groups
        self._groups = (self._groups + 1) & 0xFFFF
        while self._groups in taken and len(taken) <= 0xFFFF:
            self._groups = (self._groups + 1) & 0xFFFF
        return self._groups

    @property
    def ring(self) -> EngineRing:
        """The ring."""
        return self._ring

    # The end

    def close(self, timeout: float | None, left: Sequence[Operation[Any]] = ()) -> bool:
        """See Carrier."""
        ring = self._ring
        if not ring.closed:  # else it has what it has to keep: by a closing that was interrupted
            ring.hold(list(left))
        try:
            ring.close(timeout)
        finally:
            lib.ioc_wake_close(self._wake)
        return not ring.left

    def forked(self) -> None:
        """See Carrier. The ring hears of the fork by itself."""
        lib.ioc_wake_close(self._wake)


def _in_parts(make: Callable[..., None], name: str) -> Callable[..., None]:
    where = _WITH_FLAGS[name]

    def prepare(op: Operation[Any], *args: Any) -> None:
        if args[where] & _WAITALL:
            raise errors.feature_unavailable("MSG_WAITALL that can be cancelled", "6.0", f"io_uring {name}")
        make(op, *args)

    return prepare


def _lacking(name: str, since: str) -> Callable[..., None]:
    def refuse(_op: Operation[Any], *_args: Any) -> None:
        raise errors.feature_unavailable(f"IORING_OP_{name.upper()}", since, f"io_uring {name}")

    return refuse


_record.join(globals(), _cancel_many="cancel_many", _sync_cancel="sync_cancel")
