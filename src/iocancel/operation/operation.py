"""One operation, from its call to its ending. Engines make them; `Operation` is what their verbs return."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import warnings
from collections.abc import Callable
from sys import audit
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from iocancel import errors
from iocancel.operation.hooks import report, run_hook
from iocancel.operation.model import NEXT, Event, Outcome, Reach, State, Verdict, following
from iocancel.operation.rooms import give_back

if TYPE_CHECKING:
    from iocancel.operation.core import Core
    from iocancel.operation.kinds import Kind

T_co = TypeVar("T_co", covariant=True)

PREPARED, IN_FLIGHT, RELEASING, ENDED = (int(state) for state in State)

# Where a cancel is. SENT without an answer, once the call that sent it is over, means that it was found.
NOT_ASKED, ASKED, SENT, NOT_FOUND, TOO_LATE = range(5)
_VERDICTS = {SENT: Verdict.CANCELLED, NOT_FOUND: Verdict.NOT_FOUND, TOO_LATE: Verdict.TOO_LATE}

# Who asked, the first who did.
NOBODY, CALLER, DEADLINE, CLOSING, LEFT = range(5)
_ASKERS = {CALLER: "caller", DEADLINE: "deadline", CLOSING: "closing"}

# One claim at a time: two sockets made of one fd would close it twice. Signal handlers may claim, too.
_claiming = threading.RLock()


def _in_child() -> None:
    global _claiming
    _claiming = threading.RLock()  # a thread that is not here may hold the old one


os.register_at_fork(after_in_child=_in_child)
_RESTARTS = frozenset([-512, -513, -514, -516])


class Released:
    """The second event of a zero-copy send: its memory is the caller's again.

    It may never come while the peer lives and does not read.
    """

    def __init__(self, op: Operation[Any]) -> None:
        self._op = op

    def is_set(self) -> bool:
        """Whether the kernel has let go of the memory; not where its engine was closed before it had."""
        return self._op._state == ENDED and self._op._pins is None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the kernel has let go.

        Args:
            timeout: seconds, None for ever. Nothing is cancelled when they are over.

        Returns:
            Whether it has.
        """
        self._op._engine._wait_for([self], timeout, ENDED, cancel=False)
        return self.is_set()

    @property
    def _state(self) -> int:
        return self._op._state

    def add_done_callback(self, call: Callable[[Any], object]) -> None:
        """Have `call` made when the kernel has let go, or somewhat before."""
        op = self._op
        op._item_hooks = (*op._item_hooks, call)
        if op._state == ENDED:
            call(op)

    def __bool__(self) -> bool:
        return self.is_set()


