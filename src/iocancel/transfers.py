"""What `streams` and `files` are made of: calls whose result is found again, whatever cut them short.

A signal's handler may raise between any two lines: when the kernel has given bytes, and before anybody has
them. So nothing here rests on a value that is being returned. The result of a call is in memory of C (an
attempt's) or in its operation, the call is in the file's `Have` before it begins, and the next call looks
there first. One store changes a `Have`, and a call's last act is the store that says "these were given out";
behind it, CPython runs no handler before the caller has them.

What a call has its file for is in the same `Have`, so that the store that gives the bytes out also lets the
next call in.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import operator
import os
import select
import socket
import stat
import threading
import warnings
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from iocancel.engines import ready
from iocancel.engines.ready import NOT_READY, Attempt
from iocancel.errors import Cancelled, CancelTooLate, check
from iocancel.operation import Operation, Outcome
from iocancel.operation.leading import Waiter
from iocancel.operation.operation import RELEASING
from iocancel.scope import CancelScope, Here, local
from iocancel.waiting import StartOn, Waiting

if TYPE_CHECKING:
    from iocancel.operation.verbs import File

T = TypeVar("T")
_IN, _OUT = select.POLLIN, select.POLLOUT
_LOOK = 0.02  # seconds after which a close looks again: a Ctrl-C may have kept a call from telling it


class Transfer(Waiting):
    """One call of a verb, on a file that has an owner: `Owned.close` can end it.

    Args:
        here: the thread's own.
        timeout: seconds, None for ever.
        verb: which, "read".
    """

    __slots__ = ("_inner", "_now", "_outer", "_verb")

    def __init__(self, here: Here, timeout: float | None, verb: str) -> None:
        super().__init__(here, timeout)
        # A scope that was never entered, so that nobody has to leave it: this call alone is inside of it.
        inner = CancelScope()
        inner._parent = self._outer = self._scope
        inner._here, inner._entered = here, True
        self._inner = self._scope = inner
        self._verb = verb
        self._now: Attempt | None = None

    def stop(self) -> None:
        """End it; from any thread."""
        self._inner._called = True
        self.look()

    def attempt(self, call: Any, *args: Any) -> int:
        """Take what is ready.

        Args:
            call: one of iocancel.engines.ready's, which C does.
            args: for it.

        Returns:
            What it returns: NOT_READY, another negative errno, or what came, which is found here, too.
        """
        here = self._here
        now: Attempt = here.attempt or Attempt()
        here.attempt = None
        now.calls += 1
        self._now = now  # behind the count: before it, the result is still that of a call before this one
        many: int = call(now.told, *args)
        return many

    def wait(self, start: StartOn, fd: File, events: int, closed: Callable[[], BaseException]) -> None:
        """Have an operation done.

        Args:
            start, fd, events: see `Waiting.run_ready`.
            closed: what to raise when `stop` has ended it.
        """
        try:
            try:
                self.begin()
                self.run_ready(start, fd, events).result()
            finally:
                self.end()
        except Cancelled:
            self.end_at_last()
            if self._inner._called and not (self._outer is not None and self._outer._reached()):
                raise closed() from None
            raise
        except BaseException as error:
            self.end_at_last()
            if isinstance(error, CancelTooLate):
                self.leave_on(error)
            elif self._op is not None and self._op._exception is error:
                self._op._exception = None  # as there
            raise

    def operation(self) -> Operation[Any] | None:
        """What has been waited for, if it has brought something.

        Raises:
            CancelTooLate: it still runs, since the system can't stop it.
        """
        op = self._op
        if op is None or op._kind.name != self._verb:
            return None
        if op._state < RELEASING:
            op._engine._wait_for((op,), 0.0, RELEASING, cancel=False)
        if op.outcome is None:
            error = CancelTooLate(
                errno.EALREADY, f"{os.strerror(errno.EALREADY)}: an earlier {op.name} of it still runs"
            )
            error.operation = op  # type: ignore[attr-defined]
            raise error
        return op if op.outcome is Outcome.COMPLETED else None

    def many(self) -> int:
        """The number that has come; -1: none."""
        now = self._now
        if now is not None and now.came() >= 0:
            return now.came()
        op = self._op
        if op is None or op._kind.name != self._verb or op.outcome is not Outcome.COMPLETED:
            return -1
        return op._res

    def data(self) -> bytes | None:
        """The bytes that have come; None: nothing has."""
        now = self._now
        if now is not None and now.came() >= 0:
            data: bytes = now.data[: now.came()]
            return data
        op = self.operation()
        return None if op is None else bytes(op.result())

    def accepted(self, fd: int) -> Operation[Any] | None:
        """The operation whose value is the connection that has come; None: none has. The same one each time.

        Args:
            fd: the socket's number.
        """
        now = self._now
        if now is not None and now.came() >= 0:
            op = self._op
            if op is None:
                op = self._op = ready.taken("accept", fd, now.came())
            ready.mine(op)  # behind the store: one that was dropped before would close the fd
            return op
        return self.operation()

    def give_back(self) -> None:
        """The result is no longer looked for: another call may use the memory."""
        now, self._now = self._now, None
        if now is not None and now.told.calls == now.calls:  # else it was cut short, and its count is wrong
            local.here.attempt = now


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


class Incoming(Side):
    """Bytes that come from a file."""

    def __init__(self, owner: Owned, file: File) -> None:
        super().__init__(owner, file, "receiving")
        self.is_socket = _is_socket(file)
        self._verb = "recv" if self.is_socket else "read"
        self._extra = 0 if self.is_socket else -1  # flags, or the file's own position
        self._ready: Any = ready.recv if self.is_socket else ready.read

    def begin(self, use: Use) -> None:
        """See Side."""
        super().begin(use)
        self.settle()

    def bring(self, use: Use, room: int, timeout: float | None) -> Have:
        """Wait until the file brings something, or its end; where it goes is `have`.

        Args:
            use: the call.
            room: how many bytes at most.
            timeout: seconds, None for ever.

        Raises:
            OSError: it has failed.
            TimeoutError, Cancelled: nothing has come.
            ValueError: the file was closed meanwhile.
        """
        transfer = self.call(use, timeout, self._verb)
        room = min(room, ready.ROOM)
        self.have = self.have._replace(source=transfer)
        file = self.number()
        many = transfer.attempt(self._ready, file, room, self._extra)
        if many == NOT_READY:
            verb, extra = self._verb, self._extra
            transfer.wait(
                lambda engine, number: getattr(engine, verb)(number, room, extra),
                file,
                _IN,
                self.owner.closed_error,
            )
        elif many < 0:
            self.have = self.have._replace(source=None)
            check(many, self._verb)
        return self.settle()

    def settle(self) -> Have:
        """Put what a call has brought behind what is kept."""
        have = self.have
        source = have.source
        if source is None:
            return have
        data = source.data()
        fresh = self.have = have._replace(source=None) if data is None else _behind(have, data)
        source.give_back()
        return fresh

    @staticmethod
    def take(have: Have, many: int) -> tuple[bytes, Have]:
        """The first bytes of what is kept, and what is left: for `commit`.

        Where there is nothing, it is the end that is taken.
        """
        start, end = have.start, min(have.end, have.start + many)
        data = bytes(have.kept[start:end])
        ended = have.ended and bool(data)
        if end == have.end:
            return data, Have({}, ended=ended)
        return data, Have({}, have.kept, end, have.end, ended)


def _behind(have: Have, data: bytes) -> Have:
    """Bytes behind those that are kept. Run again after an exception it does the same."""
    kept, start, end = have.kept, have.start, have.end
    if start == end:
        return Have(have.claims, data, 0, len(data), have.ended or not data)
    if not data:
        return Have(have.claims, kept, start, end, True)
    if isinstance(kept, bytes) or start > end - start:
        kept, start, end = bytearray(kept[start:end]), 0, end - start
    kept[end:] = data  # what is behind the end is of no meaning
    return Have(have.claims, kept, start, end + len(data), have.ended)


class Outgoing(Side):
    """Bytes that go to a file."""

    ended = False
    """Nothing can be sent any more."""

    def __init__(self, owner: Owned, file: File) -> None:
        super().__init__(owner, file, "sending")
        self.is_socket = _is_socket(file)
        self._verb = "send" if self.is_socket else "write"
        self._extra = 0 if self.is_socket else -1
        self._ready: Any = ready.send if self.is_socket else ready.write

    def push(self, transfer: Transfer, data: Any) -> None:
        """Wait until some of it is sent.

        Args:
            transfer: the call; its `many()` is the number of bytes, whatever is raised here.
            data: a buffer.
        """
        file = self.number()
        # Let go of at once: CPython crashes where a memoryview that is exported is garbage in a cycle, as an
        # exception's frames often are.
        with ready.from_buffer(ready.BYTES, data) as pin:
            many = transfer.attempt(self._ready, file, pin, len(pin), self._extra)
        if many == NOT_READY:
            verb, extra = self._verb, self._extra
            transfer.wait(
                lambda engine, number: getattr(engine, verb)(number, data, extra),
                file,
                _OUT,
                self.owner.closed_error,
            )
        elif many < 0:
            check(many, self._verb)

    def run(self, data: Any, timeout: Callable[[], float | None], whole: bool) -> int:
        """Send a part, or all of it.

        Args:
            data: a buffer.
            timeout: what each part has, in seconds.
            whole: all of it.

        Returns:
            How many bytes were sent.

        What is raised has `sent`: how many bytes went out before.
        """
        sent: tuple[int, Transfer | None] = (0, None)
        view = memoryview(data).cast("B")

        def body(use: Use) -> int:
            nonlocal sent
            if self.ended:
                raise BrokenPipeError(errno.EPIPE, f"{os.strerror(errno.EPIPE)}: after send_eof()")
            while True:
                transfer = self.call(use, timeout(), self._verb)
                sent = (sent[0], transfer)
                self.push(transfer, view[sent[0] :])
                sent = (sent[0] + transfer.many(), None)
                transfer.give_back()
                if not whole or sent[0] >= len(view):
                    return self.commit(use, Have({}), sent[0])

        def went() -> int:
            return sent[0] + (max(0, sent[1].many()) if sent[1] is not None else 0)

        count = -1
        try:
            try:
                return self.using(body)
            except BaseException as error:
                count = went()
                error.sent = count  # type: ignore[attr-defined]
                raise
        except BaseException as error:
            # No call here, so that no Ctrl-C comes in between; one that came in the handler above gets it.
            if count < 0:
                count = went()
            error.sent = count  # type: ignore[attr-defined]
            raise


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
            while others := [use for use in self._inside() if use.thread != me]:
                for use in others:
                    if use.transfer is not None:
                        use.transfer.stop()
                waiter.sleep(_LOOK)
        finally:
            while waiter in self._waiting:
                self._waiting.remove(waiter)
        for use in self._inside():
            if use.transfer is not None:
                use.transfer.stop()
        self.left()

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


def _is_socket(file: File) -> bool:
    if isinstance(file, socket.socket):
        return True
    if not isinstance(file, int) and not hasattr(file, "fileno"):
        raise TypeError(f"a file is an int or an object with fileno(), not {type(file).__name__}")
    return stat.S_ISSOCK(os.fstat(file if isinstance(file, int) else file.fileno()).st_mode)


__all__ = ["Have", "Incoming", "Outgoing", "Owned", "Side", "Transfer", "Use"]
