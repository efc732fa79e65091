"""No argument whatever ends the interpreter: each gives a Python exception, or is right."""

from __future__ import annotations

import inspect
import itertools
import math
import os
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iocancel import libaio
from iocancel.libaio import Context, Event, Iocb, IoprioClass, Opcode, PollEvents, RwFlags, ioprio

from ..support import GUEST


class Strange:
    """Lies about everything."""

    def __index__(self) -> int:
        raise ZeroDivisionError

    def __iter__(self) -> Iterator[Any]:
        raise ZeroDivisionError

    def fileno(self) -> int:
        raise ZeroDivisionError


class NotAFile:
    fileno = 3


class BigFile:
    def fileno(self) -> int:
        return 1 << 40


WRONG: list[Any] = [
    *(None, True, -1, -(1 << 31) - 1, 1 << 31, 1 << 63, -(1 << 63) - 1, 1 << 64, 1 << 200),
    *(1.5, math.nan, math.inf, -math.inf, 1j, "x", "", b"", b"x", bytearray(), memoryview(b"ab")[::2]),
    *(
        [],
        [None],
        [[]],
        {},
        {1: 2},
        (),
        range(3),
        object(),
        Strange(),
        NotAFile(),
        BigFile(),
        int,
        print,
        ...,
    ),
    *(RwFlags.NOWAIT, PollEvents.IN, Opcode.POLL, IoprioClass.IDLE, socket.MSG_PEEK, select.POLLIN),
    *(
        Event,
        Iocb,
        Context,
        Context.__new__(Context),
        Iocb.__new__(Iocb),
        memoryview(bytearray(4)).cast("B", (2, 2)),
    ),
]
FD = 1 << 20  # of nobody
GOOD: dict[str, Any] = {
    "fd": FD,
    "buffer": bytearray(2),
    "buffers": [bytearray(1)],
    "offset": 0,
    "rw_flags": RwFlags(0),
    "ioprio": None,
    "data": None,
    "events": PollEvents.IN,
}


