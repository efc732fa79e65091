"""Instances of tracefs: made, read in order, removed whatever happens; what is said where they can't be."""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import io
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
from iocancel.trace import tracefs as module
from iocancel.trace.pages import Record
from iocancel.trace.tracefs import Batch, Instance, Order, TracingUnavailable, find, remove_stale
from iocancel.uring import Ring

from ..support import BOUND, GUEST, need, not_measured, python, until

MARKS = "ftrace/print"
"""The event that a write to trace_marker makes: one each, and always on."""
SUBMIT = ("io_uring/io_uring_submit_req", "io_uring/io_uring_submit_sqe")
COMPLETE = "io_uring/io_uring_complete"


class Marker:
    """Writes to an instance's trace_marker."""

    def __init__(self, instance: Instance) -> None:
        assert instance.path is not None
        self._file = (instance.path / "trace_marker").open("wb", buffering=0)
        [fmt] = [fmt for fmt in instance.formats if fmt.name == "print"]
        self._start = next(field.offset for field in fmt.fields if field.name == "buf")
        self._id = fmt.id

    def __enter__(self) -> Marker:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __call__(self, number: int) -> None:
        self._file.write(b"%d" % number)

    def numbers(self, records: list[Record]) -> list[int]:
        assert {kind for _, kind, _ in records} <= {self._id}
        return [int(record[self._start :].split(b"\0")[0]) for _, _, record in records]


@contextlib.contextmanager
def traced(tracefs: Path, *events: str, **more: Any) -> Iterator[Instance]:
    with Instance(events or (MARKS,), tracefs=tracefs, **more) as instance:
        yield instance


def everything(instance: Instance, many: int) -> Batch:
    """What comes until so many were read or lost."""
    records, lost = list[Record](), 0
    deadline = time.monotonic() + BOUND
    while len(records) + lost < many:
        assert time.monotonic() < deadline, f"only {len(records)} came, and {lost} were lost"
        batch = instance.read(BOUND)
        records += batch.records
        lost += batch.lost
    return Batch(records, lost)


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
        modules=[module],
        step=5,
    )
    assert sweep.places > 100
    assert {place.rpartition(" ")[2] for place in sweep.where} >= {"_set_up", "_put", "close"}


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
        module, "_dead", lambda pid, path: pid == program.pid
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
            assert not module._dead(program.pid, tmp_path)
            year_ago = time.time() - 3600 * 24 * 365
            os.utime(tmp_path, (year_ago, year_ago))
            assert module._dead(program.pid, tmp_path)
            os.utime(tmp_path)
            assert not module._dead(program.pid, tmp_path)
        finally:
            program.kill()
        until(lambda: module._dead(program.pid, tmp_path), "it ends, and nobody has asked for its status")
    assert module._dead(program.pid, tmp_path)


# Reading


