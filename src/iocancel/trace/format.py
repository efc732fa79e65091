"""The kernel's own description of an event, and decoders made from it.

Each event has a file `format` in tracefs (events/SYSTEM/EVENT/format), which says where each field of a raw
record is. Fields come, go and move from kernel to kernel: before Linux 5.19 `io_uring_complete` has no `req`.
So nothing here knows an offset. What is the same everywhere (Documentation/trace/events.rst):

- a record starts with the common fields, and the first of them, `common_type`, is the event's number;
- `__data_loc TYPE[] name` is 32 bits: where in the record the data is (the low half), and how long it is;
  with `__rel_loc` (Linux 5.17) the place counts from the end of those 32 bits;
- numbers have the machine's own byte order.
"""

from __future__ import annotations

import operator
import re
import struct
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

_FIELD = re.compile(r"\s*field:\s*([^;]+);\s*offset:(\d+);\s*size:(\d+);(?:\s*signed:(\d+);)?")
_ARRAY = re.compile(r"(.*?)(\w+)(?:\[(\w*)\])?", re.DOTALL)
_SIZES = {1: "B", 2: "H", 4: "I", 8: "Q"}
_ORDER = "<" if sys.byteorder == "little" else ">"


class Field(NamedTuple):
    """A field of an event.

    Attributes:
        name: as the kernel names it.
        type: the C type; an array's ends in `[N]`, that of data elsewhere in the record starts with
            `__data_loc` or `__rel_loc`.
        offset, size: where in the record it is, in bytes.
        signed: whether the number (or each of an array's) is signed.
    """

    name: str
    type: str
    offset: int
    size: int
    signed: bool

    @property
    def elsewhere(self) -> bool:
        """Whether the record only says here where the data is."""
        return self.type.startswith(("__data_loc", "__rel_loc"))

    @property
    def length(self) -> int:
        """How many elements an array has; 0 for what is none."""
        if not self.type.endswith("]"):
            return 0
        number = self.type[self.type.rindex("[") + 1 : -1]
        return int(number) if number.isdigit() else 0


def fields(text: str) -> tuple[Field, ...]:
    """The fields that a `format`, or `header_page`, file lists, in its order."""
    found = []
    for line in text.splitlines():
        match = _FIELD.match(line)
        if match is None:
            continue
        declared, offset, size, signed = match.groups()
        array = _ARRAY.fullmatch(declared.strip())
        if array is None:
            raise ValueError(f"a field that is none: {line.strip()!r}")
        kind, name, number = array.groups()
        kind = kind.strip() + (f"[{number}]" if number is not None else "")
        found.append(Field(name, kind, int(offset), int(size), signed == "1"))
    return tuple(found)


class Format(NamedTuple):
    """An event: its number, and where its fields are.

    Attributes:
        name: the event's.
        system: the directory that it is in: "io_uring", "syscalls".
        id: its number in this boot of this kernel, the `common_type` of its records.
        fields: the common ones and its own.
    """

    name: str
    system: str
    id: int
    fields: tuple[Field, ...]

    @classmethod
    def parse(cls, text: str, system: str) -> Format:
        """What a `format` file says.

        Args:
            text: the file's content.
            system: which directory it is from.

        Raises:
            ValueError: it is no such file.
        """
        name = re.search(r"^name:\s*(\S+)", text, re.MULTILINE)
        number = re.search(r"^ID:\s*(\d+)", text, re.MULTILINE)
        if name is None or number is None:
            raise ValueError(f"an event's format has a name and an ID, this has not: {text[:60]!r}")
        return cls(name[1], system, int(number[1]), fields(text))

    def field(self, name: str) -> Field | None:
        """The field of this name; None where this kernel's event lacks it."""
        return next((field for field in self.fields if field.name == name), None)

    def reader(self, *names: str) -> Callable[[bytes], tuple[Any, ...]]:
        """A decoder of these fields of a raw record.

        Args:
            names: the fields that are wanted, in this order.

        Returns:
            A function from the record's bytes to a tuple as long as `names`: an int for a number or a
            pointer (a bool for a `bool`), a str for characters, a tuple of ints for another array, None for
            a field that this kernel's event lacks. It raises struct.error for bytes that are too short.
        """
        there = {name: field for name in names if (field := self.field(name)) is not None}
        plain = sorted(there.values(), key=lambda field: field.offset)
        layout, end, width = _ORDER, 0, {}
        place = 0
        for field in plain:
            if field.offset < end:
                raise ValueError(f"{self.name}: {field.name} lies within another field")
            code, many = _code(field)
            layout += f"{field.offset - end}x{code}"
            end = field.offset + field.size
            width[field.name] = (place, many)
            place += many
        unpack: Callable[[bytes], tuple[Any, ...]] = struct.Struct(layout).unpack_from
        if names == tuple(field.name for field in plain) and all(_is_plain(field) for field in plain):
            return unpack
        if all(_is_plain(field) for field in plain) and len(names) > 1:
            pick = operator.itemgetter(*(width[name][0] if name in width else place for name in names))
            none = (None,)
            return lambda record: pick(unpack(record) + none)
        makers = [_maker(there.get(name), width.get(name, (0, 0))) for name in names]

        def read(record: bytes) -> tuple[Any, ...]:
            values = unpack(record)
            return tuple([None if make is None else make(values, record) for make in makers])

        return read


def _is_plain(field: Field) -> bool:
    return not field.elsewhere and not field.type.endswith("]")


def _code(field: Field) -> tuple[str, int]:
    """How struct reads it, and as how many values."""
    size, many = field.size, 1
    if field.elsewhere:
        return "I", 1
    if field.type.endswith("]"):
        if _is_text(field) or not field.length or field.size % field.length:
            return f"{size}s", 1
        many = field.length
        size //= many
    elif field.type == "bool" and size == 1:
        return "?", 1
    code = _SIZES.get(size)
    if code is None:  # a structure
        return f"{field.size}s", 1
    return f"{many if many > 1 else ''}{code.lower() if field.signed else code}", many


def _is_text(field: Field) -> bool:
    """Whether it is an array of characters. (Those of numbers are u8 and the like.)"""
    return (
        re.match(r"(?:(?:__data_loc|__rel_loc|const|unsigned|signed)\s+)*char\b[^*]*\]$", field.type)
        is not None
    )


_Maker = Callable[[tuple[Any, ...], bytes], Any]


def _maker(field: Field | None, width: tuple[int, int]) -> _Maker | None:
    """What makes a field's value from those that struct has read, and from the record."""
    place, many = width
    if field is None:
        return None
    base = field.offset + field.size if field.type.startswith("__rel_loc") else 0
    text = _is_text(field)

    def far(values: tuple[Any, ...], record: bytes) -> str | bytes:
        start = base + (values[place] & 0xFFFF)
        data = record[start : start + (values[place] >> 16)]
        return _text(data) if text else data

    def near(values: tuple[Any, ...], _: bytes) -> Any:
        return _text(values[place]) if text else values[place]

    def several(values: tuple[Any, ...], _: bytes) -> Any:
        return values[place : place + many]

    if field.elsewhere:
        return far
    return several if field.type.endswith("]") and not text else near


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode(errors="replace")
