"""io_uring's worker threads: how to catch one at work, and how to leave a request waiting for one."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable

from iocancel.doctor.live import LIMIT, Live, NotHere, Overdue
from iocancel.doctor.props import folder
from iocancel.uring import Cqe, Ring, SqeFlags

__all__ = ["blocked_open", "queued_open"]

_PAUSES = (0.001, 0.004, 0.016, 0.064, 0.256)


def blocked_open(live: Live, cancel: Callable[[int], int]) -> None:
    """Opens a FIFO and cancels that, with longer and longer pauses until a worker was blocked in it.

    The pauses decide nothing: an open that was cancelled while it waited for a worker ended as rightly.

    Args:
        live: where.
        cancel: cancels the request of this number, waits for its end, and returns the cancel's answer:
            -EALREADY where a worker had it.
    """
    with folder() as there:
        os.mkfifo(there / "fifo")
        path = str(there / "fifo")
        for pause in _PAUSES:
            number = live.start(lambda sqe: sqe.prep_open(path, os.O_RDONLY), SqeFlags.ASYNC, fd=True)
            live.collect(lambda: False, pause)
            if cancel(number) == -errno.EALREADY:
                return


def queued_open() -> tuple[int, Cqe, bool]:
    """Cancels the open of a new file that waits for a worker.

    A thread of its own has workers of its own: only one, which is blocked in the open of a FIFO. (What is
    queued has to be of the same kind: a write to a file has another set of workers on newer kernels.)

    Returns:
        The cancel's answer, the open's completion, and whether the file was made.

    Raises:
        NotHere: the kernel can't limit the number of workers.
    """
    said: list[tuple[int, Cqe, bool] | BaseException] = []

    def work() -> None:
        try:
            said.append(_queued_open())
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
            said.append(error)

    thread = threading.Thread(target=work, name="iocancel-queued-open")
    thread.start()
    thread.join(3 * LIMIT)
    if not said:
        raise Overdue("the thread with a queued open did not come to its end")
    if isinstance(said[0], BaseException):
        raise said[0]
    return said[0]


def _queued_open() -> tuple[int, Cqe, bool]:
    with Ring(8) as ring, folder() as there:
        try:
            ring.register_iowq_max_workers(1, 1)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise NotHere("Linux 5.15 (IORING_REGISTER_IOWQ_MAX_WORKERS)") from None
            raise
        os.mkfifo(there / "fifo")
        fifo, file = str(there / "fifo"), there / "file"
        how = os.O_WRONLY | os.O_CREAT
        live = Live(ring)
        try:
            live.start(lambda sqe: sqe.prep_open(fifo, os.O_RDONLY), SqeFlags.ASYNC, fd=True)
            late = live.start(lambda sqe: sqe.prep_open(str(file), how), SqeFlags.ASYNC, fd=True)
            answer, cqe = live.cancel(late)
        finally:
            live.finish()
        return answer, cqe, file.exists()
