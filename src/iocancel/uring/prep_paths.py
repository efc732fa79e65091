"""Names in the file system: renamed, removed, made, asked about; extended attributes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from iocancel._native import lib
from iocancel.uring import memory
from iocancel.uring.prep_help import Fd, Requests, directory

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]


class PrepPaths(Requests):
    """Names in the file system: renamed, removed, made, asked about; extended attributes.

    Where these have the arguments, they mean: a directory's fd (`dfd`, `olddfd`, `newdfd`, `newdirfd`)
    what a relative path starts from (a number, an object with `fileno()`, None or AT_FDCWD for the
    working directory); a path (`path`, `oldpath`, `newpath`, `linkpath`, `target`) is one without a NUL
    byte; `flags`, `mode` are those of the system call of that name; `name` is an attribute's with its
    namespace, as "user.mime_type".

    Completion: 0, but for the attributes' values that are got (their length in bytes; -ERANGE where the
    buffer is too small).
    """

    __slots__ = ()

    def prep_renameat(
        self, olddfd: Fd | None, oldpath: Path, newdfd: Fd | None, newpath: Path, flags: int = 0
    ) -> None:
        """Rename a file (io_uring_prep_renameat(3)). Linux 5.11."""
        self._two_paths(
            "io_uring_prep_renameat", lib.IORING_OP_RENAMEAT, olddfd, oldpath, newdfd, newpath, flags
        )

    def prep_rename(self, oldpath: Path, newpath: Path) -> None:
        """Rename a file, from the working directory (io_uring_prep_rename(3)). Linux 5.11."""
        self._two_paths("io_uring_prep_rename", lib.IORING_OP_RENAMEAT, None, oldpath, None, newpath, 0)

    def prep_linkat(
        self, olddfd: Fd | None, oldpath: Path, newdfd: Fd | None, newpath: Path, flags: int = 0
    ) -> None:
        """Give a file another name (io_uring_prep_linkat(3)). Linux 5.15."""
        self._two_paths("io_uring_prep_linkat", lib.IORING_OP_LINKAT, olddfd, oldpath, newdfd, newpath, flags)

    def prep_link(self, oldpath: Path, newpath: Path, flags: int = 0) -> None:
        """Give a file another name, from the working directory (io_uring_prep_link(3)). Linux 5.15."""
        self._two_paths("io_uring_prep_link", lib.IORING_OP_LINKAT, None, oldpath, None, newpath, flags)

    def prep_symlinkat(self, target: Path, newdirfd: Fd | None, linkpath: Path) -> None:
        """Make a symbolic link (io_uring_prep_symlinkat(3)). Linux 5.15."""
        self._symlink("io_uring_prep_symlinkat", target, newdirfd, linkpath)

    def prep_symlink(self, target: Path, linkpath: Path) -> None:
        """Make a symbolic link, from the working directory (io_uring_prep_symlink(3)). Linux 5.15."""
        self._symlink("io_uring_prep_symlink", target, None, linkpath)

    def prep_unlinkat(self, dfd: Fd | None, path: Path, flags: int = 0) -> None:
        """Remove a name (io_uring_prep_unlinkat(3)). Linux 5.11.

        Args:
            flags: AT_REMOVEDIR (0x200) for an empty directory.
            dfd, path: see the class.
        """
        self._one_path("io_uring_prep_unlinkat", lib.IORING_OP_UNLINKAT, dfd, path, 0, flags)

    def prep_unlink(self, path: Path, flags: int = 0) -> None:
        """Remove a name, from the working directory (io_uring_prep_unlink(3)). Linux 5.11."""
        self._one_path("io_uring_prep_unlink", lib.IORING_OP_UNLINKAT, None, path, 0, flags)

    def prep_mkdirat(self, dfd: Fd | None, path: Path, mode: int = 0o777) -> None:
        """Make a directory (io_uring_prep_mkdirat(3)). Linux 5.15."""
        self._one_path("io_uring_prep_mkdirat", lib.IORING_OP_MKDIRAT, dfd, path, mode, 0)

    def prep_mkdir(self, path: Path, mode: int = 0o777) -> None:
        """Make a directory, from the working directory (io_uring_prep_mkdir(3)). Linux 5.15."""
        self._one_path("io_uring_prep_mkdir", lib.IORING_OP_MKDIRAT, None, path, mode, 0)

    def prep_statx(
        self, dfd: Fd | None, path: Path, flags: int, mask: int, statxbuf: WriteableBuffer
    ) -> None:
        """Ask about a file (io_uring_prep_statx(3)). Linux 5.6.

        Args:
            flags: AT_* of statx(2); AT_EMPTY_PATH (0x1000) and an empty path ask about `dfd` itself.
            mask: STATX_* of statx(2), what is asked for.
            statxbuf: a writable buffer of at least 256 bytes for the kernel's `struct statx`.
            dfd, path: see the class.

        Raises:
            ValueError: a smaller buffer.
        """
        pin = memory.at_least(memory.writable(statxbuf, "statxbuf"), lib.IOC_SIZEOF_STATX, "statxbuf")
        number, more = directory(dfd)
        name = memory.path_bytes(path)
        self._put(
            "io_uring_prep_statx",
            lib.IORING_OP_STATX,
            number,
            memory.address(pin),
            memory.address(name),
            mask,
            flags,
            pins=(pin, name, *more),
        )

    def prep_getxattr(self, name: Path, value: WriteableBuffer, path: Path) -> None:
        """Get an extended attribute by path (io_uring_prep_getxattr(3)). Linux 5.19.

        Args:
            value: a writable buffer for it; an empty one to be told its length only.
            name, path: see the class.
        """
        buf, words = memory.writable(value, "value"), memory.path_bytes(path)
        self._attribute("io_uring_prep_getxattr", lib.IORING_OP_GETXATTR, 0, name, buf, 0, words)

    def prep_setxattr(self, name: Path, value: ReadableBuffer, path: Path, flags: int = 0) -> None:
        """Set an extended attribute by path (io_uring_prep_setxattr(3)). Linux 5.19.

        Args:
            flags: `os.XATTR_CREATE`, XATTR_REPLACE or 0.
            name, value, path: see the class.
        """
        buf, words = memory.readable(value, "value"), memory.path_bytes(path)
        self._attribute("io_uring_prep_setxattr", lib.IORING_OP_SETXATTR, 0, name, buf, flags, words)

    def prep_fgetxattr(self, fd: Fd, name: Path, value: WriteableBuffer) -> None:
        """Get an extended attribute of an open file (io_uring_prep_fgetxattr(3)). Linux 5.19.

        Args:
            fd: the file, see `Requests`.
            value: a writable buffer for it; an empty one to be told its length only.
            name: see the class.
        """
        buf = memory.writable(value, "value")
        self._attribute("io_uring_prep_fgetxattr", lib.IORING_OP_FGETXATTR, fd, name, buf, 0)

    def prep_fsetxattr(self, fd: Fd, name: Path, value: ReadableBuffer, flags: int = 0) -> None:
        """Set an extended attribute of an open file (io_uring_prep_fsetxattr(3)). Linux 5.19.

        Args:
            fd: the file, see `Requests`.
            flags: `os.XATTR_CREATE`, XATTR_REPLACE or 0.
            name, value: see the class.
        """
        buf = memory.readable(value, "value")
        self._attribute("io_uring_prep_fsetxattr", lib.IORING_OP_FSETXATTR, fd, name, buf, flags)

    def _attribute(
        self, call: str, opcode: int, fd: Fd, name: Path, value: object, flags: int, path: object = None
    ) -> None:
        words = memory.path_bytes(name, "name")
        self._on(
            call,
            opcode,
            fd,
            memory.address(value),
            memory.address(words),
            len(value),  # type: ignore[arg-type]
            flags,
            addr3=0 if path is None else memory.address(path),
            pins=(words, value, path),
        )

    def _one_path(self, call: str, opcode: int, dfd: Fd | None, path: Path, length: int, flags: int) -> None:
        number, more = directory(dfd)
        name = memory.path_bytes(path)
        self._put(call, opcode, number, 0, memory.address(name), length, flags, pins=(name, *more))

    def _symlink(self, call: str, target: Path, newdirfd: Fd | None, linkpath: Path) -> None:
        number, more = directory(newdirfd)
        old, new = memory.path_bytes(target, "target"), memory.path_bytes(linkpath, "linkpath")
        off, addr = memory.address(new), memory.address(old)
        self._put(call, lib.IORING_OP_SYMLINKAT, number, off, addr, pins=(old, new, *more))

    def _two_paths(
        self,
        call: str,
        opcode: int,
        olddfd: Fd | None,
        oldpath: Path,
        newdfd: Fd | None,
        newpath: Path,
        flags: int,
    ) -> None:
        first, first_pin = directory(olddfd)
        second, second_pin = directory(newdfd)
        old, new = memory.path_bytes(oldpath, "oldpath"), memory.path_bytes(newpath, "newpath")
        off, addr = memory.address(new), memory.address(old)
        self._put(call, opcode, first, off, addr, second, flags, pins=(old, new, *first_pin, *second_pin))
