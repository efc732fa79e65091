"""The `format` files of five kernels, and the decoders made from them."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from iocancel.trace.format import Field, Format

from .samples import DATA, KERNELS, formats

COMMON = ("common_type", "common_flags", "common_preempt_count", "common_pid")
HEAD = """name: made_up
ID: 77
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

"""
EVENTS = sorted((kernel, path.stem) for kernel in KERNELS for path in (DATA / kernel / "formats").iterdir())


def made_up(*lines: str) -> Format:
    return Format.parse(HEAD + "".join(f"\tfield:{line}\n" for line in lines), "tests")


@pytest.mark.parametrize(("kernel", "event"), EVENTS)
def test_every_sample_parses(kernel: str, event: str) -> None:
    text = (DATA / kernel / "formats" / f"{event}.txt").read_text()
    fmt = formats(kernel)[event]
    assert (fmt.name, fmt.id) == (event, int(text.splitlines()[1].removeprefix("ID: ")))
    assert tuple(field.name for field in fmt.fields[:4]) == COMMON
    assert len(fmt.fields) == text.count("field:")
    end = 0
    for field in fmt.fields:
        assert field.offset >= end
        assert field.size > 0 or field.type.endswith("[]")
        end = field.offset + field.size
    # Each of them can be read, by itself and with all the others.
    record = bytes(end)
    values = fmt.reader(*(field.name for field in fmt.fields))(record)
    assert values == tuple(value for field in fmt.fields for value in fmt.reader(field.name)(record))


def test_numbers_are_used_once() -> None:
    for kernel in KERNELS:
        numbers = [fmt.id for fmt in formats(kernel).values()]
        assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_the_kernels_differ_in(kernel: str) -> None:
    there = formats(kernel)
    old = kernel == "5.10"
    assert ("io_uring_submit_sqe" in there) == (kernel in ("5.10", "6.1"))
    assert ("io_uring_submit_req" in there) == (kernel not in ("5.10", "6.1"))
    assert ("io_uring_req_failed" in there) == (not old)
    for event in ("io_uring_complete", "io_uring_task_add"):
        assert (there[event].field("req") is None) == old
    assert there["io_uring_complete"].field("user_data") == Field(
        "user_data", "u64", 16 if old else 24, 8, False
    )
    assert there["io_uring_complete"].field("res") == Field("res", "int", 24 if old else 32, 4, True)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_arguments_of_io_cancel_have_their_names_and_types(kernel: str) -> None:
    fields = {field.name: field.type for field in formats(kernel)["sys_enter_io_cancel"].fields}
    assert fields["ctx_id"] == "aio_context_t"
    assert fields["iocb"] == "struct iocb *"
    assert fields["result"] == "struct io_event *"


def test_a_declaration_is_a_name_and_a_type() -> None:
    fmt = made_up(
        "struct iocb * iocb;\toffset:8;\tsize:8;\tsigned:0;",
        "unsigned cflags;\toffset:16;\tsize:4;\tsigned:0;",
        "char comm[16];\toffset:20;\tsize:16;\tsigned:0;",
        "__data_loc char[] op_str;\toffset:36;\tsize:4;\tsigned:0;",
        "char *pointer;\toffset:40;\tsize:8;\tsigned:0;",
        "const char name[TASK_COMM_LEN];\toffset:48;\tsize:16;\tsigned:0;",
        "u64 last;\toffset:64;\tsize:8;",
    )
    assert [(field.name, field.type) for field in fmt.fields[2:]] == [
        ("iocb", "struct iocb *"),
        ("cflags", "unsigned"),
        ("comm", "char[16]"),
        ("op_str", "__data_loc char[]"),
        ("pointer", "char *"),
        ("name", "const char[TASK_COMM_LEN]"),
        ("last", "u64"),
    ]
    assert [field.length for field in fmt.fields[2:]] == [0, 0, 16, 0, 0, 0, 0]
    assert [field.elsewhere for field in fmt.fields[2:]] == [False, False, False, True, False, False, False]
    # With an address in it, a pointer to characters is a number like every pointer.
    record = bytearray(72)
    struct.pack_into("=Q", record, 40, 0xFFFF_8000_0000_1000)
    record[48:52] = b"name"
    assert fmt.reader("pointer", "name")(bytes(record)) == (0xFFFF_8000_0000_1000, "name")


NUMBERS = made_up(
    "u8 small;\toffset:8;\tsize:1;\tsigned:0;",
    "bool yes;\toffset:9;\tsize:1;\tsigned:0;",
    "short less;\toffset:10;\tsize:2;\tsigned:1;",
    "u32 flags;\toffset:12;\tsize:4;\tsigned:0;",
    "void * req;\toffset:16;\tsize:8;\tsigned:0;",
    "long ret;\toffset:24;\tsize:8;\tsigned:1;",
    "unsigned long args[3];\toffset:32;\tsize:24;\tsigned:0;",
    "char comm[8];\toffset:56;\tsize:8;\tsigned:0;",
    "struct odd odd;\toffset:64;\tsize:3;\tsigned:0;",
    "int two[1];\toffset:68;\tsize:4;\tsigned:1;",
)
RECORD = struct.pack(
    "=HHiB?hIQq3Q8s3sxi",
    77,
    0,
    4711,
    200,
    True,
    -2,
    0xFFFF_FFFF,
    0xFFFF_9CD0_4263_3800,
    -125,
    1,
    2,
    1 << 63,
    b"py\0rest!",
    b"abc",
    -7,
)
VALUES = {
    "common_type": 77,
    "common_pid": 4711,
    "small": 200,
    "yes": True,
    "less": -2,
    "flags": 0xFFFF_FFFF,
    "req": 0xFFFF_9CD0_4263_3800,
    "ret": -125,
    "args": (1, 2, 1 << 63),
    "comm": "py",
    "odd": b"abc",
    "two": (-7,),
    "nothing": None,
}


@pytest.mark.parametrize(
    "names",
    [
        (),
        *((name,) for name in VALUES),
        ("common_pid", "req", "ret"),  # as they lie
        ("ret", "req", "common_pid"),  # otherwise
        ("nothing", "ret", "no more", "ret", "common_pid"),
        ("comm", "ret", "nothing"),
        tuple(VALUES),
        tuple(reversed(VALUES)),
    ],
    ids=",".join,
)
def test_what_is_asked_for_comes_in_that_order(names: tuple[str, ...]) -> None:
    found = NUMBERS.reader(*names)(RECORD + b"more")
    assert found == tuple(VALUES.get(name) for name in names)
    assert [type(each) for each in found] == [type(VALUES.get(name)) for name in names]


@pytest.mark.parametrize("names", [("ret",), ("ret", "nothing"), ("comm",)])
def test_a_record_that_is_too_short_is_an_error(names: tuple[str, ...]) -> None:
    with pytest.raises(struct.error):
        NUMBERS.reader(*names)(RECORD[:24])


def place(offset: int, length: int) -> int:
    return length << 16 | offset


@pytest.mark.parametrize(
    ("declared", "data", "where", "want"),
    [
        ("__data_loc char[] op_str", b"ASYNC_CANCEL\0", 20, "ASYNC_CANCEL"),
        ("__data_loc char[] op_str", b"", 20, ""),
        ("__data_loc const char[] op_str", b"no zero", 24, "no zero"),
        ("__data_loc char[] op_str", b"\xff\xe9", 20, "��"),
        ("__data_loc u8[] op_str", b"\0\1\2", 20, b"\0\1\2"),
        ("__rel_loc char[] op_str", b"CONNECT\0", 8, "CONNECT"),  # from the end of the field, 12
    ],
)
def test_data_elsewhere_in_the_record(declared: str, data: bytes, where: int, want: Any) -> None:
    fmt = made_up(f"{declared};\toffset:8;\tsize:4;\tsigned:0;", "int res;\toffset:12;\tsize:4;\tsigned:1;")
    start = where + (12 if declared.startswith("__rel_loc") else 0)
    record = (
        struct.pack("=HHiIi", 77, 0, 1, place(where, len(data)), -5).ljust(start, b"\xaa") + data + b"\xaa"
    )
    assert fmt.reader("op_str", "res", "nothing")(record) == (want, -5, None)


@pytest.mark.parametrize("text", ["", "name: alone\n", "ID: 5\nformat:\n", "name: x\nID: none\n"])
def test_what_is_no_format_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="a name and an ID"):
        Format.parse(text, "tests")


def test_a_field_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="a field that is none"):
        made_up("!!;\toffset:8;\tsize:4;\tsigned:0;")


def test_fields_within_fields_are_an_error() -> None:
    fmt = made_up("u64 whole;\toffset:8;\tsize:8;\tsigned:0;", "u32 half;\toffset:12;\tsize:4;\tsigned:0;")
    assert fmt.reader("half")(bytes(12) + b"\1\0\0\0") == (struct.unpack("=I", b"\1\0\0\0")[0],)
    with pytest.raises(ValueError, match="half lies within another field"):
        fmt.reader("whole", "half")
