"""A file's data: set aside, cut, synced, advised about, moved between pipes."""

from __future__ import annotations

import mmap

from iocancel._native import lib
from iocancel.uring import memory
from iocancel.uring.flags import FsyncFlags, bits
from iocancel.uring.prep_help import BIG_ADVICE, Fd, Requests, limited, wrapped

_DEADLY = {lib.MADV_HWPOISON: "MADV_HWPOISON", lib.MADV_GUARD_INSTALL: "MADV_GUARD_INSTALL"}


class PrepData(Requests):
    """A file's data: set aside, cut, synced, advised about, moved between pipes.

    Where these have the arguments, they mean: `fd` the file (see `Requests`); `offset` and lengths
    bytes; `flags`, `mode` and `advice` those of the system call of that name.

    Completion: 0, but for splice and tee, which say how many bytes they moved.
    """

    __slots__ = ()

    def prep_fallocate(self, fd: Fd, mode: int, offset: int, length: int) -> None:
        """Set a file's space aside, or give it back (io_uring_prep_fallocate(3)). Linux 5.6."""
        self._on(
            "io_uring_prep_fallocate", lib.IORING_OP_FALLOCATE, fd, offset, wrapped(length, "length"), mode
        )

    def prep_ftruncate(self, fd: Fd, length: int) -> None:
        """Make a file so long, in bytes (io_uring_prep_ftruncate(3)). Linux 6.9."""
        self._on("io_uring_prep_ftruncate", lib.IORING_OP_FTRUNCATE, fd, length)

    def prep_fsync(self, fd: Fd, fsync_flags: int = 0) -> None:
        """Bring a file's data to its device (io_uring_prep_fsync(3)). Linux 5.1.

        Requests run in any order: writes that it is to cover have to end, or be linked, before it.

        Args:
            fsync_flags: `FsyncFlags.DATASYNC` for fdatasync(2).
            fd: see the class.
        """
        flags = bits(FsyncFlags, fsync_flags, "fsync_flags")
        self._on("io_uring_prep_fsync", lib.IORING_OP_FSYNC, fd, op_flags=flags)

    def prep_sync_file_range(self, fd: Fd, length: int, offset: int, flags: int) -> None:
        """Bring a part of a file to its device (io_uring_prep_sync_file_range(3)). Linux 5.2."""
        length = limited(length, "length")
        self._on("io_uring_prep_sync_file_range", lib.IORING_OP_SYNC_FILE_RANGE, fd, offset, 0, length, flags)

    def prep_fadvise(self, fd: Fd, offset: int, length: int, advice: int) -> None:
        """Say how a part of a file will be used (io_uring_prep_fadvise(3)). Linux 5.6.

        Args:
            length: below 4 GiB; 0 for up to the end.
            fd, offset, advice: see the class (`os.POSIX_FADV_*`).
        """
        length = limited(length, "length")
        self._on("io_uring_prep_fadvise", lib.IORING_OP_FADVISE, fd, offset, 0, length, advice)

    def prep_fadvise64(self, fd: Fd, offset: int, length: int, advice: int) -> None:
        """As `prep_fadvise`, for any length (io_uring_prep_fadvise64(3)). Linux 6.11."""
        self._on(
            "io_uring_prep_fadvise64",
            lib.IORING_OP_FADVISE,
            fd,
            offset,
            wrapped(length, "length"),
            op_flags=advice,
            feature=BIG_ADVICE,
        )

    def prep_madvise(self, buf: mmap.mmap | memoryview, advice: int) -> None:
        """Say how mapped memory will be used (io_uring_prep_madvise(3)). Linux 5.6.

        Args:
            buf: an `mmap`, or a view of a part of one that starts at a page; below 4 GiB. No other
                memory: advice may throw away what else lies on those pages.
            advice: `mmap.MADV_*`.

        Raises:
            TypeError: memory that is not an `mmap`'s.
            ValueError: advice after which touching the memory ends the process.
        """
        self._madvise("io_uring_prep_madvise", buf, advice, False)

    def prep_madvise64(self, buf: mmap.mmap | memoryview, advice: int) -> None:
        """As `prep_madvise`, for any length (io_uring_prep_madvise64(3)). Linux 6.11."""
        self._madvise("io_uring_prep_madvise64", buf, advice, True)

    def prep_splice(
        self,
        fd_in: Fd,
        off_in: int,
        fd_out: Fd,
        off_out: int,
        nbytes: int,
        splice_flags: int = 0,
        *,
        fd_in_fixed: bool = False,
    ) -> None:
        """Move bytes from or to a pipe, without copying (io_uring_prep_splice(3)). Linux 5.7.

        Args:
            fd_in, fd_out: the files, one of them a pipe. `SqeFlags.FIXED_FILE` is about `fd_out`.
            off_in, off_out: where, in bytes; -1 for a pipe, or a file's own position.
            nbytes: how much at most, below 4 GiB.
            splice_flags: SPLICE_F_* of splice(2) (`os.SPLICE_F_MOVE` ...).
            fd_in_fixed: `fd_in` is an index of the registered files; sets SPLICE_F_FD_IN_FIXED.

        A cancel by fd goes by `fd_out`. In a worker, so it may end with -EINTR or -512 when cancelled.
        """
        self._splice(
            "io_uring_prep_splice",
            lib.IORING_OP_SPLICE,
            fd_in,
            wrapped(off_in, "off_in"),
            fd_out,
            off_out,
            nbytes,
            splice_flags,
            fd_in_fixed,
        )

    def prep_tee(
        self, fd_in: Fd, fd_out: Fd, nbytes: int, splice_flags: int = 0, *, fd_in_fixed: bool = False
    ) -> None:
        """Copy bytes from a pipe to a pipe and leave them in the first (io_uring_prep_tee(3)). Linux 5.8.

        Args:
            fd_in, fd_out: the two pipes.
            nbytes, splice_flags, fd_in_fixed: as for `prep_splice`.
        """
        self._splice(
            "io_uring_prep_tee", lib.IORING_OP_TEE, fd_in, 0, fd_out, 0, nbytes, splice_flags, fd_in_fixed
        )

    def _splice(
        self,
        call: str,
        opcode: int,
        fd_in: Fd,
        off_in: int,
        fd_out: Fd,
        off_out: int,
        nbytes: int,
        splice_flags: int,
        fd_in_fixed: bool,
    ) -> None:
        self._on(
            call,
            opcode,
            fd_out,
            off_out,
            off_in,
            limited(nbytes, "nbytes"),
            splice_flags | (lib.SPLICE_F_FD_IN_FIXED if fd_in_fixed else 0),
            file_index=memory.file_number(fd_in, "fd_in"),
            pins=() if type(fd_in) is int else (fd_in,),
        )

    def _madvise(self, call: str, buf: mmap.mmap | memoryview, advice: int, big: bool) -> None:
        view = memoryview(buf)
        if not isinstance(view.obj, mmap.mmap):
            raise TypeError(f"buf takes an mmap or a view of one, not {type(buf).__name__}")
        advice = limited(advice, "advice")
        if advice in _DEADLY:
            raise ValueError(f"{_DEADLY[advice]}: memory that Python then touches would end the process")
        pin = memory.readable(view)
        self._put(
            call,
            lib.IORING_OP_MADVISE,
            -1,
            len(pin) if big else 0,
            memory.address(pin),
            0 if big else len(pin),
            advice,
            pins=(pin,),
            feature=BIG_ADVICE if big else "",
        )
