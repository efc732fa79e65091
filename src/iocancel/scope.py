"""Cancel scopes for plain threads, in trio's words: what a deadline, or another thread, ends.

    with move_on_after(0.5) as scope:
        data = iocancel.read(fd, 4096)
    if scope.cancelled_caught:
        ...

Cancellation is level-triggered: from the moment on when a scope is cancelled every verb of `iocancel` inside
of it raises `Cancelled`, until the block is left. A value that came first is returned, and the next verb
raises. Only this library's verbs notice: code that computes calls `checkpoint()` now and then.

A thread has a stack of scopes of its own. It holds them weakly: a Ctrl-C that comes just between a block's
end and its `__exit__` leaves nothing behind that would cancel what comes after it.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from types import TracebackType
from typing import Any, Literal, Protocol, TypeVar

from iocancel.errors import Cancelled

T = TypeVar("T", bound="CancelScope")


class Blocked(Protocol):
    """A blocking call under way."""

    def look(self) -> None:
        """Have its thread look at its scopes again; from any thread, also in a signal handler."""
        ...


class Here:
    """What there is of one thread."""

    __slots__ = ("attempt", "calls", "main", "stack")

    def __init__(self) -> None:
        self.stack: list[weakref.ref[CancelScope]] = []  # the innermost last
        self.calls: list[Blocked] = []  # the outermost first: signal handlers may make some inside of others
        self.attempt: Any = None  # iocancel.engines.ready's; None while a call has it
        self.main = threading.current_thread() is threading.main_thread()

    def innermost(self) -> CancelScope | None:
        """The scope that a call is made in."""
        stack = self.stack
        while stack:
            scope = stack[-1]()
            if scope is not None:
                return scope
            stack.pop()  # its block was left without its exit
        return None

    def check(self) -> None:
        """Raise where a call may not begin.

        Raises:
            Cancelled: inside a cancelled scope.
        """
        scope = self.innermost()
        if scope is not None and scope._reached():
            raise cancelled()


class Local(threading.local):
    """Each thread's own."""

    def __init__(self) -> None:
        self.here = Here()


local = Local()


def _in_child() -> None:
    local.here.main = True  # whichever thread has forked


os.register_at_fork(after_in_child=_in_child)


def cancelled() -> Cancelled:
    """The exception that unwinds to the scope."""
    return Cancelled("cancelled: let this pass, the scope that was cancelled catches it")


class CancelScope:
    """A block whose blocking calls can be ended: by a deadline, or by `cancel()` from anywhere.

    Args:
        deadline: when it is cancelled, in `time.monotonic()` seconds; `math.inf` never.
        relative_deadline: the same, in seconds from when the block is entered.
        shield: let no cancel of a scope around this one through.

    A scope is entered once, and left by the thread that entered it. Of several cancelled scopes the outermost
    that is not shielded catches `Cancelled`.
    """

    def __init__(
        self, *, deadline: float = math.inf, relative_deadline: float = math.inf, shield: bool = False
    ) -> None:
        self._deadline = _time(deadline, "deadline")
        self._relative = _time(relative_deadline, "relative_deadline")
        if self._relative < 0:
            raise ValueError(f"relative_deadline takes a number of seconds >= 0, not {relative_deadline}")
        self._shield = _flag(shield)
        self._called = False
        self._parent: CancelScope | None = None
        self._here: Here | None = None
        self._entered = False
        self.cancelled_caught = False
        """Whether the block was ended by this scope: it has caught `Cancelled`."""

    @property
    def deadline(self) -> float:
        """When it is cancelled, in `time.monotonic()` seconds; may be set at any time, from any thread."""
        return self._deadline

    @deadline.setter
    def deadline(self, value: float) -> None:
        self._deadline = _time(value, "deadline")
        self._tell()

    @property
    def shield(self) -> bool:
        """Whether cancels of the scopes around it are kept out; may be set at any time, from any thread."""
        return self._shield

    @shield.setter
    def shield(self, value: bool) -> None:
        self._shield = _flag(value)
        self._tell()

    @property
    def cancel_called(self) -> bool:
        """Whether `cancel()` was called, or the deadline has passed."""
        if (
            not self._called
            and (self._here is not None or not self._entered)
            and self._deadline <= time.monotonic()
        ):
            self._called = True
        return self._called

    def cancel(self) -> None:
        """Cancel it, once and for all. From any thread, and in signal handlers; any number of times."""
        self._called = True
        self._tell()

    def _tell(self) -> None:
        here = self._here
        if here is not None:
            for call in list(here.calls):
                call.look()

    def _reached(self) -> bool:
        """Whether a cancel reaches what is inside: its own, or one from around it."""
        scope: CancelScope | None = self
        while scope is not None:
            if scope._called:
                return True
            if scope._deadline != math.inf and scope._deadline <= time.monotonic():
                scope._called = True
                return True
            if scope._shield:
                return False
            scope = scope._parent
        return False

    def _until(self) -> float:
        """The first deadline that reaches what is inside."""
        scope: CancelScope | None = self
        first = math.inf
        while scope is not None:
            if scope._called:
                return -math.inf
            first = min(first, scope._deadline)
            if scope._shield:
                break
            scope = scope._parent
        return first

    def __enter__(self: T) -> T:
        """Begin the block."""
        here = local.here
        if self._entered:
            raise RuntimeError(f"{self!r} was entered before: each block takes a scope of its own")
        reference: weakref.ref[CancelScope] = weakref.ref(self)
        try:
            self._parent = here.innermost()
            if self._relative != math.inf:
                self._deadline = min(self._deadline, time.monotonic() + self._relative)
            self._entered = True
            self._here = here
            here.stack.append(reference)
            return self  # noqa: TRY300 - inside, so that a Ctrl-C just here is seen
        except BaseException:  # a Ctrl-C: nobody will leave the block
            self._here = None
            while reference in here.stack:
                here.stack.remove(reference)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """End the block; whether the exception ends here."""
        here = local.here
        if self._here is not here:
            raise RuntimeError(f"{self!r} is to be left by the thread that has entered it, and once")
        inside = self._leave(here, isinstance(error, GeneratorExit))
        caught = error is not None and self._catches()
        self._here = None
        if inside and error is None:
            raise RuntimeError(f"{self!r} was left before {inside[-1]!r}, which was entered inside of it")
        if not caught:
            return False
        if isinstance(error, Cancelled):
            self.cancelled_caught = True
            return True
        if isinstance(error, BaseExceptionGroup):
            matched, rest = error.split(Cancelled)
            if matched is None:
                return False
            self.cancelled_caught = True
            if rest is None:
                return True
            rest.__cause__, rest.__context__ = error.__cause__, error.__context__
            raise rest
        return False

    def _leave(self, here: Here, alone: bool) -> list[CancelScope]:
        """Take this scope off the stack, and what was entered inside of it; returns those.

        Args:
            here: the thread's.
            alone: leave the others where they are. A generator that is closed leaves its scope while those of
                its caller, entered later, go on; then what is around this one is around them.
        """
        inside: list[CancelScope] = []
        for at in range(len(here.stack) - 1, -1, -1):
            scope = here.stack[at]()
            if scope is self:
                if not alone:
                    del here.stack[at:]
                    return inside
                del here.stack[at]
                for each in inside:
                    if each._parent is self:
                        each._parent = self._parent
                break
            if scope is not None:
                inside.append(scope)
        return []

    def _catches(self) -> bool:
        """Whether `Cancelled` ends here: it reaches this scope, and none around it through this one."""
        if not self._reached():
            return False
        return self._shield or self._parent is None or not self._parent._reached()

    def __repr__(self) -> str:
        state = "cancelled" if self._called else "active" if self._here is not None else "left"
        when = "" if self._deadline == math.inf else f" deadline={self._deadline:.3f}"
        return f"<{type(self).__name__} {state if self._entered or self._called else 'new'}{when}>"


