"""What the tests of streams and files share."""

from __future__ import annotations

import gc
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import iocancel
from iocancel import EngineUnavailable, pool
from iocancel.pool import Pool
from iocancel.scope import local

from ..support import open_fds

BOUND = 60.0  # seconds until something is taken to hang
GUEST = os.environ.get("IOCANCEL_GUEST") == "1"


@pytest.fixture(params=["uring", "libaio"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """Blocking calls go to this engine; nothing is left of them at the end."""
    try:
        iocancel.open_engine(request.param).close()
    except EngineUnavailable as error:
        pytest.skip(str(error))
    mine = Pool(request.param)
    monkeypatch.setattr(pool, "current", mine)
    fds, threads = open_fds(), set(threading.enumerate())
    try:
        yield mine
        gc.collect()
        assert not set(threading.enumerate()) - threads, "a thread was left running"
        assert local.here.calls == []
        assert mine.idle == len(mine), "an engine did not come back"
        assert mine.stuck == 0
        for lent in list(mine._free):
            assert lent.in_flight == 0
    finally:
        mine.close()
    gc.collect()
    left = {number: to for number, to in open_fds().items() if fds.get(number) != to}
    left = {number: to for number, to in left.items() if "io_uring" not in to}  # let go of a little later
    assert not left, f"fds left open: {left}"


class Thread(threading.Thread):
    """A call in a thread of its own; `ended()` gives its value, or raises what it raised."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.value: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.value = self._call()
        except BaseException as error:  # noqa: BLE001 - raised again by ended()
            self.error = error

    def ended(self) -> Any:
        self.join(BOUND)
        assert not self.is_alive(), "it hangs"
        if self.error is not None:
            raise self.error
        return self.value


def when_waiting(mine: Pool) -> None:
    """Wait until a call waits in the kernel: an engine is lent, and has something in flight."""
    until = threading.Event()
    for _ in range(int(BOUND / 0.001)):
        lent = [each for ref in list(mine._all) if (each := ref()) is not None]
        if any(each.in_flight for each in lent):
            return
        until.wait(0.001)
    raise AssertionError("nothing waits")


class Pipe:
    """A pipe whose ends are closed at the end, but for those that somebody owns."""

    def __init__(self) -> None:
        self.r, self.w = os.pipe()

    def put(self, data: bytes) -> None:
        os.write(self.w, data)

    def close_write(self) -> None:
        fd, self.w = self.w, -1
        if fd >= 0:
            os.close(fd)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe; the test owns its read end."""
    made = Pipe()
    yield made
    made.close_write()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets; closing one twice does no harm."""
    a, b = socket.socketpair()
    yield a, b
    a.close()
    b.close()
