"""What the whole suite shares; a directory's own conftest.py may have another fixture of the same name."""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Callable, Generator, Iterator
from types import FrameType

import hypothesis  # before any gc.freeze(): it looks for who holds trio's random numbers
import pytest

from iocancel import EngineUnavailable

from .skips import excused
from .support import lacks_uring, names_required

# What does not touch the kernel is not run again in each emulated one, where Python is 14 times slower.
# Another architecture is more than another kernel: with IOCANCEL_WHOLE it is run, too.
collect_ignore = []
if os.environ.get("IOCANCEL_GUEST") and not os.environ.get("IOCANCEL_WHOLE"):
    collect_ignore += [
        # Their rules are the loops' own; contract/awaited/ is what is run there.
        "asyncio_",
        "awaiting",
        "trio_",
        "test_benchmarks_judged.py",
        "test_benchmarks_plot.py",
        "test_errors.py",
        # Scopes, the pool and what stands on the verbs are the same in any kernel (test_verbs*.py are run).
        "blocking/test_files.py",
        "blocking/test_interrupts.py",
        "blocking/test_pool.py",
        "blocking/test_pool_signals.py",
        "blocking/test_scopes.py",
        "blocking/test_scopes_blocks.py",
        "blocking/test_sockets.py",
        "blocking/test_stream_interrupts.py",
        # The model knows no kernel; the contract and engine suites are what is run there.
        "operation/test_interleavings.py",
        "operation/test_interleavings_pairs.py",
        "operation/test_interrupts.py",
        "operation/test_ledger.py",
        "operation/test_model.py",
        "operation/test_testing.py",
        "operation/test_stats.py",
        "operation/test_threads.py",
        "test_audit.py",
        # What five kernels have told is data there. The tracer itself, and eBPF, are run; the command, which
        # is a process each time, is not.
        "trace/test_command.py",
        "trace/test_format.py",
        "trace/test_join.py",
        "trace/test_join_orders.py",
        "trace/test_kernels.py",
        "trace/test_pages.py",
        "trace/test_record.py",
        "trace/test_record_process.py",
        "trace/test_recorded.py",
        "test_guests.py",
        "test_loops.py",
        "test_structure.py",
        "test_wheel.py",
        "uring/test_prep_arguments.py",
        "uring/test_prep_bytes.py",
        "uring/test_prep_memory.py",
    ]

if os.environ.get("IOCANCEL_GUEST"):  # how long anything takes there says nothing
    collect_ignore += [
        "test_benchmarks.py",
        "test_benchmarks_awaited.py",
        "test_race.py",
        "test_race_hubs.py",
        "test_race_tasks.py",
        "test_race_threads.py",
    ]
    hypothesis.settings.register_profile(
        "guest", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("guest")


def pytest_configure(config: pytest.Config) -> None:
    """Where io_uring is forbidden, the test that first opens an engine is warned; that is no failure."""
    if lacks_uring():
        config.addinivalue_line("filterwarnings", "ignore:io_uring can't be used here:RuntimeWarning")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where io_uring can't be had, a test that ends by being refused it is skipped.

    A skip for want of an engine that IOCANCEL_REQUIRE names is a failure, whoever skips; with
    IOCANCEL_NO_SKIPS so is any for which there is no excuse.
    """
    report = yield
    error = call.excinfo and call.excinfo.value
    if isinstance(error, EngineUnavailable) and "io_uring_setup" in str(error) and lacks_uring():
        report.outcome = "skipped"
        report.longrepr = (str(item.path), (item.location[1] or 0) + 1, f"Skipped: {lacks_uring()}")
    judge(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A file may be skipped for no more than a test."""
    report = yield
    judge(report)
    return report


def judge(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Make a failure of a skip for which there is no excuse."""
    if not report.skipped or not isinstance(report.longrepr, tuple):
        return
    said = report.longrepr[2]
    reason = said.removeprefix("Skipped: ")
    if names_required(reason):
        report.outcome = "failed"
        report.longrepr = f"{said} (and IOCANCEL_REQUIRE names it)"
    elif not excused(reason, os.environ.get("IOCANCEL_NO_SKIPS", "")):
        report.outcome = "failed"
        report.longrepr = f"{said} (and with IOCANCEL_NO_SKIPS there is no excuse for that: tests/skips.py)"


# A shell ignores Ctrl-C for what it runs in the background, and its children inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", autouse=True)
def frozen() -> None:
    """What pytest and the modules before this one hold is not looked through by each test's `gc.collect()`.

    That takes a tenth of a second when all of the suite has been collected, and there are thousands.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def pipes() -> Iterator[Callable[[], tuple[int, int]]]:
    """Makes pipes; their ends may be closed by the test, with `os.close`, before its end."""
    made: list[tuple[int, os.stat_result]] = []

    def make() -> tuple[int, int]:
        ends = os.pipe()
        made.extend((end, os.fstat(end)) for end in ends)
        return ends

    yield make
    for end, was in made:
        try:
            now = os.fstat(end)
        except OSError:
            continue
        if (now.st_dev, now.st_ino) == (was.st_dev, was.st_ino):
            os.close(end)


@pytest.fixture
def pipe(pipes: Callable[[], tuple[int, int]]) -> tuple[int, int]:
    """An empty pipe: its read end and its write end."""
    return pipes()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected stream sockets of the Unix domain."""
    a, b = socket.socketpair()
    with a, b:
        yield a, b


@pytest.fixture
def tcp() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected TCP sockets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        a = socket.create_connection(server.getsockname())
        b, _ = server.accept()
    with a, b:
        yield a, b


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A TCP socket that listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def handler() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Sets what SIGUSR1 does."""
    before = signal.getsignal(signal.SIGUSR1)

    def on(act: Callable[[], object]) -> None:
        def handle(number: int, frame: FrameType | None) -> None:
            act()

        signal.signal(signal.SIGUSR1, handle)

    yield on
    signal.signal(signal.SIGUSR1, before)
