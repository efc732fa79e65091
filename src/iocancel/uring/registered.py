"""What a ring has registered: files, buffers, groups of buffers, an eventfd, credentials, workers."""

from __future__ import annotations

import errno
import mmap
import platform
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from iocancel import errors
from iocancel._native import ffi, lib
from iocancel.uring import memory
from iocancel.uring.core import RingCore
from iocancel.uring.cqe import Cqe
from iocancel.uring.probe import _version

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class BufRing:
    """A group of buffers that the kernel picks from, one for each completion (io_uring_register_buf_ring(3)).

    Args:
        bgid: the group's number.
        entries: how many buffers.
        nbytes: the length of each, in bytes.

    Made by `Ring.register_buf_ring`. A completion names its buffer (`Cqe.buffer_id`), which is the
    program's until it is given back with `recycle`.
    """

    def __init__(self, bgid: int, entries: int, nbytes: int) -> None:
        self._bgid, self._entries, self._nbytes = bgid, entries, nbytes
        # Anonymous mappings: page-aligned, as the kernel wants it, and never moved.
        # Private ones: a forked child that gives a buffer back must not do so in its parent's queue.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._queue = mmap.mmap(-1, max(entries * 16, mmap.PAGESIZE), flags=flags)
        self._memory = mmap.mmap(-1, entries * nbytes, flags=flags)
        self._queue_pin = ffi.from_buffer("uint8_t[]", self._queue)
        self._pin = ffi.from_buffer("uint8_t[]", self._memory)

    @property
    def bgid(self) -> int:
        """The group's number, for `Sqe.buf_group`."""
        return self._bgid

    @property
    def entries(self) -> int:
        """How many buffers there are."""
        return self._entries

    @property
    def nbytes(self) -> int:
        """The size of each, in bytes."""
        return self._nbytes

    def _give_all(self) -> None:
        lib.ioc_buf_ring_add(self._queue_pin, self.entries, self._pin, self.nbytes, 0, self.entries)

    def _number(self, cqe: Cqe) -> int:
        number = cqe.buffer_id
        if number is None or number >= self.entries:
            raise ValueError(f"{cqe!r} has no buffer of this group")
        return number

    def view(self, cqe: Cqe) -> memoryview:
        """The bytes of a completion, without copying.

        Args:
            cqe: a completion with a buffer of this group and `res >= 0`.

        Returns:
            A view of `res` bytes; it shows something else once the buffer was given back and picked again.
        """
        number = self._number(cqe)
        start = number * self.nbytes
        return memoryview(self._memory)[start : start + min(max(cqe.res, 0), self.nbytes)]

    def take(self, cqe: Cqe) -> bytes:
        """The bytes of the completion `cqe`, copied; the buffer is given back."""
        data = bytes(self.view(cqe))
        self.recycle(cqe)
        return data

    def recycle(self, cqe: Cqe) -> None:
        """Gives the buffer of the completion `cqe` back to the kernel.

        Raises:
            ValueError: it was given back already, or is not of this group.
        """
        number = self._number(cqe)
        if cqe._given_back:
            raise ValueError(f"the buffer of {cqe!r} was given back already")
        cqe._given_back = True
        base = self._pin + number * self.nbytes
        lib.ioc_buf_ring_add(self._queue_pin, self.entries, base, self.nbytes, number, 1)

    def __repr__(self) -> str:
        return f"<BufRing bgid={self.bgid} of {self.entries} times {self.nbytes} bytes>"


