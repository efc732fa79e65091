"""The pool: what can't be stopped, signals, and interpreters that end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import iocancel
from iocancel import CancelScope, CancelTooLate
from iocancel.operation.operation import TOO_LATE
from iocancel.pool import Pool

from .helpers import (
    BOUND,
    SHORT,
    Waits,
    meanwhile,
    until,
    warm,
    whole,
)

# What can't be stopped


def unstoppable(carrier: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system answers each cancel with EALREADY, and has no patience."""

    def cancel(ops: list[Any]) -> None:
        for op in ops:
            op._cancel = TOO_LATE

    monkeypatch.setattr(carrier, "cancel", cancel)
    monkeypatch.setattr(carrier, "stop", lambda op: False)
    monkeypatch.setattr(carrier, "patience", lambda op: 0.0)


def test_what_can_not_be_stopped_parks_its_engine(
    engine_pool: Pool, monkeypatch: pytest.MonkeyPatch, pipe: Any
) -> None:
    """The exception has the operation, which goes on; the next call takes another engine."""
    engine = warm()
    carrier = engine._carrier
    unstoppable(carrier, monkeypatch)
    with pytest.raises(CancelTooLate) as caught:
        iocancel.read(pipe[0], 10, timeout=SHORT)
    op = caught.value.operation  # type: ignore[attr-defined]
    assert not op.done()
    assert engine_pool.stuck == 1
    assert engine_pool.idle == 0
    with pytest.raises(TimeoutError):
        iocancel.recv(socketpair_end(), 1, timeout=SHORT)
    assert len(engine_pool) == 2, "the next call takes another one"
    monkeypatch.undo()
    os.write(pipe[1], b"late")
    waits = Waits()  # takes the one that is free; the next one looks at what was stuck
    assert op.wait(BOUND)
    assert op.result() == b"late"
    more = Waits()
    assert len(engine_pool) == 2
    assert engine_pool.stuck == 0
    for each in (waits, more):
        each.let_go()
    del op, caught
    whole()


ENDS: list[socket.socket] = []


def socketpair_end() -> socket.socket:
    ENDS.extend(socket.socketpair())
    return ENDS[0]


@pytest.fixture(autouse=True)
def no_ends() -> Iterator[None]:
    yield
    while ENDS:
        ENDS.pop().close()


class Late:
    """Writes to a pipe after a while, so that a test whose call does not end fails, and ends."""

    def __init__(self, fd: int) -> None:
        self._timer = threading.Timer(BOUND / 2, os.write, [fd, b"too late"])

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()


def test_a_cancelled_scope_does_not_wait_for_ever_for_what_can_not_be_stopped(
    engine_pool: Pool, monkeypatch: pytest.MonkeyPatch, pipe: Any
) -> None:
    carrier = warm()._carrier
    unstoppable(carrier, monkeypatch)
    began = time.monotonic()
    # Else the test would never end.
    with (
        Late(pipe[1]),
        pytest.raises(CancelTooLate) as caught,
        CancelScope() as inside,
        meanwhile(inside.cancel),
    ):
        iocancel.read(pipe[0], 10)
    assert time.monotonic() < began + BOUND / 2
    op = caught.value.operation  # type: ignore[attr-defined]
    monkeypatch.undo()
    os.write(pipe[1], b"late")
    assert op.wait(BOUND)
    assert op.result() == b"late"
    waits = Waits()
    assert engine_pool.stuck == 0
    waits.let_go()
    del op, caught
    whole()


def test_write_all_says_how_much_also_where_it_can_not_be_stopped(
    engine_pool: Pool, monkeypatch: pytest.MonkeyPatch, pipe: Any
) -> None:
    from .case import drain, fill

    fill(pipe[1])
    carrier = warm()._carrier
    unstoppable(carrier, monkeypatch)
    with pytest.raises(CancelTooLate) as caught:
        iocancel.write_all(pipe[1], b"late", timeout=SHORT)
    assert caught.value.sent == 0  # type: ignore[attr-defined]
    op = caught.value.operation  # type: ignore[attr-defined]
    monkeypatch.undo()
    drain(pipe[0])
    assert op.wait(BOUND)
    waits = Waits()
    waits.let_go()
    del op, caught
    whole()


# Signals


def test_a_signal_just_before_the_kernel_is_entered(engine_pool: Pool, handler: Any, pipe: Any) -> None:
    """Python has looked for the last time: only the wake-up tells of it, and the wait ends at once."""
    carrier = warm()._carrier
    real = carrier.go
    called: list[int] = []

    def enter(*args: Any) -> None:
        if not called and args[1]:
            # The signal comes to a thread without a look of this one: it is all C from here on.
            thread = threading.Thread(target=signal.raise_signal, args=[signal.SIGUSR1])
            thread.start()
            thread.join()
        real(*args)

    def act() -> None:
        called.append(1)
        os.write(pipe[1], b"x")

    handler(act)
    carrier.go = enter
    try:
        assert iocancel.read(pipe[0], 1, timeout=BOUND) == b"x"
    finally:
        del carrier.go
    assert called


