"""What carries operations to one system and brings completions back: the part that knows a library.

`Core` (core.py) does everything else, and calls a carrier from one thread at a time, but for `wake`.
Everything that a carrier reports is a record, (token, result, flags), so that there is one way in:

- an operation's completion: its token, what came (negative: a negated errno), `MORE` and `NOTIF`;
- the answer to a cancel: the target's token with the bit `ANSWER`; 0 for found, -ENOENT for not there,
  -EALREADY for running. An answer of 0 may be left out: a cancel whose failure has not come when `cancel`
  returns and its records are read was found;
- what is the carrier's own (a link timeout, a wake-up): a record with the bit `OTHER`; nobody reads it.

A signal handler's exception may come anywhere, so what a carrier knows stays where it is until it is told
otherwise: `records()` returns the same records (and new ones behind them) until `forget(n)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from iocancel.operation.model import Reach
    from iocancel.operation.operation import Operation

Record = tuple[int, int, int]
"""(token, result, flags)"""


class Batch(Protocol):
    """Operations that are being handed over."""

    ops: Sequence[Operation[Any]]

    def taken(self) -> int:
        """How many of them the system has, the first ones; true also when `go` was cut short."""
        ...


class Carrier(Protocol):
    """One system.

    A carrier whose system finds the oldest operation first has `oldest_first = True`: bulk cancels go to it
    in that order, and to all others the newest first.
    """

    name: str
    """As `open_engine` takes it."""
    keeps_deadlines: bool
    """Whether the system itself ends an operation whose time is over."""
    alarms: bool
    """Whether `alarm` may say something else than None now: it need not be asked where this is False."""

    def prepare(self, op: Operation[Any], *args: Any) -> None:
        """Make ready what the system will be given for `op` and its `args`: fills `op._entry` and `op._pins`.

        Called once, after the operation has its token. Raises for arguments that can't be, and
        `FeatureUnavailable` for a verb that this system does not have; nothing is in flight then.
        """
        ...

    def batch(self, ops: Sequence[Operation[Any]]) -> Batch:
        """Make `ops` ready for handing over; changes nothing."""
        ...

    def go(self, batch: Batch | None, wait: bool, timeout: float | None) -> None:
        """Hand over, and wait.

        Args:
            batch: what to hand over, None for nothing. An operation that the system refuses gets a record
                with its error and counts as taken.
            wait: until a record is there, or `wake` was called since the last `go`, or a signal came, or the
                time is over; it may always return early.
            timeout: seconds, None for ever.
        """
        ...

    def cancel(self, ops: Sequence[Operation[Any]]) -> bool | None:
        """Ask the system to cancel `ops`, in this order, at once. At most 1,024.

        Returns:
            Whether the records that are there now are just the endings of these, in this order, each with
            -ECANCELED and without flags: they can be settled without a look at each. A carrier that does not
            know it returns nothing.
        """
        ...

    def stop(self, op: Operation[Any]) -> bool:
        """Stop `op`, an operation that is in flight, at once, where any thread may do that.

        From anywhere, also in a signal's handler. It never waits.

        Returns:
            Whether it was found and stopped: its record comes, and ends a `go` that waits. False where its
            cancel has to be asked for as any other.
        """
        ...

    def records(self) -> list[Record]:
        """What has come."""
        ...

    def forget(self, many: int) -> None:
        """The first `many` records have been dealt with."""
        ...

    def wake(self) -> None:
        """End a `go` that waits, or the next one; from anywhere, at any time, without a lock."""
        ...

    def fileno(self) -> int:
        """A file for an event loop, which never waits in here; asked for in an open engine, by any thread.

        It is readable, level-triggered, from when a `go` that does not wait would bring a record, or would
        move on what the carrier does by itself, and from each `wake`; until such a `go` has dealt with it.
        It may be readable for nothing, but not for longer than one such `go`. What was in flight when this
        was first called is heard of, too, by `alarm` if not by the file. It is the carrier's, and closed
        with it.

        Raises:
            OSError: no fd is left.
            RuntimeError: this one has none.
        """
        ...

    def alarm(self) -> float | None:
        """When a `go` is needed though the file is not readable, in `time.monotonic()` seconds; None: never.

        From any thread, between two calls of `go`. A time that has passed is now; it may be too early.
        """
        ...

    def failure(self, op: Operation[Any]) -> OSError:
        """The exception for `op`, an operation that has failed."""
        ...

    def supports(self, name: str) -> bool:
        """Whether the system has the verb `name` here."""
        ...

    def reach(self, name: str) -> Reach:
        """How far operations of the verb `name` can be cancelled once they run."""
        ...

    def patience(self, op: Operation[Any]) -> float:
        """For how many seconds to wait for the ending of `op`, an operation that a cancel did not stop."""
        ...

    def own(self, token: int, res: int) -> None:
        """A record with the bit `OTHER` has come: its `token`, and its result `res`."""
        ...

    def close(self, timeout: float | None, left: Sequence[Operation[Any]]) -> bool:
        """Close the system; the memory of what still runs is kept until that has ended, or for ever.

        By the carrier: an operation that was left lets go of its memory when this has returned (but where a
        thread is inside a call of the carrier's).

        Args:
            timeout: how long to wait for it, in seconds; None for ever.
            left: what is in flight.

        Returns:
            Whether nothing can be written by the kernel any more.
        """
        ...

    def forked(self) -> None:
        """This is a child: let go of everything without touching what is the parent's."""
        ...


class Repeating(Carrier, Protocol):
    """A system that has a multishot form of some verbs: one that supports `accept_multishot`, say."""

    def multishot(self, engine: Any, verb: str, args: tuple[Any, ...]) -> Any:
        """Its own form of a verb of which it supports the multishot: see engines/uring/multishot.py."""
        ...
