"""Waiting for futexes, children and epoll sets."""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from iocancel._native import ffi, lib
from iocancel.uring import memory
from iocancel.uring.prep_help import Fd, Requests, limited, signed32

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

FUTEX2_SIZE_U32: int = lib.FUTEX2_SIZE_U32
"""A futex of 32 bits, the only size that kernels have so far."""
FUTEX2_PRIVATE: int = lib.FUTEX2_PRIVATE
"""A futex of this process only."""
_USUAL = FUTEX2_SIZE_U32 | FUTEX2_PRIVATE
_ALL_BITS = 0xFFFFFFFF


class PrepWait(Requests):
    """Waiting for futexes, children and epoll sets.

    Where these have the arguments, they mean: `futex` writable memory of 4 bytes or more at an address
    that is a multiple of 4 (`array("I", [0])`, a slice of an `mmap`); `mask` what of a wait a wake has to
    have in common with it (futex(2), FUTEX_WAIT_BITSET); `futex_flags` the FUTEX2_* of the futex; `flags`
    0, the kernel has none yet.
    """

    __slots__ = ()

    def prep_futex_wait(
        self,
        futex: WriteableBuffer,
        val: int,
        mask: int = _ALL_BITS,
        futex_flags: int = _USUAL,
        flags: int = 0,
    ) -> None:
        """Wait until a futex is woken (io_uring_prep_futex_wait(3)). Linux 6.7.

        Args:
            val: the value that it has to have for the wait to begin.
            futex, mask, futex_flags, flags: see the class.

        Raises:
            ValueError: memory that is too small, or not aligned.

        Completion: 0 when woken, -EAGAIN where it had another value.
        """
        self._futex(
            "io_uring_prep_futex_wait", lib.IORING_OP_FUTEX_WAIT, futex, val, mask, futex_flags, flags
        )

    def prep_futex_wake(
        self,
        futex: WriteableBuffer,
        val: int,
        mask: int = _ALL_BITS,
        futex_flags: int = _USUAL,
        flags: int = 0,
    ) -> None:
        """Wake who waits for a futex (io_uring_prep_futex_wake(3)). Linux 6.7.

        Args:
            val: how many to wake at most.
            futex, mask, futex_flags, flags: see the class.

        Raises:
            ValueError: memory that is too small, or not aligned.

        Completion: how many were woken.
        """
        self._futex(
            "io_uring_prep_futex_wake", lib.IORING_OP_FUTEX_WAKE, futex, val, mask, futex_flags, flags
        )

    def prep_futex_waitv(
        self,
        futexes: Sequence[tuple[WriteableBuffer, int] | tuple[WriteableBuffer, int, int]],
        flags: int = 0,
    ) -> None:
        """Wait until one of several futexes is woken (io_uring_prep_futex_waitv(3)). Linux 6.7.

        Args:
            futexes: 1 to 128 of (futex, val) or (futex, val, futex_flags).
            flags: see the class.

        Raises:
            ValueError: none or too many; memory that is too small, or not aligned.

        Completion: the position of the one that was woken; -EAGAIN where one had another value.
        """
        given = [(*row, _USUAL)[:3] if len(row) == 2 else row for row in futexes]
        if not 1 <= len(given) <= lib.FUTEX_WAITV_MAX:
            raise ValueError(f"futexes takes 1 to {lib.FUTEX_WAITV_MAX}, not {len(given)}")
        vector, pins = ffi.new("struct ioc_futex_waitv[]", len(given)), []
        for entry, (futex, val, futex_flags) in zip(vector, given, strict=True):
            futex_flags = limited(futex_flags, "futex_flags")
            pin = _futex_memory(futex, futex_flags)
            entry.val, entry.uaddr, entry.flags = limited(val, "val", 64), memory.address(pin), futex_flags
            pins.append(pin)
        self._put(
            "io_uring_prep_futex_waitv",
            lib.IORING_OP_FUTEX_WAITV,
            0,
            0,
            memory.address(vector),
            len(given),
            flags,
            pins=(vector, *pins),
        )

    def prep_waitid(
        self,
        idtype: int,
        id: int,  # noqa: A002
        options: int,
        infop: WriteableBuffer | None = None,
        flags: int = 0,
    ) -> None:
        """Wait for a child to change its state (io_uring_prep_waitid(3)). Linux 6.7.

        Args:
            idtype: `os.P_PID`, P_PGID, P_ALL or P_PIDFD.
            id: the process, the group or the pidfd.
            options: `os.WEXITED`, WSTOPPED, WCONTINUED, with WNOHANG, WNOWAIT.
            infop: a writable buffer for the kernel's `siginfo_t` (128 bytes), or None; `child_state`
                reads it.
            flags: see the class.

        Raises:
            ValueError: a smaller buffer.

        Completion: 0; -ECHILD for no such child.
        """
        pins: tuple[Any, ...] = ()
        where = 0
        if infop is not None:
            pin = memory.at_least(memory.writable(infop, "infop"), lib.IOC_SIZEOF_SIGINFO, "infop")
            where, pins = memory.address(pin), (pin,)
        self._put(
            "io_uring_prep_waitid",
            lib.IORING_OP_WAITID,
            id,
            where,
            0,
            idtype,
            flags,
            file_index=options,
            pins=pins,
        )

    def prep_epoll_ctl(self, epfd: Fd, fd: Fd, op: int, events: int = 0, data: int = 0) -> None:
        """Change what an epoll set watches (io_uring_prep_epoll_ctl(3)). Linux 5.6.

        Args:
            epfd: the set; `select.epoll` has a `fileno()`.
            fd: the file to watch.
            op: EPOLL_CTL_ADD (1), EPOLL_CTL_DEL (2) or EPOLL_CTL_MOD (3).
            events: `select.EPOLLIN` ..., 32 bits.
            data: what the set tells with the events, 0 to 2**64 - 1. `select.epoll` takes its low 32 bits
                for the fd, and leaves the others to chance in what it registers itself.

        Completion: 0.
        """
        event = ffi.new("struct epoll_event *")
        lib.ioc_set_epoll(event, limited(events, "events"), limited(data, "data", 64))
        number = memory.file_number(fd)
        # C takes the fd for an offset, by way of an unsigned int.
        off = signed32(number, "fd") & 0xFFFFFFFF
        pins = (event,) if type(fd) is int else (event, fd)
        self._on(
            "io_uring_prep_epoll_ctl",
            lib.IORING_OP_EPOLL_CTL,
            epfd,
            off,
            memory.address(event),
            op,
            pins=pins,
        )

    def prep_epoll_wait(self, fd: Fd, events: WriteableBuffer, flags: int = 0) -> None:
        """Wait for what an epoll set has to tell (io_uring_prep_epoll_wait(3)). Linux 6.15.

        Args:
            fd: the set.
            events: a writable buffer for the events, 12 bytes each on x86-64, 16 elsewhere
                (`EPOLL_EVENT_SIZE`); `epoll_events` reads it.
            flags: see the class.

        Raises:
            ValueError: a buffer too small for one event.

        Completion: how many events were written.
        """
        pin = memory.at_least(memory.writable(events, "events"), EPOLL_EVENT_SIZE, "events")
        most = len(pin) // EPOLL_EVENT_SIZE
        self._on(
            "io_uring_prep_epoll_wait",
            lib.IORING_OP_EPOLL_WAIT,
            fd,
            0,
            memory.address(pin),
            limited(most, "events", 31),
            flags,
            pins=(pin,),
        )

    def _futex(
        self,
        call: str,
        opcode: int,
        futex: WriteableBuffer,
        val: int,
        mask: int,
        futex_flags: int,
        flags: int,
    ) -> None:
        futex_flags = limited(futex_flags, "futex_flags", 31)
        pin = _futex_memory(futex, futex_flags)
        self._put(
            call,
            opcode,
            futex_flags,
            limited(val, "val", 64),
            memory.address(pin),
            0,
            flags,
            addr3=limited(mask, "mask", 64),
            pins=(pin,),
        )


