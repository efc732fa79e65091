"""Memory of closed rings that the kernel may still write to.

Closing a ring ends nothing at once: of direct reads that were in flight, 98 of 100 wrote into their
buffers after the close had returned. So a ring reaps every ending first. What has not ended by then (a
hung disk, a hung network file system) is kept here, behind a barrier: the write end of a pipe, put
into the ring's registered files before the ring's fd is closed, is let go by the kernel only when the
last request is gone; then the read end hangs up, and the memory is freed. Where no barrier could be
set up, or at the interpreter's end, it is kept for ever.
"""

from __future__ import annotations

import os
import select

from iocancel import _lifetime

_waiting: dict[int, object] = {}  # read end of the barrier -> what must live until it hangs up


def keep(read_end: int | None, things: object) -> None:
    """Keep `things` until the barrier hangs up; without one, for ever."""
    if read_end is None:
        _lifetime.keep_forever(things)
    else:
        _waiting[read_end] = things


def wait(read_end: int, timeout_ns: int) -> None:
    """Wait until a barrier that is kept here hangs up, and free what it kept."""
    if read_end in _waiting:
        poll = select.poll()
        poll.register(read_end, 0)
        poll.poll(None if timeout_ns < 0 else timeout_ns / 1e6)
        sweep()


def sweep() -> int:
    """Free what the kernel has let go of by now; returns how much still waits."""
    for read_end in list(_waiting):
        poll = select.poll()
        poll.register(read_end, 0)
        # Out of the table only when it has hung up, and by one thread.
        if poll.poll(0) and _waiting.pop(read_end, None) is not None:
            os.close(read_end)
    return len(_waiting)


def _in_child() -> None:
    # The kernel writes to the parent's memory, not to the child's copies.
    while _waiting:
        os.close(_waiting.popitem()[0])


def _at_exit() -> None:
    if sweep():
        for things in _waiting.values():
            _lifetime.keep_forever(things)


os.register_at_fork(after_in_child=_in_child)
_lifetime.last_at_exit(_at_exit)  # when all rings are closed
