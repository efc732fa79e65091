"""How a context ends: closed, collected, forgotten, forked; nothing may be freed that the kernel has."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from iocancel import EngineUnavailable, FeatureUnavailable, errors
from iocancel.libaio import Context, Event, Iocb, PollEvents
from iocancel.libaio import kernel as kernel_module

from ..support import few

Run = Callable[..., "CompletedProcess[str]"]


def sysctl(name: str) -> int:
    return int(Path("/proc/sys/fs", name).read_text())


def test_close_gives_back_what_nobody_took(pipe: tuple[int, int]) -> None:
    context = Context(7)
    assert context.nr_events == 7
    cancelled, ended = Iocb.poll(pipe[0]), Iocb.poll(pipe[1], PollEvents.OUT)
    context.submit([cancelled, ended])
    assert "in_flight=2" in repr(context)
    events = {event.iocb: event.res for event in context.close()}
    assert events[cancelled] == 0
    assert events[ended] > 0
    assert context.closed
    assert "closed" in repr(context)
    assert context.in_flight == 0
    assert context.close() == []
    assert context.close(0) == []


def test_everything_raises_afterwards(pipe: tuple[int, int]) -> None:
    with Context() as context:
        iocb = Iocb.poll(pipe[0])
    for call in (
        lambda: context.submit([iocb]),
        lambda: context.submit([]),
        lambda: context.cancel(iocb),
        context.getevents,
        lambda: context.getevents(0, 0),
    ):
        with pytest.raises(ValueError, match="the context is closed"):
            call()
    assert not iocb.in_flight
    with pytest.raises(RuntimeError, match="there already"):
        context.__init__()  # type: ignore[misc]


def test_closed_by_an_exception(pipe: tuple[int, int]) -> None:
    iocb = Iocb.poll(pipe[0])

    def fail() -> None:
        with Context() as context:
            context.submit([iocb])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not iocb.in_flight


def test_its_place_in_the_kernel_is_given_back() -> None:
    before = sysctl("aio-nr")
    with Context(50):
        assert sysctl("aio-nr") >= before + 50
    for _ in range(few(100)):
        Context(50).close()
    assert sysctl("aio-nr") < before + few(100) * 50


def test_threads_that_wait_are_woken(pipe: tuple[int, int], is_in_call: Callable[..., None]) -> None:
    """Also those that wait for more than there is, and hold some of it."""
    context = Context()
    said: list[str] = []

    def wait(least: int) -> None:
        try:
            context.getevents(least)
        except ValueError as error:
            said.append(str(error))

    threads = [threading.Thread(target=wait, args=(least,)) for least in (1, 5, 100, 2000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        is_in_call(thread, "io_getevents")
    iocb = Iocb.poll(pipe[0])
    context.submit([iocb])
    assert [event.iocb for event in context.close()] == [iocb]
    for thread in threads:
        thread.join()
    assert said == ["io_getevents: the context is closed"] * 4


def test_many_close_at_once(pipe: tuple[int, int]) -> None:
    for _ in range(few(30)):
        context = Context()
        context.submit([Iocb.poll(pipe[0]) for _ in range(20)])
        got: list[list[Event]] = []

        def close(context: Context = context, got: list[list[Event]] = got) -> None:
            got.append(context.close())

        threads = [threading.Thread(target=close) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(len(events) for events in got) == [0, 0, 20]


def test_all_at_once(pipe: tuple[int, int]) -> None:
    """Threads that submit, cancel, reap and close: each call works or says that the context is closed."""
    for _ in range(few(20)):
        context = Context(64)
        start = threading.Barrier(4)
        events: list[Event] = []
        submitted: list[int] = []

        def use(
            context: Context = context, start: Any = start, submitted: Any = submitted, events: Any = events
        ) -> None:
            start.wait()
            try:
                while True:
                    iocb = Iocb.poll(pipe[0])
                    submitted.append(context.submit([iocb]))
                    try:
                        context.cancel(iocb)
                    except errors.CancelNotFound:
                        pass
                    events.extend(context.getevents(1, 1))
            except ValueError as error:
                assert "closed" in str(error)  # noqa: PT017

        threads = [threading.Thread(target=use) for _ in range(3)]
        for thread in threads:
            thread.start()
        start.wait()
        for _ in range(50):
            events.extend(context.getevents(0))
        events.extend(context.close())
        for thread in threads:
            thread.join()
        assert len(events) == sum(submitted)


def test_what_does_not_end_is_kept(pipe: tuple[int, int], fake: Callable[..., None]) -> None:
    """Here a poll that nobody cancels stands for a read of a disk that hangs."""
    with pytest.MonkeyPatch.context():
        fake(ioc_laio_cancel_many=lambda *_: 0)
        buffer = bytearray(8)
        context = Context()
        iocbs = [Iocb.poll(pipe[0], data="late"), Iocb.pwrite(pipe[1], buffer)]
        eventfd = os.eventfd(0)
        iocbs[0].set_eventfd(eventfd)
        context.submit(iocbs[:1])
        with pytest.warns(ResourceWarning, match="could not be closed in time"):
            assert context.close(0.01) == []
        assert context.closed
        assert "closing" in repr(context)
        assert iocbs[0].in_flight
        with pytest.raises(ValueError, match="closed"):
            context.getevents(0)
        with pytest.warns(ResourceWarning, match="could not be closed in time"):
            context.close(0)  # still
        del context
        gc.collect()
        Context().close()  # it looks at what was kept
        assert kernel_module._abandoned
        os.write(pipe[1], b"x")
        os.eventfd_read(eventfd)  # now it has ended
        Context().close()
        assert not kernel_module._abandoned
        assert not iocbs[0].in_flight
        os.close(eventfd)


def test_a_thread_inside_io_submit_is_not_freed(
    pipe: tuple[int, int], is_in_call: Callable[..., None]
) -> None:
    context = Context()
    buffer = bytearray(4)
    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(context.submit([Iocb.pread(pipe[0], buffer)])))
    thread.start()
    is_in_call(thread, "io_submit")
    with pytest.warns(ResourceWarning, match="could not be closed in time"):
        context.close(0.05)
    with pytest.raises(BufferError):
        buffer.append(0)
    os.write(pipe[1], b"abcd")
    thread.join()
    assert done == [1]
    assert buffer == b"abcd"
    [event] = context.close()  # again, and it ends well
    assert event.res == 4


def test_a_slow_second_close(pipe: tuple[int, int], is_in_call: Callable[..., None]) -> None:
    """While one thread closes, another one's close waits no longer than it was told."""
    context = Context()
    threads = [threading.Thread(target=context.submit, args=([Iocb.pread(pipe[0], bytearray(4))],))]
    threads[0].start()
    is_in_call(threads[0], "io_submit")
    threads.append(threading.Thread(target=context.close, args=(None,)))
    threads[1].start()
    while context._kernel.leaving is None:
        os.sched_yield()
    with pytest.warns(ResourceWarning, match="could not be closed in time"):
        assert context.close(0.01) == []
    os.write(pipe[1], b"abcd")
    for thread in threads:
        thread.join()
    assert context.closed
    assert context.in_flight == 0
    kernel_module.sweep()