def test_records_of_all_processors_come_in_order_of_time(tracefs: Path, instances: Path) -> None:
    before = os.sched_getaffinity(0)
    cpus = sorted(before)
    with traced(tracefs) as instance, Marker(instance) as mark:
        try:
            for number in range(200):
                os.sched_setaffinity(0, {cpus[number // 3 % len(cpus)]})
                mark(number)
        finally:
            os.sched_setaffinity(0, before)
        found = everything(instance, 200)
        assert mark.numbers(found.records) == list(range(200))
        times = [when for when, _, _ in found.records]
        assert times == sorted(times)
        assert time.monotonic_ns() - times[0] < BOUND * 1e9  # the clock is that of time.monotonic_ns
        assert instance.late == found.lost == 0


def test_what_does_not_fit_is_counted(tracefs: Path, instances: Path) -> None:
    many = 3000
    with traced(tracefs, buffer=8192) as instance, Marker(instance) as mark:
        for number in range(many):
            mark(number)
        batch = instance.read(BOUND)
        assert batch.lost > 0
        for number in range(many, 2 * many):
            mark(number)
        rest = instance.finish()
        records = batch.records + rest.records
        assert len(records) + batch.lost + rest.lost == 2 * many
        assert instance.lost == batch.lost + rest.lost
        assert mark.numbers(records)[-1] == 2 * many - 1
        assert mark.numbers(records) == sorted(mark.numbers(records))
        assert instance.finish() == ([], 0)


def test_what_is_only_known_at_the_end_is_counted_then(
    tracefs: Path, instances: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with traced(tracefs, buffer=8192) as instance, Marker(instance) as mark:
        pages = instance._pages
        assert pages is not None
        real = pages.extend
        # A page that is full has no room for the number: it says None.
        monkeypatch.setattr(pages, "extend", lambda into, page: None if real(into, page) else 0)
        for number in range(3000):
            mark(number)
        batch = instance.read(BOUND)
        assert 0 < batch.lost <= len(os.sched_getaffinity(0)) + 1
        rest = instance.finish()
        assert len(batch.records) + len(rest.records) + batch.lost + rest.lost == 3000


def test_reading_waits_until_something_comes(tracefs: Path, instances: Path) -> None:
    with traced(tracefs) as instance, Marker(instance) as mark:
        assert instance.read(0) == ([], 0)
        began = time.monotonic()
        assert instance.read(0.05) == ([], 0)
        assert time.monotonic() - began >= 0.05
        mark(1)
        began = time.monotonic()
        assert mark.numbers(instance.read().records) == [1]
        # Held back for a moment, but not until the time is up.
        mark(2)
        assert mark.numbers(instance.read(BOUND).records) == [2]
        assert time.monotonic() - began < BOUND


def test_what_is_held_back_comes_in_the_end(tracefs: Path, instances: Path) -> None:
    with traced(tracefs, slack=BOUND) as instance, Marker(instance) as mark:
        mark(1)
        assert instance.read(0.05) == ([], 0)
        mark(2)
        assert mark.numbers(instance.finish().records) == [1, 2]
        with pytest.raises(OSError, match="Bad file descriptor"):  # it is switched off
            mark(3)
        assert instance.finish() == ([], 0)


def test_a_buffer_that_is_filled_faster_than_read_keeps_nobody(
    tracefs: Path, instances: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with traced(tracefs, buffer=8192) as instance, Marker(instance) as mark:
        pages = instance._pages
        assert pages is not None
        real, times = pages.extend, list[int]()

        def filled(into: list[Record], page: bytes) -> int | None:
            mark(len(times))
            lost = real(into, page)
            times.append(into[-1][0])
            return lost

        mark(-1)
        monkeypatch.setattr(pages, "extend", filled)
        records: list[Record] = []
        lost, complete = instance._drain(records)
        assert lost == 0
        assert len(times) == 16
        assert complete == times[-1]
        monkeypatch.undo()
        assert mark.numbers(instance.finish().records) == [15]
        assert mark.numbers(records) == [-1, *range(15)]


def test_a_processor_that_is_not_there_is_looked_for_again(tracefs: Path, instances: Path) -> None:
    class Absent(io.FileIO):
        def read(self, size: int | None = -1, /) -> Any:
            raise OSError(errno.ENODEV, "No such device")

    class Broken(io.FileIO):
        def read(self, size: int | None = -1, /) -> Any:
            raise OSError(errno.EIO, "Input/output error")

    with (
        Absent("/dev/null") as absent,
        Broken("/dev/null") as broken,
        traced(tracefs) as instance,
        Marker(instance) as mark,
    ):
        there = instance._pipes.pop()
        instance._poll.unregister(there)
        instance._absent.append(absent)
        assert instance.read(0) == ([], 0)
        assert instance._absent == [absent]
        instance._absent[:] = [there]  # and here it is
        mark(1)
        assert mark.numbers(everything(instance, 1).records) == [1]
        assert instance._absent == []
        instance._absent.append(broken)
        with pytest.raises(OSError, match="Input/output error"):
            instance.read(0)


def test_events_of_a_program_are_recorded_and_filtered(tracefs: Path, instances: Path) -> None:
    there = [event for event in SUBMIT if (tracefs / "events" / event).is_dir()]
    need(there, "this kernel has no io_uring events")
    with (
        traced(tracefs, *there, COMPLETE, filters={COMPLETE: "user_data == 0x5eed"}) as instance,
        Ring(8) as ring,
    ):
        readers = {fmt.id: (fmt.name, fmt.reader("common_pid", "user_data")) for fmt in instance.formats}
        for user_data in (1, 0x5EED, 2, 0x5EED):
            sqe = ring.get_sqe()
            sqe.prep_nop()
            sqe.user_data = user_data
        ring.submit()
        assert len(ring.wait(4)) == 4
        found = [(readers[kind][0], *readers[kind][1](raw)) for _, kind, raw in instance.finish().records]
    mine = [(name, user_data) for name, tid, user_data in found if tid == os.getpid()]
    assert [each for each in mine if each[0] != "io_uring_complete"] == [
        (there[0].partition("/")[2], user_data) for user_data in (1, 0x5EED, 2, 0x5EED)
    ]
    assert [each for each in mine if each[0] == "io_uring_complete"] == [("io_uring_complete", 0x5EED)] * 2


def test_a_filter_that_is_none_is_an_error(tracefs: Path, instances: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"not a filter of io_uring_complete: 'nonsense == 1'"),
        traced(tracefs, COMPLETE, filters={COMPLETE: "nonsense == 1", "io_uring/not_there": "x == 1"}),
    ):
        pass


def test_the_kernel_remembers_names(tracefs: Path, instances: Path) -> None:
    assert Instance([MARKS], tracefs=tracefs).remembered() == {}
    with traced(tracefs, "sched/sched_process_exit") as instance:
        subprocess.run(["true"], check=True)
        found = instance.remembered()
        assert all(type(pid) is int and type(name) is str for pid, name in found.values())
        assert any(name == "true" and pid == tid for tid, (pid, name) in found.items())


def test_what_is_not_open_can_not_be_read(tracefs: Path, instances: Path) -> None:
    instance = Instance([MARKS], tracefs=tracefs)
    for call in (instance.read, instance.finish):
        with pytest.raises(ValueError, match="not open"):
            call()
    with instance:
        pass
    for call in (instance.read, instance.finish):
        with pytest.raises(ValueError, match="not open"):
            call()


# Order, by itself


def at(*times: int) -> list[Record]:
    return [(when, 1, b"") for when in times]


def test_what_may_still_be_overtaken_is_held_back() -> None:
    order = Order()
    order.held += at(10, 20, 40)
    order.held += at(5, 30)
    assert order.take(20) == at(5, 10, 20)
    order.held += at(25)
    assert order.take(35) == at(25, 30)
    assert order.take(35) == []
    assert order.take(None) == at(40)
    assert order.take(None) == []
    assert order.late == 0


def test_what_comes_too_late_comes_all_the_same_and_is_counted() -> None:
    order = Order()
    order.held += at(10, 20)
    assert order.take(100) == at(10, 20)
    order.held += at(5, 15, 20, 30)  # of the same time is not late
    assert order.take(100) == at(5, 15, 20, 30)
    assert order.late == 2


def test_of_the_same_time_each_processors_keep_their_order() -> None:
    order = Order()
    order.held += [(1, 9, b"a"), (1, 3, b"b"), (1, 7, b"c")]
    assert order.take(None) == [(1, 9, b"a"), (1, 3, b"b"), (1, 7, b"c")]


# Where it can't be had


def refused(call: Callable[[], object]) -> TracingUnavailable:
    with pytest.raises(TracingUnavailable) as caught:
        call()
    error = caught.value
    assert str(error) == f"{error.reason}. {error.remedy}"
    assert "\n" not in str(error)
    assert error.remedy
    return error


def enter(path: Path, *events: str) -> TracingUnavailable:
    return refused(lambda: Instance(events or (COMPLETE,), tracefs=path).__enter__())


def test_not_mounted(tmp_path: Path) -> None:
    error = enter(tmp_path)
    assert error.errno == errno.ENOENT
    assert str(error) == (
        f"tracefs is not mounted at {tmp_path}. Try mount -t tracefs tracefs /sys/kernel/tracing"
    )
    assert enter(tmp_path / "nowhere").errno == errno.ENOENT


def test_not_mounted_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WHERE", (str(tmp_path / "a"), str(tmp_path)))
    monkeypatch.setattr(module, "_mounts", list)
    error = refused(find)
    assert error.errno == errno.ENOENT
    assert str(error) == "tracefs is not mounted. Try mount -t tracefs tracefs /sys/kernel/tracing"


def test_a_kernel_without_tracing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_known_file_systems", lambda: "nodev\tproc\n\text4\n")
    error = refused(lambda: find(tmp_path))
    assert error.errno == errno.ENODEV
    assert "CONFIG_TRACING" in error.remedy


def test_it_is_found_where_it_is_mounted(
    tracefs: Path, instances: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find(tracefs) == find(str(tracefs)) == tracefs
    assert str(tracefs) in module._mounts()
    monkeypatch.setattr(module, "_WHERE", ())
    assert (find() / "events").is_dir()
    with Instance([MARKS]) as instance:
        assert instance.path is not None


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A tree like that of tracefs, of a kernel with one event."""
    (tmp_path / "instances").mkdir()
    (tmp_path / "events/sched/sched_switch").mkdir(parents=True)
    (tmp_path / "events/sched/sched_switch/format").write_text("name: sched_switch\nID: 1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("events", "reason", "option"),
    [
        ((COMPLETE, *SUBMIT), "this kernel has no io_uring events", "CONFIG_IO_URING"),
        (("syscalls/sys_enter_io_cancel",), "this kernel has no syscalls events", "CONFIG_FTRACE_SYSCALLS"),
        (
            (COMPLETE, "syscalls/sys_enter_io_cancel"),
            "this kernel has no io_uring or syscalls events",
            "CONFIG_IO_URING and CONFIG_FTRACE_SYSCALLS",
        ),
        (("made/up",), "this kernel has no made events", "them"),
    ],
)
def test_a_kernel_without_these_events(fake: Path, events: tuple[str, ...], reason: str, option: str) -> None:
    error = enter(fake, *events)
    assert (error.errno, error.reason) == (errno.ENOENT, reason)
    assert error.remedy == f"It takes Linux 5.10 or later with {option}"
    assert list((fake / "instances").iterdir()) == []


def test_a_tree_that_is_not_as_it_should_be(fake: Path) -> None:
    error = enter(fake, "sched/sched_switch")  # there is no header_page
    assert "header_page" in error.reason
    assert "not as it is known to be" in error.remedy
    for name in ("header_page", "header_event"):
        (fake / "events" / name).write_text("nothing that is known")
    error = enter(fake, "sched/sched_switch")
    assert error.errno == errno.ENOTSUP
    assert "written in a way that is not known here" in error.reason
    (fake / "instances").rmdir()
    assert "can't make an instance" in enter(fake, "sched/sched_switch").reason


def as_nobody(call: Callable[[], object]) -> str:
    """What a call says that is made by a process without privileges."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            try:
                call()
            except TracingUnavailable as error:
                os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as answers:
        said = answers.read().decode()
    os.waitpid(child, 0)
    return said


def test_without_the_privilege(
    tracefs: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    need(os.geteuid() == 0, "only root can become nobody")
    for folder in (tracefs.parent, tracefs.parent.parent):  # pytest's are private, as tracefs itself is
        request.addfinalizer(functools.partial(folder.chmod, folder.stat().st_mode & 0o7777))
        folder.chmod(0o755)
    said = as_nobody(lambda: Instance([COMPLETE], tracefs=tracefs).__enter__())
    assert said == f"can't look into {tracefs}: Permission denied. Tracing needs root"
    monkeypatch.setattr(module, "_WHERE", (str(tracefs),))
    assert as_nobody(find) == said
    monkeypatch.setattr(module, "_mounts", list)  # only debugfs is there, which nobody may look into either
    assert as_nobody(find) == (
        "tracefs is not mounted. Tracing needs root: mount -t tracefs tracefs /sys/kernel/tracing"
    )


def test_read_only(tracefs: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "--bind", str(tracefs), str(tmp_path)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(tmp_path)], check=True)
        error = enter(tmp_path, MARKS)
        assert error.errno == errno.EROFS
        assert "Read-only file system" in error.reason
        assert "remount it" in error.remedy
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("root", [True, False])
def test_refusals_have_a_remedy_each(monkeypatch: pytest.MonkeyPatch, root: bool) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    told = module._refused(PermissionError(errno.EPERM, "no"), "can't trace")
    assert str(told).startswith("can't trace: Operation not permitted. ")
    assert ("lockdown" in told.remedy) == root
    assert ("needs root" in told.remedy) != root
    assert "smaller" in module._refused(OSError(errno.ENOMEM, "no"), "can't trace").remedy


def test_a_buffer_that_is_too_large(tracefs: Path, instances: Path) -> None:
    error = refused(lambda: Instance([MARKS], buffer=1 << 60, tracefs=tracefs).__enter__())
    assert "buffer_size_kb" in error.reason
