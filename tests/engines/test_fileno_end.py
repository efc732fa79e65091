"""Engines in an event loop: their end, and what only one kind of engine has."""

from __future__ import annotations

import errno
import os
import re
import select
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iocancel._native import lib
from iocancel.engines.libaio import LibaioEngine
from iocancel.engines.uring import UringEngine
from iocancel.engines.uring import carrier as uring_carrier
from iocancel.testing import ScriptedEngine

from ..contract.conftest import name as name
from ..contract.conftest import nothing_left_behind as nothing_left_behind
from ..contract.conftest import opened
from ..support import BOUND, until
from .fileno_stage import Loop, end_read
from .fileno_stage import engine as engine
from .fileno_stage import loop as loop
from .fileno_stage import looping as looping

# The end


def test_the_file_is_the_same_and_closed_with_the_engine(name: str, pipe: tuple[int, int]) -> None:
    with opened(name) as engine, select.epoll() as epoll:
        fd = engine.fileno()
        assert engine.fileno() == fd
        assert not os.get_inheritable(fd)
        epoll.register(fd, select.EPOLLIN)
        op = engine.read(pipe[0], 1)
        engine.submit()
        os.write(pipe[1], b"a")
        engine.close()
        assert op.done()
        with pytest.raises(ValueError, match="closed"):
            engine.fileno()
        assert engine.alarm() is None
        # Nobody has the file any more: epoll has forgotten it, and the number is free for another one.
        assert epoll.poll(0) == []
        with pytest.raises(OSError, match="Bad file") as caught:
            epoll.unregister(fd)
        assert caught.value.errno == errno.EBADF
        op.cancel()  # late: it must not write to anybody


def test_a_close_with_something_in_flight(name: str, pipe: tuple[int, int]) -> None:
    with opened(name) as engine, select.epoll() as epoll:
        epoll.register(engine.fileno(), select.EPOLLIN)
        ops = [engine.read(pipe[0], 1), engine.timeout(3600.0)]
        engine.submit()
        end_read(engine, ops[0], pipe[1])
        engine.close()
        assert all(op.done() for op in ops)
        assert epoll.poll(0) == []
        assert engine.alarm() is None


def test_in_a_child_it_is_the_parents(engine: Any, loop: Loop) -> None:
    op = engine.timeout(3600.0)
    engine.submit()
    child = os.fork()
    if not child:
        good = False
        try:
            engine.fileno()
        except RuntimeError:
            good = engine.alarm() is None
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    engine._carrier.wake()
    assert loop.epoll.poll(BOUND), "the child has taken the parent's with it"
    op.cancel()
    loop.run(op)
    loop.rest()


def test_a_pooled_engine_of_libaio_has_none() -> None:
    with LibaioEngine(8, pooled=True) as engine, pytest.raises(RuntimeError, match="pooled"):
        engine.fileno()


# What only one has


def test_what_finds_no_room(
    looping: Callable[[Any], Loop], pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """libaio: nothing tells when there is room again, so the alarm does."""
    with opened("libaio") as engine:
        loop = looping(engine)
        loop.rest()
        room = engine._carrier._contexts.room
        asked = []

        def none_yet() -> Any:
            asked.append(1)
            return None if len(asked) < 5 else room()

        monkeypatch.setattr(engine._carrier._contexts, "room", none_yet)
        op = engine.read(pipe[0], 1)
        engine.submit()
        os.write(pipe[1], b"a")
        loop.run(op)
        assert op.result() == b"a"
        loop.rest()


def test_a_notification_that_never_comes(looping: Callable[[Any], Loop], pipe: tuple[int, int]) -> None:
    """posix_aio: the C library is asked now and then, and in a loop the alarm says when."""
    with opened("posix_aio") as engine:
        loop = looping(engine)
        loop.rest()
        op = engine.read(pipe[0], 1)
        engine.submit()
        loop.epoll.unregister(loop.fd)  # as if nothing were told
        os.write(pipe[1], b"a")
        loop.run(op)
        assert op.result() == b"a"
        assert loop.alarmed
        loop.epoll.register(loop.fd, select.EPOLLIN)
        loop.rest()


@pytest.mark.parametrize(("room", "watched"), [(1, False), (1024, True)])
def test_an_event_between_the_look_and_the_bell(
    pipes: Callable[[], tuple[int, int]], monkeypatch: pytest.MonkeyPatch, room: int, watched: bool
) -> None:
    """libaio: what rings (in a further context, in any where a loop watches) and comes behind the look is not
    hidden by clearing the bell."""
    with opened("libaio", nr_events=room) as engine:
        carrier = engine._carrier
        contexts, wake = carrier._contexts, carrier._wake.fd
        if watched:
            engine.fileno()
            engine.reap(0)
        files = [pipes() for _ in range(3)]
        ops = [engine.read(source, 1) for source, _ in files]
        engine.submit()
        assert len(contexts.all) == (2 if room == 1 else 1)
        reap, late = contexts.reap, [files[2][1]]

        def reap_and_ring(wait: bool, timeout: float | None) -> None:
            reap(wait, timeout)
            if wait and late:
                until(lambda: carrier._rung() or reap(False, 0), "the bell has fired")
                before = count(wake)
                os.write(late.pop(), b"c")
                until(lambda: count(wake) > before, "the event of the other one is there")

        monkeypatch.setattr(contexts, "reap", reap_and_ring)
        os.write(files[1][1], b"b")
        ops[1].wait()
        assert not late
        assert ops[2].done(), "its event rang, and nobody looked"
        os.write(files[0][1], b"a")
        ops[0].wait()


def count(fd: int) -> int:
    """How often an eventfd was written to since it was read."""
    found = re.search(r"eventfd-count:\s*([0-9a-f]+)", Path(f"/proc/self/fdinfo/{fd}").read_text())
    assert found
    return int(found[1], 16)


def test_a_wake_up_that_the_kernel_does_not_take(
    uring: UringEngine, looping: Callable[[Any], Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """io_uring: without memory the poll of the wake-up is not taken; the alarm says when to try again."""
    loop = looping(uring)
    loop.rest()
    assert uring.alarm() is None

    class Short:
        def __getattr__(self, name: str) -> Any:
            return (lambda *_: -errno.EAGAIN) if name == "ioc_poll_one" else getattr(lib, name)

    monkeypatch.setattr(uring_carrier, "lib", Short())
    uring._carrier.wake()
    assert loop.once()
    assert uring.alarm() is not None
    monkeypatch.undo()
    assert loop.once()
    assert uring.alarm() is None
    uring._carrier.wake()
    assert loop.epoll.poll(BOUND), "nobody polls the wake-up"
    loop.rest()


def test_the_scripted_engine_rings(looping: Callable[[Any], Loop]) -> None:
    with ScriptedEngine() as engine:
        early = engine.read(3, 10)
        engine.submit()
        engine.complete(early, b"early")
        loop = looping(engine)
        loop.run(early)
        loop.rest()
        ops = [engine.read(3, 10) for _ in range(3)]
        engine.submit()
        loop.rest()
        engine.complete(ops[0], b"one")
        loop.run(ops[0])
        ops[1].cancel()
        loop.run(ops[1])
        assert ops[1].cancelled()
        with engine.hold():
            engine.complete(ops[2], b"two")
            loop.rest()
            assert not ops[2].done()
        loop.run(ops[2])
        assert ops[2].result() == b"two"
        loop.rest()
