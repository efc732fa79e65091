"""The engines that blocking calls borrow: for the whole process, last in, first out.

A call takes one for as long as it waits and gives it back empty; threads own none, since rings are scarce
(64 KiB of locked memory are eight of them, and they are given back late). None is ever in two hands: one step
of C moves an engine from one list to the next, so no signal's exception and no other thread comes between.

Which engine: what `open_engine()` finds (IOCANCEL_ENGINE chooses). A forked child has a pool of its own.
"""

from __future__ import annotations

import atexit
import errno
import importlib
import os
import threading
import time
import weakref
from collections import deque
from itertools import islice
from typing import Any, Protocol

from iocancel import errors
from iocancel.engines import open_engine
from iocancel.engines.auto import engine_class
from iocancel.operation.leading import Waiter

for _name in ("uring", "libaio"):
    # Now, not at the first call: a fork while another thread imports leaves the child waiting for it.
    importlib.import_module(f"iocancel.engines.{_name}")

IDLE = 16
"""How many engines are kept for later; the others are closed when they come back."""
_LOOK = (
    0.05  # seconds after which a call that waits for an engine tries to open one: memory is given back late
)
_AT_EXIT = 1.0  # seconds that the closing of one may take then


class Patience(Protocol):
    """Somebody who waits for an engine."""

    waiter: Waiter | None
    """What wakes it up meanwhile."""

    def left(self) -> float | None:
        """How many seconds it still waits, None for ever; raises when they are over, or at a cancel."""
        ...


class _Choosing(errors.EngineUnavailable):
    """Not yet: another thread finds out which engine there is."""


class Pool:
    """Engines for one waiting thread each.

    Args:
        engine: as `open_engine` takes it.
    """

    def __init__(self, engine: str | None = None) -> None:
        self._wanted = engine
        self.name = ""
        """Which engine it has; "" before the first was asked for."""
        self._free: deque[Any] = deque()
        self._stuck: deque[Any] = deque()  # came back with something in flight that can't be stopped
        self._all: set[weakref.ref[Any]] = set()
        self._waiting: deque[Waiter] = deque()
        self._chooser: dict[int, int] = {}  # the thread that chooses, by 0
        self.closed = False

    def take(self, into: list[Any], patience: Patience) -> Any:
        """Borrow an engine; wait for one where no further one can be had.

        Args:
            into: where it is put, in one step: whoever holds the list gives it back.
            patience: is asked how long to wait.

        Raises:
            EngineUnavailable: none can be had, and none is in use that could be waited for.
        """
        if not self._move(self._free, into) and not self._recover(into):
            try:
                self._open(into)
            except errors.EngineUnavailable as error:
                if not self._all and not isinstance(error, _Choosing):
                    raise
                self._wait(into, patience)
        return into[-1]

    @staticmethod
    def _move(source: Any, into: Any) -> bool:
        """Move the last of one list to another, in one step; whether there was one."""
        try:
            into.extend(islice(iter(source.pop, None), 1))
        except IndexError:
            return False
        return True

    def _recover(self, into: list[Any]) -> bool:
        """See whether what was stuck has ended."""
        held: list[Any] = []
        for _ in range(len(self._stuck)):
            if not self._move(self._stuck, held):
                break
            engine = held[-1]
            if engine.closed:
                self._all.discard(weakref.ref(engine))
                held.pop()
                continue
            engine.reap(0)
            if not engine.in_flight:
                return self._move(held, into)
            self._stuck.extendleft(held)
            held.clear()
        return False

    def _open(self, into: list[Any]) -> None:
        if not self.name:
            self._choose()
        size = {"libaio": 8}.get(self.name)
        engine = engine_class(self.name)(*([] if size is None else [size]), pooled=True)
        self._all.add(weakref.ref(engine, self._all.discard))
        into.append(engine)

    def _choose(self) -> None:
        """Find out which engine works here; one thread does.

        Many that try at once use up the locked memory together, and the one that is refused would choose
        another engine for all of them.

        Raises:
            EngineUnavailable: none works; or another thread is at it.
        """
        me = threading.get_ident()
        try:
            if self._chooser.setdefault(0, me) != me:
                raise _Choosing(errno.EAGAIN, "another thread is choosing the engine")
            with open_engine(self._wanted) as found:
                self.name = found.name
        finally:
            if self._chooser.get(0) == me:
                del self._chooser[0]

    def _wait(self, into: list[Any], patience: Patience) -> None:
        """Wait until one comes back, or another one can be had."""
        waiter = Waiter()
        tried = time.monotonic()
        try:
            self._waiting.append(waiter)
            patience.waiter = waiter
            while True:
                if self._move(self._free, into) or self._recover(into):
                    break
                left = patience.left()  # in each round: opening one may last longer than _LOOK
                if time.monotonic() >= tried + _LOOK:
                    try:
                        self._open(into)
                    except errors.EngineUnavailable as error:
                        if not self._all and not isinstance(error, _Choosing):
                            raise
                        tried = time.monotonic()
                        continue
                    return
                waiter.sleep(_LOOK if left is None else max(0.0, min(_LOOK, left)))
        finally:
            patience.waiter = None
            while waiter in self._waiting:
                self._waiting.remove(waiter)
            if self._free:
                self._wake()

    def _wake(self) -> None:
        for waiter in list(self._waiting):
            if waiter.awake():
                return

    def give_back(self, held: list[Any]) -> None:
        """Give back what was borrowed. It can be run again after an exception.

        Args:
            held: the list that `take` has put it in; empty afterwards.
        """
        while held:
            engine = held[-1]
            if engine.closed or self.closed:
                self._all.discard(weakref.ref(engine))  # whoever keeps an operation of it keeps it, too
                held.pop()
            elif engine.in_flight:
                self._move(held, self._stuck)
            elif len(self._free) >= IDLE:
                engine.close()
            else:
                self._move(held, self._free)
                self._wake()

    def __len__(self) -> int:
        """How many engines there are, lent ones among them."""
        return len(self._all)

    @property
    def idle(self) -> int:
        """How many are here."""
        return len(self._free)

    @property
    def stuck(self) -> int:
        """How many have something in flight that nothing can stop."""
        return len(self._stuck)

    def close(self) -> None:
        """Close all engines; those that are lent too, whose calls are cancelled by it."""
        self.closed = True
        for each in list(self._all):
            engine = each()
            if engine is not None:
                engine.close(_AT_EXIT)
        self._free.clear()
        self._stuck.clear()


current = Pool()
"""This process's."""


def _in_child() -> None:
    global current
    current = Pool(current._wanted)


def _at_exit() -> None:
    current.close()


os.register_at_fork(after_in_child=_in_child)
# Before the engines' own, which was registered first: nobody was to close these.
atexit.register(_at_exit)
