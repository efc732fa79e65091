"""io_uring's worker threads: how to catch one at work, and how to leave a request waiting for one."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable

from iocancel.doctor.live import LIMIT, Live, NotHere, Overdue, folder
from iocancel.uring import Cqe, Ring, SqeFlags

__all__ = ["blocked_open", "queued_write"]

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


def queued_write() -> tuple[int, Cqe, int]:
    """Cancels a file's write that waits for a worker.

    A thread of its own has workers of its own: only one, which is blocked in the open of a FIFO.

    Returns:
        The cancel's answer, the write's completion, and the file's size after it.

    Raises:
        NotHere: the kernel can't limit the number of workers.
    """
    said: list[tuple[int, Cqe, int] | BaseException] = []

    def work() -> None:
        try:
            said.append(_queued_write())
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
            said.append(error)

    thread = threading.Thread(target=work, name="iocancel-queued-write")
    thread.start()
    thread.join(3 * LIMIT)
    if not said:
        raise Overdue("the thread with a queued write did not come to its end")
    if isinstance(said[0], BaseException):
        raise said[0]
    return said[0]


def _queued_write() -> tuple[int, Cqe, int]:
    with Ring(8) as ring, folder() as there, (there / "file").open("wb", 0) as file:
        try:
            ring.register_iowq_max_workers(1, 0)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise NotHere("Linux 5.15 (IORING_REGISTER_IOWQ_MAX_WORKERS)") from None
            raise
        os.mkfifo(there / "fifo")
        path = str(there / "fifo")
        live = Live(ring)
        try:
            live.start(lambda sqe: sqe.prep_open(path, os.O_RDONLY), SqeFlags.ASYNC, fd=True)
            write = live.start(lambda sqe: sqe.prep_write(file, b"never", 0), SqeFlags.ASYNC)
            answer, cqe = live.cancel(write)
        finally:
            live.finish()
        return answer, cqe, os.fstat(file.fileno()).st_size
