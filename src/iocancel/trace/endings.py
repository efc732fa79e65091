"""What has ended, and which cancel has ended it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from itertools import chain

from iocancel.trace.events import LINK_TIMEOUT, STOPPED, SYNC_CANCEL, Cancel, Target
from iocancel.trace.pending import Pending, Request, Ring
from iocancel.trace.telling import Telling
from iocancel.uring.flags import CqeFlags

_MORE = int(CqeFlags.MORE)
_ECANCELED = -errno.ECANCELED
MANY = 16
"""How many candidates are kept of a cancel: of thousands at once each would have all the others', too."""


class Endings(Telling):
    """Takes the kernel's events about endings.

    Args:
        emit, who, stray: see Joiner.
    """

    def __init__(
        self,
        emit: Callable[[Cancel], object],
        who: Callable[[int], tuple[int, str]],
        stray: Callable[[int], object],
    ) -> None:
        super().__init__(emit, who)
        self._stray = stray
        self._inline: dict[int, Pending] = {}  # by thread: the cancel that it executes right now

    def complete(
        self, time: int, tid: int, ctx: int, req: int | None, user_data: int, res: int, cflags: int
    ) -> None:
        """io_uring_complete."""
        if (cflags & _MORE and res >= 0) or req == 0:  # 0: it is no request's (IORING_OP_MSG_RING)
            return
        ring = self._ring(ctx)
        key = user_data if req is None else req
        request = ring.live.pop(key, None)
        if ring.names is not None:
            ring.names.pop(user_data, None)
        if request is not None and request.user_data != user_data:
            request = None  # an earlier one that was there; what has ended was not seen to be submitted
        if request is not None and request.older is not None:
            ring.live[key] = request.older
            if request.own is not None and res in STOPPED:  # a cancel does not end so: it is the older one
                request, ring.live[key] = request.older, request
                ring.live[key].older = request.older
        if request is not None and request.own is not None:
            self._own(request.own, time, tid, res)
            return
        if request is not None and request.timeout is not None:
            if request.by is not None:
                request.timeout.hit = 0
            else:
                self._head(request.timeout, request, time, res)
                if request.timeout.targets:
                    return
        self._ended(request, ring, time, tid, req, user_data, res)

    def overflow(self, time: int, tid: int, ctx: int, user_data: int, res: int, cflags: int) -> None:
        """io_uring_cqe_overflow: the queue has no room for a completion, which is not told by another event.

        Of which request is not told: it is that with its user_data, and no cancel that would have ended so.
        """
        ring = self._ring(ctx)
        live = ring.live
        if ring.names is None:
            ring.names = {request.user_data: req for req, request in live.items()}
        where = ring.names.get(user_data)
        for req in chain([where] if where in live else [], live):  # the other one, where two have the same
            assert req is not None
            request = live[req]
            if request.user_data == user_data and (request.own is None or res not in STOPPED):
                self.complete(time, tid, ctx, req, user_data, res, cflags)
                return

    def _ended(
        self,
        request: Request | None,
        ring: Ring,
        time: int,
        tid: int,
        req: int | None,
        user_data: int,
        res: int,
    ) -> None:
        """A request that is no cancel."""
        by = request.by if request is not None else None
        opcode = None if request is None or request.opcode < 0 else request.opcode
        if by is None and res in STOPPED and not (request is not None and request.nobodys):
            by = self._who_ended(request, ring, tid, req, Target(user_data, opcode, res, None, False))
        if by is None:
            return
        seen = request is not None and request.by is by
        if seen:
            by.hit -= 1
        by.targets.append(Target(user_data, opcode, res, time - by.time, seen))
        self._look(by)

    def _who_ended(
        self, request: Request | None, ring: Ring, tid: int, req: int | None, target: Target
    ) -> Pending | None:
        """What has cancelled a request that was not seen to be."""
        inline = self._inline.get(tid)
        if req is None and inline is not None and inline.ring is ring and inline.result is None:
            if request is not None:
                request.by = inline
                inline.hit += 1
            return inline  # Linux 5.10 completes the target within the cancel
        assert target.user_data is not None
        found = [each for each in ring.aimed.get(target.user_data, ()) if each.wants(request)]
        for each in ring.open:
            if len(found) >= MANY:
                break
            if each.wants(request):
                found.append(each)
        calls = [each for each in self._calls.values() if each.mechanism == SYNC_CANCEL and each.ring is None]
        if calls:  # another process's is about another ring
            pid, _ = self._who(tid if request is None else request.tid)
            found += [each for each in calls if each.fields["pid"] == pid and each.wants(request)]
        if len(found) == 1 and not any(each.wants(request) for each in ring.full):
            return found[0]
        for each in found:
            each.candidates.append(target)
            if len(each.candidates) >= MANY and each in ring.open:
                del ring.open[each]
                ring.full[each] = None
        self._stray(tid if request is None else request.tid)
        return None

    def _own(self, pending: Pending, time: int, tid: int, res: int) -> None:
        """A cancel's own completion."""
        if pending.mechanism == LINK_TIMEOUT:
            if res == _ECANCELED:
                pending.out = True  # what it was behind ended in time
                if pending.given is not None and pending.ring is not None:  # by something else, then
                    target = pending.targets.pop()
                    assert target.user_data is not None
                    self._ended(
                        pending.given,
                        pending.ring,
                        pending.time,
                        tid,
                        -1,
                        target.user_data,
                        target.result or 0,
                    )
                return
            pending.result = res
            if pending.ring is not None and not pending.targets:
                pending.time = time
            self._wait(pending)
            self._look(pending)
            return
        if self._inline.get(tid) is pending:
            del self._inline[tid]
        self._answer(pending, time, res)

    def _head(self, pending: Pending, request: Request, time: int, res: int) -> None:
        """What a link timeout is behind has ended."""
        pending.hit = 0
        if res in STOPPED:
            pending.given = request if pending.result is None else None
            pending.time = min(pending.time, time) if pending.result is not None else time
            pending.targets.append(Target(request.user_data, request.opcode, res, None, True))
        self._look(pending)
