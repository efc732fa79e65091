"""Instances of tracefs: made, and removed whatever happens."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from iocancel.testing.interrupts import interrupt_everywhere
from iocancel.trace import directories, mount, order
from iocancel.trace import tracefs as module
from iocancel.trace.tracefs import Instance, TracingUnavailable, remove_stale

from ..support import BOUND, GUEST, need, not_measured, python, until
from .marks import COMPLETE, MARKS, Marker, everything, traced

# Made and removed


def test_an_instance_is_there_within_its_block(tracefs: Path, instances: Path) -> None:
    with Instance(
        [MARKS, COMPLETE, "io_uring/not_there", "not/there", COMPLETE], tracefs=tracefs
    ) as instance:
        path = instance.path
        assert path is not None
        assert path.parent == instances
        assert path.name.startswith(f"iocancel-{os.getpid()}-")
        assert instance.missing == ["io_uring/not_there", "not/there"]
        assert [(fmt.system, fmt.name) for fmt in instance.formats] == [
            ("ftrace", "print"),
            ("io_uring", "io_uring_complete"),
        ]
        assert (path / "events" / COMPLETE / "enable").read_text().strip() == "1"
        assert "[mono]" in (path / "trace_clock").read_text()
        assert path.name in repr(instance)
    assert not path.exists()
    assert instance.path is None
    assert "closed" in repr(instance)
    instance.close()  # again
    instance.__exit__(None, None, None)


@pytest.mark.parametrize("error", [ValueError("of the body's"), KeyboardInterrupt(), SystemExit(2)])
def test_an_exception_removes_it(tracefs: Path, instances: Path, error: BaseException) -> None:
    paths = []

    def body() -> None:
        with traced(tracefs) as instance:
            paths.append(instance.path)
            raise error

    with pytest.raises(type(error)) as caught:
        body()
    assert caught.value is error
    [path] = paths
    assert path is not None
    assert not path.exists()


def test_many_at_a_time(tracefs: Path, instances: Path) -> None:
    with traced(tracefs) as one, traced(tracefs) as two, Marker(one) as first, Marker(two) as second:
        assert one.path != two.path
        first(1)
        second(2)
        assert first.numbers(everything(one, 1).records) == [1]
        assert second.numbers(everything(two, 1).records) == [2]


def test_it_is_entered_once(tracefs: Path, instances: Path) -> None:
    with traced(tracefs) as instance, pytest.raises(RuntimeError, match="entered once"):
        instance.__enter__()
    with pytest.raises(RuntimeError, match="entered once"):
        instance.__enter__()


def test_the_buffer_is_as_large_as_was_asked_for(tracefs: Path, instances: Path) -> None:
    with traced(tracefs, buffer=1 << 20) as instance:
        assert instance.path is not None
        kilobytes = int((instance.path / "buffer_size_kb").read_text().split()[0])
        assert 1024 <= kilobytes <= 1024 + 64


@pytest.mark.parametrize("at", ["_make", "_set_up", "_look_for_processors"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_one_that_fails_on_its_way_leaves_nothing(
    tracefs: Path,
    instances: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
    error: type[BaseException],
) -> None:
    whole: Callable[..., object] = getattr(Instance, at)

    def fail(self: Instance, *arguments: Any) -> None:
        whole(self, *arguments)
        raise error(errno.EIO, "of the test's") if error is OSError else error

    monkeypatch.setattr(Instance, at, fail)
    with pytest.raises(TracingUnavailable if error is OSError else error):
        Instance([MARKS], tracefs=tracefs).__enter__()
    gc.collect()
    assert not [path for path in instances.iterdir() if path.name.startswith(f"iocancel-{os.getpid()}-")]


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # it is closed; nobody was left to do it
def test_an_interrupt_anywhere_leaves_nothing(tracefs: Path, instances: Path) -> None:
    need(not GUEST, "it makes some hundred instances")

    def run(instance: Instance) -> None:
        with instance:
            instance.read(0)
            instance.finish()

    def check(instance: Instance, place: str) -> None:
        if place.startswith("entry: ") and place.endswith("in __exit__"):  # a with block can do no better
            instance.close()
        assert not list(instances.glob(f"iocancel-{os.getpid()}-*"))
        assert instance.path is None

    sweep = interrupt_everywhere(
        lambda: Instance([MARKS, COMPLETE], buffer=4096, tracefs=tracefs),
        run,
        check,
        modules=[module, mount, directories, order],
        step=5,
    )
    assert sweep.places > 100
    assert {place.rpartition(" ")[2] for place in sweep.where} >= {"_set_up", "put", "close"}


def test_one_that_is_dropped_says_so_and_is_removed(tracefs: Path, instances: Path) -> None:
    dropped = [Instance([MARKS], tracefs=tracefs).__enter__()]
    path = dropped[0].path
    assert path is not None
    with pytest.warns(ResourceWarning, match="never closed"):
        dropped.clear()
    assert not path.exists()


def test_one_that_another_reads_can_not_be_removed_yet(tracefs: Path, instances: Path) -> None:
    with traced(tracefs) as instance:
        path = instance.path
        assert path is not None
        with (path / "trace_pipe").open("rb"), pytest.warns(ResourceWarning, match="could not be removed"):
            instance.close()
        assert path.exists()
        with pytest.raises(ValueError, match="not open"):
            instance.read(0)
        assert path.name not in remove_stale(tracefs)  # it is still ours
    assert not path.exists()  # by the block's end
    with traced(tracefs) as instance:  # and where somebody else was quicker
        assert instance.path is not None
        for file in instance._files:
            file.close()
        instance.path.rmdir()


def test_the_end_of_the_interpreter_removes_it(tracefs: Path, instances: Path) -> None:
    done = python(
        f"from iocancel.trace.tracefs import Instance\n"
        f"instance = Instance([{MARKS!r}], tracefs={str(tracefs)!r}).__enter__()\n"
        f"print(instance.path)"
    )
    assert not done.returncode, done.stderr
    assert done.stdout.startswith(str(instances))
    assert not Path(done.stdout.strip()).exists()


def test_a_forked_child_leaves_it_alone(tracefs: Path, instances: Path) -> None:
    with traced(tracefs) as instance, Marker(instance) as mark:
        path = instance.path
        assert path is not None
        child = os.fork()
        if not child:
            status = 1
            try:
                before = len(os.listdir("/proc/self/fd"))
                with contextlib.suppress(ValueError):
                    instance.read(0)
                    status = 2
                instance.close()
                if status == 1 and path.exists() and len(os.listdir("/proc/self/fd")) < before:
                    status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        mark(1)
        assert mark.numbers(everything(instance, 1).records) == [1]
    assert not path.exists()


# What is left behind


@pytest.fixture
def victim(tracefs: Path, instances: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[str], Path]]]:
    """Starts programs that have an instance, until they are told to end."""
    programs = []

    def start() -> tuple[subprocess.Popen[str], Path]:
        source = (
            f"import sys\n"
            f"from iocancel.trace.tracefs import Instance\n"
            f"with Instance([{MARKS!r}, {COMPLETE!r}], tracefs={str(tracefs)!r}) as instance:\n"
            f"    print(instance.path, flush=True)\n"
            f"    sys.stdin.read()"
        )
        folder = str(Path(module.__file__).parents[2])
        paths = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
        program = subprocess.Popen(
            [sys.executable, "-c", source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**not_measured(), "PYTHONPATH": paths},
        )
        programs.append(program)
        assert program.stdout is not None
        return program, Path(program.stdout.readline().strip())

    yield start
    for program in programs:
        with program:
            program.kill()


def test_what_a_killed_process_left_is_removed_at_the_next_start(
    tracefs: Path, victim: Callable[[], tuple[subprocess.Popen[str], Path]]
) -> None:
    program, path = victim()
    assert path.is_dir()
    program.kill()
    assert program.wait(BOUND) == -signal.SIGKILL
    # The kernel has stopped it, and freed most of its memory, by itself.
    until(lambda: (path / "tracing_on").read_text().strip() == "0", "tracing stops")
    assert int((path / "buffer_size_kb").read_text().split()[0]) < 64
    assert path.is_dir()
    with traced(tracefs):
        assert not path.exists()


def test_a_living_process_keeps_its_own(
    tracefs: Path, victim: Callable[[], tuple[subprocess.Popen[str], Path]]
) -> None:
    program, path = victim()
    with traced(tracefs):
        assert path.is_dir()
        assert (path / "tracing_on").read_text().strip() == "1"
    program.communicate("", timeout=BOUND)
    assert program.returncode == 0
    assert not path.exists()


def test_one_that_is_read_is_kept_although_its_process_is_not_seen(
    tracefs: Path, victim: Callable[[], tuple[subprocess.Popen[str], Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    program, path = victim()
    monkeypatch.setattr(
        directories, "dead", lambda pid, path: pid == program.pid
    )  # as from another PID namespace
    assert remove_stale(tracefs) == []
    assert path.is_dir()


def test_what_an_earlier_process_of_the_same_number_left(tracefs: Path, instances: Path) -> None:
    before = instances / f"iocancel-{os.getpid()}-1000000"
    before.mkdir()
    younger = instances / "iocancel-1-1000000"  # init began before it, so it may be init's
    younger.mkdir()
    other = instances / f"someone-{os.getpid()}-1"
    other.mkdir()
    try:
        with traced(tracefs):
            assert not before.exists()
            assert younger.exists()
            assert other.exists()
    finally:
        younger.rmdir()
        other.rmdir()


def test_one_of_an_earlier_process_that_is_still_read_is_passed_over(tracefs: Path, instances: Path) -> None:
    with traced(tracefs) as instance:
        assert instance.path is not None
        number = int(instance.path.name.rpartition("-")[2])
    old = instances / f"iocancel-{os.getpid()}-{number + 1}"
    old.mkdir()
    try:
        with (old / "trace_pipe").open("rb"), traced(tracefs) as instance:
            assert instance.path is not None
            assert instance.path.name == f"iocancel-{os.getpid()}-{number + 2}"
            assert old.is_dir()
    finally:
        old.rmdir()


def test_a_process_that_is_younger_than_the_instance_did_not_make_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as program:
        try:
            assert not directories.dead(program.pid, tmp_path)
            year_ago = time.time() - 3600 * 24 * 365
            os.utime(tmp_path, (year_ago, year_ago))
            assert directories.dead(program.pid, tmp_path)
            os.utime(tmp_path)
            assert not directories.dead(program.pid, tmp_path)
        finally:
            program.kill()
        until(lambda: directories.dead(program.pid, tmp_path), "it ends, and nobody has asked for its status")
    assert directories.dead(program.pid, tmp_path)
