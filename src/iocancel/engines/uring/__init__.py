"""The engine on io_uring."""

from sys import audit

from iocancel.engines.uring.carrier import UringCarrier
from iocancel.operation import Verbs


class UringEngine(Verbs):
    """Operations carried by io_uring. Linux 5.10 and later.

    Args:
        entries: how many entries one system call can take, a power of two up to 32768. None takes 1024, and
            fewer where the limit on locked memory (RLIMIT_MEMLOCK) does not allow that. It does not limit how
            many operations can be in flight.
        pooled: for one thread that waits for one operation at a time: small, and woken by a pipe that
            `signal.set_wakeup_fd` can have. 8 entries where nothing is said.

    Raises:
        EngineUnavailable: no ring can be had here; `.reason` and `.remedy` say why and what helps.
    """

    _carrier: UringCarrier

    def __init__(self, entries: int | None = None, *, pooled: bool = False) -> None:
        audit("iocancel.open_engine", "uring")  # before there is anything to close
        self._quiet = pooled
        super().__init__(UringCarrier(entries, pooled))
        self._carrier.attach(self)


__all__ = ["UringCarrier", "UringEngine"]
