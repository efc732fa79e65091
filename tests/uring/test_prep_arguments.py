"""Wrong arguments: a Python exception for each, never a crash, and the entry is as it was."""

import inspect
import math
import mmap
import socket
from array import array
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iocancel.uring import (
    AcceptFlags,
    CancelFlags,
    MsgHdr,
    PollFlags,
    RecvSendFlags,
    SockAddr,
    Sqe,
    TimeoutFlags,
)
from iocancel.uring.prep_recv import RecvmsgOut, control_messages
from iocancel.uring.prep_wait import child_state, epoll_events

from .helpers import FakeRing

METHODS = sorted(name for name in dir(Sqe) if name.startswith("prep_"))
FINE = (TypeError, ValueError, OverflowError)


def fresh() -> Any:
    sqe = Sqe(FakeRing())  # type: ignore[arg-type]
    sqe.user_data = 1
    return sqe


def good(name: str, parameter: str) -> Any:
    """A right argument for a parameter."""
    buffers = ("buf", "value", "statxbuf", "events", "infop", "optval")
    if name in ("prep_madvise", "prep_madvise64") and parameter == "buf":
        return mmap.mmap(-1, 4096)
    if name == "prep_epoll_ctl" and parameter == "events":
        return 1
    if parameter in buffers:
        return bytearray(256)
    special: dict[str, Callable[[], Any]] = {
        "buffers": lambda: [bytearray(8)],
        "msg": lambda: MsgHdr([bytearray(8)], name=SockAddr(socket.AF_INET, ("127.0.0.1", 1))),
        "addr": lambda: SockAddr(socket.AF_INET, ("127.0.0.1", 1)),
        "futex": lambda: array("I", [0]),
        "futexes": lambda: [(array("I", [0]), 0)],
        "fds": lambda: array("i", [1, 2]),
        "path": lambda: "p",
        "oldpath": lambda: "p",
        "newpath": lambda: "q",
        "linkpath": lambda: "q",
        "target": lambda: "p",
        "name": lambda: "user.a",
        "buf_group": lambda: 3,
        "nbytes": lambda: 64,
        "ioprio": lambda: 0,
        "zc_flags": lambda: 0,
    }
    if name == "prep_read" or (parameter in ("nbytes", "buf_group") and "multi" not in name):
        special["buf_group"] = special["nbytes"] = lambda: None
    if name in ("prep_cmd_discard", "prep_provide_buffers", "prep_splice", "prep_tee"):
        special["nbytes"] = lambda: 64
    return special[parameter]() if parameter in special else 1 if parameter != "opcode" else None


def right(name: str) -> dict[str, Any]:
    parameters = list(inspect.signature(getattr(Sqe, name)).parameters)[1:]
    if name == "prep_send_bundle":
        return {"sockfd": 1, "length": 1, "flags": 0, "buf_group": 3}
    return {p: good(name, p) for p in parameters}


class Strange:
    """An object whose number is not one."""

    def fileno(self) -> Any:
        return "seven"


class Index:
    """Not an int, but a number all the same."""

    def __index__(self) -> int:
        return 1 << 40


HALF = memoryview(bytearray(16))[::2]
WRONG: list[Any] = [
    *(
        None,
        "x",
        "a\0b",
        "\ud800",
        b"",
        b"readonly" * 64,
        memoryview(b"readonly"),
        HALF,
        bytearray(),
        bytearray(3),
    ),
    *(
        1.5,
        math.nan,
        math.inf,
        2j,
        True,
        -1,
        -(1 << 31),
        1 << 31,
        (1 << 32) - 1,
        1 << 32,
        1 << 63,
        1 << 64,
        1 << 200,
    ),
    *(
        -(1 << 200),
        CancelFlags.FD,
        RecvSendFlags.SEND_VECTORIZED,
        Index(),
        Strange(),
        object(),
        int,
        Ellipsis,
    ),
    *([], (), {}, (1, 2, 3), [None], [b"x", 3], [(1, 2)], [(bytearray(4),)], ("127.0.0.1", 1 << 20)),
    *(array("d", [1.0]), array("i"), SockAddr(), MsgHdr([]), MsgHdr([b"readonly"])),
]


def attempt(sqe: Any, name: str, arguments: dict[str, Any]) -> bool:
    """Whether the request could be prepared; where not, the entry has to be as it was."""
    before = bytes(sqe._bytes), sqe._pins, sqe._call, sqe._implied
    try:
        getattr(sqe, name)(**arguments)
    except FINE:
        assert (bytes(sqe._bytes), sqe._pins, sqe._call, sqe._implied) == before
        return False
    assert len(sqe._bytes) == 64
    return True


