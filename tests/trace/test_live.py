"""The tracer on this machine's kernel, as root: what is cancelled is shown once, and what came of it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from iocancel import Outcome, open_engine
from iocancel.trace import Cancel, Tracer, TracingUnavailable
from iocancel.trace import tracer as tracer_module

from ..support import BOUND, GUEST, few, need_uring, until
from .conftest import left

MANY = 20_000 if GUEST else 100_000


def traced(tracefs: Path, run: Any, **more: Any) -> tuple[list[Cancel], Tracer]:
    """What is cancelled by this process, and by its children, while something runs."""
    found: list[Cancel] = []
    with Tracer([os.getpid()], tracefs=str(tracefs), **more) as tracer:
        done = threading.Event()

        def work() -> None:
            try:
                run()
            finally:
                done.set()

        thread = threading.Thread(target=work)
        thread.start()
        while not done.is_set():
            found += tracer.read(0.05)
        thread.join()
        tracer.stop()
        found += tracer.read(0)
        assert tracer.over
    return found, tracer


def test_a_program_that_knows_nothing_of_us(tracefs: Path, cancels: str) -> None:
    """Each of its cancels once, with the answers and endings that it has itself seen."""
    said: list[str] = []

    def run() -> None:
        done = subprocess.run([cancels], capture_output=True, text=True, timeout=BOUND, check=True)
        said.extend(done.stdout.splitlines())

    found, tracer = traced(tracefs, run)
    assert tracer.lost == 0
    expected = set()
    for line in said:
        mechanism, name, answer, *targets = line.split()
        ended = frozenset(tuple(map(int, each.split("="))) for each in targets)
        expected.add((mechanism, int(name), int(answer), ended))
    if "io_uring/io_uring_req_failed" in tracer.missing:  # Linux 5.10 does not tell of what it rejects
        expected = {each for each in expected if each[2] != -22}
    told = {
        (
            each.mechanism,
            each.user_data or 0,
            each.result,
            frozenset((target.user_data, target.result) for target in each.targets),
        )
        for each in found
    }
    assert told == expected
    assert len(found) == len(expected)
    assert {each.comm for each in found} == {"cancels"}
    assert len({(each.pid, each.ring) for each in found}) == 1
    by_name = {each.user_data: each for each in found}
    rejected = by_name.get(4)
    if rejected is not None:
        assert (rejected.verdict, rejected.key, rejected.flags) == ("rejected", 999, 1 << 30)
    assert by_name[3].verdict == "not found"
    assert by_name[2].verdict == "cancelled"
    assert [target.op for target in by_name[2].targets] == ["READ"]
    asked = {name: (each.key, each.flags) for name, each in by_name.items() if each is not rejected}
    if tracer.without_keys is None:
        expected_of = {2: (1, 0), 3: (999, 0), 6: (5, 0), 8: (7, 0), 13: (None, 3), 14: (None, 5)}
        assert {name: asked[name] for name in expected_of} == expected_of
        assert by_name[13].fd is not None
    else:
        assert set(asked.values()) == {(None, None)}, "the kernel does not tell it"


@pytest.mark.parametrize("silent", [True, False])
def test_our_engine_on_io_uring(tracefs: Path, pipe: tuple[int, int], silent: bool) -> None:
    need_uring()
    many = few(200)

    def run() -> None:
        with open_engine("uring") as engine:
            if not silent:
                engine._carrier._silent = 0
            reads = [engine.read(pipe[0], 8) for _ in range(many)]
            engine.submit()
            for read in reads[: many // 2]:
                read.cancel()
                assert read.wait(BOUND) is Outcome.CANCELLED
            assert engine.cancel(reads[many // 2 :]) == many - many // 2
            engine.wait(reads, BOUND)

    found, tracer = traced(tracefs, run)
    assert tracer.lost == 0
    found = [each for each in found if each.mechanism != "sync_cancel"]  # opening it tries one
    assert Counter((each.mechanism, each.verdict) for each in found) == {("async_cancel", "cancelled"): many}
    targets = Counter(target.user_data for each in found for target in each.targets)
    assert len(targets) == many
    assert set(targets.values()) == {1}
    for each in found:
        [target] = each.targets
        assert target.user_data is not None
        assert each.user_data == target.user_data | 1 << 62, "each has ended its own"
        assert (target.op, target.ending, target.seen) == ("READ", "ECANCELED", True)
        assert target.latency is not None
        assert target.latency > 0


def test_our_engine_on_linux_aio(tracefs: Path, pipe: tuple[int, int]) -> None:
    ops: list[Any] = []

    def run() -> None:
        with open_engine("libaio") as engine:
            poll = engine.poll(pipe[0], select.POLLIN)
            engine.submit()
            poll.cancel()
            assert poll.wait(BOUND) is Outcome.CANCELLED
            ops.append(poll)

    found, _ = traced(tracefs, run)
    cancel, *again = found
    # Its event comes somewhat later than the answer; a busy machine's engine may ask once more.
    # And at its closing it may end the poll by which it is woken.
    assert {each.verdict for each in again if each.iocb == cancel.iocb} <= {"not found"}
    assert sum(each.iocb != cancel.iocb for each in again) <= 1
    assert (cancel.system, cancel.mechanism, cancel.verdict) == ("libaio", "io_cancel", "cancelled")
    assert cancel.ending == "EINPROGRESS"
    assert cancel.pid == os.getpid()
    assert cancel.ctx_id
    assert cancel.iocb
    assert cancel.result_to
    assert cancel.latency
    assert cancel.targets == ()


PYPI_LIBAIO = """
    import os, libaio
    r, w = os.pipe()
    with libaio.AIOContext(4) as context:
        block = libaio.AIOBlock(libaio.AIOBLOCK_MODE_POLL, target_file=os.fdopen(r), event_mask=1)
        context.submit([block])
        print(context.cancel(block) is not None, len(context.getEvents(min_nr=1)))
        try:
            context.cancel(block)
        except OSError as error:
            print(error.errno)
