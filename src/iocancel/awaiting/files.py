"""What the verbs ask about a file."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from iocancel.operation.values import number_of

if TYPE_CHECKING:
    from iocancel.operation.verbs import File


def same_file(file: File, number: int) -> None:
    """Raise where a file was closed while its task waited: its number may be another one's by now."""
    if not isinstance(file, int) and number_of(file) != number:
        raise OSError(errno.EBADF, f"{os.strerror(errno.EBADF)}: {file!r} was closed, or has another number")


def on_disk(number: int) -> bool:
    """Whether no poll tells anything of a file: a disk's are always "ready"."""
    mode = os.fstat(number).st_mode
    return stat.S_ISREG(mode) or stat.S_ISBLK(mode)


__all__ = ["on_disk", "same_file"]
