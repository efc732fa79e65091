"""Closing an engine while another thread is inside it: a call, a turn, a callback. Orders are forced."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support import BOUND
from .helpers import C, X, need_verbs


class Between(deque[Any]):
    """What is staged: `then` comes between an operation's staging and its call's return."""

    def __init__(self, then: Callable[[Any], None]) -> None:
        super().__init__()
        self._then = then

    def append(self, op: Any) -> None:
        super().append(op)
        self._then(op)


def elsewhere(act: Callable[[], object]) -> None:
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


@contextlib.contextmanager
def inside(act: Callable[[], object]) -> Iterator[None]:
    """A thread is at it during the block, which lets it go on."""
    thread = threading.Thread(target=act)
    thread.start()
    yield
    thread.join(BOUND)
    assert not thread.is_alive()


def refused(act: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="closed"):
        act()


@pytest.mark.parametrize("handed", [True, False])
def test_an_operation_that_the_closing_has_seen_is_its_callers(
    handed: bool, engine: Any, pipe: tuple[int, int]
) -> None:
    """Another thread closes the engine while a call makes an operation: what came by it is not lost."""
    need_verbs(engine, "read")

    def close(op: Any) -> None:
        if handed:
            engine.submit()
            assert op.wait(BOUND) is C
        engine.close()

    os.write(pipe[1], b"data")
    buffer = bytearray(8)
    engine._staged = Between(lambda op: elsewhere(lambda: close(op)))
    op = engine.read(pipe[0], buffer)
    if handed:
        assert op.result() == 4
        assert buffer[:4] == b"data"
    else:
        assert op.outcome is X
        assert os.read(pipe[0], 8) == b"data"
    buffer.append(0)


def test_an_operation_that_the_closing_has_not_seen_is_refused(engine: Any, pipe: tuple[int, int]) -> None:
    need_verbs(engine, "read")
    buffer = bytearray(8)
    prepare = engine._carrier.prepare

    def close(op: Any, *args: Any) -> None:
        prepare(op, *args)
        elsewhere(engine.close)

    engine._carrier.prepare = close
    with pytest.raises(ValueError, match="closed"):
        engine.read(pipe[0], buffer)
    assert engine.in_flight == 0
    buffer.append(0)


def test_a_leader_that_comes_back_late_hands_nothing_over(engine: Any, pipe: tuple[int, int]) -> None:
    """Nor what has entered behind the closing's look: it ends, its byte stays where it was."""
    need_verbs(engine, "read")
    os.write(pipe[1], b"data")
    buffer = bytearray(8)
    prepare, ready = engine._carrier.prepare, engine._ready
    prepared, leads, closed, staged, dropped = (threading.Event() for _ in range(5))
    made: list[Any] = []

    def prepare_slowly(op: Any, *args: Any) -> None:
        prepare(op, *args)
        prepared.set()
        assert closed.wait(BOUND)

    def stay(_: Any) -> None:
        staged.set()
        assert dropped.wait(BOUND)

    def look_late() -> Any:
        leads.set()
        assert staged.wait(BOUND)
        return ready()

    first = engine.read(pipe[0], 8)
    engine._staged = Between(stay)
    deque.append(engine._staged, first)
    engine._carrier.prepare = prepare_slowly
    engine._ready = look_late
    with inside(lambda: made.append(engine.read(pipe[0], buffer))):
        assert prepared.wait(BOUND)
        with inside(lambda: refused(engine.submit)):
            assert leads.wait(BOUND)
            engine.close(0.05)
            closed.set()
        dropped.set()
    assert {first.outcome, made[0].outcome} == {X}
    assert os.read(pipe[0], 8) == b"data"
    buffer.append(0)


def test_what_had_ended_by_itself_still_says_how(engine: Any, tmp_path: Path) -> None:
    """It is in the ledger while its callback runs."""
    need_verbs(engine, "read")
    called, over = threading.Event(), threading.Event()
    with open(tmp_path / "file", "wb") as file:
        op = engine.read(file.fileno(), 8)

        def stay(_: Any) -> None:
            called.set()
            assert over.wait(BOUND)

        op.add_done_callback(stay)
        with inside(op.wait):
            assert called.wait(BOUND)
            engine.close(0.05)
            over.set()
    with pytest.raises(OSError, match="Bad file descriptor"):
        op.result()


@pytest.mark.filterwarnings("ignore:.*still ran when:ResourceWarning")
def test_connections_that_come_while_it_is_closed(engine: Any) -> None:
    """One that its caller has stays open; one that nobody will hear of is closed."""
    need_verbs(engine, "accept")
    called, over = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ops = [engine.accept(listener) for _ in range(2)]
        engine.submit()

        def stay(_: Any) -> None:
            called.set()
            assert over.wait(BOUND)

        ops[0].add_done_callback(stay)
        peers = [socket.create_connection(listener.getsockname(), BOUND) for _ in ops]
        with inside(ops[0].wait):
            assert called.wait(BOUND)
            engine.close(0.05)
            over.set()
        ours: list[Any] = []
        for op in ops:
            with contextlib.suppress(OSError):
                ours.append(op.result()[0])
        del ops, op
        assert ours, "the first had ended"
        for each in ours:
            each.sendall(b"1")
        for number, peer in enumerate(peers):
            try:
                assert peer.recv(1) == (b"1" if number < len(ours) else b"")
            except ConnectionResetError:
                assert number >= len(ours)
            peer.close()
        for each in ours:
            each.close()


def test_a_closing_that_was_cut_short_is_gone_on_with(engine: Any, pipe: tuple[int, int]) -> None:
    """By whoever calls close(), also while the exception is kept."""
    need_verbs(engine, "read")
    engine.read(pipe[0], 8)
    close = engine._carrier.close
    kept: list[BaseException] = []

    def cut_short(*_: Any) -> bool:
        engine._carrier.close = close
        raise KeyboardInterrupt

    def closer() -> None:
        try:
            engine.close()
        except KeyboardInterrupt as error:
            kept.append(error)

    engine._carrier.close = cut_short
    elsewhere(closer)
    assert kept
    assert engine._state == "closing"
    engine.close(None)
    assert engine._state == "closed"
