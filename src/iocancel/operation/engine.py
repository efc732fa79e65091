"""What an engine is, for those who write functions that take one, or engines of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from iocancel.operation.model import Outcome, Reach
from iocancel.operation.operation import Operation

if TYPE_CHECKING:
    from iocancel.operation.stats import Stats


@runtime_checkable
class Engine(Protocol):
    """What carries operations to a system. The verbs are those of `iocancel.operation.Verbs`."""

    @property
    def name(self) -> str:
        """Which system."""
        ...

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        ...

    @property
    def in_flight(self) -> int:
        """How many operations have not ended."""
        ...

    def supports(self, name: str) -> bool:
        """Whether a verb is there; `name` as "read"."""
        ...

    def reach(self, name: str) -> Reach | None:
        """How far operations of the verb `name` can be cancelled; None without it."""
        ...

    def stats(self) -> Stats:
        """What it has done so far, where it counts."""
        ...

    def submit(self) -> int:
        """Hand over what is prepared."""
        ...

    def reap(self, timeout: float | None = 0) -> list[Operation[Any]]:
        """Take what has come; wait for it `timeout` seconds at most, for ever with None."""
        ...

    def fileno(self) -> int:
        """What an event loop watches, to call `reap(0)` when it is readable."""
        ...

    def alarm(self) -> float | None:
        """When it has to call that though it is not."""
        ...

    def wait(self, ops: Sequence[Operation[Any]], timeout: float | None = None) -> None:
        """Wait for the endings of `ops`, `timeout` seconds at most, for ever with None; see `Verbs.wait`."""
        ...

    def cancel(self, ops: Iterable[Operation[Any]]) -> int:
        """Cancel `ops`; returns how many had not ended."""
        ...

    def cancel_fd(self, fd: Any) -> int:
        """Cancel those on a file, by its number or an object with `fileno()`: `fd`."""
        ...

    def cancel_all(self) -> int:
        """Cancel all."""
        ...

    def close_fd(
        self, fd: Any, timeout: float | None = 5.0, *, abort: bool = False
    ) -> dict[Operation[Any], Outcome]:
        """Cancel those on the file `fd`, wait for the endings, close it.

        Args:
            fd: the number, or an object with `fileno()` and `close()`.
            timeout: seconds to wait for the endings; None waits for ever.
            abort: have the peer of a TCP connection see a reset.
        """
        ...

    def close(self, timeout: float | None = 5.0) -> None:
        """Cancel all, wait for the endings (`timeout` seconds at most), give the system back."""
        ...
