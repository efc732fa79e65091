"""The end of a process, forks and collections: rule 2 holds there, too."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from iocancel import open_engine
from iocancel.doctor.machine import is_glibc

from ..support import BOUND
from .helpers import C, F, X, need_stopping, need_verbs

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def polls(name: str) -> bool:
    """Whether an engine can poll, and can stop that."""
    with open_engine(name) as engine:
        return bool(engine.supports("poll"))


START = """
engine = iocancel.open_engine(name)
import select
r, w = os.pipe()
polls = engine.supports("poll")
op = engine.poll(r, select.POLLIN) if polls else engine.read(r, 1)
engine.submit()
"""


def test_an_engine_that_was_never_closed(name: str, run: Run) -> None:
    done = run(name, START, "-W", "always")
    assert done.returncode == 0
    assert "ResourceWarning: unclosed" in done.stderr
    assert "at exit" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_it_had_ends_at_exit(name: str, run: Run) -> None:
    # What is registered first is called last: iocancel registers when an engine is opened.
    head = "import atexit\natexit.register(lambda: print(op.outcome))\n"
    done = run(name, head + START, "-W", "ignore")
    # A read of a pipe that runs is not stopped by glibc's POSIX AIO: it is given up, and its memory kept.
    outcome = X if polls(name) or not is_glibc() else F
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{outcome}\n", "")


def test_a_closed_one_says_nothing(name: str, run: Run) -> None:
    done = run(name, START + "os.write(w, b'x')\nop.wait()\nengine.close()\n", "-W", "error", "-X", "dev")
    # The pipe's ends are numbers: nobody warns of those.
    assert (done.returncode, done.stderr) == (0, "")


def test_an_exception_at_the_end_of_a_program(name: str, run: Run) -> None:
    done = run(name, START + "raise SystemExit(7)\n", "-W", "ignore")
    assert (done.returncode, done.stderr) == (7, "")


def test_a_thread_that_waits_at_exit(name: str, run: Run) -> None:
    """A daemon thread leads when the interpreter ends: it is freed, and the end does not hang."""
    program = """
thread = threading.Thread(target=op.wait, daemon=True)
thread.start()
while engine._lead_thread != thread.ident:
    os.sched_yield()
"""
    done = run(name, START + program, "-W", "ignore")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_forked_child(engine: Any, pipe: tuple[int, int]) -> None:
    """It can neither use the engine nor disturb it."""
    need_verbs(engine, "read")
    op = engine.read(pipe[0], 4)
    engine.submit()
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(tell, in_child(engine, op).encode())
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(tell)
    with open(told) as said:
        assert said.read() == "RuntimeError " * 8 + "closed"
    assert not op.done()
    assert engine.in_flight == 1
    os.write(pipe[1], b"data")
    assert op.wait() is C
    assert op.result() == b"data"


def in_child(engine: Any, op: Any) -> str:
    """What each call does there."""
    said = []
    for call in (
        lambda: engine.read(0, 1),
        engine.submit,
        engine.reap,
        engine.cancel_all,
        lambda: engine.cancel([op]),
        lambda: engine.cancel_fd(0),
        lambda: engine.close_fd(0),
        lambda: op.wait(1.0),
    ):
        try:
            call()
            said.append("nothing")
        except Exception as error:  # noqa: BLE001 - told by its name
            said.append(type(error).__name__)
    op.cancel()
    engine.close()
    said.append("closed" if engine.closed else "open")
    return " ".join(said)


def test_a_child_that_goes_through_its_own_end(name: str, run: Run) -> None:
    """Its finalizers and exit handlers leave the parent's operations alone, and say nothing."""
    program = """
pid = os.fork()
if pid:
    assert os.waitpid(pid, 0)[1] == 0
    assert not op.done()
    os.write(w, b"x")
    assert op.wait() is iocancel.Outcome.COMPLETED
    assert op.result() == select.POLLIN if polls else b"x"
    engine.close()
    print("parent")
else:
    del op, engine
    gc.collect()
"""
    done = run(name, START + program, "-W", "error")
    assert (done.returncode, done.stdout, done.stderr) == (0, "parent\n", "")


def test_a_child_opens_its_own(name: str, run: Run) -> None:
    program = """
pid = os.fork()
if not pid:
    with iocancel.open_engine(name) as own:
        mine = own.poll(r, select.POLLIN)
        own.submit()
        mine.cancel()
        assert mine.wait() is iocancel.Outcome.CANCELLED
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert not op.done()
engine.close()
"""
    if name == "posix_aio":
        pytest.skip("glibc's POSIX AIO does not survive a fork (facts 6.8)")
    done = run(name, START + program, "-W", "error")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_parent_closes_while_a_child_lives(engine: Any, pipe: tuple[int, int]) -> None:
    """The child keeps nothing of the parent's engine alive (facts 5.6)."""
    need_stopping(engine, "poll")
    op = engine.poll(pipe[0], select.POLLIN)
    engine.submit()
    hold, release = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(release)
        os.read(hold, 1)
        os._exit(0)
    os.close(hold)
    try:
        engine.close(BOUND)
        assert op.outcome is X
    finally:
        os.close(release)
        os.waitpid(pid, 0)
