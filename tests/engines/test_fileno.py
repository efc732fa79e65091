"""Engines in an event loop: a file that epoll watches, `reap(0)` when it is readable, and never a wait."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iocancel import Outcome, Verdict
from iocancel.engines.uring import UringEngine

from ..contract.conftest import name as name
from ..contract.conftest import nothing_left_behind as nothing_left_behind
from ..contract.conftest import opened
from ..contract.helpers import need_stopping, need_verbs
from ..support import BOUND, few, need, until
from .fileno_stage import Loop, check_cancelled, cut_records, end_read
from .fileno_stage import engine as engine
from .fileno_stage import loop as loop
from .fileno_stage import looping as looping

# What comes


def test_a_read_gets_its_byte(engine: Any, loop: Loop, pipe: tuple[int, int]) -> None:
    loop.rest()
    op = engine.read(pipe[0], 10)
    engine.submit()
    loop.rest()
    assert not op.done()
    os.write(pipe[1], b"a")
    loop.run(op)
    assert op.result() == b"a"
    assert loop.ended == [op]
    loop.rest()


def test_again_and_again(engine: Any, loop: Loop, pipe: tuple[int, int]) -> None:
    for i in range(few(200)):
        op = engine.read(pipe[0], 10)
        engine.submit()
        os.write(pipe[1], b"%d" % i)
        loop.run(op)
        assert op.result() == b"%d" % i
    loop.rest()
    assert loop.rounds <= few(200) * 4, "a few looks for each"


def test_what_was_in_flight_before_anybody_watched(
    engine: Any, looping: Callable[[Any], Loop], pipes: Callable[[], tuple[int, int]]
) -> None:
    (first, put_first), (second, put_second) = pipes(), pipes()
    ops = [engine.read(first, 10), engine.read(second, 10)]
    engine.submit()
    os.write(put_first, b"a")  # ends before
    loop = looping(engine)
    loop.run(ops[0])
    os.write(put_second, b"b")  # and after
    loop.run(ops[1])
    assert [op.result() for op in ops] == [b"a", b"b"]
    loop.rest()


def test_what_was_asked_for_before_anybody_watched(
    engine: Any, looping: Callable[[Any], Loop], pipe: tuple[int, int]
) -> None:
    op = engine.read(pipe[0], 10)
    engine.submit()
    op.cancel()
    loop = looping(engine)
    while op.verdict is None and not op.done():
        assert loop.once(), "the cancel was not noticed"
    end_read(engine, op, pipe[1])
    loop.run(op)
    check_cancelled(engine, op)
    loop.rest()


def test_what_was_cut_short_before_anybody_watched(
    engine: Any, looping: Callable[[Any], Loop], pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    op = engine.read(pipe[0], 10)
    engine.submit()
    cut_records(engine, monkeypatch)
    os.write(pipe[1], b"a")
    with pytest.raises(KeyboardInterrupt):
        op.wait()
    assert not op.done()
    loop = looping(engine)
    loop.run(op)
    assert op.result() == b"a"
    loop.rest()


def test_a_disks_file(engine: Any, loop: Loop, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 1000)
    flags = os.O_RDWR
    with contextlib.suppress(
        OSError
    ):  # where the file system has it, libaio's requests really take their time
        os.close(os.open(path, flags | os.O_DIRECT))
        flags |= os.O_DIRECT
    fd = os.open(path, flags)
    try:
        with mmap.mmap(-1, 4096) as room:  # aligned, as O_DIRECT needs
            read = engine.read(fd, room, 0)
            sync = engine.fsync(fd)
            engine.submit()
            loop.run(read, sync)
            assert read.result() == 4096
            assert room[:10] == b"0123456789"
            assert sync.outcome is Outcome.COMPLETED
            loop.rest()
    finally:
        os.close(fd)


def read_many(engine: Any, loop: Loop, pipe: tuple[int, int], many: int) -> None:
    # On one file, since glibc runs no more than 20 files at a time.
    ops = [engine.read(pipe[0], 1) for _ in range(many)]
    engine.submit()
    assert not any(op.done() for op in ops)
    os.write(pipe[1], b"x" * many)
    loop.run(*ops)
    assert [op.result() for op in ops] == [b"x"] * many
    assert sorted(map(id, loop.ended)) == sorted(map(id, ops)), "each is told once"
    loop.rest()


def test_a_thousand_at_once(engine: Any, loop: Loop, pipe: tuple[int, int]) -> None:
    read_many(engine, loop, pipe, few(1000))


@pytest.mark.parametrize("room", [8, 4096])
def test_more_than_one_call_reaps(looping: Callable[[Any], Loop], pipe: tuple[int, int], room: int) -> None:
    """libaio: in contexts that are full one after the other, and in one with more than 1,024 events."""
    with opened("libaio", nr_events=room) as engine:
        read_many(engine, looping(engine), pipe, few(3000))


def test_completions_that_outnumber_the_queue(looping: Callable[[Any], Loop], pipe: tuple[int, int]) -> None:
    """io_uring: the kernel keeps them, and the ring's fd says so."""
    with opened("uring", entries=8) as engine:
        read_many(engine, looping(engine), pipe, few(1000))


