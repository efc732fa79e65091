"""Socket addresses and messages: what the kernel is given, and what comes back."""

import socket
import struct
from typing import Any

import pytest

from iocancel.uring import MsgHdr, SockAddr
from iocancel.uring.memory import socket_address
from iocancel.uring.prep_recv import control_messages

from ..support import python


@pytest.mark.parametrize(
    ("family", "value"),
    [
        (socket.AF_INET, ("127.0.0.1", 65535)),
        (socket.AF_INET6, ("::1", 80, 5, 9)),
        (socket.AF_UNIX, "/tmp/name"),
        (socket.AF_UNIX, b"\0abstract\0name"),
    ],
)
def test_an_address_comes_back_as_it_was_given(family: int, value: Any) -> None:
    made = SockAddr(family, value)
    assert (made.family, made.value) == (family, value)
    assert repr(value) in repr(made)
    assert socket_address(made.raw, None).value == value
    assert socket_address(made, None) is made


def test_the_kernel_reads_it_as_python_s_own_socket_does() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        made = socket_address(("::1", 80), sock)
        assert made.raw == struct.pack("=H", socket.AF_INET6) + b"\0\x50" + bytes(4 + 15) + b"\1" + bytes(4)
    assert SockAddr(socket.AF_INET, made.raw).raw == made.raw  # raw bytes are taken as they are


def test_an_empty_address() -> None:
    assert (SockAddr().family, SockAddr().value) == (0, None)
    assert SockAddr(socket.AF_INET, b"").value is None
    assert SockAddr(77, struct.pack("=H", 77) + b"abc").value == struct.pack("=H", 77) + b"abc"


@pytest.mark.parametrize(
    ("family", "value"),
    [
        (socket.AF_INET, ("localhost", 1)),
        (socket.AF_INET, ("127.0.0.1", 1 << 16)),
        (socket.AF_INET, ("127.0.0.1",)),
        (socket.AF_INET, None),
        (socket.AF_INET, (b"127.0.0.1", "1")),
        (socket.AF_INET6, ("::1", 1, 1 << 32)),
        (socket.AF_UNIX, "x" * 108),
        (socket.AF_UNIX, b"\0" + b"x" * 108),
        (socket.AF_UNIX, 5),
        (socket.AF_INET, bytes(129)),
        (77, ("a", 1)),
    ],
)
def test_what_is_no_address(family: int, value: Any) -> None:
    with pytest.raises(ValueError):
        SockAddr(family, value)


def test_python_s_form_needs_a_family() -> None:
    with pytest.raises(TypeError, match="beside a socket"):
        socket_address(("127.0.0.1", 1), 5)


@pytest.mark.parametrize(
    "arguments",
    [
        ((5,), {}),
        ((b"x",), {}),
        (([5],), {}),
        (([memoryview(bytearray(8))[::2]],), {}),
        (([],), {"name": "x"}),
        (([],), {"control": 5}),
    ],
)
def test_what_is_no_message(arguments: tuple[Any, dict[str, Any]]) -> None:
    with pytest.raises(TypeError):
        MsgHdr(*arguments[0], **arguments[1])


def test_a_message_that_is_garbage_with_its_views() -> None:
    """The view is the older one, so that the collector comes to it first (gh-77894)."""
    done = python(GARBAGE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 True\n", "")


GARBAGE = """
import gc
from iocancel.uring import MsgHdr, memory

class Cycle:
    pass

gc.disable()
for _ in range(3):
    view = memoryview(bytearray(8))
    cycle = Cycle()
    cycle.own, cycle.view, cycle.message = cycle, view, MsgHdr([view], control=view)
    del view, cycle
    gc.collect()
held = len(memory._views)
room = bytearray(8)
last = MsgHdr([memoryview(room)])
try:
    room.append(0)
    print(held, False)
except BufferError:
    print(held, True)
"""


def test_a_message_in_a_cycle_with_its_memory_at_exit() -> None:
    done = python(
        "from iocancel.uring import MsgHdr\n"
        "class Memory(bytearray): pass\n"
        "memory = Memory(1 << 20)\n"
        "memory.message = MsgHdr([memoryview(memory)])\n"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_message_pins_its_buffers() -> None:
    buffer, control = bytearray(8), bytearray(8)
    message = MsgHdr([buffer], control=control)
    for one in (buffer, control):
        with pytest.raises(BufferError):
            one.append(0)
    assert (message.flags, message.name, message.controllen) == (0, None, 8)
    del message
    buffer.append(0)
    control.append(0)


def test_ancillary_data_that_is_cut_or_broken() -> None:
    head = struct.Struct("@Nii")
    whole = head.pack(head.size + 4, 1, 2) + b"abcd"
    assert control_messages(whole) == [(1, 2, b"abcd")]
    assert control_messages(whole.ljust(24, b"\0") + whole) == [(1, 2, b"abcd")] * 2
    assert control_messages(whole[:-2]) == [(1, 2, b"ab")]
    assert control_messages(head.pack(3, 1, 2)) == []
    assert control_messages(head.pack((1 << 64) - 1, 1, 2) + b"ab") == [(1, 2, b"ab")]
    assert control_messages(b"") == []
