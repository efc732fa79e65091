"""The engine on POSIX AIO: close, collect, exit, fork, and Ctrl-C wherever it may come."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from iocancel import CancelTooLate, EngineUnavailable, Outcome
from iocancel.engines.posix_aio import PosixAioEngine, lines
from iocancel.operation.operation import IN_FLIGHT

from ..support import BOUND, GUEST, open_fds, until
from ..uring.stage import Bomb, played, swept
from .posix_aio_stage import ends, engine, gone, nothing_left_behind, only_glibc, runs, sibling

__all__ = ["ends", "engine", "nothing_left_behind"]

Ends = Callable[[], tuple[int, int]]


def test_close_leaves_no_fd_behind(ends: Ends) -> None:
    read_end, write_end = ends()
    before = open_fds()
    engine = PosixAioEngine()
    os.write(write_end, b"x")
    assert engine.read(read_end, 1).wait() is Outcome.COMPLETED
    waits = [engine.read(read_end, 1) for _ in range(3)]
    engine.close()  # these were never started
    assert [op.outcome for op in waits] == [Outcome.CANCELLED] * 3
    assert open_fds() == before
    engine.close()
    with pytest.raises(ValueError, match="closed"):
        engine.read(read_end, 1)


@only_glibc
def test_what_runs_on_past_the_bound(ends: Ends) -> None:
    """It fails, its memory and its number are kept until it ends, and a warning says so."""
    read_end, write_end = ends()
    buffer = bytearray(4)
    engine = PosixAioEngine()
    op = engine.read(read_end, buffer)
    held = engine.read(read_end, 1)
    engine.submit()
    runs(op)
    with pytest.warns(ResourceWarning, match="1 operations still ran"):
        engine.close(0.05)
    assert held.outcome is Outcome.CANCELLED
    assert op.outcome is Outcome.FAILED
    with pytest.raises(CancelTooLate):
        op.result()
    assert lines.sweep() == 1
    with pytest.raises(BufferError):
        buffer.append(0)
    del engine, held
    os.close(read_end)  # its own number is another one
    os.write(write_end, b"late")
    until(lambda: lines.sweep() == 0, "its end")
    assert bytes(buffer) == b"late"
    gc.collect()
    buffer.append(0)
    assert op.outcome is Outcome.FAILED, "it is alive, and has no hold of the buffer"


@only_glibc
def test_a_closing_that_was_cut_short_still_tells_what_runs_on(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_end, write_end = ends()
    buffer = bytearray(4)
    engine = PosixAioEngine()
    op = engine.read(read_end, buffer)
    engine.submit()
    runs(op)

    def cut_short(*_: Any) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(engine._carrier, "_wait", cut_short)
    with pytest.raises(KeyboardInterrupt):
        engine.close(0.05)
    with pytest.warns(ResourceWarning, match="1 operations still ran"):
        engine.close(0.05)
    with pytest.raises(BufferError):
        buffer.append(0)
    os.write(write_end, b"late")
    until(lambda: lines.sweep() == 0, "its end")
    gc.collect()
    buffer.append(0)
    assert op.outcome is Outcome.FAILED


@only_glibc
def test_close_waits_for_what_runs(ends: Ends) -> None:
    read_end, write_end = ends()
    engine = PosixAioEngine()
    op = engine.read(read_end, 4)
    engine.submit()
    runs(op)
    os.write(write_end, b"data")
    engine.close(BOUND)
    assert op.result() == b"data"


def test_collected_without_a_close(ends: Ends) -> None:
    read_end, write_end = ends()
    engine = PosixAioEngine()
    engine.read(read_end, 4)
    os.write(write_end, b"data")  # also where it was started, it ends
    held = [engine]
    del engine

    def drop() -> None:
        held.clear()
        gc.collect()

    with pytest.warns(ResourceWarning, match="unclosed <posix_aio engine"):
        drop()


@only_glibc
def test_at_exit() -> None:
    """It ends, though what runs can't be stopped, and says what was left."""
    done = sibling(
        """
import os, time
from iocancel import open_engine
r, w = os.pipe()
engine = open_engine("posix_aio")
ops = [engine.read(r, 4) for _ in range(2)]
engine.submit()
while b"pipe" not in open("/proc/self/wchan").read().encode() and not any(
    open(f"/proc/self/task/{t}/syscall").read().split()[1:2] == [hex(ops[0]._entry.line.number)]
    for t in os.listdir("/proc/self/task")
):
    os.sched_yield()
""",
        "-W",
        "always",
    )
    assert done.returncode == 0, done.stderr
    assert "still ran" in done.stderr
    assert "unclosed <posix_aio engine" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_forked_child(engine: PosixAioEngine, ends: Ends) -> None:
    """It has none of it, opens no engine of this kind, and keeps no file of the parent's open."""
    read_end, write_end = ends()
    op = engine.read(read_end, 4)
    engine.submit()
    pid = os.fork()
    if not pid:
        code = 1
        with contextlib.suppress(BaseException):
            code = child(engine, op, read_end, write_end)
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    os.write(write_end, b"data")
    assert op.wait() is Outcome.COMPLETED


def child(engine: PosixAioEngine, op: Any, read_end: int, write_end: int) -> int:
    for call in (lambda: engine.read(read_end, 1), engine.submit, op.wait):
        try:
            call()
        except RuntimeError:
            continue
        return 2
    engine.close()
    try:
        PosixAioEngine()
    except EngineUnavailable as error:
        if "spawn" not in error.remedy or "fork" not in error.reason:
            return 3
    else:
        return 4
    pipes = [to for to in open_fds().values() if to == os.readlink(f"/proc/self/fd/{read_end}")]
    return 0 if len(pipes) == 2 else 5


