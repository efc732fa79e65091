"""Many threads, one engine: one leads in the kernel and settles for all, the others wait for their own.

Whoever leads holds `_lead`, an object of its own. There is no lock: taking the lead is a look and a store
with no call between them, which no other thread gets into, and a signal handler's exception finds it
within a try. When the leader leaves it wakes one follower, who leads on. A thread that wants something done
while another leads says so in `_wanted` and wakes the leader; the leader looks at it once more after it
has left. So one of the two sees the other, always.

A thread that submits is the one whose end would cancel the request (io_uring cancels what a thread that
exits has submitted): so only the leader enters the kernel.
"""

from __future__ import annotations

import errno
import heapq
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from iocancel import errors
from iocancel.operation.core import CLOSED, CLOSING, FORKED, OPEN, Core, expiry
from iocancel.operation.frames import LEADERS, in_a_frame, leads_here
from iocancel.operation.operation import DEADLINE, IN_FLIGHT, RELEASING, SENT, Operation

# A follower looks again after this many seconds, for the case that a signal's exception came just between a
# leader's leaving and its waking a follower.
_SAFETY = 1.0
# Beside the system's patience: for how many seconds an operation whose cancel was found may go on.
_UNENDED = 5.0


def _in_flight(op: Any) -> bool:
    return bool(op._state == IN_FLIGHT)


def _is_awaited(op: Any) -> bool:
    return op._awaited is not None


class Pending:
    """Operations that somebody waits for; those that are done are not looked at again."""

    def __init__(self, ops: Sequence[Any], enough: int) -> None:
        self._ops, self._enough, self._at = ops, enough, 0

    def first(self) -> Any:
        """The first that is not done; None where all are."""
        ops, enough = self._ops, self._enough
        for i in range(self._at, len(ops)):
            if ops[i]._state < enough:
                self._at = i
                return ops[i]
        self._at = len(ops)
        return None

    def all(self) -> list[Any]:
        """All that are not done."""
        return [op for op in self._ops[self._at :] if op._state < self._enough]


class Stoppable(Pending):
    """One operation, and a wait for it that anybody may end: store to `stop`, then wake the carrier."""

    def __init__(self, op: Any, enough: int) -> None:
        super().__init__([op], enough)
        self.op = op
        self.stop = False

    def first(self) -> Any:
        """The operation; None where it is done, or the wait is to end."""
        op = self.op
        return None if self.stop or op._state >= self._enough else op


