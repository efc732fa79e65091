"""Puts together what belongs together: a cancel's request, its answer, and what it ended.

What the kernel's events allow (docs/kernel-facts.md, "Tracing"):

- A request is known by its ring and the kernel's own address of it, which is used again for later ones: so
  all is taken strictly in the order of time. Linux 5.10 does not tell it of endings; its user_data has to do.
- A cancel runs in the call that submits it, unless it is left to a worker, or in a chain: the head runs when
  the chain is complete, each other one when what is in front of it has ended.
- A target that waits by a poll is handed to its task there and then, which the kernel tells
  (`io_uring_task_add`), in the same thread before anything else is submitted: that target is *seen*. So is
  one that 5.10 completes within those lines, and what a link timeout is behind.
- What a worker or a timer had ends without such a line. Where just one cancel is left that can have ended it,
  by its ring, its time, its kind and its answer, that is the one; else nobody knows, and it is a
  candidate of each, and a stray.
- A cancel that was told to keep silent about success (IOSQE_CQE_SKIP_SUCCESS) has succeeded when the call
  that submitted it returns, or when its address is used again, and no answer has come.
- An answer of 0 to a cancel of all means "none", and to any other "one": which it was is not told.

Here is how requests and cancels begin, and calls; what ends, and by what, is in endings.py; when a cancel is
whole, and told, in telling.py.
"""

from __future__ import annotations

from collections.abc import Callable

from iocancel.trace.ebpf import Request as Asked
from iocancel.trace.endings import Endings
from iocancel.trace.events import (
    ASYNC_CANCEL,
    IO_CANCEL,
    LINK_TIMEOUT,
    POLL_REMOVE,
    SYNC_CANCEL,
    TIMEOUT_REMOVE,
    Cancel,
)
from iocancel.trace.pending import Pending, Request, Ring
from iocancel.uring.flags import SqeFlags
from iocancel.uring.opcodes import Opcode

_MECHANISMS = {
    int(Opcode.ASYNC_CANCEL): ASYNC_CANCEL,
    int(Opcode.TIMEOUT_REMOVE): TIMEOUT_REMOVE,
    int(Opcode.POLL_REMOVE): POLL_REMOVE,
    int(Opcode.LINK_TIMEOUT): LINK_TIMEOUT,
}
_SYNC_CANCEL = 24  # IORING_REGISTER_SYNC_CANCEL
_USE_REGISTERED_RING = 1 << 31
_SILENT = int(SqeFlags.CQE_SKIP_SUCCESS)
_ASYNC = int(SqeFlags.ASYNC)
_LINKS = int(SqeFlags.IO_LINK) | int(SqeFlags.IO_HARDLINK)


