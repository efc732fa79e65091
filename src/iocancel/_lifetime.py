"""What rings, contexts and control blocks share: what must not be freed, the end of the process, forks.

No library in here. The wrappers register each object that owns something of the kernel's; at a fork
the child's copies learn that they are dead, and at interpreter exit they are closed while Python can
still wait for the kernel. What the kernel may write to for ever is kept for ever: `keep_forever`.
"""

import atexit
import os
import traceback
import weakref
from collections.abc import Callable
from typing import Protocol

_owners: "weakref.WeakSet[Owner]" = weakref.WeakSet()
_kept: list[object] = []
_pinned = 0  # how many of them are out of the collector's reach
_last: list[Callable[[], None]] = []


class Owner(Protocol):
    """What has to hear of forks and of the interpreter's end."""

    def _forked(self) -> None:
        """Called in the child: give up the kernel's things without touching them."""

    def _at_exit(self) -> None:
        """Called at interpreter exit: cancel, drain, close; never raises."""


def register(owner: Owner) -> None:
    """Let `owner` hear of forks and of the interpreter's end for as long as it lives."""
    _owners.add(owner)


def owners() -> list[Owner]:
    """Those that are registered and alive."""
    return list(_owners)


def keep_forever(thing: object) -> None:
    """Keep `thing`, and the memory it owns, until the process is gone (rule 2, its last resort).

    A module's globals are cleared when the interpreter ends, and the kernel may write even then: so
    the object is put out of the collector's reach by a reference that nobody gives back.
    """
    _kept.append(thing)
    _pin_kept()


def _pin_kept() -> None:
    global _pinned
    try:
        import ctypes  # only here: it is slow to import, and this is rare
    except (ImportError, OSError):  # no fd left to import with: at the interpreter's end, again
        return
    while _pinned < len(_kept):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(_kept[_pinned]))
        _pinned += 1


def kept() -> int:
    """How many objects were kept for ever: 0 in a program that closes what it opens."""
    return len(_kept)


def last_at_exit(call: Callable[[], None]) -> None:
    """Have `call` made at interpreter exit, when all owners are closed."""
    _last.append(call)


def _in_child() -> None:
    for owner in list(_owners):
        owner._forked()
    _owners.clear()


def _at_exit() -> None:
    for owner in list(_owners):
        try:
            owner._at_exit()
        except BaseException:  # noqa: BLE001 - the others must be closed all the same, also after a Ctrl-C
            traceback.print_exc()
    for call in _last:
        call()
    _pin_kept()


os.register_at_fork(after_in_child=_in_child)
atexit.register(_at_exit)
