"""Real requests on a ring: started, cancelled, and watched to their end, with a bound on every wait.

What is established here rests on the targets' own completions. A cancel that found nothing is asked
again: a request that a worker thread is just taking up is not found by every kernel, and "not found"
does not mean "has ended" (docs/kernel-facts.md).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import threading
import time
from collections.abc import Callable

from iocancel.errors import CancelNotFound, FeatureUnavailable
from iocancel.uring import Cqe, Ring, Sqe

__all__ = ["LIMIT", "Live", "NotHere", "Overdue", "code", "interrupted", "needs", "stopped"]

LIMIT = 10.0
"""How many seconds is waited for something that comes at once where all is well. A bound, not a delay."""

_KERNEL_ONLY = {
    512: "ERESTARTSYS",
    513: "ERESTARTNOINTR",
    514: "ERESTARTNOHAND",
    516: "ERESTART_RESTARTBLOCK",
}

Prepare = Callable[[Sqe], object]


class Overdue(Exception):
    """Something that must come did not come within `LIMIT`."""


class NotHere(Exception):
    """What was to be tried is not on this machine; the text says what it needs."""


def code(res: int) -> str:
    """A result as the kernel's documentation writes it.

    Args:
        res: a value, or a negated errno.

    Returns:
        The number, or "-ECANCELED" and the like; with the number for those that have no name outside the
        kernel.
    """
    if res >= 0:
        return str(res)
    if -res in _KERNEL_ONLY:
        return f"-{_KERNEL_ONLY[-res]} ({res})"
    return f"-{errno.errorcode.get(-res, str(-res))}"


def interrupted(res: int) -> bool:
    """Whether a result says that a worker thread was interrupted: -EINTR, or what leaks in its place."""
    return res == -errno.EINTR or -res in _KERNEL_ONLY


def stopped(res: int) -> bool:
    """Whether a result says that the request did not happen because it was stopped."""
    return res == -errno.ECANCELED or interrupted(res)


class Live:
    """A ring whose requests are numbered 1, 2 ... and whose completions are kept by number.

    Args:
        ring: the ring; nobody else reaps it.

    Attributes:
        ring (Ring): the ring.
        seen (dict[int, list[Cqe]]): the completions so far of each request.
    """

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.seen: dict[int, list[Cqe]] = {}
        self._numbers = itertools.count(1)
        self._unfinished: dict[int, bool] = {}  # and whether its result is an fd

    def put(self, prepare: Prepare, flags: int = 0, *, data: object = None, fd: bool = False) -> int:
        """Prepares a request.

        Args:
            prepare: fills the entry.
            flags: `SqeFlags`.
            data: what the entry gets as `data`.
            fd: whether a result is an fd, to be closed.

        Returns:
            The request's number, its user_data.
        """
        sqe = self.ring.get_sqe()
        try:
            prepare(sqe)
        except BaseException:
            sqe.prep_nop()  # it is in the queue, and stays there
            raise
        sqe.user_data = number = next(self._numbers)
        if data is not None:
            sqe.data = data
        sqe.flags = flags
        self._unfinished[number] = fd
        return number

    def go(self) -> None:
        """Submits what was prepared."""
        deadline = time.monotonic() + LIMIT
        while self.ring.sq_space_left < self.ring.sq_entries:
            self.ring.submit()
            if time.monotonic() > deadline:
                raise Overdue("the kernel does not take what was submitted")

    def start(self, prepare: Prepare, flags: int = 0, *, data: object = None, fd: bool = False) -> int:
        """Prepares and submits a request; see `put`."""
        number = self.put(prepare, flags, data=data, fd=fd)
        self.go()
        return number

    def ask(self, prepare: Prepare, flags: int = 0) -> int:
        """Starts a request that ends at once, as cancels do, and waits for its result."""
        return self.final(self.start(prepare, flags)).res

    def ended(self, number: int) -> Cqe | None:
        """The last completion of a request, where it has been reaped."""
        if number in self._unfinished:
            return None
        return next((cqe for cqe in reversed(self.seen[number]) if not cqe.notification), None)

    def early(self, number: int) -> Cqe | None:
        """The last completion of a request that has ended by now; what is there is reaped, not waited for."""
        self.collect(lambda: True)
        return self.ended(number)

    def forget(self, number: int) -> None:
        """Expects no completion of a request any more: it succeeded, with CQE_SKIP_SUCCESS."""
        self._unfinished.pop(number, None)

    def collect(self, until: Callable[[], bool], limit: float = LIMIT) -> bool:
        """Reaps until something is so.

        Args:
            until: asked after each round.
            limit: seconds.

        Returns:
            Whether it is so; False when the time was up.
        """
        deadline = time.monotonic() + limit
        while True:
            for cqe in self.ring.peek():
                self._keep(cqe)
            if until():
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            for cqe in self.ring.wait(1, timeout=left):
                self._keep(cqe)

    def first(self, number: int) -> Cqe:
        """The first completion of a request, waited for."""
        if not self.collect(lambda: bool(self.seen.get(number))):
            raise Overdue(f"no completion within {LIMIT:g} s")
        return self.seen[number][0]

    def final(self, number: int) -> Cqe:
        """The last completion of a request, waited for."""
        self.collect(lambda: number not in self._unfinished)
        cqe = self.ended(number)
        if cqe is None:
            raise Overdue(f"it has not ended within {LIMIT:g} s")
        return cqe

    def cancel(self, number: int, prepare: Prepare | None = None) -> tuple[int, Cqe]:
        """Cancels a request and waits for its end.

        Args:
            number: the request's number.
            prepare: how to cancel it; by its user_data when None. Later attempts go by user_data.

        Returns:
            The cancel's answer (of several attempts, the first that found something), and the target's
            last completion.

        Raises:
            FeatureUnavailable: this kernel lacks that way of cancelling.
        """
        by_number: Prepare = lambda sqe: sqe.prep_cancel64(number)  # noqa: E731
        answer = self._answer(prepare or by_number)
        deadline, pause = time.monotonic() + LIMIT, 0.05
        while True:
            self.collect(lambda: number not in self._unfinished, pause)
            cqe = self.ended(number)
            if cqe is not None:
                return answer, cqe
            if time.monotonic() > deadline:
                raise Overdue(f"cancelled ({code(answer)}), and not ended within {LIMIT:g} s")
            again, pause = self._answer(by_number), 2 * pause
            if answer == -errno.ENOENT:
                answer = again

    def _answer(self, prepare: Prepare) -> int:
        cqe = self.final(self.start(prepare))
        if cqe.res in (-errno.EINVAL, -errno.EOPNOTSUPP):
            cqe.check()
        return cqe.res

    def sync_cancel(self, number: int) -> int:
        """Cancels a request synchronously, from another thread, while this one waits for completions.

        Returns:
            The call's answer; the completion is reaped as ever.

        Raises:
            FeatureUnavailable: the kernel has no synchronous cancel.
            Overdue: it did not come back.
        """
        with contextlib.suppress(CancelNotFound):  # what can't be asked at all is refused here and now
            self.ring.register_sync_cancel(next(self._numbers), timeout=0)
        said: list[int | OSError] = []

        def ask() -> None:
            try:
                said.append(self.ring.register_sync_cancel(number, timeout=LIMIT))
            except OSError as error:
                said.append(error)

        thread = threading.Thread(target=ask, name="iocancel-sync-cancel")
        thread.start()
        self.collect(lambda: number not in self._unfinished)
        thread.join(2 * LIMIT)
        if not said:
            raise Overdue(f"the synchronous cancel did not return within {2 * LIMIT:g} s")
        if isinstance(said[0], OSError):
            raise said[0]
        return said[0]

    def finish(self) -> bool:
        """Cancels all that has not ended.

        Returns:
            Whether everything has ended now.
        """
        for number in list(self._unfinished):
            if number in self._unfinished:
                with contextlib.suppress(Overdue, OSError):
                    self.cancel(number)
        return not self._unfinished

    def _keep(self, cqe: Cqe) -> None:
        number = cqe.user_data
        self.seen.setdefault(number, []).append(cqe)
        fd = self._unfinished.get(number, False) if cqe.more else self._unfinished.pop(number, False)
        if fd and cqe.res >= 0:
            os.close(cqe.res)


def needs(error: FeatureUnavailable) -> str:
    """What a `FeatureUnavailable` says that is needed, in a few words."""
    since = f"Linux {error.since}" if error.since[:1].isdigit() else error.since
    return f"{since} ({error.feature})" if since and error.feature else since or error.feature or str(error)
