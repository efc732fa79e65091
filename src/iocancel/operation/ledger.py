"""Who is in flight, by token. Only the last completion takes an operation out (rule 1).

A token is the 64-bit number that the kernel knows an operation by: a slot (24 bits, the place in the
ledger, used again) below a generation (37 bits, never used again before it wraps round, which at a
million operations a second takes 38 hours). So a cancel that comes late names an operation that is not
there any more, and never the next one in its slot; and tokens grow with time, which gives the order that
bulk cancels need (newest first: the kernel's search is linear only that way).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iocancel.operation.operation import Operation

SLOT_BITS = 24
SLOTS = 1 << SLOT_BITS
GENERATIONS = 1 << 37
_WRAPS = GENERATIONS << SLOT_BITS
_LEAST = 32  # tokens of one file that are kept before the first look for those that have ended


class Ledger:
    """The operations of one engine."""

    __slots__ = ("_files", "_free", "_generation", "_slots", "flight")

    def __init__(self) -> None:
        self.flight: dict[int, Operation[Any]] = {}  # token -> operation, the oldest first
        self._free: list[int] = []
        self._slots = 0
        self._generation = 0  # the next one, in its place
        self._files: dict[int, list[int]] = {}  # fd -> tokens, ended ones among them

    def __len__(self) -> int:
        return len(self.flight)

    def name(self, op: Operation[Any]) -> int:
        """Give an operation, `op`, its token, and return it. Nobody else can find it until it is in `flight`.

        Raises:
            OverflowError: 2**24 are in flight.
        """
        if self._free:
            try:
                slot = self._free.pop()
            except IndexError:  # another thread was faster
                slot = self._new_slot()
        else:
            slot = self._new_slot()
        # No call between these two lines: no other thread gets the same generation.
        generation = self._generation
        self._generation = generation + SLOTS
        if generation >= _WRAPS:
            generation %= _WRAPS
        token = generation | slot
        op._token = token
        return token

    def enter(self, op: Operation[Any]) -> int:
        """Name an operation, `op`, and put it in at once; returns its token."""
        token = self.name(op)
        self.flight[token] = op
        self.note(op._fd, token)
        return token

    def _new_slot(self) -> int:
        slot = self._slots
        self._slots = slot + 1
        if slot >= SLOTS:
            raise OverflowError(f"{SLOTS} operations are in flight: no engine takes more")
        return slot

    def note(self, fd: int, token: int) -> None:
        """Note that an operation in flight, by its `token`, is on a file (`fd` >= 0); a splice is on two.

        Now and then those that have ended are forgotten.
        """
        files = self._files
        if fd in files:
            tokens = files[fd]
            tokens.append(token)
            many = len(tokens)
            # At powers of two: half of what was looked at last time has come since, or nearly all had ended.
            if not many & (many - 1) and many >= _LEAST:
                self._look(tokens, many)
        elif fd >= 0:
            files[fd] = [token]

    def _look(self, tokens: list[int], many: int) -> None:
        """Forget those that have ended, where half of them have."""
        alive = self.flight.__contains__
        if sum(map(alive, tokens)) <= many // 2:
            tokens[:] = filter(alive, tokens)  # in one step: other threads append to this very list

    def leave(self, token: int) -> None:
        """Take out what has ended, by its `token`. What is not there (any more) is nobody's, and no error."""
        if token in self.flight:
            del self.flight[token]
            self._free.append(token & (SLOTS - 1))

    def forget(self, op: Operation[Any]) -> None:
        """Take back the token of `op`, an operation that was not entered, or was and is nobody's."""
        token = op._token
        if token in self.flight:
            self.leave(token)
        elif token >= 0:
            self._free.append(token & (SLOTS - 1))

    def get(self, token: int) -> Operation[Any] | None:
        """The operation that has this very token, None where it has ended."""
        return self.flight.get(token)

    def newest_first(self) -> list[Operation[Any]]:
        """All of them."""
        ops = list(self.flight.values())  # in one step: other threads enter theirs meanwhile
        ops.reverse()
        return ops

    def tidy(self) -> None:
        """Give up a large table that nothing is in any more.

        A dict keeps the places of those that have left for a long time: 60,000 of them, say, which the next
        look at the 64 that are there would walk over.
        """
        # No call between the look and the clearing.
        if not self.flight:
            self.flight.clear()

    def on_file(self, fd: int) -> list[Operation[Any]]:
        """Those on a file, by its number `fd`, the newest first."""
        tokens = self._files.get(fd)
        if tokens is None:
            return []
        flight = self.flight
        # In one step, and never out of the table while something is on it: others append, and look, too.
        tokens[:] = filter(flight.__contains__, tokens)
        found = [flight[each] for each in sorted(set(tokens), reverse=True) if each in flight]
        # No call between the looks and the deletion.
        if fd in self._files and not self._files[fd]:
            del self._files[fd]
        return found


def by_age(ops: Iterable[Operation[Any]]) -> list[Operation[Any]]:
    """The newest first, each once."""
    return sorted(set(ops), key=_token, reverse=True)


def _token(op: Operation[Any]) -> int:
    return op._token
