"""Ctrl-C before every instruction of a call: the bytes are returned, or kept, or still in the pipe."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from iocancel import BufferedReader, Listener, RawFile, Stream, transfers
from iocancel.pool import Pool
from iocancel.scope import local
from iocancel.testing import interrupt_everywhere

from .streams_stage import GUEST
from .streams_stage import engine as engine

OURS = ("iocancel.transfers", "iocancel.streams", "iocancel.files", "iocancel.reading")
MODULES = (*OURS, "iocancel.waiting", "iocancel.pool")
STEP = 97 if GUEST else 1
DATA = b"one\ntwo\nthree"
# CPython runs no handler there: the instruction before it is no call. Behind it the caller has the value.
GIVEN = "RETURN_VALUE: "


class Stage:
    """A pipe, and what reads it."""

    def __init__(self, mine: Pool, when: str, make: Callable[[int], Any]) -> None:
        self.pool, self.when = mine, when
        r, self.w = os.pipe()
        self.file = make(r)
        self.got: list[Any] = []
        self.put_it = when != "before"
        if when == "before":
            os.write(self.w, DATA)

    def put(self) -> None:
        """What was not there when the call began."""
        if self.put_it:
            self.put_it = False
            os.write(self.w, DATA)

    def whole(self) -> None:
        """Nothing is left of a call."""
        assert local.here.calls == []
        assert local.here.stack == []
        assert self.pool.idle == len(self.pool), "an engine did not come back"
        for lent in list(self.pool._free):
            assert lent.in_flight == 0

    def close(self) -> None:
        self.file.close()
        os.close(self.w)


@pytest.fixture(params=["before", "meanwhile", "afterwards"])
def when(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """When the bytes come; they do "meanwhile" just as the call has found that there are none."""
    begin: Any = transfers.Transfer.begin

    def beginning(self: Any) -> None:
        stage = STAGES[-1]
        if stage.when == "meanwhile":
            stage.put()
        begin(self)

    monkeypatch.setattr(transfers.Transfer, "begin", beginning)
    yield request.param
    STAGES.clear()


STAGES: list[Any] = []


def sweep(
    mine: Pool,
    when: str,
    make: Callable[[int], Any],
    call: Callable[[Any], Any],
    rest: Callable[[Any], bytes],
    modules: tuple[str, ...] = OURS,
) -> None:
    """Interrupt a call everywhere; each time all that was put in comes out, once."""
    lost = 0

    def prepare() -> Stage:
        STAGES[:] = [Stage(mine, when, make)]
        return STAGES[0]  # type: ignore[no-any-return]

    def run(stage: Stage) -> None:
        with contextlib.suppress(TimeoutError):
            stage.got.append(call(stage.file))

    def check(stage: Stage, place: str) -> None:
        nonlocal lost
        stage.whole()
        stage.put()
        os.close(stage.w)
        stage.w = os.dup(0)
        found = b"".join(stage.got) + rest(stage.file)
        if found != DATA and place.startswith(GIVEN) and not stage.got:
            lost += 1
            assert DATA.endswith(found)
        else:
            assert found == DATA
        stage.whole()
        stage.close()

    done = interrupt_everywhere(prepare, run, check, modules=modules, places="opcodes", step=STEP)
    assert done.places > 100
    assert lost <= 3  # the method's own, and those of what it ends with


def all_of(stream: Any) -> bytes:
    return b"".join(iter(lambda: stream.receive_some(5, timeout=60), b""))


def timeout_of(when: str) -> float:
    return 0 if when == "afterwards" else 60


def test_receive_some(engine: Pool, when: str) -> None:
    timeout = timeout_of(when)
    sweep(engine, when, Stream, lambda stream: stream.receive_some(6, timeout=timeout), all_of, MODULES)


@pytest.mark.parametrize(
    "call",
    [
        lambda file: file.read(6),
        lambda file: file.read1(6),
        lambda file: file.readline(),
        lambda file: b"".join(file.readlines(5)),
        lambda file: next(file),
    ],
    ids=["read", "read1", "readline", "readlines", "next"],
)
def test_a_buffered_reader(engine: Pool, when: str, call: Callable[[Any], bytes]) -> None:
    def make(r: int) -> BufferedReader:
        return BufferedReader(RawFile(r, timeout=timeout_of(when)), 4)

    sweep(engine, when, make, call, rest_of)


def rest_of(file: BufferedReader) -> bytes:
    file.raw.timeout = 60
    return file.read()


@pytest.mark.parametrize("name", ["readinto", "readinto1"])
@pytest.mark.parametrize("buffered", [True, False])
def test_into_a_buffer(engine: Pool, when: str, name: str, buffered: bool) -> None:
    def make(r: int) -> Any:
        raw = RawFile(r, timeout=timeout_of(when))
        return BufferedReader(raw, 4) if buffered else raw

    def call(file: Any) -> bytes:
        buffer = bytearray(6)
        many = getattr(file, name)(buffer)
        return bytes(buffer[:many])

    def rest(file: Any) -> bytes:
        return rest_of(file if buffered else BufferedReader(file))

    if buffered or name == "readinto":
        sweep(engine, when, make, call, rest)


def test_a_raw_file_of_another_kind(engine: Pool) -> None:
    def make(r: int) -> BufferedReader:
        return BufferedReader(open(r, "rb", buffering=0), 4)

    sweep(engine, "before", make, lambda file: file.readline(), lambda file: file.read())


@pytest.mark.parametrize("full", [False, True])
def test_what_is_sent(engine: Pool, full: bool) -> None:
    class Sending:
        def __init__(self) -> None:
            self.one, other = socket.socketpair()
            self.other = other
            self.stream = Stream(self.one)
            self.sent = self.behind = -1
            if full:
                self.one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    data = os.urandom(50_000) if full else DATA

    def run(stage: Sending) -> None:
        try:
            stage.stream.send_all(data, timeout=0 if full else 60)
        except BaseException as error:
            stage.sent = getattr(error, "sent", 0)
            stage.behind = getattr(error.__context__, "sent", 0)
            if not isinstance(error, TimeoutError):
                raise

    def check(stage: Sending, place: str) -> None:
        assert local.here.calls == []
        assert engine.idle == len(engine)
        stage.stream.close()
        with stage.other:
            found = b"".join(iter(lambda: stage.other.recv(65536), b""))
        if (place.startswith(GIVEN) or place.endswith(" in send_all")) and not full:
            assert found in (data, b"")  # all of it, and nothing is raised but the interrupt
        else:
            counts = [len(data) if stage.sent < 0 else stage.sent]
            if place.endswith(
                " in run"
            ):  # there the interrupt may have the error behind it that has the count
                counts.append(stage.behind)
            assert len(found) in counts
            assert data.startswith(found)

    done = interrupt_everywhere(Sending, run, check, modules=MODULES, places="opcodes", step=STEP)
    assert done.places > 100


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("early", [True, False])
def test_connections(engine: Pool, blocking: bool, early: bool) -> None:
    class Accepting:
        def __init__(self) -> None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.bind("")  # a name that the kernel chooses
            sock.listen()
            sock.setblocking(blocking)
            self.listener = Listener(sock)
            self.client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.got: Stream | None = None
            if early:
                self.connect()

        def connect(self) -> None:
            self.client.connect(self.listener.file.getsockname())
            self.client.sendall(DATA)

    def run(stage: Accepting) -> None:
        with contextlib.suppress(TimeoutError):
            stage.got = stage.listener.accept(timeout=60 if early else 0)

    def check(stage: Accepting, place: str) -> None:
        assert local.here.calls == []
        assert engine.idle == len(engine)
        if not early:
            stage.connect()
        if stage.got is None and place.startswith(GIVEN):
            with contextlib.suppress(TimeoutError):
                stage.got = stage.listener.accept(timeout=0)
        else:
            stage.got = stage.got or stage.listener.accept(timeout=60)
        if stage.got is not None:
            assert stage.got.receive_some(timeout=60) == DATA
            stage.got.close()
        stage.client.close()
        stage.listener.close()

    with warnings.catch_warnings():
        # Of the connection that was given out when the interrupt came, before the caller had it.
        warnings.simplefilter("ignore", ResourceWarning)
        done = interrupt_everywhere(Accepting, run, check, modules=MODULES, places="opcodes", step=STEP)
        gc.collect()
    assert done.places > 100
