"""The ring buffer's pages: those of five kernels against the kernels' own text, and made-up ones."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iocancel.trace.pages import PageFormat

from .samples import DATA, KERNELS, PAGE, formats, lines, page_format, pages, records

HEADER_PAGE = (DATA / "6.18" / "header_page.txt").read_text()
HEADER_EVENT = (DATA / "6.18" / "header_event.txt").read_text()
LOST, STORED = 1 << 31, 1 << 30


# The kernels' own


@pytest.mark.parametrize("cpu", [0, 1])
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_pages_tell_what_the_lines_tell(kernel: str, cpu: int) -> None:
    names = {fmt.id: fmt for fmt in formats(kernel).values()}
    told = [line for line in lines(kernel) if line.cpu == cpu]
    found = records(kernel, cpu)
    assert len(found) == len(told) > 0
    for (time, number, record), line in zip(found, told, strict=True):
        fmt = names[number]
        assert fmt.name == line.event
        assert abs(time / 1000 - line.microseconds) <= 1
        tid, user_data, res, ret, text = fmt.reader("common_pid", "user_data", "res", "ret", "op_str")(record)
        assert tid == line.tid
        if user_data is not None:
            assert f"{user_data:#x}" == line.value("user_data", "data")
        if res is not None:
            assert str(res) == line.value("result")
        if text is not None:
            assert text == line.value("opcode")
        if ret is not None and fmt.system == "io_uring":
            assert str(ret) == line.value("ret")
        elif ret is not None:
            assert f"{ret & (1 << 64) - 1:x}" == line.rest.removeprefix("0x")
        if kernel == "5.10" and fmt.field("ctx") is not None:  # later ones print no addresses
            assert f"{fmt.reader('ctx')(record)[0]:016x}" == line.value("ring")


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_arguments_of_io_cancel(kernel: str) -> None:
    fmt = formats(kernel)["sys_enter_io_cancel"]
    fields = fmt.reader("ctx_id", "iocb", "result")
    raw = [
        (time, fields(record))
        for cpu in (0, 1)
        for time, number, record in records(kernel, cpu)
        if number == fmt.id
    ]
    told = [
        tuple(int(str(line.value(name)), 16) for name in ("ctx_id", "iocb", "result"))
        for line in lines(kernel)
        if line.event == fmt.name
    ]
    assert [values for _, values in sorted(raw)] == told
    assert len(told) == 3


@pytest.mark.parametrize("kernel", KERNELS)
def test_times_of_one_processor_are_in_order(kernel: str) -> None:
    for cpu in (0, 1):
        times = [time for time, _, _ in records(kernel, cpu)]
        assert times == sorted(times)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_page_is_as_long_as_the_kernel_says(kernel: str) -> None:
    assert page_format(kernel).size == PAGE
    page = pages(kernel, 0)[0]
    whole = page_format(kernel).parse(page)
    assert whole.lost == 0
    assert page_format(kernel).parse(page + bytes(PAGE)) == whole


# Made up


class Maker:
    """Makes pages."""

    def __init__(self, order: str = "little", long: int = 8) -> None:
        self.sign = "<" if order == "little" else ">"
        self.order, self.long = order, long

    def format(self) -> PageFormat:
        text = HEADER_PAGE
        if self.long == 4:
            text = text.replace("local_t commit;\toffset:8;\tsize:8", "local_t commit;\toffset:8;\tsize:4")
            text = text.replace("data;\toffset:16;\tsize:4080", "data;\toffset:12;\tsize:4084")
        return PageFormat(text, HEADER_EVENT, self.order)

    def word(self, kind: int, delta: int) -> bytes:
        assert 0 <= delta < 1 << 27
        return struct.pack(
            f"{self.sign}I", delta << 5 | kind if self.order == "little" else kind << 27 | delta
        )

    def number(self, value: int) -> bytes:
        return struct.pack(f"{self.sign}I", value)

    def record(self, number: int, rest: bytes = b"") -> bytes:
        return struct.pack(f"{self.sign}H", number) + rest

    def event(self, delta: int, record: bytes) -> bytes:
        padded = record.ljust(len(record) + 3 & ~3, b"\0")
        if len(padded) <= 28 * 4:
            return self.word(len(padded) // 4, delta) + padded
        return self.word(0, delta) + self.number(len(padded) + 4) + padded

    def page(
        self, time: int, entries: bytes, *, flags: int = 0, after: bytes = b"", size: int = PAGE
    ) -> bytes:
        head = struct.pack(f"{self.sign}Q{'Q' if self.long == 8 else 'I'}", time, len(entries) | flags)
        return (head + entries + after).ljust(size, b"\0")


MAKERS = [Maker(), Maker("big"), Maker("little", 4), Maker("big", 4)]
both = pytest.mark.parametrize("make", MAKERS, ids=["little", "big", "little32", "big32"])


@both
def test_events_short_and_long(make: Maker) -> None:
    short, longest, long = make.record(5, b"ab"), make.record(6, bytes(110)), make.record(7, b"x" * 300)
    entries = make.event(0, short) + make.event(10, longest) + make.event(1, long) + make.event(0, short)
    found = make.format().parse(make.page(1000, entries))
    assert found.lost == 0
    assert [(time, number) for time, number, _ in found.records] == [
        (1000, 5),
        (1010, 6),
        (1011, 7),
        (1011, 5),
    ]
    for (_, _, record), want in zip(found.records, [short, longest, long, short], strict=True):
        assert record[: len(want)] == want
        assert len(record) - len(want) < 4


@both
def test_an_empty_page(make: Maker) -> None:
    assert make.format().parse(make.page(1000, b"")) == ([], 0)


@both
def test_a_time_that_27_bits_do_not_hold(make: Maker) -> None:
    far = 5 << 27 | 123
    entries = (
        make.word(30, 123) + make.number(5) + make.event(0, make.record(5)) + make.event(1, make.record(6))
    )
    found = make.format().parse(make.page(1000, entries))
    assert [time for time, _, _ in found.records] == [1000 + far, 1001 + far]


@both
@pytest.mark.parametrize(
    ("before", "absolute", "want"),
    [
        (1000, 77 << 27 | 5, 77 << 27 | 5),
        (5 << 59 | 1000, 77 << 27 | 5, 5 << 59 | 77 << 27 | 5),  # the highest five bits are not in it
        (5 << 59 | 1 << 58, 77 << 27 | 5, 6 << 59 | 77 << 27 | 5),  # and went on
    ],
)
def test_an_absolute_time(make: Maker, before: int, absolute: int, want: int) -> None:
    entries = make.word(31, absolute & (1 << 27) - 1) + make.number(absolute >> 27)
    found = make.format().parse(make.page(before, entries + make.event(3, make.record(5))))
    assert [time for time, _, _ in found.records] == [want + 3]


@both
def test_what_was_thrown_away_and_what_is_empty(make: Maker) -> None:
    thrown = make.word(29, 7) + make.number(12) + bytes(8)
    rest = make.word(29, 0) + b"\xff" * 16
    entries = make.event(0, make.record(5)) + thrown + make.event(1, make.record(6)) + rest
    found = make.format().parse(make.page(1000, entries))
    assert [(time, number) for time, number, _ in found.records] == [(1000, 5), (1008, 6)]


@both
def test_lost_events_are_told_with_their_number_where_it_is_stored(make: Maker) -> None:
    event = make.event(0, make.record(5))
    number = struct.pack(f"{make.sign}{'Q' if make.long == 8 else 'I'}", 7395)
    parse = make.format().parse
    assert parse(make.page(1, event, flags=LOST | STORED, after=number)).lost == 7395
    assert parse(make.page(1, event, flags=LOST)).lost is None
    assert [number for _, number, _ in parse(make.page(1, event, flags=LOST)).records] == [5]
    # A full page has no room for the number.
    full = event * (make.format().size // len(event) - 2)
    assert parse(make.page(1, full, flags=LOST)).lost is None


@both
@pytest.mark.parametrize("cut", [0, 5, 11])
def test_what_is_no_page_is_an_error(make: Maker, cut: int) -> None:
    with pytest.raises(ValueError, match=f"a page of {cut} bytes"):
        make.format().parse(make.page(1, b"")[:cut])


@both
def test_a_page_that_says_more_than_it_has_is_an_error(make: Maker) -> None:
    parse = make.format().parse
    with pytest.raises(ValueError, match="says that it has 400 bytes"):
        parse(make.page(1, make.event(0, make.record(5, bytes(390))))[:64])
    for entry in (
        make.word(3, 0) + bytes(4),  # an event
        make.word(3, 0),
        make.word(0, 0) + make.number(400) + bytes(8),
        make.word(0, 0),
        make.word(30, 0),
        make.word(31, 0),
        make.word(29, 1) + make.number(400),
        make.word(29, 1),
    ):
        with pytest.raises(ValueError, match="longer than its page"):
            parse(make.page(1, entry))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("timestamp", "time"),
        ("commit", "size"),
        ("data;", "rest;"),
        ("timestamp;\toffset:0", "timestamp;\toffset:8"),
        ("commit;\toffset:8;\tsize:8", "commit;\toffset:8;\tsize:2"),
    ],
)
def test_another_page_header_is_refused(old: str, new: str) -> None:
    assert old in HEADER_PAGE
    with pytest.raises(ValueError, match=r"header_page has no|that is not known"):
        PageFormat(HEADER_PAGE.replace(old, new), HEADER_EVENT)


@pytest.mark.parametrize(
    ("old", "new"), [("27 bits", "26 bits"), ("type == 30", "type == 29"), ("array", "rest")]
)
def test_another_entry_header_is_refused(old: str, new: str) -> None:
    assert old in HEADER_EVENT
    with pytest.raises(ValueError, match="that is not known"):
        PageFormat(HEADER_PAGE, HEADER_EVENT.replace(old, new))


EVENTS = st.lists(
    st.tuples(st.integers(0, 1 << 54), st.integers(0, 65535), st.binary(max_size=200)), max_size=12
)


@given(EVENTS, st.sampled_from(MAKERS), st.integers(0, 1 << 58))
def test_what_is_put_in_comes_out(events: Iterable[tuple[int, int, bytes]], make: Maker, time: int) -> None:
    entries, want, now = b"", list[Any](), time
    for delta, number, rest in events:
        if delta >= 1 << 51:  # far: by an absolute time
            now += delta
            entries += make.word(31, now & (1 << 27) - 1) + make.number(now >> 27)
            step = 0
        else:
            now += delta
            step = delta & (1 << 27) - 1
            if delta >> 27:
                entries += make.word(30, step) + make.number(delta >> 27)
                step = 0
        record = make.record(number, rest)
        entries += make.event(step, record)
        want.append((now, number, record))
    found = make.format().parse(make.page(time, entries, size=PAGE))
    assert [(time, number) for time, number, _ in found.records] == [
        (when, number) for when, number, _ in want
    ]
    assert all(
        got[: len(record)] == record for (_, _, got), (_, _, record) in zip(found.records, want, strict=True)
    )
