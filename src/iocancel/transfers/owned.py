"""Files that somebody closes, and which call has which of them: see the package for what interrupts it."""

from __future__ import annotations

import contextlib
import functools
import operator
import os
import threading
import warnings
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from iocancel.operation.leading import Waiter
from iocancel.scope import local
from iocancel.transfers.transfer import Transfer

if TYPE_CHECKING:
    from iocancel.operation.verbs import File

T = TypeVar("T")
_LOOK = 0.02  # seconds after which a close looks again: a Ctrl-C may have kept a call from telling it


class Use:
    """One call of a method, which has its file until it returns."""

    __slots__ = ("after", "before", "thread", "transfer")

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.transfer: Transfer | None = None
        self.before: Have | None = None
        self.after: Have | None = None


class Have(NamedTuple):
    """What a file has brought, and who has it."""

    claims: dict[int, Use]
    """The call that has it, by 0."""
    kept: Any = b""
    """Bytes, those from `start` to `end` being there; or operations."""
    start: int = 0
    end: int = 0
    ended: bool = False
    """The end was seen, and nobody was told."""
    source: Any = None
    """A call whose result is not yet in here."""


class Side:
    """One direction of a file.

    Args:
        owner: whose.
        file: the file's number, or an object with `fileno()`.
        doing: for messages: "receiving".
    """

    def __init__(self, owner: Owned, file: File, doing: str) -> None:
        self.owner, self.file, self._doing = owner, file, doing
        self.have = Have({})
        self._process = os.getpid()
        owner.sides.append(self)

    def number(self) -> int:
        """The file's."""
        return self.file if isinstance(self.file, int) else int(self.file.fileno())

    def holder(self) -> Use | None:
        """Which call has it."""
        self._in_child()
        return self.have.claims.get(0)

    def _in_child(self) -> None:
        """In a forked child, the calls of other threads and what they wait for are the parent's."""
        if self._process != os.getpid():
            have = self.have
            waits = getattr(have.source, "_op", None) is not None
            self.have = have._replace(claims={}, source=None if waits else have.source)
            self._process = os.getpid()

    def using(self, body: Callable[[Use], T]) -> T:
        """Have it for a call of a method.

        Args:
            body: the call; its last act is `commit`.

        Raises: as `begin`, and what `body` raises: then it has taken nothing.
        """
        use = Use()
        try:
            try:
                self.begin(use)
                return body(use)
            except BaseException:
                self.abandon(use)
                raise
        except BaseException:  # a Ctrl-C may have come in there
            self.abandon(use)
            raise

    def begin(self, use: Use) -> None:
        """Begin such a call.

        Raises:
            Cancelled: inside a cancelled scope.
            RuntimeError: another one has it.
            ValueError: the file is closed.
        """
        here = local.here
        if here.stack:
            here.check()
        self._in_child()
        while True:
            have = self.have
            if have.claims.setdefault(0, use) is not use:
                raise RuntimeError(f"{self.owner.what}: another call is {self._doing} already")
            if self.have is have:
                break
        if self.owner.closing:
            raise self.owner.closed_error()

    def call(self, use: Use, timeout: float | None, verb: str) -> Transfer:
        """A call of a verb, which a close finds."""
        here = local.here
        if here.stack:
            here.check()
        transfer = use.transfer = Transfer(here, timeout, verb)
        if self.owner.closing:  # behind the store: whoever closes from now on sees it
            raise self.owner.closed_error()
        return transfer

    def commit(self, use: Use, after: Have, value: T) -> T:
        """The call's last act: what it takes is taken, and the next one let in.

        Args:
            use: the call.
            after: what is left.
            value: what is taken.
        """
        use.before, use.after = self.have, after
        if self.owner.closing:
            self.have = after
            self.owner.left()
        else:
            self.have = after
        return value

    def abandon(self, use: Use) -> None:
        """The call was cut short: it has taken nothing. It can be run again."""
        have = self.have
        if use.after is not None and have is use.after:
            assert use.before is not None
            self.have = use.before._replace(claims={})
        elif have.claims.get(0) is use:
            self.have = have._replace(claims={})
        if self.owner.closing:
            self.owner.left()


class Owned:
    """Files that somebody closes, and the calls that are inside meanwhile.

    Args:
        what: for messages: "Stream".
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.closing = False
        self.sides: list[Side] = []
        self._closers: list[Callable[[], object]] = []
        self._waiting: list[Waiter] = []

    def own(self, file: File) -> None:
        """Close this, too, in the end."""
        if isinstance(file, int):
            self._closers.insert(0, functools.partial(os.close, file))
        else:
            self._closers.insert(0, file.close)

    def closed_error(self) -> ValueError:
        """What a call raises."""
        return ValueError(f"{self.what}: closed")

    @property
    def is_open(self) -> bool:
        """Whether anything is left to be closed."""
        return bool(self._closers)

    def close(self) -> None:
        """End the calls that wait, and close the files. From any thread, any number of times.

        From a signal's handler that has interrupted one of the calls, that call closes them.
        """
        self.closing = True
        me = threading.get_ident()
        waiter = Waiter()
        try:
            self._waiting.append(waiter)
            while True:
                if not self._stop_others(me):
                    break
                waiter.sleep(_LOOK)
        finally:
            while waiter in self._waiting:
                self._waiting.remove(waiter)
        for use in self._inside():
            if use.transfer is not None:
                use.transfer.stop()
        self.left()

    def _stop_others(self, me: int) -> bool:
        """Have the other threads' calls end; whether there are any."""
        others = [use for use in self._inside() if use.thread != me]
        for use in others:
            if use.transfer is not None:
                use.transfer.stop()
        return bool(others)

    def _inside(self) -> list[Use]:
        return [use for side in self.sides if (use := side.holder()) is not None]

    def left(self) -> None:
        """A call has ended: whoever closes goes on. It can be run again."""
        if not self._inside():
            self._close_files()
        for waiter in list(self._waiting):
            waiter.awake()

    def _close_files(self) -> None:
        if self._closers:
            try:
                # One step of C takes it off the list and calls it: no signal's exception comes between.
                with contextlib.suppress(IndexError):
                    deque(map(operator.call, islice(iter(self._closers.pop, None), 1)), 0)
            finally:
                self._close_files()

    def close_last(self, left: int) -> None:
        """Close the file that was given last, unless only so many are left."""
        if len(self._closers) > left:
            take = functools.partial(self._closers.pop, 0)
            deque(map(operator.call, islice(iter(take, None), 1)), 0)

    def disown(self) -> None:
        """The files are another's again."""
        self._closers.clear()

    def forgotten(self, of: object) -> None:
        """Nobody has closed it, and it is being collected."""
        if self._closers:
            warnings.warn(f"unclosed {of!r}", ResourceWarning, source=of, stacklevel=3)
            self._close_files()
