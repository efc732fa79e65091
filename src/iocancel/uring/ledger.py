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

if TYPE_CHECKING:
    from iocancel.uring.entry import Entry

_REMEMBERED = 1 << 16  # how many user_data of skipped completions are remembered


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

    __slots__ = ("by_data", "flight", "skipped")

    def __init__(self) -> None:
        self.flight: dict[int, Any] = {}  # user_data -> Entry, or Group of several
        self.by_data: dict[int, tuple[int, Any, int]] = {}  # id(data) -> user_data, data, how many
        self.skipped: dict[int, Any] = {}  # user_data -> data, of requests that may end silently

    def add(self, entry: Entry) -> None:
        """A request that will have a last completion."""
        self._count(entry._user_data, entry)
        self._remember_data(entry)

    def add_skipping(self, entry: Entry) -> None:
        """A request that may end without a completion; what it pins stays until the ring is closed."""
        user_data = entry._user_data
        if entry._pins or user_data in self.flight:
            self._count(user_data, entry)
            self._group(user_data).sticky = True
        else:
            self._skip(user_data, entry._data)
        self._remember_data(entry)

    def skip_bare(self, user_datas: Iterable[int]) -> None:
        """Requests of a bulk call that may end without a completion."""
        for user_data in set(user_datas):
            if user_data in self.flight:
                self._group(user_data).sticky = True
            else:
                self._skip(user_data, None)

    def _skip(self, user_data: int, data: Any) -> None:
        self.skipped[user_data] = data
        if len(self.skipped) > _REMEMBERED:
            oldest = next(iter(self.skipped))
            self._forget_data(self.skipped.pop(oldest))

    def _group(self, user_data: int) -> Group:
        found = self.flight[user_data]
        if not isinstance(found, Group):
            found = self.flight[user_data] = Group([found], 1)
        return found

    def _count(self, user_data: int, entry: Any) -> None:
        if user_data not in self.flight:
            self.flight[user_data] = entry
            if user_data in self.skipped:
                # A silent request's failure would look like this one's end.
                self._group(user_data).sticky = True
            return
        group = self._group(user_data)
        group.expected += 1
        group.entries.append(entry)

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

    def last(self, user_data: int) -> list[Entry]:
        """A last completion has come; returns the requests that are over by it."""
        found = self.flight.get(user_data)
        if found is None:
            return []
        entries = [found]
        if isinstance(found, Group):
            found.expected -= not found.sticky
            if found.expected:
                return []
            entries = found.entries
        del self.flight[user_data]
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