def test_closed_just_before_the_system_call(
    pipe: tuple[int, int], fake: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a signal handler, and not to the end: the context is still there, the request must not be."""
    from iocancel.libaio import ledger

    fake(ioc_laio_cancel_many=lambda *_: 0)
    context, early, late = Context(), Iocb.poll(pipe[0]), Iocb.poll(pipe[0])
    context.submit([early])
    fly = ledger.Ledger.fly

    def closing(self: ledger.Ledger, batch: ledger.Batch) -> None:
        fly(self, batch)
        with pytest.warns(ResourceWarning, match="could not be closed in time"):
            context.close(0)

    monkeypatch.setattr(ledger.Ledger, "fly", closing)
    with pytest.raises(ValueError, match="closed"):
        context.submit([late])
    assert early.in_flight
    assert not late.in_flight
    os.write(pipe[1], b"x")
    assert [event.iocb for event in context.close()] == [early]


def test_never_made() -> None:
    bare = Context.__new__(Context)
    del bare
    with pytest.raises(TypeError):
        Context("x")  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        Context.__new__(Context).submit([Iocb.poll(0)])


@pytest.mark.parametrize("number", [0, -1, 1 << 31, 1 << 70, 0x7FFFFFFF])
def test_numbers_of_requests_that_no_kernel_takes(number: int) -> None:
    with pytest.raises(ValueError, match="nr_events"):
        Context(number)


@pytest.mark.parametrize("number", [None, 1.5, "1", b"1", [], object()])
def test_numbers_of_requests_that_are_none(number: Any) -> None:
    with pytest.raises(TypeError, match="nr_events takes an int"):
        Context(number)


def test_more_than_the_limit() -> None:
    most = sysctl("aio-max-nr")
    if most > 4_000_000:
        pytest.skip(f"fs.aio-max-nr is {most}, more than one context may have")
    with pytest.raises(EngineUnavailable) as caught:
        Context(most + 1)
    assert "fs.aio-max-nr" in caught.value.reason
    assert "sysctl" in caught.value.remedy


def test_refused(fake: Callable[..., None]) -> None:
    import errno

    for number in (errno.EPERM, errno.ENOSYS, errno.ENOMEM):
        fake(ioc_laio_setup=lambda *_, number=number: -number)
        with pytest.raises(EngineUnavailable) as caught:
            Context()
        assert caught.value.errno == number
        assert caught.value.remedy


def test_a_kernel_without_polls(fake: Callable[..., None]) -> None:
    import errno

    fake(ioc_laio_wake=lambda *_: -errno.EINVAL)
    with pytest.raises(FeatureUnavailable, match="IOCB_CMD_POLL"):
        Context()


def test_no_fd_left(run: Run) -> None:
    ended = run(
        "import resource\n"
        "before = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))\n"
        "try: Context()\n"
        "except OSError as error: print(error.errno)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, before)\n",
        "-X",
        "dev",
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("24\n", "", 0)


def test_all_fds_closed_under_it(run: Run) -> None:
    """A daemon that closes all fds: the wake-up is gone, nothing else."""
    ended = run(
        "import threading\n"
        "context = Context()\n"
        "os.closerange(3, 100)\n"
        "r, w = os.pipe(); os.dup(r); os.dup(r)\n"
        "iocb = Iocb.poll(r); context.submit([iocb]); context.cancel(iocb)\n"
        "print(context.getevents()[0].res, context.close())\n"
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("0 []\n", "", 0)