@pytest.fixture(autouse=True)
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a probe says of the kernel is not what is tested here."""
    monkeypatch.setattr("iocancel.uring.prep_cancel.require_cancel_flags", lambda flags: None)


@pytest.mark.parametrize("name", METHODS)
def test_right_arguments_are_taken(name: str) -> None:
    sqe = fresh()
    if name == "prep_send_set_addr":
        sqe.prep_send(1, b"x")
    assert attempt(sqe, name, right(name)), right(name)


@pytest.mark.parametrize("name", METHODS)
def test_wrong_arguments_give_exceptions(name: str) -> None:
    sqe = fresh()
    parameters = list(inspect.signature(getattr(Sqe, name)).parameters)[1:]
    refused = 0
    for parameter in parameters:
        for wrong in WRONG:
            refused += not attempt(sqe, name, {**right(name), parameter: wrong})
    assert refused or not parameters
    sqe.prep_read(0, bytearray(8))
    assert sqe._call == "io_uring_prep_read"


# Slow machines, and a file system that can't be written to, say nothing about the requests.
calmly = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])


def one_of_the_wrong(number: int) -> Any:
    return WRONG[number]


ANYTHING = st.one_of(
    st.integers(0, len(WRONG) - 1).map(one_of_the_wrong),
    st.integers(),
    st.floats(),
    st.binary(),
    st.text("ab/\0\xe9"),
    st.lists(st.integers(), max_size=3),
)


@calmly
@given(st.sampled_from(METHODS), st.data())
def test_any_arguments_give_exceptions(name: str, data: st.DataObject) -> None:
    arguments = right(name)
    for parameter in data.draw(st.lists(st.sampled_from(sorted(arguments) or [""]), max_size=4)):
        if parameter:
            arguments[parameter] = data.draw(ANYTHING)
    attempt(fresh(), name, arguments)


@pytest.mark.parametrize("name", METHODS)
def test_a_submitted_entry_is_refused(name: str) -> None:
    sqe = fresh()
    sqe._ring = None
    with pytest.raises(ValueError, match="submitted already"):
        getattr(sqe, name)(**right(name))


@pytest.mark.parametrize("name", METHODS)
def test_every_request_is_documented(name: str) -> None:
    text = getattr(Sqe, name).__doc__
    assert "(3))" in text.splitlines()[0], "the man page"
    assert "Linux " in text or "since: as for" in text, "since which kernel"


REFUSED: list[tuple[Callable[[Any], object], type[Exception]]] = [
    (lambda s: s.prep_read(0, b"readonly"), TypeError),
    (lambda s: s.prep_read(0, HALF), TypeError),
    (lambda s: s.prep_read(0, 0x7F0000000000), TypeError),
    (lambda s: s.prep_read(0, None), TypeError),
    (lambda s: s.prep_read(0, bytearray(8), nbytes=4), TypeError),
    (lambda s: s.prep_read(0, bytearray(8), buf_group=4), TypeError),
    (lambda s: s.prep_read(0, None, nbytes=4), TypeError),
    (lambda s: s.prep_read(0, None, buf_group=1 << 16), OverflowError),
    (lambda s: s.prep_read(1 << 31, bytearray(8)), OverflowError),
    (lambda s: s.prep_read(1.0, bytearray(8)), TypeError),
    (lambda s: s.prep_read(Strange(), bytearray(8)), TypeError),
    (lambda s: s.prep_readv(0, bytearray(8)), TypeError),
    (lambda s: s.prep_readv(0, [b"readonly"]), TypeError),
    (lambda s: s.prep_recv(0, bytearray(8), ioprio=RecvSendFlags.BUNDLE), ValueError),
    (lambda s: s.prep_recv(0, bytearray(8), ioprio=RecvSendFlags.RECV_MULTISHOT), ValueError),
    (lambda s: s.prep_recv(0, bytearray(8), ioprio=AcceptFlags.MULTISHOT), TypeError),
    (lambda s: s.prep_recv(0, bytearray(8), 1 << 31), OverflowError),
    (lambda s: s.prep_recvmsg(0, MsgHdr([b"readonly"])), TypeError),
    (lambda s: s.prep_recvmsg(0, MsgHdr([bytearray(8)], control=b"readonly")), TypeError),
    (lambda s: s.prep_recvmsg(0, [bytearray(8)]), TypeError),
    (lambda s: s.prep_send(0, b"", ioprio=RecvSendFlags.SEND_VECTORIZED), ValueError),
    (lambda s: s.prep_send_zc(0, b"", zc_flags=RecvSendFlags.SEND_VECTORIZED), ValueError),
    (lambda s: s.prep_send_zc(0, b"", zc_flags=RecvSendFlags.FIXED_BUF), ValueError),
    (lambda s: s.prep_sendto(0, b"x", 0, ("127.0.0.1", 1)), TypeError),
    (lambda s: s.prep_send_set_addr(SockAddr()), ValueError),
    (lambda s: (s.prep_statx(None, "", 0, 0, bytearray(256)), s.prep_send_set_addr(SockAddr())), ValueError),
    (lambda s: s.prep_accept(0, bytearray(128)), TypeError),
    (lambda s: s.prep_connect(0, b""), ValueError),
    (lambda s: s.prep_connect(0, bytes(129)), ValueError),
    (lambda s: s.prep_cmd_sock(5, 0, 0, 0, bytearray(8)), ValueError),
    (lambda s: s.prep_cmd_sock(2, 0, 1, 3), TypeError),
    (lambda s: s.prep_cmd_sock(2, 0, 1, 3, b"readonly"), TypeError),
    (lambda s: s.prep_poll_add(0, -1), OverflowError),
    (lambda s: s.prep_poll_add(0, 1 << 32), OverflowError),
    (lambda s: s.prep_poll_remove(-1), OverflowError),
    (lambda s: s.prep_poll_update(1, 2, 0, TimeoutFlags.ABS), TypeError),
    (lambda s: s.prep_timeout(-0.5), ValueError),
    (lambda s: s.prep_timeout(math.nan), ValueError),
    (lambda s: s.prep_timeout("1"), TypeError),
    (lambda s: s.prep_timeout(1, 0, PollFlags.ADD_MULTI), TypeError),
    (lambda s: s.prep_openat(None, "a\0b", 0), ValueError),
    (lambda s: s.prep_openat(None, 3, 0), TypeError),
    (lambda s: s.prep_openat(None, "a", 1.5), TypeError),
    (lambda s: s.prep_openat_direct(None, "a", 0, 0, 1 << 31), OverflowError),
    (lambda s: s.prep_close_direct(0xFFFFFFFF), OverflowError),
    (lambda s: s.prep_close_direct(-1), OverflowError),
    (lambda s: s.prep_files_update(b"\0\0\0\0"), TypeError),
    (lambda s: s.prep_files_update(["x"]), TypeError),
    (lambda s: s.prep_pipe(bytearray(7)), ValueError),
    (lambda s: s.prep_pipe(b"readonly"), TypeError),
    (lambda s: s.prep_statx(None, "", 0, 0, bytearray(255)), ValueError),
    (lambda s: s.prep_madvise(bytearray(4096), 4), TypeError),
    (lambda s: s.prep_madvise(memoryview(bytearray(4096)), 4), TypeError),
    (lambda s: s.prep_madvise(mmap.mmap(-1, 4096), 100), ValueError),
    (lambda s: s.prep_madvise(mmap.mmap(-1, 4096), 102), ValueError),
    (lambda s: s.prep_provide_buffers(bytearray(64), 65, 1), ValueError),
    (lambda s: s.prep_provide_buffers(bytearray(64), 0, 1), ValueError),
    (lambda s: s.prep_provide_buffers(bytearray(64), 32, 1, nr=3), ValueError),
    (lambda s: s.prep_provide_buffers(bytearray(64), 32, 1, 65535), ValueError),
    (lambda s: s.prep_provide_buffers(bytes(64), 32, 1), TypeError),
    (lambda s: s.prep_futex_wait(array("B", [0, 0, 0]), 0), ValueError),
    (lambda s: s.prep_futex_wait(memoryview(bytearray(64))[1:5], 0), ValueError),
    (lambda s: s.prep_futex_wait(array("I", [0]), 0, futex_flags=0x86), ValueError),
    (lambda s: s.prep_futex_wait(bytes(4), 0), TypeError),
    (lambda s: s.prep_futex_waitv([]), ValueError),
    (lambda s: s.prep_futex_waitv([(array("I", [0]), 0)] * 129), ValueError),
    (lambda s: s.prep_waitid(1, 1, 4, bytearray(127)), ValueError),
    (lambda s: s.prep_epoll_wait(0, bytearray(11)), ValueError),
    (lambda s: s.prep_epoll_ctl(0, 0, 1, 1, 1 << 64), OverflowError),
    (lambda s: RecvmsgOut(bytes(15), MsgHdr([])), ValueError),
    (lambda s: RecvmsgOut(bytes(16 + 128), MsgHdr([], name=SockAddr(), control=bytearray(1))), ValueError),
    (lambda s: RecvmsgOut(bytes(64), None), TypeError),  # type: ignore[arg-type]
    (lambda s: control_messages("x"), TypeError),  # type: ignore[arg-type]
    (lambda s: epoll_events(bytes(12), 2), ValueError),
    (lambda s: child_state(bytes(8)), ValueError),
]


@pytest.mark.parametrize(("call", "error"), REFUSED, ids=range(len(REFUSED)))
def test_refused(call: Callable[[Any], object], error: type[Exception]) -> None:
    with pytest.raises(error):
        call(fresh())


@calmly
@given(st.binary(max_size=200), st.integers(0, 40))
def test_what_a_multishot_recvmsg_left_may_be_anything(raw: bytes, room: int) -> None:
    msg = MsgHdr([], control=bytearray(room))
    if len(raw) < 16 + room:
        with pytest.raises(ValueError):
            RecvmsgOut(raw, msg)
        return
    out = RecvmsgOut(raw, msg)
    assert len(out.payload) == len(raw) - 16 - room
    assert len(out.control) <= room
    control_messages(out.control)
    control_messages(raw)
