"""Ctrl-C at every instruction of a blocking call: the ledger is true, nothing is lost, the next call works.

What had come is returned, or rides on the exception as its `operation`, or is still where it was: exactly
one of these.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import iocancel
from iocancel import blocking, move_on_after, pool, scope, waiting
from iocancel.engines import bell, ready
from iocancel.testing import Interruption, interrupt_everywhere

from .case import WORD, drain
from .conftest import of_engine
from .helpers import BOUND, GUEST, SHORT, warm, whole

MODULES = [blocking, waiting, pool, scope, bell, ready]
# The verb's own return: Python has left its try blocks by then. It looks for signals at none of these.
HANDED = re.compile(r"RETURN_VALUE: (data|waits)\.py:\d+ in (read|recv|accept|open)$")
STEPS = {"opcodes": 41 if GUEST else 1, "signals": 17 if GUEST else 1}
LIBAIO = 5  # of its opcodes every so manieth: above the engine they are the same


class Stage:
    """A call that is interrupted; what it brings is counted."""

    def __init__(self, folder: Path, arrival: str) -> None:
        self.folder, self.arrival = folder, arrival
        self.stack = contextlib.ExitStack()
        self.got: list[Any] = []
        self.error: BaseException | None = None
        self.came = False
        self.set()
        self.engine = warm()
        if arrival == "before":
            self.comes()
        elif arrival == "meanwhile":
            self.hook()

    def comes(self) -> None:
        self.came = True
        self.bring()

    def hook(self) -> None:
        """What it waits for comes when the kernel has been asked for it."""
        carrier = self.engine._carrier
        real = carrier.go

        def go(batch: Any, wait: bool, timeout: float | None) -> None:
            if batch is not None and not self.came:
                real(batch, False, 0)
                self.comes()
                real(None, wait, timeout)
            else:
                real(batch, wait, timeout)

        carrier.go = go
        self.stack.callback(carrier.__dict__.pop, "go", None)

    def set(self) -> None: ...

    def bring(self) -> None: ...

    def call(self, **named: Any) -> Any: ...

    def take(self, value: Any) -> int:
        """How often the value is in what was returned."""
        raise NotImplementedError

    def left(self) -> int:
        """How often it is still there."""
        raise NotImplementedError

    def run(self) -> None:
        named = {"timeout": 0.0005 if self.arrival == "never" else BOUND}
        try:
            self.got.append(self.call(**named))
        except Interruption as error:
            self.error = error
            raise
        except TimeoutError:
            assert self.arrival == "never"

    def check(self, place: str) -> None:
        try:
            on_it = getattr(self.error, "operation", None)
            self.error = None  # what its frames have goes with it: a scope that was not left, too
            whole()
            values = list(self.got)
            if on_it is not None:
                assert on_it.done()
                assert on_it.name in self.names, f"somebody else's operation: {on_it!r}"
                values.append(on_it.result())
            del on_it
            had = sum(self.take(value) for value in values)
            rest = self.left()
            if had + rest != self.came:
                # Where a block is left with a value, that is the block's.
                assert "in __exit__" in place or "in _leave" in place or HANDED.match(place), (
                    f"it was had {had} times, and {rest} times it is still there"
                )
                assert not had
            if not place and self.came:
                assert had, "nothing was returned"
            self.came = False
            self.stack_again()
        finally:
            self.stack.close()

    def stack_again(self) -> None:
        """The next call works."""
        self.engine._carrier.__dict__.pop("go", None)
        self.comes()
        assert self.take(self.call(timeout=BOUND)) == 1
        whole()

    names: tuple[str, ...] = ()


class Read(Stage):
    names = ("read",)

    def set(self) -> None:
        self.fd, self.peer = os.pipe()
        for fd in (self.fd, self.peer):
            self.stack.callback(os.close, fd)

    def bring(self) -> None:
        os.write(self.peer, WORD)

    def call(self, **named: Any) -> Any:
        return iocancel.read(self.fd, 100, **named)

    def take(self, value: Any) -> int:
        assert value == WORD
        return 1

    def left(self) -> int:
        found = drain(self.fd)
        assert found in (b"", WORD)
        return int(found == WORD)


class ReadScope(Read):
    """By a scope's deadline."""

    def call(self, **named: Any) -> Any:
        with move_on_after(named["timeout"]):
            return iocancel.read(self.fd, 100)
        raise TimeoutError


class Recv(Read):
    names = ("recv",)

    def set(self) -> None:
        a, b = socket.socketpair()
        self.fd, self.peer = a.detach(), b.detach()
        for fd in (self.fd, self.peer):
            self.stack.callback(os.close, fd)

    def call(self, **named: Any) -> Any:
        return iocancel.recv(self.fd, 100, **named)


class RecvNonblocking(Recv):
    def set(self) -> None:
        super().set()
        os.set_blocking(self.fd, False)


class Accept(Stage):
    names = ("accept",)
    blocking = True

    def set(self) -> None:
        self.server = self.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.server.setblocking(self.blocking)

    def bring(self) -> None:
        self.client = self.stack.enter_context(socket.create_connection(self.server.getsockname()))

    def call(self, **named: Any) -> Any:
        return iocancel.accept(self.server, **named)

    def take(self, value: Any) -> int:
        sock, address = value
        with sock:
            assert sock.getpeername() == self.client.getsockname() == address
        return 1

    def left(self) -> int:
        self.server.setblocking(False)
        try:
            sock, _ = self.server.accept()
        except BlockingIOError:
            return 0
        finally:
            self.server.setblocking(self.blocking)
        sock.close()
        return 1