def test_a_forked_child_in_which_it_was_not_used() -> None:
    done = sibling(
        """
import os
from iocancel import open_engine
engine = open_engine("posix_aio")
pid = os.fork()
r, w = os.pipe()
os.write(w, b"x")
if not pid:
    with open_engine("posix_aio") as mine:
        op = mine.read(r, 1)
        assert op.wait().value == "completed"
        print(op.result(), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
engine.close()
"""
    )
    assert done.stdout == "b'x'\n", done.stderr


# Where an interrupt is not this engine's: in finalizers, which swallow it, in the bindings' own sweeping (it
# may cost an eventfd), and where Core gives up its lead.
SPARED = ("__del__", "running", "error", "settle", "sweep", "_sweep", "_leave")


def places(step: int) -> range:
    """Each third place: the sweep takes seconds otherwise; fewer in an emulated guest."""
    return range(0, 1 << 20, step * 9 if GUEST else step)


class Scene:
    """An engine, two pipes, four reads, and what has become of them."""

    def __init__(self) -> None:
        self.engine = PosixAioEngine()
        self.pipes = [os.pipe(), os.pipe()]
        self.ops: list[Any] = []

    def prepare(self) -> None:
        for read_end, _ in self.pipes:
            self.ops += [self.engine.read(read_end, 4), self.engine.read(read_end, 4)]

    def feed(self) -> None:
        for _, write_end in self.pipes:
            os.write(write_end, b"data" * 2)

    def settled(self, stopped: int) -> None:
        """All have ended; nothing was lost, done twice, or leaked."""
        self.engine.wait(self.ops, BOUND)
        assert not self.engine.in_flight
        cancelled = sum(op.cancelled() for op in self.ops)
        assert cancelled <= stopped
        assert {op.outcome for op in self.ops} <= {Outcome.COMPLETED, Outcome.CANCELLED}
        came = [op.result() for op in self.ops if not op.cancelled()]
        assert set(came) <= {b"data"}
        for read_end, _ in self.pipes:
            os.set_blocking(read_end, False)
        left = 0
        for read_end, _ in self.pipes:
            with contextlib.suppress(BlockingIOError):
                left += len(os.read(read_end, 99))
        assert 4 * len(came) + left == 16, "bytes were lost"

    def close(self) -> None:
        for read_end, write_end in self.pipes:
            os.close(write_end)  # lets go who still reads
            os.close(read_end)
        self.engine.close()


def submit(scene: Scene, bomb: Bomb) -> int:
    scene.prepare()
    with contextlib.suppress(KeyboardInterrupt), bomb:
        scene.engine.submit()
    for op in scene.ops:
        if op.state == IN_FLIGHT:
            assert op._entry.taken
    scene.engine.submit()
    scene.feed()
    return 0


def wait(scene: Scene, bomb: Bomb) -> int:
    scene.prepare()
    scene.feed()
    with contextlib.suppress(KeyboardInterrupt), bomb:
        scene.engine.wait(scene.ops)
    return 0


def cancel(scene: Scene, bomb: Bomb) -> int:
    scene.prepare()
    scene.engine.submit()
    with contextlib.suppress(KeyboardInterrupt), bomb:
        scene.engine.cancel([scene.ops[1], scene.ops[2]])
    scene.feed()
    return 2


def timeouts(scene: Scene, bomb: Bomb) -> int:
    scene.prepare()
    scene.feed()
    scene.ops += [scene.engine.timeout(0.0), scene.engine.timeout(1000)]
    with contextlib.suppress(KeyboardInterrupt), bomb:
        scene.engine.submit()
        scene.engine.cancel([scene.ops[-1]])
    scene.ops[-1].cancel()
    short, long = scene.ops[-2:]
    del scene.ops[-2:]
    assert short.wait() is Outcome.COMPLETED
    assert long.wait() is Outcome.CANCELLED
    return 0


@pytest.mark.parametrize("act", [submit, wait, cancel, timeouts], ids=lambda act: act.__name__)
def test_an_interrupt_loses_and_repeats_nothing(act: Callable[[Scene, Bomb], int]) -> None:
    before = open_fds()
    for nth in places(3):
        scene, bomb = Scene(), Bomb(nth, spared=SPARED)
        with played(scene, bomb):
            scene.settled(act(scene, bomb))
        del scene
        assert open_fds() == before or until_gone(before), f"an fd was left after {bomb.place}"
        if not bomb.place:
            swept(nth)
            return


def until_gone(before: dict[str, str]) -> bool:
    gc.collect()
    until(lambda: gone() and open_fds() == before, "all fds are closed")
    return True


def test_an_interrupted_close_closes_all_the_same() -> None:
    before = open_fds()
    for nth in places(3):
        scene, bomb = Scene(), Bomb(nth, spared=SPARED)
        scene.prepare()
        scene.engine.submit()
        scene.feed()
        with played(scene, bomb):
            with contextlib.suppress(KeyboardInterrupt), bomb:
                scene.engine.close()
            scene.engine.close()
        del scene
        until_gone(before)
        if not bomb.place:
            swept(nth)
            return


def test_an_engine_without_an_end_is_no_loop(engine: PosixAioEngine) -> None:
    """Nothing in the C library: a wait lasts as long as it was asked to, without looking now and then."""
    polls = []
    listen = engine._carrier._listen
    engine._carrier._listen = lambda seconds: (polls.append(seconds), listen(seconds))  # type: ignore[method-assign, assignment, func-returns-value]
    before = time.monotonic()
    assert engine.timeout(0.3).wait() is Outcome.COMPLETED
    assert time.monotonic() - before >= 0.3
    assert len(polls) < 8
