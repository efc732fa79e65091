"""An engine without a kernel: the test says what happens, and in which order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from iocancel.operation import MORE, NOTIF, VERBS, Operation, Reach, Verbs
from iocancel.testing.carrier import Answer, ScriptedCarrier, Step
from iocancel.testing.faults import Deadlock

LIMIT = 20.0


class ScriptedEngine(Verbs):
    """An engine whose system does what a script says; all else is the real thing.

    Code that takes an engine can't tell it from another one. Files are not touched: any number will do.

        engine = ScriptedEngine()
        op = engine.read(0, 100)
        engine.complete(op, b"hello")       # from now on, or from its submission on
        assert op.wait() is Outcome.COMPLETED

        op = engine.read(0, 100)
        engine.answer(op, Answer.TOO_LATE)  # to the first cancel; those behind it are answered CANCELS
        op.cancel()
        engine.submit()
        assert op.verdict is Verdict.TOO_LATE and not op.done()
        engine.complete(op, b"late")        # a success that beats the cancel
        assert op.wait() is Outcome.COMPLETED and op.result() == b"late"

    A cancel that the script says nothing about works: the operation ends with -ECANCELED. A wait for what
    can't come raises `Deadlock`. What no kernel would do raises `ScriptError`, whoever asks for it.

    The methods of the script (`complete`, `answer`, `next_go` ...) may be called from any thread, in a
    signal handler, and while another thread waits in the engine; they only tell what the system does, and
    the engine learns of it when it looks.

    Args:
        verbs: which verbs the system has; all of them where nothing is said. The others raise
            FeatureUnavailable; a multishot verb that is left out is made of single operations.
        reaches: verb -> how far it can be cancelled; `Reach.TOTAL` for those that are not named.
        silent: whether a cancel that works is not answered (as with io_uring from Linux 5.17 on), or with 0
            (as before, and with libaio).
        patience: how many seconds `wait(timeout)` gives an operation that its cancel did not stop.
        limit: how many seconds a wait lasts in which nothing comes before `Deadlock`, where another thread
            is there that might yet do something. Without one it is raised at once.
    """

    _carrier: ScriptedCarrier

    def __init__(
        self,
        *,
        verbs: Iterable[str] = VERBS,
        reaches: Mapping[str, Reach] | None = None,
        silent: bool = True,
        patience: float = 0.0,
        limit: float = LIMIT,
    ) -> None:
        super().__init__(
            ScriptedCarrier(verbs=verbs, reaches=reaches or {}, silent=silent, patience=patience, limit=limit)
        )

    # Completions

    def complete(
        self, op: Operation[Any], res: int | bytes = 0, *, more: bool = False, notif: bool = False
    ) -> None:
        """Have an operation complete.

        Args:
            op: one of this engine's. Where it was not submitted yet this happens when it is: at once, as with
                data that are there already, or a refusal.
            res: the result: a number (negative: a negated errno), or the bytes that it reads. An accept's and
                an openat's is an fd, which is the operation's from then on.
            more: more completions will come: a multishot operation's value; a zero-copy send's result.
            notif: this one only says that the memory of a zero-copy send is released.

        Raises:
            ScriptError: it has completed; the bytes do not fit; its memory was let go of.
        """
        self._carrier.complete(op, res, (MORE if more else 0) | (NOTIF if notif else 0))

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep what happens inside of the block from the engine: it has happened, and nobody has looked.

        with engine.hold():
            engine.complete(op, 5)   # the kernel has done it
            op.cancel()              # too late, but nobody knows
            engine.submit()
        """
        self._carrier.holding += 1
        try:
            yield
        finally:
            self._carrier.holding -= 1
            self._carrier.wake()

    # Cancels

    def answer(self, op: Operation[Any] | None, *answers: Answer) -> None:
        """How cancels are answered.

        Args:
            op: of this one; None: of all that nothing else is said about (then one answer).
            answers: to the first cancel, the second ... A cancel whose answer is HELD gets the next one when
                it is given, by another call of this. Behind the last one, what was set for all.
        """
        if op is not None:
            self._carrier.answer(op, answers)
            return
        if len(answers) != 1:
            raise ValueError("for all operations there is one answer")
        self._carrier.default = answers[0]

    # Calls into the system

    def next_go(
        self,
        *,
        taken: int | None = None,
        act: Callable[[], object] | None = None,
        error: BaseException | None = None,
    ) -> None:
        """How the next call that hands over (and waits) goes; several are kept in order. It does not wait.

        Args:
            taken: how many of what is handed over the system takes, None for all.
            act: called then, inside of the system call: what a signal handler, or another thread, does there.
            error: raised then: an OSError, or a KeyboardInterrupt.
        """
        self._carrier.goes.append(Step(taken, act, error))

    def next_cancel(
        self,
        *,
        taken: int | None = None,
        act: Callable[[], object] | None = None,
        error: BaseException | None = None,
    ) -> None:
        """How the next call that sends cancels goes; see `next_go`."""
        self._carrier.sendings.append(Step(taken, act, error))

    def while_waiting(self, act: Callable[[], object]) -> None:
        """Call `act` when the engine next waits with nothing there, which ends the wait; kept in order.

        engine.while_waiting(lambda: engine.complete(op, b"at last"))
        op.wait()
        """
        self._carrier.acts.append(act)

    def await_waiter(self, timeout: float = LIMIT) -> None:
        """Wait until another thread waits in the system, `timeout` seconds at most.

        Raises:
            Deadlock: none did within `timeout` seconds.
        """
        changed = self._carrier.changed
        with changed:
            came = changed.wait_for(lambda: self._carrier.waiting, timeout)
        if not came:
            raise Deadlock(f"no thread has come to wait in {self!r}")

    # What has happened

    @property
    def pending(self) -> list[Operation[Any]]:
        """What the system has, the oldest first."""
        return list(self._carrier.flight.values())

    @property
    def submitted(self) -> list[Operation[Any]]:
        """All that was ever handed over, in that order."""
        return list(self._carrier.seen.values())

    @property
    def cancels(self) -> list[Operation[Any]]:
        """The cancels that were sent, in that order: one operation may be there several times."""
        return list(self._carrier.cancels)

    def pinned(self, op: Operation[Any]) -> bool:
        """Whether the memory of the operation `op` is kept for the system."""
        return self._carrier.pinned(op)


__all__ = ["Answer", "ScriptedEngine"]