class AcceptNonblocking(Accept):
    blocking = False


class Open(Stage):
    names = ("openat",)

    def set(self) -> None:
        self.path = self.folder / "fifo"
        self.path.unlink(missing_ok=True)
        os.mkfifo(self.path)
        self.writer = -1

    def bring(self) -> None:
        self.writer = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        self.stack.callback(os.close, self.writer)

    def call(self, **named: Any) -> Any:
        return iocancel.open(self.path, **named)

    def take(self, value: Any) -> int:
        assert os.path.samestat(os.fstat(value), os.stat(self.path))
        os.close(value)
        return 1

    def left(self) -> int:
        return 0

    def check(self, place: str) -> None:
        """A fd that was opened, and that nobody has, is none: else it would be left behind, for ever."""
        try:
            on_it = getattr(self.error, "operation", None)
            self.error = None
            whole()
            if on_it is not None:
                assert on_it.name == "openat"
            del on_it
            for value in self.got:
                self.take(value)
            number = os.stat(self.path)
            mine = [fd for fd in os.listdir("/proc/self/fd") if same(fd, number)]
            many = len(mine)
            if many != (self.writer >= 0):
                assert HANDED.match(place), f"{many - 1} fds are lost"
                for fd in mine:
                    if int(fd) != self.writer:
                        os.close(int(fd))
            self.stack_again()
        finally:
            self.stack.close()


def same(fd: str, number: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.fstat(int(fd)), number)
    except OSError:
        return False


STAGES: dict[str, type[Stage]] = {
    "read": Read,
    "read_in_a_scope": ReadScope,
    "recv": Recv,
    "recv_nonblocking": RecvNonblocking,
    "accept": Accept,
    "accept_nonblocking": AcceptNonblocking,
    "open": Open,
}
ROWS = [
    (engine, name, arrival)
    for engine in ("uring", "libaio")
    for name in STAGES
    for arrival in ("before", "meanwhile", "never")
    if (engine, name) != ("libaio", "open")
]


@pytest.fixture(params=ROWS, ids="-".join)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Stage]]:
    engine, name, arrival = request.param
    with of_engine(engine):
        yield lambda: STAGES[name](tmp_path, arrival)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # an fd that nobody took is closed, and said so
@pytest.mark.parametrize("places", ["opcodes", "signals"])
def test_ctrl_c_at_each_place(make: Callable[[], Stage], places: Any) -> None:
    swept = interrupt_everywhere(
        make,
        lambda stage: stage.run(),
        lambda stage, place: stage.check(place),
        modules=MODULES if places == "opcodes" else ["iocancel"],
        places=places,
        step=STEPS[places] * (LIBAIO if places == "opcodes" and pool.current.name == "libaio" else 1),
        spared=["__del__"],  # there Python itself swallows it
    )
    assert swept.places > (50 if places == "opcodes" else 1)


@pytest.mark.parametrize("places", ["opcodes", "signals"])
def test_ctrl_c_at_each_place_of_a_sleep(engine_pool: Any, places: Any) -> None:
    def check(_: Any, place: str) -> None:
        whole()

    interrupt_everywhere(
        warm,
        lambda _: iocancel.sleep(0.0005),
        check,
        modules=MODULES if places == "opcodes" else ["iocancel"],
        places=places,
        step=STEPS[places] * (LIBAIO if places == "opcodes" and pool.current.name == "libaio" else 1),
        spared=["__del__"],  # there Python itself swallows it
    )
    with move_on_after(SHORT) as inside:
        iocancel.sleep(BOUND)
    assert inside.cancelled_caught


@pytest.mark.usefixtures("engine_pool")
def test_what_was_written_is_told_where_a_write_of_much_is_interrupted() -> None:
    """`sent` is how much the peer gets, whichever instruction the interrupt comes at."""
    data = bytes(range(1, 256)) * 300

    class Sending:
        def __init__(self) -> None:
            self.peer, self.fd = os.pipe()
            os.set_blocking(self.fd, False)
            self.sent = -1
            self.got = bytearray()
            self.engine = warm()
            real = self.engine._carrier.go

            def go(batch: Any, wait: bool, timeout: float | None) -> None:
                real(batch, False, 0)
                self.got += drain(self.peer)
                if wait:
                    real(None, wait, timeout)

            self.engine._carrier.go = go

        def run(self) -> None:
            try:
                iocancel.write_all(self.fd, data, timeout=BOUND)
            except Interruption as error:
                self.sent = getattr(error, "sent", 0)
                raise
            self.sent = len(data)

        def check(self, place: str) -> None:
            del self.engine._carrier.go
            self.got += drain(self.peer)
            os.close(self.peer)
            os.close(self.fd)
            whole()
            assert self.got == data[: len(self.got)]
            assert self.sent == len(self.got), place

    interrupt_everywhere(
        Sending,
        Sending.run,
        Sending.check,
        modules=["iocancel"],
        places="signals",
        step=5 * STEPS["signals"],
        spared=["__del__"],  # there Python itself swallows it
    )