def test_signals_go_on_to_whoever_was_to_be_told(engine_pool: Pool, handler: Any, pipe: Any) -> None:
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        handler(lambda: None)
        was = signal.set_wakeup_fd(b.fileno())
        try:

            def act() -> None:
                signal.raise_signal(signal.SIGUSR1)
                os.write(pipe[1], b"x")

            with meanwhile(act):
                assert iocancel.read(pipe[0], 1, timeout=BOUND) == b"x"
            assert a.recv(100) == bytes([signal.SIGUSR1])
        finally:
            assert signal.set_wakeup_fd(was) == b.fileno(), "it was put back"


def test_a_signal_with_the_last_completion_goes_on_at_once(
    engine_pool: Pool, handler: Any, pipe: Any
) -> None:
    """It comes when the operation has ended, and the engine does not look any more."""
    a, b = socket.socketpair()
    carrier = warm()._carrier
    real = carrier.go
    sent = []

    def enter(batch: Any, wait: bool, timeout: float | None) -> None:
        if batch is not None:
            real(batch, False, 0)
            os.write(pipe[1], b"x")
            real(None, True, timeout)
            while not carrier.records():
                real(None, True, timeout)
            signal.raise_signal(signal.SIGUSR1)
            sent.append(1)
        else:
            real(batch, wait, timeout)

    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        handler(lambda: None)
        was = signal.set_wakeup_fd(b.fileno())
        carrier.go = enter
        try:
            assert iocancel.read(pipe[0], 1, timeout=BOUND) == b"x"
        finally:
            del carrier.go
            assert signal.set_wakeup_fd(was) == b.fileno()
        assert sent
        assert a.recv(100) == bytes([signal.SIGUSR1])
    with pytest.raises(TimeoutError):
        iocancel.read(pipe[0], 1, timeout=SHORT)


def test_whoever_was_to_be_told_is_gone_meanwhile(engine_pool: Pool, pipe: Any) -> None:
    a, b = socket.socketpair()
    b.setblocking(False)
    with a:
        signal.set_wakeup_fd(b.fileno())

        def act() -> None:
            b.close()
            os.write(pipe[1], b"x")

        with meanwhile(act):
            assert iocancel.read(pipe[0], 1, timeout=BOUND) == b"x"
    assert signal.set_wakeup_fd(-1) == -1
    whole()


def test_a_handler_makes_a_call_of_its_own(engine_pool: Pool, handler: Any, pipes: Any) -> None:
    """Inside of another one, with an engine of its own."""
    outer, inner = pipes(), pipes()
    found = []

    def act() -> None:
        with pytest.raises(TimeoutError):
            iocancel.read(inner[0], 1, timeout=SHORT)
        os.write(inner[1], b"i")
        found.append(iocancel.read(inner[0], 1, timeout=BOUND))
        os.write(outer[1], b"o")

    handler(act)
    with meanwhile(lambda: signal.raise_signal(signal.SIGUSR1)):
        assert iocancel.read(outer[0], 1, timeout=BOUND) == b"o"
    assert found == [b"i"]
    assert len(engine_pool) == 2
    whole()


# Interpreters that end


def program(text: str, name: str) -> subprocess.Popen[str]:
    folder = str(Path(iocancel.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", text],
        env={**os.environ, "PYTHONPATH": folder, "IOCANCEL_ENGINE": name},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_interpreter_ends_while_a_daemon_thread_waits(engine_pool: Pool) -> None:
    text = """
import os, threading, iocancel
from iocancel import scope
read_end, write_end = os.pipe()
heres = []
def run():
    heres.append(scope.local.here)
    iocancel.read(read_end, 1)
    print("it came back")
threading.Thread(target=run, daemon=True).start()
while not (heres and heres[0].calls and heres[0].calls[0]._op is not None):
    os.sched_yield()
print("ends")
"""
    with program(text, engine_pool.name) as process:
        out, err = process.communicate(timeout=BOUND)
    assert (process.returncode, out, err) == (0, "ends\n", "")


def test_ctrl_c_of_a_program_that_waits(engine_pool: Pool) -> None:
    text = """
import os, iocancel
read_end, write_end = os.pipe()
iocancel.sleep(0)
print("waits", flush=True)
iocancel.read(read_end, 1)
"""
    with program(text, engine_pool.name) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        task = Path(f"/proc/{process.pid}/wchan")
        until(lambda: "futex" not in task.read_text() and len(task.read_text()) > 1, "it waits")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=BOUND)
    assert process.returncode in (-signal.SIGINT, 1, 130)
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert "ResourceWarning" not in err
    assert "Exception ignored" not in err