EPOLL_EVENT_SIZE: int = lib.IOC_SIZEOF_EPOLL_EVENT
"""The size of one event of `prep_epoll_wait`, in bytes."""
# Packed on x86-64: 12 bytes and no gap; elsewhere 16, with one between the two.
_EVENT = struct.Struct("=IQ" if EPOLL_EVENT_SIZE == 12 else "=I4xQ")
# signo, errno, code; then a gap where pointers have 64 bits; then pid, uid, status.
_INFO = struct.Struct("=iii4xiIi" if sys.maxsize > 1 << 32 else "=iiiiIi")


def epoll_events(events: ReadableBuffer, count: int) -> list[tuple[int, int]]:
    """What `prep_epoll_wait` wrote.

    Args:
        events: the buffer that it was given.
        count: how many events there are, its result.

    Returns:
        (data, events) of each.

    Raises:
        ValueError: a buffer with fewer.
        TypeError: something else than a buffer and an int.
    """
    raw, many = memory.copied(events, "events"), limited(count, "count", 31)
    if len(raw) < many * EPOLL_EVENT_SIZE:
        raise ValueError(f"events has {len(raw)} bytes: no room for {many} of {EPOLL_EVENT_SIZE}")
    return [(data, mask) for mask, data in _EVENT.iter_unpack(raw[: many * EPOLL_EVENT_SIZE])]


def child_state(infop: ReadableBuffer) -> tuple[int, int, int, int, int]:
    """What `prep_waitid` wrote, in the order of `os.waitid`'s result.

    Args:
        infop: the buffer that it was given.

    Returns:
        (pid, uid, signo, status, code); pid is 0 where no child was in such a state (WNOHANG).

    Raises:
        ValueError: a smaller buffer.
        TypeError: something else than a buffer.
    """
    raw = memory.at_least(memory.copied(infop, "infop"), lib.IOC_SIZEOF_SIGINFO, "infop")
    signo, _, code, pid, uid, status = _INFO.unpack_from(raw)
    return pid, uid, signo, status, code


def _futex_memory(futex: WriteableBuffer, futex_flags: int) -> Any:
    """A futex's memory: with NUMA the kernel writes behind the futex, too."""
    size = 1 << (futex_flags & lib.FUTEX2_SIZE_MASK)
    if futex_flags & lib.FUTEX2_NUMA:
        size *= 2
    pin = memory.at_least(memory.writable(futex, "futex"), size, "futex")
    if memory.address(pin) % size:
        raise ValueError(f"futex: its address has to be a multiple of {size}")
    return pin