class Joiner(Endings):
    """Takes the kernel's events in the order of time; gives whole ones.

    Args:
        emit: called with each `Cancel` when nothing more is to be known about it.
        who: what returns (process, its name) for a thread's number, as well as can be known.
        stray: called with the number of a thread one of whose requests has ended as cancelled by nothing that
            was seen: its ring was closed, its thread ended, or one of several cancels may have been it.
    """

    def __init__(
        self,
        emit: Callable[[Cancel], object],
        who: Callable[[int], tuple[int, str]],
        stray: Callable[[int], object],
    ) -> None:
        super().__init__(emit, who, stray)
        self.asked: Callable[[int, int, int], Asked | None] | None = None
        """Tells what a cancel asks for, by its time, address and user_data: `Requests.find`."""
        self.doubt = False
        """Whether events may be missing among those that come now: then silence means nothing."""
        self._silent: dict[int, list[Pending]] = {}  # by thread: those whose silence means success
        self._addresses: dict[int, Request] = {}  # by address, where rings have them by user_data

    # io_uring

    def create(self, ctx: int, fd: int) -> None:
        """io_uring_create: a new ring, perhaps where another one was."""
        old = self._rings.get(ctx)
        self._rings[ctx] = Ring(fd)
        if old is not None:
            for pending in [*old.open, *old.full, *(each for some in old.aimed.values() for each in some)]:
                self._out(pending)

    def lose(self) -> None:
        """Events were lost: what no event was seen of may have happened all the same."""
        self._inline.clear()
        self._silent.clear()
        self._calls.clear()
        for _, pending in self._pending:
            pending.silent = pending.here = False
            pending.place = None

    def submit(
        self,
        time: int,
        tid: int,
        ctx: int,
        req: int | None,
        user_data: int,
        opcode: int,
        flags: int,
        address: int = 0,
    ) -> None:
        """io_uring_submit_req (io_uring_submit_sqe before Linux 6.3).

        `req` is None where the endings do not tell it; then `address` is what links are told by.
        """
        self._inline.pop(tid, None)
        ring = self._ring(ctx)
        request = Request(time, tid, opcode, user_data, flags)
        key = user_data if req is None else req
        old = ring.live.get(key)
        if old is not None:
            if req is None:
                request.older = old
            elif old.own is not None and old.own.silent:
                self._answer(old.own, time, 0)  # its place is used again, and it has not said that it failed
        ring.live[key] = request
        if ring.names is not None:
            ring.names[user_data] = key
        if req is None:
            self._addresses[address] = request
        mechanism = _MECHANISMS.get(opcode)
        if mechanism is None:
            return
        request.own = pending = self._begin(time, tid, mechanism, ctx, user_data)
        pending.place = key
        if mechanism == LINK_TIMEOUT:
            return  # nothing is cancelled before it fires
        if self.asked is not None and req is not None:
            asked = self.asked(time, req, user_data)
            if asked is not None:
                pending.fields.update(key=asked.key, fd=asked.fd, flags=asked.flags)
        self._wait(pending)
        ring.add(pending)
        pending.silent = bool(flags & _SILENT) and not self.doubt
        if not flags & _LINKS:
            self._runs(request)

    def _runs(self, request: Request) -> None:
        """It is executed now, where it is a cancel and not left to a worker."""
        pending = request.own
        if pending is None or pending.mechanism == LINK_TIMEOUT or request.flags & _ASYNC:
            return
        pending.here = True
        self._inline[request.tid] = pending
        if pending.silent:
            silent = self._silent.setdefault(request.tid, [])
            silent.append(pending)
            if not len(silent) % 1024:  # a polling thread's calls never return
                silent[:] = [each for each in silent if each.result is None]

    def link(self, ctx: int, req: int, target: int) -> None:
        """io_uring_link: `req` was put behind `target`: it waits, and with it the chain may be complete."""
        live = self._addresses or self._ring(ctx).live
        request, front = live.get(req), live.get(target)
        if request is None:
            return
        if request.own is not None and self._inline.get(request.tid) is request.own:
            del self._inline[request.tid]
            request.own.here = False
            if request.own.silent:
                self._silent[request.tid].remove(request.own)
        if front is None:
            return
        if request.opcode == Opcode.LINK_TIMEOUT:
            front.timeout = request.own
            if request.own is not None:
                request.own.hit = 1
        request.head = front.head or front
        if not request.flags & _LINKS:
            self._runs(request.head)

    def fail_link(self, ctx: int | None, link: int) -> None:
        """io_uring_fail_link: what it was linked to has failed, so its end is nobody's cancel."""
        live = self._addresses if ctx is None else self._ring(ctx).live
        request = live.get(link)
        if request is not None:
            request.nobodys = True

    def task_add(
        self, tid: int, interrupted: bool, ctx: int, req: int | None, user_data: int, mask: int
    ) -> None:
        """io_uring_task_add: a request that waited by a poll is handed to its task."""
        pending = self._inline.get(tid) or self._calls.get(tid)
        if pending is None or pending.out or interrupted or mask:
            return  # it was woken by what it waited for
        ring = self._ring(ctx)
        request = ring.live.get(user_data if req is None else req)
        if request is None or request.user_data != user_data:  # submitted before the tracing began
            request = ring.live[user_data if req is None else req] = Request(0, tid, -1, user_data)
        key = pending.fields.get("key")
        if request.by is None and request.own is not pending and key in (None, user_data):
            self._place(pending, ctx, ring)
            request.by = pending
            pending.hit += 1

    def failed(
        self,
        time: int,
        tid: int,
        ctx: int,
        req: int,
        user_data: int,
        opcode: int,
        addr: int,
        op_flags: int,
        error: int,
    ) -> None:
        """io_uring_req_failed: the request itself was wrong; it was never submitted."""
        self._ring(ctx).live.pop(req, None)
        mechanism = _MECHANISMS.get(opcode)
        if mechanism is None:
            return
        pending = self._begin(time, tid, mechanism, ctx, user_data)
        pending.fields.update(key=addr, flags=op_flags)
        self._answer(pending, None, error)

    def exit_enter(self, tid: int) -> None:
        """sys_exit_io_uring_enter: what a cancel has to say about its failure has been said."""
        self._inline.pop(tid, None)
        for pending in self._silent.pop(tid, ()):
            if pending.result is None:
                self._answer(pending, None, 0)

    def enter_register(self, time: int, tid: int, fd: int, opcode: int) -> None:
        """sys_enter_io_uring_register."""
        if opcode & ~_USE_REGISTERED_RING != _SYNC_CANCEL:
            return
        number = None if opcode & _USE_REGISTERED_RING else fd
        self._calls[tid] = pending = self._called(time, tid, SYNC_CANCEL, "uring", ring_fd=number)
        self._wait(pending)

    def register(self, time: int, tid: int, ctx: int, opcode: int, ret: int) -> None:
        """io_uring_register: the call's result, and on which ring."""
        if opcode & ~_USE_REGISTERED_RING != _SYNC_CANCEL:
            return
        pending = self._calls.pop(tid, None)
        if pending is None:  # the system call's own events are not there
            pending = self._called(time, tid, SYNC_CANCEL, "uring")
            self._wait(pending)
        self._place(pending, ctx, self._ring(ctx))
        self._answer(pending, time, ret)

    def exit_register(self, time: int, tid: int, ret: int) -> None:
        """sys_exit_io_uring_register: where it did not get as far as a ring."""
        pending = self._calls.pop(tid, None)
        if pending is not None:
            self._answer(pending, time, ret)

    # Linux AIO

    def enter_io_cancel(self, time: int, tid: int, ctx_id: int, iocb: int, result: int) -> None:
        """sys_enter_io_cancel."""
        self._calls[tid] = pending = self._called(
            time, tid, IO_CANCEL, "libaio", ctx_id=ctx_id, iocb=iocb, result_to=result
        )
        self._wait(pending)

    def exit_io_cancel(self, time: int, tid: int, ret: int) -> None:
        """sys_exit_io_cancel. No event tells of the target's ending."""
        pending = self._calls.pop(tid, None)
        if pending is not None:
            pending.answered, pending.result = time, ret
            self._out(pending)
