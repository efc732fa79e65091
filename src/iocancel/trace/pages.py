"""The pages of the kernel's ring buffer, as trace_pipe_raw hands them over.

What a page is made of (events/header_page and events/header_event say the sizes, kernel/trace/ring_buffer.c
and libtraceevent's kbuffer the rest; the same from Linux 5.10 to 7.2):

- `timestamp`, ns, where the events' differences start; `commit`, a long: how many bytes of events follow,
  and two flags: 1<<31, events were lost before this page; 1<<30, how many is stored behind the events, as a
  long (where there was room for it).
- Then entries, each 32 bits of header, with a kind in 5 bits and the time since the entry before in 27:
  1 to 28, an event of so many 32-bit words; 0, an event whose size is in the next word (which counts
  itself); 29, padding: with no time the page's rest, else an event that was thrown away, with its size in
  the next word; 30, more of the time, in the next word, for what 27 bits don't hold; 31, the time itself.
- An absolute time has 59 bits; the 5 above are those of the time before.
"""

from __future__ import annotations

import re
import struct
import sys
from typing import NamedTuple

from iocancel.trace.format import fields

_LOST, _STORED = 1 << 31, 1 << 30
_SIZE = _STORED - 1
_SAID = re.compile(r"^\W*(\w+)\s*:\s*(\d+ bits|type == \d+)", re.MULTILINE)
_ENTRY = {
    "type_len": "5 bits",
    "time_delta": "27 bits",
    "array": "32 bits",
    "padding": "type == 29",
    "time_extend": "type == 30",
    "time_stamp": "type == 31",
}
_ABSOLUTE = 59  # bits
_BELOW = (1 << _ABSOLUTE) - 1

Record = tuple[int, int, bytes]
"""An event: its time in ns of the trace clock, its number (`Format.id`), its bytes with the common fields."""


class Page(NamedTuple):
    """What a page has.

    Attributes:
        records: the events, in the order of their time.
        lost: how many were lost before them; None where the kernel only says that some were.
    """

    records: list[Record]
    lost: int | None


class PageFormat:
    """How this kernel's pages are laid out.

    Args:
        header_page: the content of events/header_page.
        header_event: the content of events/header_event.
        byteorder: "little" or "big"; the machine's own where it is None.

    Raises:
        ValueError: the files say something that this module does not know.

    Attributes:
        size (int): of a page, in bytes; what to read at a time.
    """

    def __init__(self, header_page: str, header_event: str, byteorder: str | None = None) -> None:
        there = {field.name: field for field in fields(header_page)}
        try:
            time, commit, data = there["timestamp"], there["commit"], there["data"]
        except KeyError as error:
            raise ValueError(f"header_page has no field {error}") from None
        if (time.offset, time.size, commit.offset) != (0, 8, 8) or commit.size not in (4, 8):
            raise ValueError(f"a page's header that is not known: {header_page!r}")
        if not _ENTRY.items() <= dict(_SAID.findall(header_event)).items():
            raise ValueError(f"an entry's header that is not known: {header_event!r}")
        self.size = data.offset + data.size
        self._start = data.offset
        little = (byteorder or sys.byteorder) == "little"
        order = "<" if little else ">"
        self._head = struct.Struct(f"{order}Q{'I' if commit.size == 4 else 'Q'}")
        self._long = struct.Struct(f"{order}{'I' if commit.size == 4 else 'Q'}")
        self._order = order
        self._words: dict[int, struct.Struct] = {}
        # The first bits are the low ones, or the high ones.
        self._shifts = (0, 5, 0) if little else (27, 0, 16)

    def parse(self, page: bytes) -> Page:
        """The events of a page.

        Args:
            page: what one read of trace_pipe_raw gave.

        Raises:
            ValueError: the bytes are no page.
        """
        records: list[Record] = []
        return Page(records, self.extend(records, page))

    def extend(self, records: list[Record], page: bytes) -> int | None:
        """The same, but the events are appended to a list; returns how many were lost before (see `Page`)."""
        try:
            time, commit = self._head.unpack_from(page)
        except struct.error:
            raise ValueError(f"a page of {len(page)} bytes") from None
        start = self._start
        size = commit & _SIZE
        end = start + size
        if end > len(page) or size & 3:
            raise ValueError(f"a page of {len(page)} bytes says that it has {size} bytes of events")
        lost: int | None = 0
        if commit & _LOST:
            lost = None
            if commit & _STORED and end + self._long.size <= len(page):
                lost = self._long.unpack_from(page, end)[0]
        many = size >> 2
        layout = self._words.get(many)
        if layout is None:
            layout = self._words[many] = struct.Struct(f"{self._order}{many}I")
        words = layout.unpack_from(page, start)
        kind_at, time_at, id_at = self._shifts
        append = records.append
        at = 0
        try:
            while at < many:
                word = words[at]
                kind = word >> kind_at & 31
                delta = word >> time_at & 0x7FFFFFF
                at += 1
                if 0 < kind < 29:
                    time += delta
                    begin = start + at * 4
                    number = words[at] >> id_at & 0xFFFF
                    at += kind
                    append((time, number, page[begin : start + at * 4]))
                elif kind == 30:
                    time += delta + (words[at] << 27)
                    at += 1
                elif kind == 0:
                    time += delta
                    begin = start + at * 4 + 4
                    length = words[at] - 4
                    append((time, words[at + 1] >> id_at & 0xFFFF, page[begin : begin + length]))
                    at += 1 + (length + 3 >> 2)
                elif kind == 31:
                    absolute = delta + (words[at] << 27)
                    absolute |= time & ~_BELOW
                    time = absolute if absolute >= time or not time & ~_BELOW else absolute + (1 << _ABSOLUTE)
                    at += 1
                elif delta:
                    time += delta
                    at += words[at] + 3 >> 2
                else:
                    break
        except IndexError:
            raise ValueError("an entry that is longer than its page") from None
        if at > many:
            raise ValueError("an entry that is longer than its page")
        return lost