def test_a_thousand_are_cancelled(engine: Any, loop: Loop, pipe: tuple[int, int]) -> None:
    ops = [engine.read(pipe[0], 1) for _ in range(few(1000))]
    engine.submit()
    for op in ops:
        op.cancel()
    engine.submit()
    for op in ops:
        if op.verdict is Verdict.TOO_LATE:  # of POSIX AIO, the first of its file
            os.write(pipe[1], b"z")
    loop.run(*ops)
    assert sum(op.cancelled() for op in ops) >= len(ops) - 1
    loop.rest()


def test_what_follows_one_that_the_kernel_refuses_at_once(
    uring: UringEngine, looping: Callable[[Any], Loop], pair: tuple[Any, Any]
) -> None:
    """io_uring leaves in its queue what is behind an entry that is wrong in itself."""
    need_verbs(uring, "splice")
    loop = looping(uring)
    loop.rest()
    wrong, right = [], []
    for _ in range(2):
        wrong.append(uring.splice(pair[0], pair[1], 1, flags=1 << 20))
        right.append(uring.recv(pair[0], 1))
    wrong.append(uring.splice(pair[0], pair[1], 1, flags=1 << 20))
    uring.submit()
    pair[1].send(b"ab")
    loop.run(*wrong, *right)
    assert [op.outcome for op in wrong] == [Outcome.FAILED] * 3
    assert sorted(op.result() for op in right) == [b"a", b"b"]
    loop.rest()


# Cancels


def test_a_cancel_in_the_loops_own_thread(engine: Any, loop: Loop, pipe: tuple[int, int]) -> None:
    """Also nobody else's reap is needed: the file says that there is something to do."""
    op = engine.read(pipe[0], 10)
    engine.submit()
    loop.rest()
    op.cancel()
    assert loop.epoll.poll(BOUND), "a cancel was asked for, and the file says nothing"
    while op.verdict is None and not op.done():
        assert loop.once()
    end_read(engine, op, pipe[1])
    loop.run(op)
    check_cancelled(engine, op)
    loop.rest()


def test_a_muted_cancel(engine: Any, loop: Loop, pipe: tuple[int, int]) -> None:
    """Whoever asks, and will reap by himself, is spared a round."""
    op = engine.read(pipe[0], 10)
    engine.submit()
    loop.rest()
    engine._mute = True
    op.cancel()
    engine._mute = False
    assert not loop.epoll.poll(0)
    engine.reap(0)
    assert op.verdict is not None
    end_read(engine, op, pipe[1])
    loop.run(op)
    loop.rest()


def ends_cancelled(engine: Any, loop: Loop, op: Any, thread: threading.Thread, write_end: int) -> None:
    """The loop learns of a cancel that a thread asks for, and of the ending of what it is about."""
    deadline = time.monotonic() + BOUND
    while op.verdict is None and not op.done():
        assert time.monotonic() < deadline, "the cancel was not noticed"
        loop.once(max(0.0, deadline - time.monotonic()))
    thread.join()
    end_read(engine, op, write_end)
    loop.run(op)
    check_cancelled(engine, op)
    loop.rest()


def test_a_cancel_by_another_thread(engine: Any, loop: Loop, pipe: tuple[int, int]) -> None:
    for _ in range(3):
        op = engine.read(pipe[0], 10)
        engine.submit()
        loop.rest()
        thread = threading.Thread(target=op.cancel)
        thread.start()
        ends_cancelled(engine, loop, op, thread, pipe[1])


def test_a_cancel_in_a_signals_handler(
    engine: Any, loop: Loop, pipe: tuple[int, int], handler: Callable[[Callable[[], object]], None]
) -> None:
    op = engine.read(pipe[0], 10)
    engine.submit()
    loop.rest()
    handler(op.cancel)
    main = threading.get_ident()

    def send() -> None:
        until_asleep(main)
        signal.pthread_kill(main, signal.SIGUSR1)

    thread = threading.Thread(target=send)
    thread.start()
    ends_cancelled(engine, loop, op, thread, pipe[1])


def until_asleep(ident: int) -> None:
    """Wait until a thread is in epoll_wait."""
    number = next(each.native_id for each in threading.enumerate() if each.ident == ident)
    where = Path(f"/proc/self/task/{number}/syscall")
    need(where.exists(), "no /proc/self/task/*/syscall")
    # epoll_wait and epoll_pwait, on x86-64 and elsewhere (unistd.h); "running" where it is in none.
    until(
        lambda: where.read_text().split()[0] in {"232", "281", "22"}, "the thread has come to sleep in epoll"
    )


def test_a_cancel_that_races_with_the_data(engine: Any, loop: Loop, pipe: tuple[int, int]) -> None:
    """Whichever is first, the loop hears of the ending, and no byte is lost."""
    need_stopping(engine, "read")
    read, lost = 0, 0
    for i in range(few(300)):
        op = engine.read(pipe[0], 1)
        engine.submit()
        acts = [lambda: os.write(pipe[1], b"x"), op.cancel]
        threads = [threading.Thread(target=act) for act in (acts if i % 2 else acts[::-1])]
        for thread in threads:
            thread.start()
        loop.run(op)
        for thread in threads:
            thread.join()
        if op.cancelled():
            lost += 1
            assert os.read(pipe[0], 1) == b"x"
        else:
            read += 1
            assert op.result() == b"x"
    assert read + lost == few(300)
    loop.rest()