"""
PYPI_CAIO = """
    import asyncio, os, sys
    from caio.linux_uring_asyncio import AsyncioContext

    async def main():
        r, w = os.pipe()
        context = AsyncioContext(8)
        reads = [asyncio.create_task(context.read(8, r, 0)) for _ in range(5)]
        while not all(read.get_stack() for read in reads):
            await asyncio.sleep(0)
        for _ in range(100):  # its own calls, until it has handed them over
            await asyncio.sleep(0)
        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
        sys.stdin.read()  # until all has been seen: it awaits nothing itself

    asyncio.run(main())
"""


def peer(tracefs: Path, name: str, program: str) -> list[Cancel]:
    try:
        pytest.importorskip(name)
    except OSError as error:  # PyPI's libaio brings no library
        pytest.skip(f"{name} can't be imported: {error}")
    printed = []

    def run() -> None:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            capture_output=True,
            text=True,
            timeout=BOUND,
            check=False,
        )
        printed.append(done)

    found, tracer = traced(tracefs, run)
    [done] = printed
    assert done.returncode == 0, done.stderr
    assert tracer.lost == 0
    return found


def test_pypis_libaio(tracefs: Path) -> None:
    found = peer(tracefs, "libaio", PYPI_LIBAIO)
    assert [(each.mechanism, each.verdict, each.ending) for each in found] == [
        ("io_cancel", "cancelled", "EINPROGRESS"),
        ("io_cancel", "not found", "EINVAL"),
    ]
    assert found[0].iocb == found[1].iocb


def test_pypis_caio(tracefs: Path) -> None:
    """It asks once for each task, by io_uring, and its reads end so."""
    need_uring()
    pytest.importorskip("caio")
    found: list[Cancel] = []
    with Tracer([os.getpid()], tracefs=str(tracefs)) as tracer:
        child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(PYPI_CAIO)], stdin=subprocess.PIPE)

        def seen() -> bool:
            found.extend(tracer.read(0.1))
            return len(found) >= 5

        try:
            until(seen, "its cancels were seen")
        finally:
            assert child.stdin is not None
            child.stdin.close()
            child.wait(BOUND)
        tracer.stop()
        found += tracer.read(0)
    assert child.returncode == 0
    assert Counter((each.mechanism, each.verdict) for each in found) == {("async_cancel", "cancelled"): 5}
    ended = [target for each in found for target in each.targets]
    assert [(target.op, target.ending, target.seen) for target in ended] == [("READ", "ECANCELED", True)] * 5
    assert len({target.user_data for target in ended}) == 5


def burst(many: int) -> None:
    """So many reads, each cancelled by a request of its own, as fast as it goes."""
    reader, writer = os.pipe()
    try:
        with open_engine("uring") as engine:
            left = many
            while left:
                reads = [engine.read(reader, 8) for _ in range(min(left, 1000))]
                engine.submit()
                assert engine.cancel(reads) == len(reads)
                engine.wait(reads, BOUND)
                left -= len(reads)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_burst(tracefs: Path) -> None:
    """Each is shown, or it is said that events were lost."""
    need_uring()
    found, tracer = traced(tracefs, lambda: burst(MANY), buffer=64 << 20, systems=["uring"])
    assert tracer.lost == 0, "64 MiB for each processor are enough"
    found = [each for each in found if each.mechanism != "sync_cancel"]  # opening an engine tries one
    assert len(found) == MANY
    assert {(each.verdict, len(each.targets)) for each in found} == {("cancelled", 1)}
    assert len({each.user_data for each in found}) == MANY


def test_a_burst_that_is_too_much(tracefs: Path) -> None:
    """With nearly no buffer, nobody reading: what is lost is counted."""
    need_uring()
    with Tracer([os.getpid()], tracefs=str(tracefs), buffer=65536, systems=["uring"]) as tracer:
        burst(5000)
        tracer.stop()
        found = tracer.read(0)
    # Each cancel has four events: its request and its target's, what tells that it was hit, and its ending.
    assert tracer.lost >= 5000
    assert 0 < len(found) < 5000
    told = sum(1 + 2 * len(each.targets) for each in found)
    assert told <= 4 * 5000 - tracer.lost + 5000


# Which


def test_only_those_processes(tracefs: Path, cancels: str) -> None:
    """Not what its siblings do; but what its children do, and theirs."""
    with Tracer([os.getppid()], tracefs=str(tracefs)) as others:
        found, _ = traced(
            tracefs,
            lambda: subprocess.run(
                ["sh", "-c", f"(exec {cancels}) & wait"], stdout=subprocess.DEVNULL, check=True
            ),
        )
        others.stop()
        assert others.read(0) == [] or os.getppid() == 1
    assert {each.comm for each in found} == {"cancels"}


def test_only_that_name(tracefs: Path, cancels: str) -> None:
    def run() -> None:
        subprocess.run([cancels], stdout=subprocess.DEVNULL, check=True)
        with open_engine("uring") as engine:
            burst(10)
            assert engine.in_flight == 0

    found, _ = traced(tracefs, run, comm="cancels")
    assert {each.comm for each in found} == {"cancels"}
    found, _ = traced(tracefs, run, comm="nothing")
    assert found == []


def test_only_that_system(tracefs: Path, cancels: str) -> None:
    found, _ = traced(
        tracefs,
        lambda: subprocess.run([cancels], stdout=subprocess.DEVNULL, check=True),
        systems=["libaio"],
    )
    assert found == []


# Its life


def test_it_leaves_nothing(tracefs: Path) -> None:
    def fails() -> None:
        with Tracer(tracefs=str(tracefs)):
            assert len(left(tracefs)) == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert left(tracefs) == []


def test_a_duration(tracefs: Path) -> None:
    with Tracer([os.getpid()], duration=0.05, tracefs=str(tracefs)) as tracer:
        assert list(tracer) == []
        assert tracer.over
        assert tracer.read(1.0) == []


def test_the_iterator(tracefs: Path) -> None:
    need_uring()
    with Tracer([os.getpid()], tracefs=str(tracefs)) as tracer:
        thread = threading.Thread(target=burst, args=(3,))
        thread.start()
        found = [next(tracer) for _ in range(4)]  # opening an engine tries a synchronous one
        thread.join()
        tracer.stop()
        assert list(tracer) == []
    tried = [each.verdict for each in found if each.mechanism == "sync_cancel"]
    assert tried in (["not found"], ["rejected"]), "rejected: before Linux 6.0"
    assert Counter(each.verdict for each in found)["cancelled"] == 3


def test_outside_of_its_block(tracefs: Path) -> None:
    tracer = Tracer(tracefs=str(tracefs))
    with pytest.raises(RuntimeError, match="with block"):
        tracer.read()
    with pytest.raises(ValueError, match="'aio'"):
        Tracer(systems=["aio"])


def test_a_kernel_without_these_events(tracefs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so and what it takes, though there are others."""
    monkeypatch.setattr(tracer_module, "_URING", ("io_uring/io_uring_complete_not",))
    monkeypatch.setattr(tracer_module, "_LIBAIO", ("syscalls/sys_enter_io_cancel_not",))
    monkeypatch.setattr(
        tracer_module, "_TELLS", {"uring": tracer_module._URING[0], "libaio": tracer_module._LIBAIO[0]}
    )
    with pytest.raises(TracingUnavailable, match="no io_uring or syscalls events") as raised:
        Tracer(tracefs=str(tracefs)).__enter__()
    assert "CONFIG_IO_URING and CONFIG_FTRACE_SYSCALLS" in raised.value.remedy
    assert left(tracefs) == []