class Operation(Generic[T_co]):
    """One I/O request: what was asked, whether it has ended, and how.

    Made by the verbs of an engine, never by hand. It is *prepared* until the engine's next `submit()`,
    `wait()` or `reap()`, in flight until its own last completion, and then over, exactly once. The
    memory that it was given can't be resized before.

    `cancel`, `done` and the properties may be called from any thread; `cancel` also from a signal handler.
    """

    # Defaults in the class: an operation that never needs them does not pay for them.
    _feature = ""  # what a kernel may lack that refuses it
    _address: Any = None  # what returns an accepted connection's address
    _dispose: Any = None  # what becomes of a value that nobody can claim any more; None closes an fd
    _seen = _taken = -1  # the last numbers of those that came, and that were handed out
    _zero_copy = False
    _others: tuple[tuple[Any, int], ...] = ()  # further file objects, and their numbers at the call
    _awaited: Any = None  # an event loop's task that waits for it: see iocancel.awaiting.hub

    def __init__(self, engine: Core, kind: Kind, fd: int = -1) -> None:
        self._engine = engine
        self._kind = kind
        self._fd = fd
        # What each one's way needs is its own from the start: Python 3.11 reads and stores such attributes
        # in half the time that it takes where the class has a default beside.
        self._token = -1
        self._state: int = PREPARED
        self._cancel: int = NOT_ASKED
        self._why: int = NOBODY
        self._special = False  # its endings are more than a number
        self._sent = 0
        self._res = 0
        self._file: Any = None
        self._files: tuple[int, ...] = ()  # further files that it is on
        self._pins: Any = None
        self._entry: Any = None
        self._origin: Any = None  # where it comes from, where its carrier may hand it over again
        self._expires: float | None = None  # time.monotonic() seconds
        self._items: Any = None  # what a multishot operation has brought: number -> (result, flags)
        self._buffer: Any = None  # one of our own, to read to
        self._value: Any = None  # what makes the value of the kernel's number; later, the value
        self._exception: BaseException | None = None
        self._claimed = False
        # Other threads store to these: a name that is new to an instance may cost it other threads' stores,
        # since Python 3.11 may collect garbage, and so run others, while it gives the instance a dict.
        self._hooks: tuple[Callable[[Operation[Any]], object], ...] = ()
        self._item_hooks: tuple[Callable[[Operation[Any]], object], ...] = ()

    # What it is

    @property
    def name(self) -> str:
        """The verb: "read", "accept" ..."""
        return self._kind.name

    @property
    def engine(self) -> Core:
        """The engine that carries it."""
        return self._engine

    @property
    def fd(self) -> int:
        """The number of its file at the call; -1 where it has none."""
        return self._fd

    @property
    def token(self) -> int:
        """The number that names it to the kernel (io_uring's user_data); no later operation has the same."""
        return self._token

    @property
    def state(self) -> State:
        """Where it is."""
        return State(self._state)

    @property
    def reach(self) -> Reach:
        """How far it can be cancelled on this engine."""
        return self._engine._reach_of(self)

    # How it ended

    def done(self) -> bool:
        """Whether its outcome is known."""
        return self._state >= RELEASING

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it has not."""
        if self._state < RELEASING:
            return None
        res = self._res
        if self._why == LEFT:
            return Outcome.FAILED
        if res >= 0 or res in self._kind.fine:
            return Outcome.COMPLETED
        return Outcome.CANCELLED if self._why and res in self._kind.stopped else Outcome.FAILED

    def cancelled(self) -> bool:
        """Whether it has ended and was cancelled: it did not happen."""
        return self.outcome is Outcome.CANCELLED

    @property
    def verdict(self) -> Verdict | None:
        """The kernel's answer to the last cancel of it; None until there is one.

        It says nothing about the ending, and may come after it. A cancel whose own completion is suppressed
        (as in bulk) counts as CANCELLED when its failure has not come by the return of the call that sent it.
        """
        asked = self._cancel
        if asked == SENT and self._sent > self._engine._answered:
            return None
        return _VERDICTS.get(asked)

    def result(self) -> T_co:
        """Its value.

        Raises:
            OperationCancelled: it was cancelled.
            OperationTimedOut: it was cancelled by a deadline (also a TimeoutError).
            OSError: it failed, with the kernel's errno.
            RuntimeError: it has not ended yet.
        """
        if not self._claimed:
            # The shortest way for what nearly all are: it has brought something.
            if self._res < 0 or self._state < RELEASING or self._why == LEFT:
                error = self.exception()
                if error is not None:
                    try:
                        raise error
                    finally:
                        del (
                            error
                        )  # this frame is the error's: the cycle would keep the caller's files and buffers
            self._claim()
        value: T_co = self._value
        return value

    def exception(self) -> BaseException | None:
        """What `result()` raises, None where it returns a value.

        Raises:
            RuntimeError: it has not ended yet.
        """
        if self._state < RELEASING:
            raise RuntimeError(f"{self!r} has not ended yet: wait() for it first")
        if self._exception is None:
            outcome = self.outcome
            if outcome is not Outcome.COMPLETED:
                self._exception = self._error(outcome is Outcome.CANCELLED)
        return self._exception

    def _claim(self) -> None:
        """Makes the value of the kernel's number, once."""
        if self._value is None:  # the number itself, however often it is asked for
            self._value = self._res
            self._claimed = True
            return
        with _claiming:
            if not self._claimed:
                make = self._value
                self._value = self._res if make is None else make(self, self._res)
                self._claimed = True
                found, self._buffer = self._buffer, None
                # Last: whoever asks again after a signal's exception has its value, and makes no second use.
                if found is not None and self._state == ENDED:
                    give_back(found)

    def _error(self, cancelled: bool) -> OSError:
        call = self._kind.call
        if cancelled:
            if self._why == DEADLINE:
                return errors.OperationTimedOut(
                    errno.ECANCELED, f"{os.strerror(errno.ECANCELED)}: {call}: its deadline had passed"
                )
            return errors.OperationCancelled(errno.ECANCELED, f"{os.strerror(errno.ECANCELED)}: {call}")
        if self._why == LEFT:
            return errors.CancelTooLate(
                errno.EALREADY,
                f"{os.strerror(errno.EALREADY)}: {call}: it still ran when its engine was closed; "
                "how it ended nobody knows, and its memory is kept",
            )
        if self._res == -errno.ECANCELED:
            return errors.plain(
                errno.ECANCELED,
                f"{call} (nobody asked for it: the thread that submitted it has ended, or what it was linked "
                "to has failed)",
            )
        if self._res in _RESTARTS:
            return InterruptedError(errno.EINTR, f"{os.strerror(errno.EINTR)}: {call}")
        return self._engine._failure(self)

    # What can be done with it

    def cancel(self) -> bool:
        """Ask for its cancelling; returns at once.

        Safe from any thread, in a signal handler or a finalizer, at any time and any number of times. The
        request goes out at once where a thread waits in the engine, else with the engine's next call.

        Returns:
            False where it has ended already, else True. Neither says how it will end: `wait()` does.

        The first call raises the auditing event `iocancel.cancel`, whose hook may refuse the cancel by an
        exception: it is raised here, and nothing was asked.
        """
        if self._state < RELEASING and self._cancel == NOT_ASKED:
            audit("iocancel.cancel", self._engine._carrier.name, (self,), "caller")
        return self._put(CALLER)

    def _ask(self, why: int) -> bool:
        """The same for what no hook may refuse: a deadline, a scope, a task, a block that is left."""
        first = self._cancel == NOT_ASKED
        asked = self._put(why)
        if first and asked:
            try:  # as in `tell`: on asyncio this is each cancel of a task
                audit("iocancel.cancel", self._engine._carrier.name, (self,), _ASKERS[why])
            except Exception as error:  # noqa: BLE001 - see `tell`
                report(error, self, "an auditing hook")
        return asked

    def _put(self, why: int) -> bool:
        if self._state >= RELEASING:
            return False
        if not self._why:
            self._why = why
        if self._cancel == NOT_ASKED:
            self._engine._ask_for(self)
            # No call between these: not when it was sent by another thread meanwhile.
            if self._cancel == NOT_ASKED:
                self._cancel = ASKED
        return True

    def wait(self, timeout: float | None = None) -> Outcome:
        """Submit what is prepared, and wait for the ending.

        Args:
            timeout: seconds. When they are over the operation is cancelled, and its ending awaited: so the
                call may last longer, and the outcome be COMPLETED. None waits for ever.

        Returns:
            The outcome. CANCELLED by this deadline makes `result()` raise OperationTimedOut.

        Raises:
            CancelTooLate: the time is over, and the system can't stop the operation: it is still in flight,
                keeps its memory, and can be waited for again.
            RuntimeError: from a signal handler that has interrupted this engine; in a forked child.

        A signal handler's exception leaves the operation in flight, and nothing lost.
        """
        if self._state < RELEASING:
            self._engine._wait_for([self], timeout, RELEASING)
        outcome = self.outcome
        if outcome is None:
            raise self._engine._gone()
        return outcome

    def add_done_callback(self, call: Callable[[Operation[Any]], object]) -> None:
        """Have `call(operation)` made once, when it has ended, by the thread that learns of it first.

        Args:
            call: must be brief; an exception from it is reported (sys.unraisablehook) and goes no further. At
                once where the operation has ended already.
        """
        # No call between the look and the store: whoever settles it sees the hook, or we see the ending.
        hooks = (*self._hooks, call)
        self._special = True
        if self._state < RELEASING:
            self._hooks = hooks
            return
        run_hook(call, self)

    @property
    def memory_released(self) -> Released:
        """The event of a zero-copy send after its result; for all others it is set when they are done."""
        return Released(self)

    def __repr__(self) -> str:
        outcome = self.outcome
        state = State(self._state).name.lower() if outcome is None else outcome.value
        where = f" fd={self._fd}" if self._fd >= 0 else ""
        return f"<{self._kind.name} {self._token:#x}{where} {state}>"

    # For engines

    def _step(self, event: Event) -> None:
        """Something has happened to it."""
        self._state = int(following(self._state, event))

    def _end(self, res: int) -> None:
        """Its last completion; a second run of the same one changes nothing."""
        if self._state != ENDED:
            if self._state != RELEASING:
                self._res = res
            after = NEXT[self._state][Event.LAST]
            if after < 0:
                following(self._state, Event.LAST)
            self._state = after
        if self._why != LEFT:
            self._pins = None  # behind the state: a buffer's finalizer may ask for a callback


class FdOperation(Operation[T_co]):
    """An operation whose value holds new fds: closed when nobody can claim them any more."""

    def _unclaim(self) -> None:
        """Its value was made, and reached nobody: a bare fd is closed if nobody asks for it again."""
        if self._claimed and self._value == self._res:  # a socket closes its fd by itself
            self._value, self._claimed = None, False

    def _throw_away(self, res: int) -> bool:
        """Close what came by it, where nobody can claim it; False where there was nothing."""
        with contextlib.suppress(OSError):
            if self._dispose is not None:
                return bool(self._dispose(self, res))
            os.close(res)
        return True

    def __del__(self) -> None:
        # The last that `__init__` sets: without it a signal's exception has cut that short.
        if getattr(self, "_claimed", True) or self._state != ENDED or self._res < 0 or self._why == LEFT:
            return
        if not self._throw_away(self._res):
            return
        if not self._why:  # a cancelled one that came late was to be thrown away
            text = f"the fd of {self!r} was never taken (result()): closed"
            warnings.warn(text, ResourceWarning, source=self, stacklevel=2)
