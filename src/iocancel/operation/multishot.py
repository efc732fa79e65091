"""Operations that bring one value after another: context managers of iterators.

Leaving the block cancels and drains. What came and was not taken is in `leftovers` then, so nothing is lost;
connections in it are closed when it is collected.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from iocancel.operation.model import Outcome
from iocancel.operation.operation import CALLER, IN_FLIGHT, NOT_ASKED, RELEASING, Operation

if TYPE_CHECKING:
    from iocancel.operation.carrier import Repeating
    from iocancel.operation.verbs import Verbs

T = TypeVar("T")
_FULL = frozenset([-errno.ENOBUFS])  # the kernel has filled all buffers: on with the next ones


class Multishot(Generic[T]):
    """Values that come one after the other. Iterate inside of its block; iterating outside of it raises."""

    def __init__(self, engine: Verbs, verb: str, fd: Any, args: tuple[Any, ...]) -> None:
        self._engine = engine
        self._verb, self._fd, self._args = verb, fd, args
        self._op: Any = None
        self._inside = self._stopped = False
        self.leftovers: list[T] = []
        """What came and was not taken, once the block has been left."""
        # The system's own, where it has it; else one single operation after the other.
        self._native: Any = None
        if engine.supports(f"{verb}_multishot"):
            self._native = cast("Repeating", engine._carrier).multishot(engine, verb, args)

    def __enter__(self) -> Multishot[T]:
        """Begin."""
        if self._inside or self._op is not None:  # its buffers were given back
            raise RuntimeError("this block was entered already: make another one")
        self._inside = True
        self._arm()
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel, drain, keep what was not taken."""
        self.close()

    def __iter__(self) -> Iterator[T]:
        """Itself."""
        if not self._inside:
            raise RuntimeError("iterate inside of the block: `with engine.accept_multishot(...) as conns:`")
        return self

    def __next__(self) -> T:
        """Wait for the next value."""
        while True:
            if not self._inside:
                raise RuntimeError("iterate inside of the block: it was left")
            found = self.ready()
            if found:
                return found[0]
            if self._op._state >= RELEASING and not self._op._items:
                self._over()
                continue
            self._engine._wait_for([Next(self._op)], None, RELEASING, cancel=False)

    def ready(self) -> list[T]:
        """The next value if it is there, in a list; an empty one if it is not. It never waits."""
        op = self._op
        if op._items is not None:
            while op._items:
                number = -1
                # No call between the look and the first step: another thread, which leads, puts more in.
                for number in op._items:  # noqa: B007
                    break
                item = op._items.pop(number, None)
                if item is None:  # another thread has it
                    continue
                res, flags = item
                over = self._verb == "recv" and not res  # the peer has closed
                try:
                    values = [] if over else [self._native.value(res, flags)]
                except BaseException:  # of a signal handler, say: it is there for the next call
                    op._items[number] = item
                    raise
                op._taken = number
                self._native.give_back(flags)
                if values:
                    return values
            return []
        if op._state >= RELEASING and op.outcome is Outcome.COMPLETED and not op._claimed:
            value = op.result()
            if self._verb == "recv" and not value:
                return []
            return [value]
        return []

    def _over(self) -> None:
        """The operation has ended and all that it brought was taken: on, or the end."""
        op = self._op
        if op._why or self._stopped:
            raise StopIteration
        outcome = op.outcome
        if outcome is Outcome.COMPLETED and self._verb == "recv" and op._res == 0:
            raise StopIteration  # the peer has closed
        if outcome is not Outcome.COMPLETED and op._res not in _FULL:
            op.result()
        self._arm()

    def _arm(self) -> None:
        verbs: Any = self._engine
        if self._native is not None:
            self._op = self._native.start(self._fd)
        elif self._verb == "recv":
            self._op = verbs.recv(self._fd, self._args[0], self._args[2])
        else:
            self._op = getattr(verbs, self._verb)(self._fd, *self._args)
        if self._stopped:  # by another thread, which may have asked the last one
            self._op._ask(CALLER)
        self._submit()

    def _submit(self) -> None:
        self._engine.submit()

    def cancel(self) -> bool:
        """Ask for its end, from any thread; the iteration stops when what has come is taken.

        Returns:
            False outside of the block, else True.
        """
        self._stopped = True
        if not self._inside:
            return False
        op = self._op
        if op is not None:  # else its block is just being entered: see `_arm`
            op._ask(CALLER)
        return True

    def close(self) -> None:
        """As leaving the block."""
        if not self._inside:
            return
        op = self._op
        op._ask(CALLER)
        try:
            self._engine._wait_for([op], None, RELEASING)
        finally:
            self._inside = False
        self._finish()

    def _finish(self) -> None:
        """It has ended: keep what was not taken."""
        while found := self.ready():
            self.leftovers += found
        if self._native is not None:
            self._native.done()


class Next:
    """The next value of a multishot operation, as something that can be waited for."""

    _cancel = NOT_ASKED

    def __init__(self, op: Operation[Any]) -> None:
        self._op = op

    @property
    def _state(self) -> int:
        op = self._op
        return RELEASING if op._items or op._state >= RELEASING else IN_FLIGHT

    def add_done_callback(self, call: Callable[[Any], object]) -> None:
        """Have `call` made at the next value, or at the end."""
        op = self._op
        op._item_hooks = (*op._item_hooks, call)
        if self._state >= RELEASING:
            call(op)
