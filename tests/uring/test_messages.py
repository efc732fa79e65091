"""Messages and addresses: memory that C reads and writes, as Python's objects."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from iocancel.uring import MsgHdr, Ring, SockAddr

from ..support import BOUND, resizable

pytestmark = pytest.mark.leak


def test_messages_and_addresses(ring: Ring) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("127.0.0.1", 0))
            first, second, name = bytearray(2), bytearray(10), SockAddr()
            message = MsgHdr([first, second], name=name, control=bytearray(64))
            sqe = ring.get_sqe()
            sqe.prep_recvmsg(receiver, message)
            ring.submit()
            assert not resizable(first)
            out = MsgHdr([b"ab", b"cde"], name=SockAddr(socket.AF_INET, receiver.getsockname()))
            sqe = ring.get_sqe()
            sqe.prep_sendmsg(sender, out)
            ring.submit()
            assert sorted(cqe.check() for cqe in ring.wait(2, BOUND)) == [5, 5]
            assert (bytes(first), bytes(second[:3])) == (b"ab", b"cde")
            assert message.name == sender.getsockname()
            assert message.flags == 0
            assert message.controllen == 0
            sqe = ring.get_sqe()
            with pytest.raises(TypeError, match="writable"):
                sqe.prep_recvmsg(receiver, MsgHdr([b"read-only"]))
            ring.submit_and_reap(1, BOUND)


@pytest.mark.parametrize(
    ("family", "value"),
    [
        (socket.AF_INET, ("127.0.0.1", 80)),
        (socket.AF_INET6, ("::1", 80, 1, 2)),
        (socket.AF_UNIX, "/tmp/socket"),
        (socket.AF_UNIX, b"\0abstract"),
    ],
)
def test_addresses_go_there_and_back(family: int, value: Any) -> None:
    address = SockAddr(family, value)
    assert address.family == family
    assert address.value == value
    assert repr(value) in repr(address)


def test_addresses_of_the_wrong_form() -> None:
    odd: list[tuple[int, Any]] = [
        (socket.AF_INET, ("localhost", 80)),
        (socket.AF_INET, ("127.0.0.1", 1 << 16)),
        (socket.AF_INET, 3),
        (socket.AF_INET6, ("127.0.0.1", 1)),
        (socket.AF_UNIX, "x" * 108),
        (socket.AF_UNIX, 5),
        (77, ("x", 1)),
    ]
    for family, value in odd:
        with pytest.raises(ValueError):
            SockAddr(family, value)
    assert SockAddr().value is None
    assert SockAddr(77, (77).to_bytes(2, "little") + b"raw").value[2:] == b"raw"
    with pytest.raises(ValueError):
        SockAddr(77, bytes(4096))
