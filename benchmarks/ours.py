"""iocancel's side, as its users would write it: a process of its own (see works.py)."""

from __future__ import annotations

import os
import select
from array import array

from benchmarks.works import ENTRIES, GONE, MANY, TIMES, Work, nothing, serve
from iocancel import libaio
from iocancel.uring import CancelFlags, Ring, SqeFlags

SKIP = SqeFlags.CQE_SKIP_SUCCESS
EVERYTHING = CancelFlags.ANY | CancelFlags.ALL


def bulk(ring: Ring, fd: int) -> dict[str, Work]:
    """The fast ways: a call for many requests, or one call for one."""
    fds = array("i", [fd] * MANY)
    names = array("Q", range(MANY))
    newest_first = array("Q", reversed(names))

    def poll() -> None:
        ring.prep_poll_add_many(fds, select.POLLIN, names)
        ring.submit()

    def cancel() -> tuple[int, int]:
        ring.prep_cancel64_many(newest_first, 5000, sqe_flags=SKIP)
        results = [res for _, res, _ in ring.submit_and_reap(MANY)]
        return len(results), sum(results)

    def count() -> tuple[int, int]:
        ring.prep_cancel64_many(newest_first, 5000, sqe_flags=SKIP)
        return len(ring.submit_and_reap(MANY)), 0

    def one() -> tuple[int, int]:
        seen = total = 0
        for _ in range(TIMES):
            ring.submit_poll_add(fd, select.POLLIN, 1)
            for _, res, _ in ring.submit_cancel64(1, 2, n=2):
                seen += 1
                total += res
        return seen, total

    def nop() -> tuple[int, int]:
        ring.prep_nop_many(names)
        results = [res for _, res, _ in ring.submit_and_reap(MANY)]
        return len(results), sum(results)

    return {
        "cancel": Work(cancel, (MANY, GONE * MANY), poll),
        "count": Work(count, (MANY, 0), poll),
        "one": Work(one, (2 * TIMES, GONE * TIMES)),
        "nop": Work(nop, (MANY, 0)),
    }


def by_sqe(ring: Ring, fd: int) -> dict[str, Work]:
    """The same by an `Sqe` for each request and a `Cqe` for each completion."""

    def poll() -> None:
        for number in range(MANY):
            entry = ring.get_sqe()
            entry.prep_poll_add(fd, select.POLLIN)
            entry.user_data = number
        ring.submit()

    def cancel() -> tuple[int, int]:
        for number in range(MANY - 1, -1, -1):
            entry = ring.get_sqe()
            entry.prep_cancel64(number)
            entry.flags = SKIP
            entry.user_data = 5000
        ring.submit_and_wait(MANY)
        results = [completion.res for completion in ring.peek()]
        return len(results), sum(results)

    def one() -> tuple[int, int]:
        seen = total = 0
        for _ in range(TIMES):
            entry = ring.get_sqe()
            entry.prep_poll_add(fd, select.POLLIN)
            entry.user_data = 1
            ring.submit()
            entry = ring.get_sqe()
            entry.prep_cancel64(1)
            entry.user_data = 2
            ring.submit_and_wait(2)
            for completion in ring.peek():
                seen += 1
                total += completion.res
        return seen, total

    def nop() -> tuple[int, int]:
        for number in range(MANY):
            ring.get_sqe().user_data = number  # a fresh one is a NOP
        ring.submit_and_wait(MANY)
        results = [completion.res for completion in ring.peek()]
        return len(results), sum(results)

    return {
        "cancel-sqe": Work(cancel, (MANY, GONE * MANY), poll),
        "one-sqe": Work(one, (2 * TIMES, GONE * TIMES)),
        "nop-sqe": Work(nop, (MANY, 0)),
    }


def everything(ring: Ring, fd: int, pending: int) -> dict[str, Work]:
    """All that is pending: by one ANY|ALL, or each by its user_data."""
    batches = [array("Q", range(at, min(at + MANY, pending))) for at in range(0, pending, MANY)]
    newest_first = [array("Q", reversed(batch)) for batch in reversed(batches)]
    fds = array("i", [fd] * MANY)

    def poll() -> None:
        for names in batches:
            ring.prep_poll_add_many(fds[: len(names)], select.POLLIN, names)
            ring.submit()

    def any_all() -> tuple[int, int]:
        entry = ring.get_sqe()
        entry.prep_cancel64(0, EVERYTHING)
        results = [res for _, res, _ in ring.submit_and_reap(pending + 1)]
        return len(results), sum(results)

    def by_user_data() -> tuple[int, int]:
        results = []
        for names in newest_first:
            ring.prep_cancel64_many(names, 5000, sqe_flags=SKIP)
            results += [res for _, res, _ in ring.submit_and_reap(len(names))]
        return len(results), sum(results)

    return {
        # Its own result is the number of those that it found.
        f"any-all-{pending}": Work(any_all, (pending + 1, GONE * pending + pending), poll),
        f"by-user-data-{pending}": Work(by_user_data, (pending, GONE * pending), poll),
    }


def aio(context: libaio.Context, fd: int) -> dict[str, Work]:
    """One poll and its cancel on Linux AIO."""

    def one() -> tuple[int, int]:
        seen = total = 0
        for _ in range(TIMES):
            request = libaio.Iocb.poll(fd)
            context.submit([request])
            context.cancel(request)
            for event in context.getevents():
                seen += 1
                total += event.res
        return seen, total

    return {"libaio": Work(one, (TIMES, 0), nothing)}


def main() -> None:
    blocked, _ = os.pipe()
    with Ring(ENTRIES) as ring, Ring(ENTRIES, cq_entries=4 * ENTRIES) as roomy, libaio.Context() as context:
        works = {**bulk(ring, blocked), **by_sqe(ring, blocked), **aio(context, blocked)}
        for pending in (64, 1024, 4096):
            works |= everything(roomy, blocked, pending)
        serve(works)


if __name__ == "__main__":
    main()