def test_a_kernel_without_some_of_them(tracefs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracer_module, "_LIBAIO", ("syscalls/sys_enter_io_cancel_not",))
    monkeypatch.setattr(tracer_module, "_TELLS", {**tracer_module._TELLS, "libaio": tracer_module._LIBAIO[0]})
    with Tracer(tracefs=str(tracefs)) as tracer:
        assert tracer.missing_systems == ["libaio"]


def test_names_of_what_has_ended(tracefs: Path, cancels: str) -> None:
    """The program is gone before anybody looks."""
    with Tracer([os.getpid()], tracefs=str(tracefs)) as tracer:
        subprocess.run([cancels], stdout=subprocess.DEVNULL, check=True)
        tracer.stop()
        found = tracer.read(0)
    assert {each.comm for each in found} == {"cancels"}
    assert len({each.pid for each in found}) == 1
    assert len(found) >= 5


def test_a_number_that_is_used_again(tracefs: Path) -> None:
    """By a process that is none of those it looks at: it is not taken for the one that has ended."""
    with Tracer([os.getpid()], tracefs=str(tracefs)) as tracer:
        [fmt] = [each for each in tracer._instance.formats if each.name == "task_newtask"]
        forks = tracer._handlers[fmt.id]
        places = {name: fmt.field(name) for name in ("common_pid", "pid")}

        def fork(parent: int, child: int) -> None:
            raw = bytearray(64)
            for name, number in (("common_pid", parent), ("pid", child)):
                place = places[name]
                assert place is not None
                raw[place.offset : place.offset + place.size] = number.to_bytes(place.size, sys.byteorder)
            forks(0, bytes(raw))

        fork(os.getpid(), 4_100_000)
        assert 4_100_000 in tracer._family
        fork(1, 4_100_000)
        assert 4_100_000 not in tracer._family
