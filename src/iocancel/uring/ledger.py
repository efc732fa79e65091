"""Who is in flight, by user_data, and what it pins (rule 2: memory belongs to the kernel until the end).

The user may give several requests the same user_data, so what is pinned is grouped by it, and freed
when as many last completions have come as requests went out. Requests of the bulk calls, and completions
that no entry of this ring asked for (a message from another ring, a poll whose user_data was changed),
are counted in C: what comes with their number is taken for theirs first, so an entry that shares it is
let go of only at the last.
A request whose success makes no completion (CQE_SKIP_SUCCESS) can't be counted: memory that shares its
user_data stays until the ring is closed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from iocancel._native import lib

if TYPE_CHECKING:
    from iocancel.uring.entry import Entry

_REMEMBERED = 1 << 16  # how many user_data of silent requests are remembered, of either kind
_BRIEF = frozenset(
    [
        lib.IORING_OP_NOP,
        lib.IORING_OP_ASYNC_CANCEL,
        lib.IORING_OP_POLL_REMOVE,
        lib.IORING_OP_TIMEOUT_REMOVE,
        lib.IORING_OP_MSG_RING,
        lib.IORING_OP_CLOSE,
        lib.IORING_OP_SHUTDOWN,
    ]
)


class Group:
    """Requests that share a user_data."""

    __slots__ = ("entries", "expected", "sticky")

    def __init__(self, entries: list[Entry], expected: int) -> None:
        self.entries = entries
        self.expected = expected
        self.sticky = False

    def common(self) -> tuple[Any, str]:
        """The data and the call that all of them share, or None and ""."""
        first = self.entries[0] if len(self.entries) == self.expected and self.entries else None
        if first is None:
            return None, ""
        same_data = all(e._data is first._data for e in self.entries)
        same_call = all(e._call == first._call for e in self.entries)
        return (first._data if same_data else None), (first._call if same_call else "")


class Ledger:
    """The requests of one ring."""

    __slots__ = ("brief", "by_data", "flight", "lasting", "skipped")

    def __init__(self) -> None:
        self.flight: dict[int, Any] = {}  # user_data -> Entry, or Group of several
        self.by_data: dict[int, tuple[int, Any, int]] = {}  # id(data) -> user_data, data, how many
        self.skipped: dict[int, Any] = {}  # user_data -> data, of requests that may end silently
        self.brief: dict[int, None] = {}  # those of `skipped` that end at once
        self.lasting: dict[int, None] = {}  # and the others

    def add(self, entry: Entry) -> None:
        """A request that will have a last completion."""
        self._count(entry._user_data, entry)
        self._remember_data(entry)

    def add_skipping(self, entry: Entry) -> None:
        """A request that may end without a completion; what it pins stays until the ring is closed."""
        user_data = entry._user_data
        if entry._pins or user_data in self.flight:
            self._count(user_data, entry, True)
        else:
            self._skip(user_data, entry._data, entry._bytes[0] in _BRIEF)
            entry._entered = True
        self._remember_data(entry)

    def skip_bare(self, user_datas: Iterable[int]) -> None:
        """Requests of a bulk call that may end without a completion."""
        for user_data in set(user_datas):
            # They end at once, but keep the place of a lasting one that has their number.
            if not self._stick(user_data) and user_data not in self.lasting:
                self._skip(user_data, None, True)

    def _skip(self, user_data: int, data: Any, brief: bool) -> None:
        """Remembers the number of a silent request, for as long as its failure may still come.

        Nobody says when it has ended. Those that end at once (`brief`: a NOP, a cancel) have places of
        their own, so that a stream of them does not push out a poll that may be pending for hours.
        """
        self.skipped[user_data] = data
        same, other = (self.brief, self.lasting) if brief else (self.lasting, self.brief)
        other.pop(user_data, None)
        same[user_data] = None
        if len(same) > _REMEMBERED:
            oldest = next(iter(same))
            same.pop(oldest, None)
            self._forget_data(self.skipped.pop(oldest, None))

    # One thread submits while another reaps: between the look at `flight` and the store nothing is
    # called, so neither another thread nor a signal's handler gets in between.

    def _stick(self, user_data: int) -> bool:
        """Nothing of this number will be let go of; False where nothing is in flight by it."""
        spare = Group([], 1)
        flight = self.flight
        if user_data not in flight:
            return False
        found = flight[user_data]
        if found.__class__ is not Group:
            spare.entries = [found]
            flight[user_data] = found = spare
        found.sticky = True
        return True

    def _count(self, user_data: int, entry: Any, sticky: bool = False) -> None:
        # Counted and marked as entered with no call in between, so that no signal makes it count twice.
        # A silent request's failure would look like this one's end.
        sticky = sticky or user_data in self.skipped
        flight = self.flight
        spare = Group([], 1) if sticky or user_data in flight else None
        if user_data not in flight:
            if spare is None or not sticky:
                flight[user_data] = entry
            else:
                spare.entries, spare.sticky = [entry], True
                flight[user_data] = spare
            entry._entered = True
            return
        if spare is None:
            self._count(user_data, entry, sticky)
            return
        found = flight[user_data]
        if found.__class__ is not Group:
            spare.entries = [found]
            flight[user_data] = found = spare
        found.expected += 1
        found.sticky = found.sticky or sticky
        entry._entered = True
        found.entries.append(entry)

    def _remember_data(self, entry: Entry) -> None:
        data = entry._data
        if data is not None:
            _, _, many = self.by_data.get(id(data), (0, data, 0))
            self.by_data[id(data)] = (entry._user_data, data, many + 1)

    def known(self, user_data: int) -> Entry | None:
        """The entry of a user_data where there is just one, else None."""
        found = self.flight.get(user_data)
        return None if isinstance(found, Group) else found

    def about(self, user_data: int) -> tuple[Any, str]:
        """The data and the call of what is in flight by a user_data, as far as they are sure."""
        found = self.flight.get(user_data)
        if found is None:
            return None, ""
        if isinstance(found, Group):
            return found.common()
        return found._data, found._call

    def last(self, user_data: int, pending: list[int] | None = None) -> list[Entry]:
        """A last completion has come; returns the requests that are over by it.

        The last of `pending` is taken off in the same breath: no signal gets in between, so a completion
        counts once, whatever interrupts its taking.
        """
        pending = [0] if pending is None else pending
        flight = self.flight
        found: Any = flight[user_data] if user_data in flight else None  # noqa: SIM401 - no call: see above
        group = found.__class__ is Group
        entries: list[Entry] = found.entries if group else [found]
        if found is None or (group and (found.sticky or found.expected > 1)):
            if found is not None and not found.sticky:
                found.expected -= 1
            pending.pop()
            return []
        del flight[user_data]
        pending.pop()
        for entry in entries:
            entry._pins = ()  # the user may keep the Sqe
            self._forget_data(entry._data)
        return entries

    def _forget_data(self, data: Any) -> None:
        kept = self.by_data.get(id(data)) if data is not None else None
        if kept is None:
            return
        user_data, _, many = kept
        if many > 1:
            self.by_data[id(data)] = (user_data, data, many - 1)
        else:
            del self.by_data[id(data)]

    def entries(self) -> list[tuple[int, Entry]]:
        """All requests with an entry of their own that are in flight, oldest first."""
        all_of_them: list[tuple[int, Entry]] = []
        for user_data, found in list(self.flight.items()):
            if isinstance(found, Group):
                all_of_them += [(user_data, entry) for entry in found.entries]
            else:
                all_of_them.append((user_data, found))
        return all_of_them
