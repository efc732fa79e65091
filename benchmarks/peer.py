"""The peer's side, PyPI's `liburing`, by the fastest calls that it has: a process of its own (see works.py).

Its `CQE.res` raises for a negative result, so that looking at a cancelled request's costs an exception.
"""

from __future__ import annotations

import importlib
import os
import select
from typing import Any

from benchmarks.works import COUNTS, ENTRIES, GONE, MANY, TIMES, Work, serve

liburing: Any = importlib.import_module("liburing")


def works(fd: int) -> dict[str, Work]:
    # Names of their own, which are quicker to look up than a module's.
    get_sqe, submit = liburing.io_uring_get_sqe, liburing.io_uring_submit
    prep_poll_add, prep_cancel64 = liburing.io_uring_prep_poll_add, liburing.io_uring_prep_cancel64
    prep_nop, submit_and_wait = liburing.io_uring_prep_nop, liburing.io_uring_submit_and_wait
    wait_cqe, cq_ready, cq_advance = (
        liburing.io_uring_wait_cqe,
        liburing.io_uring_cq_ready,
        liburing.io_uring_cq_advance,
    )
    skip, pollin = liburing.IOSQE_CQE_SKIP_SUCCESS, select.POLLIN
    ring, cqe = liburing.Ring(), liburing.Cqe()
    liburing.io_uring_queue_init(ENTRIES, ring)

    head = 0  # how many have been reaped

    def reap() -> tuple[int, int]:
        nonlocal head
        seen = total = 0
        while ready := cq_ready(ring):
            wait_cqe(ring, cqe)  # they are there: it points `cqe` at the first one
            ready = min(
                ready, 2 * ENTRIES - head % (2 * ENTRIES)
            )  # `cqe[n]` knows nothing of the queue's end
            for number in range(ready):
                try:
                    total += cqe[number].res
                except OSError as error:
                    total -= error.errno or 0
            cq_advance(ring, ready)
            head += ready
            seen += ready
        return seen, total

    def poll() -> None:
        for number in range(MANY):
            sqe = get_sqe(ring)
            prep_poll_add(sqe, fd, pollin)
            sqe.user_data = number
        submit(ring)

    def send_cancels() -> None:
        for number in range(MANY - 1, -1, -1):
            sqe = get_sqe(ring)
            prep_cancel64(sqe, number)
            sqe.flags = skip
            sqe.user_data = 5000
        submit_and_wait(ring, MANY)

    def cancel() -> tuple[int, int]:
        send_cancels()
        return reap()

    def count() -> tuple[int, int]:
        nonlocal head
        send_cancels()
        wait_cqe(ring, cqe)
        ready = cq_ready(ring)
        names = [cqe[number].user_data for number in range(ready)]
        cq_advance(ring, ready)
        head += ready
        return len(names), 0

    def pending(many: int) -> Work:
        """As C's: each batch of the newest is cancelled and reaped before the next."""

        def poll() -> None:
            for number in range(many):
                sqe = get_sqe(ring)
                prep_poll_add(sqe, fd, pollin)
                sqe.user_data = number
                if number % MANY == MANY - 1 or number == many - 1:
                    submit(ring)

        def cancel() -> tuple[int, int]:
            seen = total = 0
            for end in range(many, 0, -MANY):
                start = max(0, end - MANY)
                for number in range(end - 1, start - 1, -1):
                    sqe = get_sqe(ring)
                    prep_cancel64(sqe, number)
                    sqe.flags = skip
                    sqe.user_data = 1 << 30
                submit_and_wait(ring, end - start)
                came, results = reap()
                seen += came
                total += results
            return seen, total

        return Work(cancel, (many, GONE * many), poll)

    def one() -> tuple[int, int]:
        seen = total = 0
        for _ in range(TIMES):
            sqe = get_sqe(ring)
            prep_poll_add(sqe, fd, pollin)
            sqe.user_data = 1
            submit(ring)
            sqe = get_sqe(ring)
            prep_cancel64(sqe, 1)
            sqe.user_data = 2
            submit_and_wait(ring, 2)
            came, results = reap()
            seen += came
            total += results
        return seen, total

    def nop() -> tuple[int, int]:
        for number in range(MANY):
            sqe = get_sqe(ring)
            prep_nop(sqe)
            sqe.user_data = number
        submit_and_wait(ring, MANY)
        return reap()

    return {
        "cancel": Work(cancel, (MANY, GONE * MANY), poll),
        "count": Work(count, (MANY, 0), poll),
        "one": Work(one, (2 * TIMES, GONE * TIMES)),
        "nop": Work(nop, (MANY, 0)),
        **{f"newest-first-{many}": pending(many) for many in COUNTS},
    }


if __name__ == "__main__":
    serve(works(os.pipe()[0]))