class Registered(RingCore):
    """The registrations of `Ring`; WrongThread for another thread's ring, ValueError for a closed one."""

    def enable(self) -> None:
        """Enables a ring that was set up with R_DISABLED (io_uring_enable_rings(3)). Linux 5.10."""
        self._register("io_uring_enable_rings", lib.IORING_REGISTER_ENABLE_RINGS)
        if self._flags & lib.IORING_SETUP_SINGLE_ISSUER:
            self._owner = threading.get_ident()

    # Files

    def register_files(self, fds: Iterable[Any]) -> None:
        """Registers files, to be named by their index (io_uring_register_files(3)). Linux 5.1.

        Args:
            fds: file numbers, or objects with `fileno()`; -1 leaves a slot empty.

        Raises:
            OSError: EBUSY where files are registered already, EBADF for a bad number.
        """
        numbers = ffi.new("int[]", [memory.file_number(fd, "fds") for fd in fds])
        self._register("io_uring_register_files", lib.IORING_REGISTER_FILES, numbers, len(numbers))

    def register_files_sparse(self, n: int) -> None:
        """Registers `n` empty slots for files (io_uring_register_files_sparse(3)). Linux 5.19."""
        self._check_open()
        res = lib.ioc_register_sparse(self._handle, lib.IORING_REGISTER_FILES2, _count(n, "n"))
        self._took_feature(res, "io_uring_register_files_sparse", "IORING_RSRC_REGISTER_SPARSE", "5.19")

    def register_files_update(self, offset: int, fds: Iterable[Any]) -> int:
        """Replaces registered files (io_uring_register_files_update(3)). Linux 5.5.

        Args:
            offset: the first slot.
            fds: as for `register_files`; -1 empties a slot.

        Returns:
            How many slots were changed.
        """
        numbers = ffi.new("int[]", [memory.file_number(fd, "fds") for fd in fds])
        self._check_open()
        res = lib.ioc_register_update(
            self._handle, lib.IORING_REGISTER_FILES_UPDATE, _count(offset, "offset"), numbers, len(numbers)
        )
        return self._took(res, "io_uring_register_files_update")

    def unregister_files(self) -> None:
        """Gives the registered files back (io_uring_unregister_files(3)). Linux 5.1."""
        self._register("io_uring_unregister_files", lib.IORING_UNREGISTER_FILES)

    def register_file_alloc_range(self, offset: int, length: int) -> None:
        """Says which slots the kernel may choose (io_uring_register_file_alloc_range(3)). Linux 6.0.

        Args:
            offset: the first slot.
            length: how many slots.
        """
        both = _count(offset, "offset"), _count(length, "length")
        request = ffi.new("uint32_t[4]", [*both, 0, 0])
        self._check_open()
        res = lib.ioc_register(self._handle, lib.IORING_REGISTER_FILE_ALLOC_RANGE, request, 0)
        self._took_feature(
            res, "io_uring_register_file_alloc_range", "IORING_REGISTER_FILE_ALLOC_RANGE", "6.0"
        )

    # Buffers

    def register_buffers(self, buffers: Sequence[WriteableBuffer]) -> None:
        """Registers memory for the fixed reads and writes (io_uring_register_buffers(3)). Linux 5.1.

        The buffers are pinned until they are unregistered or the ring is closed.

        Args:
            buffers: writable buffers, of 1 GiB each at most.

        Raises:
            OSError: ENOMEM where RLIMIT_MEMLOCK does not allow it, EBUSY where buffers are registered.
        """
        vector, pins = memory.iovecs(buffers, write=True)
        self._register("io_uring_register_buffers", lib.IORING_REGISTER_BUFFERS, vector, len(pins) - 1)
        self._buffers = pins

    def unregister_buffers(self) -> None:
        """Gives the registered buffers back (io_uring_unregister_buffers(3)). Linux 5.1.

        Requests in flight keep what they use.
        """
        self._register("io_uring_unregister_buffers", lib.IORING_UNREGISTER_BUFFERS)
        self._buffers = []

    def register_buf_ring(self, entries: int, nbytes: int, bgid: int = 0) -> BufRing:
        """Registers a group of buffers to pick from (io_uring_register_buf_ring(3)). Linux 5.19.

        Args:
            entries: how many, a power of two up to 32768.
            nbytes: the size of each, in bytes.
            bgid: the group's number, 0 to 65535.

        Returns:
            The group, all its buffers the kernel's. It lives as long as the ring, or until
            `unregister_buf_ring`.

        Raises:
            OSError: EEXIST where the number is taken.
            FeatureUnavailable: a kernel without it.
        """
        self._check_open()
        if not 1 <= _count(entries, "entries") <= 32768 or entries & (entries - 1):
            raise ValueError(f"entries takes a power of two up to 32768, not {entries}")
        if not _count(nbytes, "nbytes") >= 1:
            raise ValueError("nbytes takes at least 1")
        if not 0 <= _count(bgid, "bgid") <= 0xFFFF:
            raise ValueError(f"bgid takes 0 to 65535, not {bgid}")
        group = BufRing(bgid, entries, nbytes)
        res = lib.ioc_register_buf_ring(self._handle, group._queue_pin, entries, bgid, 0)
        if res == -errno.EEXIST:
            raise errors.plain(
                errno.EEXIST, f"io_uring_register_buf_ring: group {bgid} is registered already"
            )
        self._took_feature(res, "io_uring_register_buf_ring", "IORING_REGISTER_PBUF_RING", "5.19")
        self._groups[bgid] = group
        group._give_all()
        return group

    def unregister_buf_ring(self, bgid: int) -> None:
        """Takes the group `bgid` of buffers from the kernel (io_uring_unregister_buf_ring(3)). Linux 5.19.

        Requests in flight keep what they use.
        """
        self._check_open()
        if not 0 <= _count(bgid, "bgid") <= 0xFFFF:
            raise ValueError(f"bgid takes 0 to 65535, not {bgid}")
        group = self._groups.get(bgid)
        if group is not None:
            # Requests that were submitted before the group was registered (linked, multishot) pick from
            # it, too: each gets it pinned.
            for _, entry in self._ledger.entries():
                if (entry._flags | entry._implied) & lib.IOSQE_BUFFER_SELECT and entry.buf_group == bgid:
                    entry._pins = (*entry._pins, group)
        res = lib.ioc_unregister_buf_ring(self._handle, bgid)
        if res in (-errno.ENOENT, -errno.EINVAL) and bgid not in self._groups:
            raise errors.plain(errno.ENOENT, f"io_uring_unregister_buf_ring: there is no group {bgid}")
        self._took(res, "io_uring_unregister_buf_ring")
        self._groups.pop(bgid, None)

    # Notification, credentials, workers

    def register_eventfd(self, fd: Any, *, only_async: bool = False) -> None:
        """Has an eventfd counted up for each completion (io_uring_register_eventfd(3)). Linux 5.2.

        Args:
            fd: an eventfd's number (`os.eventfd`).
            only_async: only for completions that did not come with the submit itself. Linux 5.6.
        """
        number = ffi.new("int *", memory.file_number(fd))
        name = "EVENTFD_ASYNC" if only_async else "EVENTFD"
        opcode = lib.IORING_REGISTER_EVENTFD_ASYNC if only_async else lib.IORING_REGISTER_EVENTFD
        self._register(f"io_uring_register_{name.lower()}", opcode, number, 1)

    def unregister_eventfd(self) -> None:
        """Ends the counting (io_uring_unregister_eventfd(3)). Linux 5.2."""
        self._register("io_uring_unregister_eventfd", lib.IORING_UNREGISTER_EVENTFD)

    def register_personality(self) -> int:
        """Registers the credentials of now (io_uring_register_personality(3)). Linux 5.6.

        Returns:
            A number for `Sqe.personality`.
        """
        return self._register("io_uring_register_personality", lib.IORING_REGISTER_PERSONALITY)

    def unregister_personality(self, personality: int) -> None:
        """Gives registered credentials back (io_uring_unregister_personality(3)). Linux 5.6.

        Args:
            personality: what `register_personality` returned.
        """
        number = _count(personality, "personality")
        self._register("io_uring_unregister_personality", lib.IORING_UNREGISTER_PERSONALITY, ffi.NULL, number)

    def register_iowq_max_workers(self, bounded: int = 0, unbounded: int = 0) -> tuple[int, int]:
        """Limits the worker threads (io_uring_register_iowq_max_workers(3)). Linux 5.15.

        Args:
            bounded: at most so many for regular files; 0 leaves it.
            unbounded: at most so many for everything else; 0 leaves it.

        Returns:
            The limits from before: (bounded, unbounded).
        """
        values = ffi.new("unsigned[2]", [_count(bounded, "bounded"), _count(unbounded, "unbounded")])
        self._check_open()
        res = lib.ioc_register(self._handle, lib.IORING_REGISTER_IOWQ_MAX_WORKERS, values, 2)
        name = "IORING_REGISTER_IOWQ_MAX_WORKERS"
        self._took_feature(res, "io_uring_register_iowq_max_workers", name, "5.15")
        return int(values[0]), int(values[1])

    def _register(self, call: str, opcode: int, arg: Any = ffi.NULL, n: int = 0) -> int:
        self._check_open()
        return self._took(lib.ioc_register(self._handle, opcode, arg, n), call)

    def _took_feature(self, res: int, call: str, feature: str, since: str) -> int:
        # EINVAL has other causes too: only where the kernel is older is it for want of the feature.
        if res == -errno.EINVAL and _version(platform.release()) < _version(since):
            return errors.check(res, call, feature=feature, since=since)
        return self._took(res, call)


def _count(value: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} takes an int, not {type(value).__name__}")
    if not 0 <= value < 1 << 32:
        raise ValueError(f"{what} takes 0 to 2**32 - 1, not {value}")
    return value
