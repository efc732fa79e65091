"""Files opened and closed, into the process's table and into the registered files."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from iocancel._native import ffi, lib
from iocancel.uring import memory
from iocancel.uring.prep_help import (
    DIRECT,
    FILE_INDEX_ALLOC,
    Fd,
    Requests,
    directory,
    fixed_slot,
    slot,
    wrapped,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]

_INT = ffi.sizeof("int")


class PrepFiles(Requests):
    """Files opened and closed, into the process's table and into the registered files.

    Where these have the arguments, they mean: `dfd` the directory that a relative path starts from (a
    number, an object with `fileno()`, None or AT_FDCWD for the working directory); `path` a path without
    a NUL byte; `flags`, `mode` as for open(2), `os.O_*` (O_CLOEXEC is up to the caller); `file_index` the
    slot of the registered files where the new file goes, FILE_INDEX_ALLOC (or -1) for any free one
    (Linux 5.19).

    An open completes with the new fd, which then belongs to whoever reaps it; the direct ones with 0, or
    with the slot that was picked for FILE_INDEX_ALLOC, -ENFILE where none is free. A FIFO's open does not
    behave as open(2) unless `SqeFlags.ASYNC` is set.
    """

    __slots__ = ()

    def prep_openat(self, dfd: Fd | None, path: Path, flags: int, mode: int = 0o777) -> None:
        """Open a file (io_uring_prep_openat(3)). Linux 5.6."""
        self._open("io_uring_prep_openat", dfd, path, flags, mode)

    def prep_openat_direct(
        self,
        dfd: Fd | None,
        path: Path,
        flags: int,
        mode: int = 0o777,
        file_index: int = FILE_INDEX_ALLOC,
    ) -> None:
        """Open a file into the registered files (io_uring_prep_openat_direct(3)). Linux 5.15."""
        self._open("io_uring_prep_openat_direct", dfd, path, flags, mode, file_index)

    def prep_open(self, path: Path, flags: int, mode: int = 0o777) -> None:
        """Open a file, from the working directory (io_uring_prep_open(3)). Linux 5.6."""
        self._open("io_uring_prep_open", None, path, flags, mode)

    def prep_open_direct(
        self, path: Path, flags: int, mode: int = 0o777, file_index: int = FILE_INDEX_ALLOC
    ) -> None:
        """Open a file into the registered files (io_uring_prep_open_direct(3)). Linux 5.15."""
        self._open("io_uring_prep_open_direct", None, path, flags, mode, file_index)

    def prep_openat2(
        self, dfd: Fd | None, path: Path, flags: int = 0, mode: int = 0, resolve: int = 0
    ) -> None:
        """Open a file, with limits on how its path is followed (io_uring_prep_openat2(3)). Linux 5.6.

        Args:
            mode: permissions of a file that is made; must be 0 where none is.
            resolve: the RESOLVE_* of openat2(2).
            dfd, path, flags: see the class.
        """
        self._open2("io_uring_prep_openat2", dfd, path, flags, mode, resolve)

    def prep_openat2_direct(
        self,
        dfd: Fd | None,
        path: Path,
        flags: int = 0,
        mode: int = 0,
        resolve: int = 0,
        file_index: int = FILE_INDEX_ALLOC,
    ) -> None:
        """As `prep_openat2`, into the registered files (io_uring_prep_openat2_direct(3)). Linux 5.15."""
        self._open2("io_uring_prep_openat2_direct", dfd, path, flags, mode, resolve, file_index)

    def prep_close(self, fd: Fd) -> None:
        """Close a file (io_uring_prep_close(3)). Linux 5.6.

        It cancels nothing: requests on the file go on. Of an object, the number is closed and not the
        object, which will try it again.

        Completion: 0; -EBADF for no open file, and for a ring.
        """
        self._on("io_uring_prep_close", lib.IORING_OP_CLOSE, fd)

    def prep_close_direct(self, file_index: int) -> None:
        """Empty a slot of the registered files (io_uring_prep_close_direct(3)). Linux 5.15.

        Args:
            file_index: the slot, from 0.

        Completion: 0; -EBADF for an empty slot.
        """
        self._put(
            "io_uring_prep_close_direct",
            lib.IORING_OP_CLOSE,
            0,
            file_index=fixed_slot(file_index) + 1,
            feature=DIRECT,
        )

    def prep_fixed_fd_install(self, fd: int, flags: int = 0) -> None:
        """Make an ordinary fd of a registered file (io_uring_prep_fixed_fd_install(3)). Linux 6.8.

        Args:
            fd: the slot of the registered files.
            flags: 0, or IORING_FIXED_FD_NO_CLOEXEC (1) for an fd that programs started later inherit.

        Completion: the new fd, which belongs to whoever reaps it; -EBADF for an empty slot.
        """
        self._put(
            "io_uring_prep_fixed_fd_install",
            lib.IORING_OP_FIXED_FD_INSTALL,
            fixed_slot(fd),
            op_flags=flags,
            implied=lib.IOSQE_FIXED_FILE,
            gives_fd=True,
        )

    def prep_files_update(self, fds: Sequence[int] | WriteableBuffer, offset: int = 0) -> None:
        """Change slots of the registered files (io_uring_prep_files_update(3)). Linux 5.6.

        Args:
            fds: the fds for the slots from `offset` on; -1 empties a slot, IORING_REGISTER_FILES_SKIP
                (-2) leaves it. A writable buffer of C ints (`array("i", ...)`) is used as it is;
                anything else is copied.
            offset: the first slot; FILE_INDEX_ALLOC (or -1) for free ones, which the kernel then writes
                over the fds: give a buffer to see them (Linux 5.19).

        Completion: how many slots were changed.
        """
        view = pin = None
        count = 0
        kept: tuple[Any, ...] = ()
        try:
            view = memoryview(fds)  # type: ignore[arg-type]
        except TypeError:
            kept = tuple(fds)  # type: ignore[arg-type]
            pin = ffi.new("int[]", [memory.file_number(fd, "fds") for fd in kept])
            count = len(pin)
        if view is not None:
            if len(view) and (view.itemsize != _INT or view.format != "i"):
                raise TypeError(f'fds takes C ints, array("i", ...), not items of format {view.format!r}')
            pin = memory.writable(view, "fds")
            count = view.nbytes // _INT
        offset = operator.index(offset)
        alloc = offset in (-1, FILE_INDEX_ALLOC)
        self._put(
            "io_uring_prep_files_update",
            lib.IORING_OP_FILES_UPDATE,
            -1,
            FILE_INDEX_ALLOC if alloc else fixed_slot(offset),
            memory.address(pin),
            count,
            pins=(pin, *kept),
            feature="IORING_FILE_INDEX_ALLOC" if alloc else "",
        )

    def prep_pipe(self, fds: WriteableBuffer, pipe_flags: int = 0) -> None:
        """Make a pipe (io_uring_prep_pipe(3)). Linux 6.16.

        Args:
            fds: a writable buffer of two C ints, `array("i", [0, 0])`, for the read end and the write end;
                they belong to whoever reads them there.
            pipe_flags: as for pipe2(2), `os.O_CLOEXEC` ...

        Raises:
            ValueError: a smaller buffer.

        Completion: 0.
        """
        self._pipe("io_uring_prep_pipe", fds, pipe_flags)

    def prep_pipe_direct(
        self, fds: WriteableBuffer, pipe_flags: int = 0, file_index: int = FILE_INDEX_ALLOC
    ) -> None:
        """Make a pipe in the registered files (io_uring_prep_pipe_direct(3)). Linux 6.16.

        Args:
            file_index: the slot of the read end, the next one is the write end's; FILE_INDEX_ALLOC (or
                -1) for free ones.
            fds: as for `prep_pipe`; here the slots are written to it.
            pipe_flags: as for `prep_pipe`, without O_CLOEXEC.

        Completion: 0.
        """
        self._pipe("io_uring_prep_pipe_direct", fds, pipe_flags, file_index)

    def _pipe(self, call: str, fds: WriteableBuffer, pipe_flags: int, file_index: int | None = None) -> None:
        pin = memory.at_least(memory.writable(fds, "fds"), 2 * _INT, "fds")
        field, feature = (0, "") if file_index is None else slot(file_index)
        self._put(
            call,
            lib.IORING_OP_PIPE,
            0,
            addr=memory.address(pin),
            op_flags=pipe_flags,
            file_index=field,
            pins=(pin,),
            feature=feature,
        )

    def _open(
        self,
        call: str,
        dfd: Fd | None,
        path: Path,
        flags: int,
        mode: int,
        file_index: int | None = None,
    ) -> None:
        self._open_any(call, lib.IORING_OP_OPENAT, dfd, path, 0, mode, flags, file_index, ())

    def _open2(
        self,
        call: str,
        dfd: Fd | None,
        path: Path,
        flags: int,
        mode: int,
        resolve: int,
        file_index: int | None = None,
    ) -> None:
        how = ffi.new(
            "struct ioc_open_how *",
            (wrapped(flags, "flags"), wrapped(mode, "mode"), wrapped(resolve, "resolve")),
        )
        size = ffi.sizeof("struct ioc_open_how")
        self._open_any(
            call, lib.IORING_OP_OPENAT2, dfd, path, memory.address(how), size, 0, file_index, (how,)
        )

    def _open_any(
        self,
        call: str,
        opcode: int,
        dfd: Fd | None,
        path: Path,
        off: int,
        length: int,
        op_flags: int,
        file_index: int | None,
        pins: tuple[Any, ...],
    ) -> None:
        number, more = directory(dfd)
        name = memory.path_bytes(path)
        field, feature = (0, "") if file_index is None else slot(file_index)
        self._put(
            call,
            opcode,
            number,
            off,
            memory.address(name),
            length,
            op_flags,
            file_index=field,
            pins=(name, *pins, *more),
            gives_fd=file_index is None,
            feature=feature,
        )
