"""What the tests of `iocancel.uring` share."""

from __future__ import annotations

import time
from typing import Any

from iocancel.uring import CancelFlags, Cqe, Opcode, Ring, SetupFlags, Sqe, cancel_flags

from ..support import BOUND, need

DEFER = SetupFlags.SINGLE_ISSUER | SetupFlags.DEFER_TASKRUN
RUNS = (-114, -2)
"""The answer to the cancel of what runs in a worker, which it interrupts: -EALREADY. On 7.2, one processor,
it is -ENOENT now and then, and the request is interrupted all the same."""
INTERRUPTED = (-4, *range(-516, -511))
"""EINTR; a worker that a cancel interrupted leaks -ERESTARTSYS and its kin, too (facts 2.4)."""
RING_KINDS = {
    "default": SetupFlags(0),
    "coop": SetupFlags.COOP_TASKRUN,
    "defer": DEFER,
    "sqpoll": SetupFlags.SQPOLL,
}


def need_flags(flags: CancelFlags) -> None:
    """Skip where cancel flags don't work: before 5.19, some of them before 6.0 and 6.6 (facts 2.6, 9.3)."""
    lacking = flags & ~cancel_flags()
    need(not lacking, f"this kernel does not act on {lacking!r}")


def need_op(ring: Ring, *opcodes: int) -> None:
    """Skip where a kind of request is not there."""
    lacking = [Opcode(op).name for op in opcodes if not ring.probe().supports(op)]
    need(not lacking, f"this kernel has no {' '.join(lacking)}")


class FakeRing:
    """As much of a ring as preparing takes."""

    def _provide(self, pin: Any) -> None:
        pass

    def _unique(self) -> int:
        return 1

    def _user_data_of(self, data: object) -> int:
        return 4711


class Asked:
    """A ring, and all that it told so far that nobody has asked for."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.told: list[Cqe] = []
        self._names = iter(range(1 << 32, 1 << 33))

    def put(self, user_data: int, call: str, /, *args: Any, flags: int = 0, **named: Any) -> Sqe:
        """Prepare a request: `call` is the name of a `prep_` method."""
        sqe = self.ring.get_sqe()
        sqe.flags = flags
        getattr(sqe, f"prep_{call}")(*args, **named)
        sqe.user_data = user_data
        return sqe

    def go(self, user_data: int, call: str, /, *args: Any, flags: int = 0, **named: Any) -> None:
        """Prepare a request, and submit."""
        self.put(user_data, call, *args, flags=flags, **named)
        self.ring.submit()

    def ask(self, call: str, /, *args: Any, flags: int = 0, **named: Any) -> int:
        """The result of a request that ends at once."""
        name = next(self._names)
        self.go(name, call, *args, flags=flags, **named)
        return self.end(name)

    def cancel(self, key: int, flags: int = 0, *, opcode: int | None = None) -> int:
        """The result of a cancel by user_data."""
        return self.ask("cancel64", key, flags, opcode=opcode)

    def cancel_fd(
        self, fd: Any, flags: int = 0, *, user_data: int | None = None, opcode: int | None = None
    ) -> int:
        """The result of a cancel by fd."""
        return self.ask("cancel_fd", fd, flags, user_data=user_data, opcode=opcode)

    def next(self, user_data: int) -> Cqe:
        """The next completion with this number, waited for."""
        deadline = time.monotonic() + BOUND
        while True:
            for cqe in self.told:
                if cqe.user_data == user_data:
                    self.told.remove(cqe)
                    return cqe
            left = deadline - time.monotonic()
            assert left > 0, f"no completion of {user_data}, only {self.told}"
            self.told += self.ring.wait(1, left)

    def last(self, user_data: int) -> Cqe:
        """The last completion with this number: the one without F_MORE."""
        while (cqe := self.next(user_data)).more:
            pass
        return cqe

    def end(self, user_data: int) -> int:
        """How the request with this number ended: the result of its last completion."""
        return self.last(user_data).res

    def ends(self, user_data: int, many: int) -> list[int]:
        """How several with the same number ended, sorted."""
        return sorted(self.end(user_data) for _ in range(many))

    def pending(self, *user_data: int) -> bool:
        """Whether none of these has completed, as of the end of a NOP that is submitted now."""
        self.ask("nop")
        self.told += self.ring.peek()
        return not {cqe.user_data for cqe in self.told} & set(user_data)


def pending_read(ring: Ring, fd: int, flags: int = 0) -> bytearray:
    """Submits a read; its buffer."""
    buffer = bytearray(8)
    sqe = ring.get_sqe()
    sqe.prep_read(fd, buffer)
    sqe.flags = flags
    ring.submit()
    return buffer