def attempt(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    try:
        return function(*arguments, **named)
    except Exception:  # noqa: BLE001 - any will do, but an exception it must be
        return None


def descriptions() -> Iterator[tuple[Callable[..., Any], dict[str, Any]]]:
    for name in ("pread", "pwrite", "preadv", "pwritev", "fsync", "fdsync", "poll"):
        method = getattr(Iocb, name)
        yield method, {key: GOOD[key] for key in inspect.signature(method).parameters}


def test_descriptions() -> None:
    """Each argument wrong in each way, and what comes of it submitted all the same."""
    with Context() as context:
        for method, good in descriptions():
            for key, wrong in itertools.product(good, WRONG):
                made = attempt(method, **{**good, key: wrong})
                if made is not None and key != "fd":  # its fd is nobody's
                    attempt(context.submit, [made])
                    repr(made)
        assert context.in_flight == 0


def test_settings() -> None:
    read, context = Iocb.pread(FD, bytearray(1)), Context()
    for wrong in WRONG:
        for name in ("rw_flags", "ioprio", "data", "opcode", "call", "in_flight", "new"):
            attempt(setattr, read, name, wrong)
        attempt(read.set_eventfd, wrong)
        attempt(context.submit, [read])
        for other in WRONG:
            attempt(ioprio, wrong, other)
    assert context.close() == []


def test_contexts() -> None:
    closed = Context()
    closed.close()
    with Context() as context:
        for target, wrong in itertools.product((context, closed), WRONG):
            attempt(lambda wrong=wrong: Context(wrong).close())
            attempt(target.submit, wrong)
            attempt(target.submit, [wrong])
            attempt(target.cancel, wrong)
            attempt(target.getevents, wrong, None, 0)
            attempt(target.getevents, 0, wrong)
            attempt(target.getevents, 0, None, wrong)
            for name in ("closed", "in_flight", "nr_events", "new"):
                attempt(setattr, target, name, wrong)
            attempt(target.__exit__, wrong, wrong) if target is closed else None
            attempt(closed.close, wrong)
        assert not context.closed
        assert context.in_flight == 0


def test_events() -> None:
    for one, two in itertools.product(WRONG, WRONG):
        attempt(Event(one, two, two, one).check)
        attempt(Event(Iocb.fsync(FD), one, two, one).check)
    for wrong in WRONG:
        for kind in (RwFlags, PollEvents, Opcode, IoprioClass):
            attempt(kind, wrong)


ANY: Any = Iocb  # what type checkers would refuse


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: ANY.pread(FD, b"read-only"), "writable"),
        (lambda: ANY.pread(FD, "text"), "writable"),
        (lambda: ANY.pread(FD, 12), "writable"),
        (lambda: ANY.pwrite(FD, memoryview(b"abcd")[::2]), "contiguous"),
        (lambda: ANY.preadv(FD, bytearray(2)), "as a list"),
        (lambda: ANY.preadv(FD, 7), "as a list"),
        (lambda: ANY.preadv(FD, [b"read-only"]), "writable"),
        (lambda: ANY.poll(1.0), "float"),
        (lambda: ANY.poll("x"), "fileno"),
        (lambda: ANY.poll(NotAFile()), "fileno"),
        (lambda: ANY.poll(FD, RwFlags.NOWAIT), "events takes PollEvents or int, not RwFlags"),
        (lambda: ANY.pread(FD, bytearray(1), rw_flags=PollEvents.IN), "rw_flags takes RwFlags or int"),
        (lambda: ANY.poll(FD, "in"), "events takes"),
        (lambda: ioprio(1), "IoprioClass"),  # type: ignore[arg-type]
        (lambda: ioprio(IoprioClass.BE, "x"), "level takes"),  # type: ignore[arg-type]
        (lambda: ANY.pread(FD, bytearray(1), "x"), "offset takes an int"),
    ],
)
def test_types_are_told(make: Callable[[], object], error: str) -> None:
    with pytest.raises(TypeError, match=error):
        make()


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Iocb.poll(1 << 31), "fd takes"),
        (lambda: Iocb.poll(BigFile()), "fd takes"),
        (lambda: Iocb.poll(FD, 1 << 16), "bits that PollEvents"),
        (lambda: Iocb.poll(FD, -1), "bits that PollEvents"),
        (lambda: Iocb.pread(FD, bytearray(1), 1 << 63), "offset takes"),
        (lambda: Iocb.pread(FD, bytearray(1), rw_flags=1 << 20), "bits that RwFlags"),
        (lambda: Iocb.pread(FD, bytearray(1), ioprio=1 << 16), "ioprio takes"),
        (lambda: ioprio(IoprioClass.BE, 8), "level takes"),
    ],
)
def test_numbers_are_told(make: Callable[[], object], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        make()


def test_the_constants_are_the_kernels() -> None:
    assert (PollEvents.IN, PollEvents.OUT, PollEvents.HUP) == (select.POLLIN, select.POLLOUT, select.POLLHUP)
    assert (RwFlags.DSYNC, RwFlags.APPEND) == (os.RWF_DSYNC, os.RWF_APPEND)
    assert ioprio(IoprioClass.IDLE, 3) == 3 << 13 | 3
    assert (Opcode.PREAD, Opcode.POLL, Opcode.PWRITEV) == (0, 5, 8)


def test_public_names_are_documented() -> None:
    for name in libaio.__all__:
        thing = getattr(libaio, name)
        assert thing.__doc__, name
        for key, member in vars(thing).items() if inspect.isclass(thing) else ():
            if not key.startswith("_") and callable(getattr(thing, key)):
                assert (getattr(member, "__func__", member)).__doc__, f"{name}.{key}"


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.lists(st.none()),
)


# An emulated machine is too slow for hypothesis's taste.
@settings(
    max_examples=10 if GUEST else 100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.sampled_from(list(descriptions())), st.dictionaries(st.sampled_from(list(GOOD)), anything))
def test_any_description(kind: tuple[Callable[..., Any], dict[str, Any]], wrong: dict[str, Any]) -> None:
    method, good = kind
    wrong.pop("fd", None)
    made = attempt(method, **{**good, **{key: value for key, value in wrong.items() if key in good}})
    if made is not None:
        with Context(1) as context:
            attempt(context.submit, [made])
            assert context.in_flight == 0
