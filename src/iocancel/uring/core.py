"""What a ring is made of: its set-up, the way in, the way out. The way of an entry is told in ring.py."""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from iocancel import _lifetime, _record, errors
from iocancel._native import ffi, lib
from iocancel.uring import limbo, memory
from iocancel.uring import probe as _probe
from iocancel.uring.cqe import Cqe
from iocancel.uring.entry import MASK64
from iocancel.uring.flags import CancelFlags, SetupFlags
from iocancel.uring.ledger import Ledger
from iocancel.uring.prep_cancel import cancel_feature, cancel_since
from iocancel.uring.probe import Probe
from iocancel.uring.setup import set_up, setup_flags
from iocancel.uring.sqe import FEATURE_SINCE, Sqe

_SKIP = lib.IOSQE_CQE_SKIP_SUCCESS
_NO_SUBMIT = lib.IOC_NO_SUBMIT
_SQPOLL = lib.IORING_SETUP_SQPOLL
_SELECT = lib.IOSQE_BUFFER_SELECT
_LINKS = lib.IOSQE_IO_LINK | lib.IOSQE_IO_HARDLINK
RECORD = struct.Struct("=QiI")
_UNIQUE_FROM = 1 << 63  # numbers of our own, far from the small ones that people choose
_LONGEST = 1 << 62  # nanoseconds: 146 years
_MOST_AT_ONCE = 1 << 14  # completions that one call reaps
_T = TypeVar("_T")
_enter = lib.ioc_enter