class FailScope(CancelScope):
    """A scope whose end by its deadline is a TimeoutError: see `fail_after`."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        """End the block."""
        super().__exit__(kind, error, trace)
        if self.cancelled_caught:
            raise TimeoutError(_over(self)) from error
        return False


def _over(scope: CancelScope) -> str:
    if scope._relative != math.inf:
        return f"the {scope._relative:g} s of fail_after() are over"
    return "the deadline of fail_at() has passed, or its scope was cancelled"


def move_on_after(seconds: float, *, shield: bool = False) -> CancelScope:
    """A block that is left after so many seconds.

    Args:
        seconds: how long, >= 0, from when the block is entered.
        shield: see `CancelScope`.
    """
    return CancelScope(relative_deadline=_seconds(seconds), shield=shield)


def move_on_at(deadline: float, *, shield: bool = False) -> CancelScope:
    """A block that is left at a `deadline`, in `time.monotonic()` seconds; `shield` as for `CancelScope`."""
    return CancelScope(deadline=deadline, shield=shield)


def fail_after(seconds: float, *, shield: bool = False) -> FailScope:
    """A block that raises TimeoutError when it is not done after so many seconds; else as `move_on_after`."""
    return FailScope(relative_deadline=_seconds(seconds), shield=shield)


def fail_at(deadline: float, *, shield: bool = False) -> FailScope:
    """A block that raises TimeoutError when it is not done at a time; otherwise as `move_on_at`."""
    return FailScope(deadline=deadline, shield=shield)


def current_scope() -> CancelScope | None:
    """The innermost scope that this thread is in; None where it is in none."""
    return local.here.innermost()


def current_effective_deadline() -> float:
    """When what this thread does here is cancelled, in `time.monotonic()` seconds.

    Returns:
        `math.inf` for never, `-math.inf` where it is cancelled already.
    """
    scope = local.here.innermost()
    return math.inf if scope is None else scope._until()


def checkpoint() -> None:
    """Raise `Cancelled` inside a cancelled scope; else nothing."""
    here = local.here
    if here.stack:
        here.check()


def _time(value: float, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{what} takes seconds as float or int, not {type(value).__name__}")
    if value != value:
        raise ValueError(f"{what} takes a number of seconds, not nan")
    return float(value)


def _seconds(value: float) -> float:
    number = _time(value, "seconds")
    if number < 0:
        raise ValueError(f"seconds takes a number >= 0, not {value}")
    return number


def _flag(value: bool) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"shield takes True or False, not {value!r}")
    return value


__all__ = [
    "CancelScope",
    "FailScope",
    "checkpoint",
    "current_effective_deadline",
    "current_scope",
    "fail_after",
    "fail_at",
    "move_on_after",
    "move_on_at",
]
