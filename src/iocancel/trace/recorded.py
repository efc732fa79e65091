"""What programs on this library write down of their own cancels, joined to what the kernel tells of them.

See `iocancel.record_to`: a line of JSON for each request, written before the kernel has it. A line belongs to
the first cancel of its process, with its user_data and by its mechanism, that comes after it; a synchronous
one has no user_data, and is its thread's.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import defaultdict, deque
from typing import Any

from iocancel.trace.events import ASYNC_CANCEL, IO_CANCEL, POLL_REMOVE, SYNC_CANCEL, TIMEOUT_REMOVE, Cancel
from iocancel.uring.flags import CancelFlags

_MECHANISMS = frozenset([ASYNC_CANCEL, IO_CANCEL, POLL_REMOVE, SYNC_CANCEL, TIMEOUT_REMOVE])
_MOST = 10_000  # lines that come until it is looked which are old
_OLD = 5_000_000_000  # ns after which a request that was written down was never made


class Recorded:
    """Reads a record as it grows. A context manager.

    Args:
        path: the file; it is made where it is not there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._fd = -1
        self._rest = b""
        self._many = 0  # lines that came since it was last looked which are old
        self._newest = 0
        self._lines: defaultdict[tuple[Any, ...], deque[dict[str, Any]]] = defaultdict(deque)

    def __enter__(self) -> Recorded:
        """From its end: what is there is of earlier."""
        self._fd = os.open(self._path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.lseek(self._fd, 0, os.SEEK_END)
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def read(self) -> None:
        """Take what was written since."""
        while data := os.read(self._fd, 1 << 20):
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                try:
                    said = json.loads(line)
                    key = self._key(said)
                    when = said["time"]
                except (ValueError, KeyError, TypeError):
                    continue  # the rest of one that was not finished: a crash, a full disk
                if said["mechanism"] in _MECHANISMS:  # POSIX AIO's are not shown
                    self._lines[key].append(said)
                    self._many += 1
                    self._newest = max(self._newest, when)
        if self._many > _MOST:
            self._forget()

    def _forget(self) -> None:
        """Drop what nobody has asked for: cancels that are not shown, or that were lost."""
        for key, lines in list(self._lines.items()):
            while lines and self._newest - lines[0]["time"] > _OLD:
                lines.popleft()
            if not lines:
                del self._lines[key]
        self._many = len(self._lines)

    def _key(self, said: dict[str, Any]) -> tuple[Any, ...]:
        who = said["tid"] if said["mechanism"] == SYNC_CANCEL else said["pid"]
        return said["mechanism"], who, said["user_data"]

    def of(self, cancel: Cancel) -> Cancel:
        """The same with its key, fd and flags, where its program has written them down."""
        who = cancel.tid if cancel.mechanism == SYNC_CANCEL else cancel.pid
        key = cancel.mechanism, who, cancel.user_data
        lines = self._lines.get(key)
        while lines:
            said = lines[0]
            if said["time"] > cancel.time:
                break
            lines.popleft()
            if not lines:
                del self._lines[key]
            if cancel.time - said["time"] < _OLD:
                flags = 0
                for name in said["flags"]:
                    flags |= CancelFlags[name]
                return dataclasses.replace(cancel, key=said["key"], fd=said["fd"], flags=int(flags))
        return cancel