class RingCore:
    """What `Ring` is made of: the set-up, the way in and the way out."""

    def __init__(
        self,
        entries: int = 256,
        *,
        flags: int = 0,
        cq_entries: int | None = None,
        sq_thread_idle: int = 0,
        attach: RingCore | None = None,
    ) -> None:
        self._state = "new"
        if attach is not None and not isinstance(attach, RingCore):
            raise TypeError(f"attach takes a Ring, not {type(attach).__name__}")
        number = setup_flags(entries, flags, cq_entries, sq_thread_idle, attach is not None)
        limbo.sweep()
        handle = lib.ioc_ring_new()
        if handle == ffi.NULL:
            raise MemoryError("no memory for a ring")
        self._handle = ffi.gc(handle, lib.ioc_ring_free)
        wq_fd = -1 if attach is None else attach.fileno()
        try:
            set_up(self._handle, entries, number, cq_entries or 0, sq_thread_idle, wq_fd)
            self._made(number, attach)
        except BaseException:  # a signal's exception, or no memory: nothing is in flight yet
            if self._state == "new":
                lib.ioc_ring_exit(self._handle)
            raise

    def _made(self, number: int, attach: RingCore | None) -> None:
        """What Python keeps of a ring that was set up."""
        self._attached = attach  # its fd must stay the same file
        # A disabled ring is nobody's until it is enabled.
        single = number & lib.IORING_SETUP_SINGLE_ISSUER and not number & lib.IORING_SETUP_R_DISABLED
        self._owner = threading.get_ident() if single else 0
        # Plain: operations on flag types are slow. liburing from 2.6 on adds NO_SQARRAY by itself.
        self._flags = int(self._handle.flags) & ~lib.IORING_SETUP_NO_SQARRAY
        self._sq_entries: int = self._handle.sq_entries
        self._ledger = Ledger()
        self._staged: list[Sqe] = []
        self._backlog = 0  # entries in the queue that the kernel has not taken
        most = min(self._handle.cq_entries, _MOST_AT_ONCE)
        self._arrays = ffi.new("struct ioc_cqe[]", most), ffi.new("unsigned[]", most)
        self._out = ffi.new("struct ioc_out *", (0, most, 0, 2, self._arrays[1], self._arrays[0]))
        self._handle.out = self._out
        self._seen = 0  # the token of the last completions that a hot path has taken: see csrc/uring.c
        self._undelivered: tuple[list[Any], list[int]] | None = None  # see _take
        self._view = memoryview(ffi.buffer(self._arrays[0]))
        self._cells: list[Any] = []
        self._reaper = 0  # the thread that reaps
        self._numbers = itertools.count(_UNIQUE_FROM)
        self._probe: Probe | None = None
        # What is registered, or was provided, and so is the kernel's.
        self._buffers: list[Any] = []
        self._groups: dict[int, Any] = {}
        self._provided: dict[tuple[int, int], Any] = {}
        self._state = "open"
        _lifetime.register(cast(_lifetime.Owner, self))  # Closing has what an Owner needs

    def fileno(self) -> int:
        """The ring's fd; it polls readable when completions are there. ValueError when closed."""
        self._check_open()
        return int(self._handle.fd)

    def probe(self) -> Probe:
        """Which kinds of request the running kernel has (io_uring_get_probe_ring(3)). Linux 5.6."""
        self._check_open()
        if self._probe is None:
            self._ask(lib.ioc_sq_ready)  # closed and forked rings say so
            self._probe = _probe.read_probe(self._handle)
        return self._probe

    def _records(
        self,
        n: int,
        timeout: float | None,
        *,
        submit: bool,
        make: Callable[[int, int, int], _T] | None = None,
    ) -> list[Any]:
        """Waits and reaps: plain tuples, or what `make` makes of each; the ledger is kept."""
        self._check_open()
        self._start_reaping()
        try:
            out = self._settle_seen()
            if n:
                self._fetch(n, deadline_of(timeout), submit)
            else:
                self._wanted(n)
                res = self._enter(0, -1, out) if submit else self._enter_bare(0, -1)
                if res < 0 and not out.n:
                    self._took(res, "io_uring_enter")
            refused = False
            while True:
                if refused or out.n != out.max:
                    break
                self._stash()  # there may be more than fits at once
                refused = self._enter_bare(0, -1) < 0
            # Nothing is called between the taking and the return: a signal there would lose what was taken.
            return self._take(make)
        finally:
            self._reaper = 0

    def _settle_seen(self) -> Any:
        """The completions that were reaped and not taken."""
        out = self._out
        if out.token == self._seen:
            out.n = 0
            out.token = 2
        return out

    def _take(self, make: Callable[[int, int, int], _T] | None = None) -> list[Any]:
        """What was reaped, and the ledger's share of it done.

        An exception from a signal handler in the midst of it loses no completion and frees nothing too
        early: `_undelivered` has what was taken and not returned, and which of it the ledger must hear of.
        """
        self._stash()
        if self._undelivered is None:
            return []
        records, others = self._undelivered
        made = records if make is None else [make(*record) for record in records]
        while others:
            user_data, res, _ = records[others[-1]]
            self._ended(user_data, res, others)
        self._undelivered = None
        return made

    def _pending(self) -> int:
        """How many completions a call has taken that a signal's exception then ended: they come first."""
        return 0 if self._undelivered is None else len(self._undelivered[0])

    def _stash(self) -> None:
        """Moves what was reaped from C memory to `_undelivered`."""
        out = self._settle_seen()
        count = out.n
        if not count:
            return
        records: list[Any] = list(RECORD.iter_unpack(self._view[: count * 16]))
        others = ffi.unpack(out.other, out.others) if out.others else []
        kept = self._undelivered
        if kept is not None:
            others = [*kept[1], *(i + len(kept[0]) for i in others)]
            records = kept[0] + records
        self._undelivered = (records, others)
        out.n = 0

    def _ended(self, user_data: int, res: int, pending: list[int]) -> None:
        """A last completion: the ledger lets go, and what was expected elsewhere is put right."""
        for entry in self._ledger.last(user_data, pending):
            if entry._message is None:
                continue
            target, number = entry._message
            if res < 0:  # the message was not sent, the poll's number not changed
                for ring in self._targets(target):
                    lib.ioc_bare_take(ring._handle, number)
            elif target is None:  # a poll's number was changed: nothing will come under the old one
                old = int.from_bytes(entry._bytes[16:24], memory._ENDIAN)
                if not lib.ioc_bare_take(self._handle, old):  # a poll of the bulk calls, or changed before
                    self._ledger.last(old)

    def _target(self, target: Any) -> RingCore | None:
        ring = self if target is None else target if isinstance(target, RingCore) else _ring_of(target)
        return ring if ring is not None and ring._state == "open" else None

    def _targets(self, target: Any) -> list[RingCore]:
        """Where a message may arrive: with an fd that is nobody's own (a dup) at any ring of the process."""
        ring = self._target(target)
        if ring is not None:
            return [ring]
        if isinstance(target, RingCore):
            return []
        return [r for r in _lifetime.owners() if isinstance(r, RingCore) and r._state == "open"]

    def _start_reaping(self) -> None:
        me = threading.get_ident()
        # No bytecode between the test and the store lets another thread run.
        if self._reaper:
            raise self._busy()
        self._reaper = me

    def _busy(self) -> RuntimeError:
        return RuntimeError("another call is reaping this ring: one at a time")

    def _fetch(self, n: int, deadline: float | None, submit: bool) -> None:
        """Waits until `n` completions are in `_out`."""
        out, wanted = self._out, self._wanted(n) - self._pending()
        while True:
            left = left_of(deadline)
            if submit:  # what is prepared, and what an earlier round left in the queue
                submit = False
                res = self._enter(max(0, wanted - out.n), left, out)
            else:
                res = self._enter_bare(max(0, wanted - out.n), left)
            if self._state != "open":  # closed meanwhile: what woke this thread was the closing one
                self._check_open()
            if res < 0 and res != -errno.EINTR:
                if out.n:
                    return  # what came before the error is delivered first
                self._took(res, "io_uring_enter")
            if out.n >= wanted or left == 0:
                return

    def _enter_bare(self, wait_nr: int, timeout_ns: int) -> int:
        return _enter(self._handle, ffi.NULL, _NO_SUBMIT, wait_nr, timeout_ns, self._out, ffi.NULL)

    def _enter(self, wait_nr: int, timeout_ns: int, out: Any) -> int:
        """Hands what is staged to the kernel; what it did not take is staged again."""
        if not self._staged:
            return _enter(self._handle, ffi.NULL, 0, wait_nr, timeout_ns, out, ffi.NULL)
        moved = self._cells.pop() if self._cells else ffi.new("unsigned *")
        moved[0] = 0
        batch: list[Sqe] = []
        count = 0
        try:
            # With no call in between: neither another thread nor a signal's handler sees the same list.
            batch, self._staged = self._staged, []
            count = len(batch)
            silent = False
            for entry in batch:
                # From here on it is not to be changed: by another thread, a handler, an argument's __index__.
                entry._ring = None
                flags = entry._flags | entry._implied
                if not entry._entered:
                    self._admit(entry, silent)
                # Behind a silent one that fails the kernel makes no completion for its chain.
                silent = bool(flags & _LINKS) and (silent or bool(flags & _SKIP))
            raw = b"".join([entry._bytes for entry in batch])
            res = _enter(self._handle, raw, count, wait_nr, timeout_ns, out, moved)
        finally:
            done = moved[0]
            if done < count or not count:
                left = batch[done:]
                self._staged[:0] = left
                for entry in left:
                    if self._state != "open":  # closed meanwhile: the kernel never saw it, and will not
                        entry._pins, entry._gives_fd = (), False
                        if entry._entered:
                            self._ledger.last(entry._user_data)  # one fewer to wait for
                    elif not entry._entered:
                        entry._ring = cast(Any, self)
        if res != done or self._flags & _SQPOLL:
            self._backlog = self._ask(lib.ioc_sq_ready)
        self._cells.append(moved)
        return res

    def _admit(self, entry: Sqe, silent: bool = False) -> None:
        """Enters an entry into the ledger, before the kernel can see it."""
        if entry._user_data < 0:
            entry._user_data = self._user_data_for(entry._data)
            entry._bytes[32:40] = entry._user_data.to_bytes(8, memory._ENDIAN)
        flags = entry._flags | entry._implied
        if flags & _SELECT:
            entry._pins = (*entry._pins, self._group_pin(entry.buf_group))
        if entry._message is not None:  # before it counts as entered: expected twice is only kept too long
            for ring in self._targets(entry._message[0]):
                ring._expect(entry._message[1])
        if silent or flags & _SKIP:
            self._ledger.add_skipping(entry)
        else:
            self._ledger.add(entry)

    def _cqe(self, user_data: int, res: int, flags: int) -> Cqe:
        """A completion, with what the ledger knows of it."""
        data, call = self._ledger.about(user_data)
        feature = ("", "")
        if res in (-errno.EINVAL, -errno.EOPNOTSUPP):
            entry = self._ledger.known(user_data)
            if entry is not None:
                # No ring to try it on (no fd left), or closed meanwhile: then the errno will do.
                with contextlib.suppress(OSError, ValueError):
                    feature = self._lacking(entry)
        return Cqe(user_data, res, flags, data, call, feature)

    def _expect(self, user_data: int) -> None:
        """A completion with this number will come that no entry of this ring asked for."""
        self._took(lib.ioc_bare_add(self._handle, ffi.new("uint64_t *", user_data), 1), "io_uring")

    def _group_pin(self, bgid: int) -> Any:
        """What a request that picks from a group may write to."""
        return self._groups.get(bgid)

    def _provide(self, pin: Any) -> None:
        """Buffers that are the kernel's from now on, until the ring is closed.

        A number that is provided again replaces nothing: the kernel keeps both. Memory that is provided
        again (as one does when a buffer was used) is kept once.
        """
        self._provided[memory.address(pin), len(pin)] = pin

    def _kept(self) -> Any:
        """All that the kernel may write to, beside what the ledger pins."""
        return self._buffers, self._groups, self._provided

    def _forget_registered(self) -> None:
        self._buffers, self._groups, self._provided = [], {}, {}

    def _lacking(self, entry: Any) -> tuple[str, str]:
        """What a refused request needed and this kernel lacks, or ("", "")."""
        if entry._flags & _SKIP and not self._handle.features & lib.IORING_FEAT_CQE_SKIP:
            return "IOSQE_CQE_SKIP_SUCCESS", "5.17"
        if entry.opcode == lib.IORING_OP_ASYNC_CANCEL and self.probe().supports(entry.opcode):
            if self._flags & SetupFlags.IOPOLL:
                return "", ""  # refused for the kind of ring
            asked = CancelFlags(int.from_bytes(entry._bytes[28:32], memory._ENDIAN))
            lacking = asked & ~_probe.cancel_flags()
            return (cancel_feature(lacking), cancel_since(lacking)) if lacking else ("", "")
        feature = entry._feature
        return _probe.lacking_feature(entry.opcode, self.probe(), feature, FEATURE_SINCE.get(feature, ""))

    # Helpers

    def _unique(self) -> int:
        """A user_data that nothing in flight has."""
        number = next(self._numbers)
        while number in self._ledger.flight:
            number = next(self._numbers)
        return number & MASK64

    def _user_data_for(self, data: Any) -> int:
        """The number of a request whose user set none: requests with the same data share it."""
        known = self._ledger.by_data.get(id(data)) if data is not None else None
        return known[0] if known is not None else self._unique()

    def _user_data_of(self, data: Any) -> int:
        """The user_data of what has this very object as its data, prepared or in flight; else a new one."""
        for entry in reversed(self._staged):
            if entry._data is data and data is not None:
                return entry._user_data if entry._entered else entry.user_data
        return self._user_data_for(data)

    def _wanted(self, n: int) -> int:
        if not isinstance(n, int):
            raise TypeError(f"n takes an int, not {type(n).__name__}")
        if not 0 <= n <= self._out.max:
            raise ValueError(f"n takes 0 to {self._out.max} completions, not {n}")
        return n

    def _ask(self, question: Any) -> int:
        return self._took(int(question(self._handle)), "io_uring")

    def _took(self, res: int, call: str) -> int:
        """The result of a C call, or its exception."""
        if res >= 0:
            return res
        if res == lib.IOC_FORKED or self._state == "forked":
            raise RuntimeError("this ring belongs to the parent process: a forked child opens its own")
        if res == lib.IOC_CLOSED:
            raise ValueError("the ring is closed")
        return errors.check(res, call)

    def _check_open(self) -> None:
        if self._state != "open":
            if self._state == "forked":
                raise RuntimeError("this ring belongs to the parent process: a forked child opens its own")
            raise ValueError("the ring is closed")
        if self._owner and self._owner != threading.get_ident():
            raise errors.WrongThread(
                errno.EEXIST, "the ring was set up with SINGLE_ISSUER by another thread: use it from there"
            )


def _ring_of(fd: int) -> RingCore | None:
    """The open ring of this process that has this fd."""
    for owner in _lifetime.owners():
        if isinstance(owner, RingCore) and owner._state == "open" and owner._handle.fd == fd:
            return owner
    return None


def deadline_of(timeout: float | None) -> float | None:
    """When a timeout in seconds from now is over, in `time.monotonic()`; None for never."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout takes seconds as float or int, or None, not {type(timeout).__name__}")
    if timeout != timeout or timeout < 0:  # nan; and an int of any size is compared as it is
        raise ValueError(f"timeout takes a number of seconds >= 0, not {timeout}")
    return None if timeout > _LONGEST / 1e9 else time.monotonic() + timeout


def left_of(deadline: float | None) -> int:
    """What is left until a deadline, in nanoseconds; -1 for ever."""
    return -1 if deadline is None else max(0, math.ceil((deadline - time.monotonic()) * 1e9))


_record.join(globals(), _enter="enter")
