"""The engine without a system: who is prepared, who is in flight, who asked for what, who waits.

A turn, always by the one thread that leads (leading.py):

1. `_settle` deals with records that an interrupted turn left behind;
2. `_send` sends the cancels that were asked for (cancelling.py);
3. `_ready` withdraws what was cancelled before it began, and `_hand_over` gives the rest of what is
   prepared to the carrier, which waits, if it is to;
4. `_settle` again.

Interruptions: a signal handler's exception may come between any two opcodes. So each step looks at what is
so, changes it by single stores, and can be run again: an operation stays in the ledger until all else about
its ending is done, a batch stays staged until it is known what the carrier took, and records are forgotten
last. No lock is held while any of this runs; `_asked` and `_staged` are appended to from anywhere.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakValueDictionary

from iocancel import _lifetime
from iocancel.operation.carrier import Batch, Carrier
from iocancel.operation.hooks import run_hook
from iocancel.operation.ledger import SLOTS, Ledger
from iocancel.operation.model import ANSWER, MORE, NEXT, NOTIF, OTHER, Event, Reach
from iocancel.operation.operation import (
    CALLER,
    DEADLINE,
    ENDED,
    IN_FLIGHT,
    LEFT,
    NOT_FOUND,
    PREPARED,
    RELEASING,
    SENT,
    TOO_LATE,
    FdOperation,
    Operation,
)
from iocancel.operation.operation import CLOSING as BY_CLOSING

T = TypeVar("T")
OPEN, CLOSING, CLOSED, FORKED = "open", "closing", "closed", "forked"
_LAST = int(Event.LAST)
_GONE = -errno.ECANCELED


class Core:
    """What `Engine` is made of: handing over, and settling."""

    # Of the class until they are set: with more than 30 attributes of their own, CPython 3.11's objects get
    # a dictionary each, and every turn takes 15 % longer.
    _watched = False  # by an event loop, which reaps when the carrier's file is readable
    _mute = False  # who watches, and asks for cancels now, will reap himself
    _cut = False  # an exception has ended a turn halfway
    _sealed = False  # nothing enters any more
    _again_at = _pause = 0.0  # when those of `_again` are asked again

    def __init__(self, carrier: Carrier) -> None:
        self._state = "new"
        self._carrier = carrier
        self._oldest_first: bool = getattr(carrier, "oldest_first", False)
        self._ledger = Ledger()
        self._staged: deque[Operation[Any]] = deque()  # prepared; those at its head may be under way already
        self._batch: Batch | None = None  # being handed over
        self._asked: deque[Operation[Any]] = deque()  # to be cancelled
        self._again: list[Operation[Any]] = []  # to be asked again: they were not found, or running
        self._sending: list[Operation[Any]] = []  # the last cancels that were sent
        self._sent_to: dict[int, Operation[Any]] | None = None  # the same, by token
        # Those that had not ended when their cancel's call returned: the answer may come after the ending.
        self._late: WeakValueDictionary[int, Operation[Any]] = WeakValueDictionary()
        self._sendings = 0  # how many times cancels were sent
        self._answered = 0  # the last of these that the carrier has returned from
        # Tokens, not operations: one that has ended is the caller's alone, and collected when he lets it go.
        self._deadlines: list[tuple[float, int]] = []
        self._fresh_deadlines: deque[tuple[float, int]] = deque()
        self._came = 0  # records dealt with, ever
        self._withdrawn = 0  # operations that ended without the kernel, ever
        self._collect = False  # whether this turn is to remember what has ended
        self._ended: list[Operation[Any]] = []  # which it does here
        self._lead: object = None
        self._lead_thread = 0
        self._wanted = False  # somebody else than the leader has work for it
        self._followers: deque[Any] = deque()
        self._doubt = False  # of what is staged some may have been cancelled, or has a file to be asked again
        self._state = OPEN
        _lifetime.register(cast(_lifetime.Owner, self))  # Closing has what an Owner needs

    # In

    def _start(self, op: Operation[T], *args: Any, timeout: float | None = None) -> Operation[T]:
        """Prepare an operation: what the verbs end with."""
        if self._state is not OPEN:
            raise self._gone()
        ledger = self._ledger
        try:
            token = ledger.name(op)
            if timeout is not None:
                op._special = True
                op._expires = expiry(timeout)
            self._carrier.prepare(op, *args)
            # Only now: from here on another thread may withdraw it, and lets go of its memory then.
            ledger.flight[token] = op
            fd = op._fd
            if fd >= 0:
                ledger.note(fd, token)
            if op._files:
                for fd in op._files:
                    ledger.note(fd, token)
            if op._file is not None or op._others:
                self._doubt = True
            self._staged.append(op)
            if op._expires is not None:
                self._fresh_deadlines.append((op._expires, token))
        except BaseException:
            self._undo(op)
            raise
        # Closed meanwhile: what the closing thread has not seen never was. What it has, or what another
        # thread had handed over before, ends as any other does, and may have brought something.
        if self._sealed and op._state == PREPARED:
            op._pins = None
            ledger.leave(token)
            raise self._gone()
        return op

    def _undo(self, op: Operation[Any]) -> None:
        """Its call has raised: nobody will ever have it."""
        if op._state == PREPARED and op not in list(self._staged):
            op._res = -errno.ECANCELED  # 0 would be the fd of one that has succeeded
            op._state = ENDED
            self._ledger.forget(op)
        else:  # a signal's exception came late: another thread may be handing it over
            op._ask(CALLER)
        if op._state == ENDED:
            op._pins = None

    def _hand_over(self, ops: list[Operation[Any]], wait: bool, timeout: float | None) -> None:
        """Give what is prepared to the carrier."""
        if not ops:
            if self._staged:  # all of it was withdrawn: no batch takes it off
                self._settle_batch()
            self._carrier.go(None, wait, timeout)
            return
        if self._sealed:  # while this thread, which leads, was elsewhere: the carrier takes nothing any more
            self._drop(ops)
            raise self._gone()
        self._batch = batch = self._carrier.batch(ops)
        try:
            for op in ops:  # before the kernel can see it
                op._state = IN_FLIGHT
            self._carrier.go(batch, wait, timeout)
        finally:
            self._settle_batch()

    def _ready(self) -> list[Operation[Any]]:
        """Those that are prepared, less those that were cancelled before, or whose file is gone."""
        if not self._doubt:
            return list(self._staged)
        self._doubt = False  # before the looks: who has doubts from now on is heard by the next turn
        ready = []
        for op in list(self._staged):
            if op._state == PREPARED:
                if op._cancel:
                    self._withdraw(op, -errno.ECANCELED)
                elif (op._file is not None and number_of(op._file) != op._fd) or (
                    op._others and any(number_of(file) != number for file, number in op._others)
                ):
                    self._withdraw(op, -errno.EBADF)
                else:
                    ready.append(op)
            else:
                self._doubt = True  # it was withdrawn, and stays staged behind what was not taken
        return ready

    def _settle_batch(self) -> None:
        """Find out what the carrier took of a batch; the rest stays staged."""
        batch = self._batch
        if batch is not None:
            rest = batch.ops[batch.taken() :]
            for op in rest:
                if op._state == IN_FLIGHT:
                    op._state = PREPARED
            if self._sealed:
                self._drop(rest)
        staged = self._staged
        while staged:
            op = staged[0]
            if op._state == PREPARED:
                break
            if op._state == ENDED and op._token in self._ledger.flight:
                op._pins = None
                self._over(op)  # its withdrawal was cut short
            staged.popleft()
        self._batch = None

    def _drop(self, ops: Sequence[Operation[Any]]) -> None:
        """Withdraw what a closed engine does not hand over: nobody else will."""
        for op in ops:
            if op._state == PREPARED:
                op._why = op._why or BY_CLOSING
                self._withdraw(op, -errno.ECANCELED)

    def _withdraw(self, op: Operation[Any], res: int) -> None:
        """End what the kernel has never seen."""
        self._doubt = True  # it is still staged
        if op._state == PREPARED:
            op._res = res
            if res == -errno.ECANCELED:
                op._sent, op._cancel = 0, SENT  # counts as found
            op._state = NEXT[PREPARED][Event.WITHDRAW]
        op._pins = op._entry = None  # behind the state, as ever; a carrier has its memory in either
        self._withdrawn += 1
        self._over(op)

    # Out

    def _settle(self) -> None:
        """Deal with what has come."""
        carrier = self._carrier
        records = carrier.records()
        if not records:
            return
        flight = self._ledger.flight
        free = self._ledger._free
        mask = SLOTS - 1
        collect, ended = self._collect, self._ended
        number = self._came
        for token, res, flags in records:
            number += 1
            if token not in flight:
                if token >= OTHER:
                    self._answer(token, res)
                continue
            op = flight[token]
            if flags or op._special or op._state != IN_FLIGHT or (res < 0 and op._origin is not None):
                self._one(op, res, flags, number)
                continue
            op._res = res  # the plain case, which is nearly all of them
            op._state = ENDED
            op._pins = None  # behind the state: a buffer's finalizer may ask for a callback
            if collect:
                ended.append(op)
            del flight[token]
            free.append(token & mask)
        self._came = number
        carrier.forget(len(records))

    def _settle_cancelled(self, ops: Sequence[Operation[Any]]) -> bool:
        """Deal with what has come where it is just the endings of `ops`, all cancelled, in this order.

        Returns:
            False where one is not the plain case. `_settle` has to go on then, as after a signal's exception:
            the records are still there, and it changes nothing about what was settled here.
        """
        ledger = self._ledger
        collect, ended = self._collect, self._ended
        flight, free = ledger.flight, ledger._free
        mask = SLOTS - 1
        for op in ops:
            if op._special or op._state != IN_FLIGHT:
                return False
            op._res = _GONE
            op._state = ENDED
            op._pins = None
            if collect:
                ended.append(op)
            token = op._token
            del flight[token]
            free.append(token & mask)
        many = len(ops)
        self._came += many
        self._carrier.forget(many)
        return True

    def _one(self, op: Operation[Any], res: int, flags: int, number: int) -> None:
        """A completion that is not the plain case.

        An item of a multishot operation, a zero-copy send's result or notification, one that somebody waits
        for; or one that was cut short in here before.
        """
        if res < 0 and (op._state == PREPARED or number <= op._seen):
            if op._state == PREPARED:  # given back, which was cut short
                op._seen = number
                if op not in list(self._staged):
                    self._staged.append(op)
            return
        if op._why == LEFT:  # closed meanwhile by another thread, while this one was in a callback
            self._unheard(op, res, number)
            return
        if flags & NOTIF and op._state == IN_FLIGHT:
            res = op._res  # see below
        expires = op._expires
        late = expires is not None and op._state == IN_FLIGHT and res in op._kind.stopped
        if late and not op._why and time.monotonic() >= (expires or 0.0):
            op._why = DEADLINE  # the kernel's own timer was first; said before others see the ending
        undone = res in op._kind.stopped and op._state == IN_FLIGHT and not op._why
        origin = op._origin if undone else None
        if origin is not None and op._zero_copy and flags & MORE:
            op._res = res  # it is not to be handed over again before its memory is let go of
            return
        if origin is not None and origin.again(op):
            self._back(op, number)
        elif not flags & MORE or flags & NOTIF:
            if op._items is not None and res >= 0:
                self._item(op, res, flags, number)
            op._end(res)
            self._over(op)
        elif op._zero_copy:
            if op._state == IN_FLIGHT:
                op._res = res
                op._state = RELEASING
            self._call_back(op)
        else:
            self._item(op, res, flags, number)
            self._call_item_hooks(op)

    def _unheard(self, op: Operation[Any], res: int, number: int) -> None:
        """What came for an operation of which was said that nobody will hear of it: fds are closed."""
        if isinstance(op, FdOperation) and res >= 0 and number > op._seen:
            op._seen = number
            op._throw_away(res)

    def _back(self, op: Operation[Any], number: int) -> None:
        """It is prepared again: nothing has become of it, and nobody hears of it."""
        op._special = True  # so that this record, dealt with again, comes to `_one`
        # A cancel that is asked for meanwhile withdraws it, be it here or where what is asked for is sent.
        self._doubt = True
        # In this order: what is staged can be in flight again when the same record is looked at once more.
        op._state = PREPARED
        op._seen = number
        self._staged.append(op)

    def _call_item_hooks(self, op: Operation[Any]) -> None:
        while op._item_hooks:
            first, op._item_hooks = op._item_hooks[0], op._item_hooks[1:]
            run_hook(first, op)

    def _item(self, op: Operation[Any], res: int, flags: int, number: int) -> None:
        """Keep one result of many. Run again for the same one it changes nothing."""
        if op._items is None:
            op._items = {}
        if number > op._seen and number > op._taken:
            op._items[number] = (res, flags)
            op._seen = number

    def _over(self, op: Operation[Any]) -> None:
        """All that is left to do about an ending; it leaves the ledger last."""
        if self._collect and op not in self._ended[-1:]:
            self._ended.append(op)
        self._call_back(op)
        self._ledger.leave(op._token)

    def _call_back(self, op: Operation[Any]) -> None:
        self._call_item_hooks(op)
        while op._hooks:
            first, op._hooks = op._hooks[0], op._hooks[1:]
            run_hook(first, op)

    def _answer(self, token: int, res: int) -> None:
        """The kernel's answer to a cancel."""
        if not token & ANSWER:
            self._carrier.own(token, res)
            return
        token &= ~ANSWER
        op = self._ledger.get(token)
        if op is None:  # it has ended; the answer is still wanted
            if self._sent_to is None:
                self._sent_to = {each._token: each for each in self._sending}
            op = self._sent_to.get(token) or self._late.get(token)
            if op is None:
                return
        if res >= 0:
            return
        op._cancel = TOO_LATE if res == -errno.EALREADY else NOT_FOUND
        if op._state == IN_FLIGHT:  # neither says that it has ended
            if not self._again:
                self._pause = _FIRST_PAUSE
                self._again_at = time.monotonic() + _FIRST_PAUSE
            if op not in self._again[-1:]:
                self._again.append(op)

    # What is built on this has these

    if TYPE_CHECKING:

        def _wait_for(
            self,
            ops: Sequence[Any],
            timeout: float | None,
            enough: int,
            *,
            cancel: bool = True,
            pending: Any = None,
        ) -> None: ...

        def _ask_for(self, op: Operation[Any]) -> None: ...

    # About

    def _check_open(self) -> None:
        if self._state is not OPEN:
            raise self._gone()

    def _gone(self) -> Exception:
        if self._state is FORKED:
            return RuntimeError("this engine belongs to the parent process: a forked child opens its own")
        return ValueError("the engine is closed")

    def _failure(self, op: Operation[Any]) -> OSError:
        if op._res == -errno.EBADF and op._file is not None:
            text = (
                f"{os.strerror(errno.EBADF)}: {op._kind.call}: {op._file!r} was closed, or has another number"
            )
            return OSError(errno.EBADF, text)
        return self._carrier.failure(op)

    def _reach_of(self, op: Operation[Any]) -> Reach:
        return self._carrier.reach(op._kind.name)


_LONGEST = 1e9  # seconds, 31 years: what is longer is this long; no carrier's clock runs over by it
_FIRST_PAUSE = 0.001  # seconds until a cancel that did not find its target is sent again; it doubles


def expiry(timeout: float) -> float:
    """When a timeout in seconds from now is over, in `time.monotonic()`."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout takes seconds as float or int, or None, not {type(timeout).__name__}")
    if timeout != timeout or timeout < 0:
        raise ValueError(f"timeout takes a number of seconds >= 0, not {timeout}")
    return time.monotonic() + min(timeout, _LONGEST)


def number_of(file: Any) -> int:
    """The number that a file object has now, -1 where it is closed."""
    try:
        return int(file.fileno())
    except (OSError, ValueError):
        return -1