class Waiter:
    """A thread that waits while another leads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._on: object = None

    def watch(self, op: Any) -> None:
        """Wake up when this has ended."""
        if self._on is not op:
            self._on = op
            op.add_done_callback(self.awake)

    def awake(self, _: object = None) -> bool:
        """Wake it; False where it is awake, or about to be."""
        try:
            self._lock.release()
        except RuntimeError:
            return False
        return True

    def sleep(self, seconds: float) -> bool:
        """Wait to be woken; whether it was."""
        return self._lock.acquire(timeout=seconds)


class Leading(Core):
    """Waiting."""

    def submit(self) -> int:
        """Hand over what is prepared, and send the cancels that were asked for.

        Where another thread waits in this engine it is woken and does it, since requests belong to the thread
        that submits them.

        Returns:
            How many operations are in flight or prepared.

        Raises:
            ValueError: the engine is closed.
            RuntimeError: in a forked child; in a signal handler that has interrupted this engine.
        """
        self._check_open()
        self._run(wait=False, timeout=None)
        return len(self._ledger.flight)

    def reap(self, timeout: float | None = 0) -> list[Operation[Any]]:
        """Submit, and take what has come.

        Args:
            timeout: how long to wait for the first ending where none has come, in seconds; None for ever, 0
                not at all. Where nothing is in flight it returns at once.

        Returns:
            The operations that have ended in this call, and were settled by this thread. While another thread
            waits in this engine, that thread settles, and what it settles is not among them: let either one
            thread reap, or each wait for its own.

        Raises: as `submit`.
        """
        self._check_open()
        until = None if timeout is None else expiry(timeout)
        waiter: Waiter | None = None
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            led = self._run(wait=left != 0, timeout=left, collect=True)
            if self._ended or left == 0 or not self._ledger.flight:
                break
            if not led:
                waiter = waiter or Waiter()
                self._await_lead(waiter, left)
            self._check_open()
        # What a call that a signal's exception cut short has collected is still there, and comes first.
        ended, self._ended = self._ended, []
        return ended

    def wait(self, ops: Sequence[Operation[Any]], timeout: float | None = None) -> None:
        """Submit, and wait until all of these have ended.

        Args:
            ops: operations of this engine.
            timeout: seconds; when they are over those that are left are cancelled, and their endings awaited.

        Raises: as `Operation.wait`.
        """
        for op in ops:
            if op._engine is not self:
                raise ValueError(f"{op!r} is another engine's")
        self._wait_for(ops, timeout, RELEASING)

    # One turn

    def _run(self, *, wait: bool, timeout: float | None, collect: bool = False) -> bool:
        """One turn, here or by the leader; whether it was here."""
        if self._leads(threading.get_ident()):
            raise self._inside()
        mine, me = object(), threading.get_ident()
        self._wanted = True
        try:
            # No call between the look and the stores.
            if self._lead is None and (self._state is OPEN or self._closer == me):
                self._lead = mine
                self._lead_thread = me
            if self._lead is mine:
                self._collect = collect
                self._turn(wait, timeout)
                return True
        finally:
            # First of all, with no call between: a signal's exception must not leave the lead with nobody.
            if self._lead is mine:
                self._collect = False
                self._lead_thread = 0
                self._lead = None
            self._left(collect)
        self._carrier.wake()
        # The leader may have left between the look and the waking.
        if self._lead is None and self._wanted and self._state is OPEN:
            return self._run(wait=wait, timeout=timeout, collect=collect)
        return False

    def _turn(self, wait: bool, timeout: float | None) -> None:
        """See core.py."""
        try:
            self._wanted = False
            if self._state in (CLOSED, FORKED):
                raise self._gone()
            before = self._came + self._withdrawn
            kept = -1
            if self._watched and not self._collect and self._state is OPEN:
                # What ends in any call on it is the loop's to hear of: its tasks wait for it. See `_left`.
                self._collect = True
                kept = len(self._ended)
            self._settle()
            self._expire()
            self._send()
            self._settle_batch()
            ops = self._ready() if self._staged else []
            # Where something has ended by this, whoever waits is to look first; and nothing comes of nothing.
            wait = wait and before == self._came + self._withdrawn and bool(self._ledger.flight)
            if wait:
                timeout = self._next_alarm(timeout)
            self._hand_over(ops, wait, timeout)
            self._settle()
            if self._again:  # those that have ended are the caller's alone
                self._again = list(filter(_in_flight, self._again))
            if kept >= 0:  # nobody waits for the others: they are collected when their caller lets them go
                self._ended[kept:] = filter(_is_awaited, self._ended[kept:])
        except BaseException as error:
            # What is left of it waits for the next one, and nothing else tells an event loop. But who sees
            # the system refuse has to wait a while: with a file that is readable at once it would spin.
            self._cut = True
            if self._watched and not isinstance(error, OSError):
                self._carrier.wake()
            raise

    def _expire(self) -> None:
        """Cancel what has run out of time."""
        fresh, deadlines = self._fresh_deadlines, self._deadlines
        while fresh:  # from any thread; the heap is the leader's
            heapq.heappush(deadlines, fresh[0])
            fresh.popleft()
        if len(deadlines) > 2 * len(self._ledger.flight) + 64:  # most have ended long before their time
            deadlines[:] = [each for each in deadlines if each[1] in self._ledger.flight]
            heapq.heapify(deadlines)
        while deadlines:
            when, token = deadlines[0]
            op = self._ledger.get(token)
            if op is not None and op._state < RELEASING:
                if time.monotonic() < when:
                    return
                op._ask(DEADLINE)
            heapq.heappop(deadlines)

    def _next_alarm(self, timeout: float | None) -> float | None:
        """For how long a turn may wait: deadlines, and cancels that are to be sent again, come first."""
        soonest = None if timeout is None else time.monotonic() + timeout
        if self._deadlines:
            when = self._deadlines[0][0]
            soonest = when if soonest is None else min(soonest, when)
        if self._again:
            soonest = self._again_at if soonest is None else min(soonest, self._again_at)
        return None if soonest is None else max(0.0, soonest - time.monotonic())

    if TYPE_CHECKING:  # what is built on this has these

        def _send(self) -> None: ...

        def _let_go(self) -> None: ...

    def _left(self, collect: bool = False) -> None:
        """After the lead was given up, or was not had: what came too late for it, and who may lead next.

        Args:
            collect: as of the turn that is over: what ends now has ended in the same call.
        """
        if self._watched and not collect and self._ended and self._state is OPEN:
            self._carrier.wake()  # for the loop's next turn
        # Who came while this thread was on its way out has left its work to the leader.
        if self._wanted and self._lead is None and self._state is OPEN:
            self._run(wait=False, timeout=None, collect=collect)
        if self._lead is None:
            if self._kept:
                self._let_go()
            self._wake_one()

    def _leads(self, me: int) -> bool:
        """Whether this very thread leads."""
        # 0: it was giving up the lead when an exception came.
        return (
            self._lead is not None
            and self._lead_thread in (0, me)
            and self._is_led()
            and self._lead_thread == me
        )

    def _is_led(self) -> bool:
        """Whether a thread does lead, or an exception has ended a leader in the midst of its leaving.

        No signal's exception can do that, since Python looks for signals at calls and jumps; but what raises
        into a thread from outside can (a debugger, a tracer, a test that interrupts at every opcode).
        """
        mine = self._lead
        if mine is None:
            return False
        if self._lead_thread == threading.get_ident():
            if leads_here(mine):
                return True
        elif self._lead_thread and in_a_frame(self, "_lead", 1):
            return True
        # No call between the look and the stores.
        if self._lead is mine:
            self._lead_thread = 0
            self._lead = None
        return self._lead is not None

    def _wake_one(self) -> None:
        for waiter in list(self._followers):
            if waiter.awake():
                return

    # Waiting for some of them

    def _wait_for(
        self,
        ops: Sequence[Any],
        timeout: float | None,
        enough: int,
        *,
        cancel: bool = True,
        pending: Pending | None = None,
    ) -> None:
        """Wait until all of `ops` have come to the state `enough`, or `pending` has nothing left."""
        until = None if timeout is None else expiry(timeout)
        pending = pending or Pending(ops, enough)
        waiter: Waiter | None = None
        late: float | None = None  # from when on it is in vain
        tried = False  # also with no time at all it is submitted, and what is there is taken
        while pending.first() is not None:
            if self._state in (CLOSED, FORKED):
                raise self._gone()
            if self._leads(threading.get_ident()):
                raise self._inside()
            now = time.monotonic()
            if tried and until is not None and now >= until:
                if not cancel:
                    return
                late = self._overdue(pending.all(), late, now, until)
            stop = until if late is None else late
            tried = True
            if not self._lead_for(pending, stop):
                waiter = waiter or Waiter()
                self._follow(pending, waiter, stop)

    def _overdue(self, left: list[Operation[Any]], late: float | None, now: float, until: float) -> float:
        """The time is over: ask for cancels, and see who can't be stopped."""
        if late is None:
            for op in left:
                op._ask(DEADLINE)
            return now + max((self._carrier.patience(op) for op in left), default=0.0)
        if now < late:
            return late
        for op in left:
            # "Found" is no ending: what was found and does not end has its bound, too.
            if op._cancel > SENT or now >= until + self._carrier.patience(op) + _UNENDED:
                raise errors.CancelTooLate(
                    errno.EALREADY,
                    f"{op!r} can't be stopped: {op._kind.call} on {self._carrier.name}, whose answer to the "
                    f"cancel is {op.verdict}. It goes on, with its memory: wait for it again, or close the "
                    "engine",
                )
        return now + 1.0

    def _lead_for(self, pending: Pending, until: float | None) -> bool:
        """Lead until they are done, or the time is over; False where another leads."""
        mine, me = object(), threading.get_ident()
        if not self._may_lead(me):
            return False
        try:
            # No call between the look and the stores.
            if self._lead is None and (self._state is OPEN or self._closer == me):
                self._lead = mine
                self._lead_thread = me
            if self._lead is not mine:
                return False
            timeout = None
            turned = False
            while True:
                # The last leader may have settled them just before this one began.
                if pending.first() is None or not self._may_lead(me):
                    break
                if until is not None:
                    timeout = max(0.0, until - time.monotonic())
                    if turned and not timeout:
                        break
                turned = True
                self._turn(True, timeout)
            return True
        finally:
            # First of all, with no call between: a signal's exception must not leave the lead with nobody.
            if self._lead is mine:
                self._collect = False
                self._lead_thread = 0
                self._lead = None
            self._left()

    _closer = 0  # the thread that closes
    _closing: object = None  # what only its frame has beside
    _kept: Sequence[Any] = ()  # what was left by the closing, and has its memory yet

    def _may_lead(self, me: int) -> bool:
        return self._state is OPEN or (self._state is CLOSING and self._closer == me)

    def _follow(self, pending: Pending, waiter: Waiter, until: float | None) -> None:
        """Wait for an operation to end, or for the lead."""
        try:
            self._followers.append(waiter)
            op = pending.first()
            if op is not None:
                waiter.watch(op)
            self._wanted = True
            self._carrier.wake()  # what was prepared here is to be handed over
            if pending.first() is not None and (self._lead is not None or self._state is CLOSING):
                left = _SAFETY if until is None else min(_SAFETY, until - time.monotonic())
                # One of them looks: with thousands of threads it takes long.
                if not waiter.sleep(max(0.0, left)) and self._followers[0] is waiter:
                    self._is_led()
        finally:
            while waiter in self._followers:
                self._followers.remove(waiter)
            if self._lead is None:  # perhaps this one was to lead
                self._wake_one()

    def _await_lead(self, waiter: Waiter, left: float | None) -> None:
        """Wait for the lead to be free."""
        try:
            self._followers.append(waiter)
            if self._lead is not None or self._state is CLOSING:
                waiter.sleep(_SAFETY if left is None else min(_SAFETY, left))
        finally:
            while waiter in self._followers:
                self._followers.remove(waiter)
            if self._lead is None:
                self._wake_one()

    def _inside(self) -> RuntimeError:
        return RuntimeError(
            "this thread is inside this engine already (a signal handler, a callback): cancel() is all that "
            "can be called here"
        )


# What holds the lead while it runs, in a local named `mine`.
LEADERS.update([Leading._run.__code__, Leading._lead_for.__code__])
