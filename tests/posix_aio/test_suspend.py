"""aio_suspend: what it waits for, for how long, and what happens to signals meanwhile."""

import errno
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from iocancel import posix_aio as aio
from iocancel.posix_aio import Aiocb

Pipe = Callable[[], tuple[int, int]]


@pytest.fixture
def blocked(pipe: Pipe) -> tuple[Aiocb, int]:
    read, write = pipe()
    block = Aiocb(read, bytearray(1))
    aio.aio_read(block)
    return block, write


@pytest.fixture
def alarm() -> Iterator[Callable[[Callable[[], object], bool], None]]:
    """Runs a function in the handler of a signal that comes in a moment."""
    before = signal.getsignal(signal.SIGALRM)

    def arrange(act: Callable[[], object], restart: bool) -> None:
        signal.signal(signal.SIGALRM, lambda *_: act())
        signal.siginterrupt(signal.SIGALRM, not restart)
        signal.setitimer(signal.ITIMER_REAL, 0.05)

    yield arrange
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    "timeout", [0, -0.0, 1e-9, 0.01, -1, -1e300, -math.inf, -(10**400), Decimal("0.01"), False]
)
def test_it_runs_out_of_time(timeout: Any, blocked: tuple[Aiocb, int]) -> None:
    # glibc ends the process for a tv_nsec that is negative or a whole second.
    assert aio.aio_suspend([blocked[0]], timeout) is False


@pytest.mark.parametrize(
    "timeout",
    [
        None,
        math.inf,
        1e300,
        10**400,
        2**63,
        2**31,
        1e9,
        86401,
        1.9999999999,
        0.9999999999999999 + 60,
        Fraction(601, 10),
    ],
)
def test_it_comes_back_when_one_ends(timeout: Any, blocked: tuple[Aiocb, int]) -> None:
    block, write = blocked
    os.write(write, b"x")
    assert aio.aio_suspend([block], timeout) is True
    assert aio.aio_suspend([block], timeout) is True  # one that has ended, at once
    assert aio.aio_return(block) == 1


@pytest.mark.parametrize("timeout", [math.nan, Decimal("nan")])
def test_no_number(timeout: Any, blocked: tuple[Aiocb, int]) -> None:
    with pytest.raises(ValueError, match="nan"):
        aio.aio_suspend([blocked[0]], timeout)


@pytest.mark.parametrize("timeout", ["1", b"1", object(), [1], 1j])
def test_no_seconds(timeout: Any, blocked: tuple[Aiocb, int]) -> None:
    with pytest.raises(TypeError, match="seconds"):
        aio.aio_suspend([blocked[0]], timeout)


def test_the_time_limit_holds(blocked: tuple[Aiocb, int]) -> None:
    start = time.monotonic()
    assert not aio.aio_suspend([blocked[0]], 0.05)
    assert time.monotonic() - start >= 0.05


def test_none_and_nothing(blocked: tuple[Aiocb, int]) -> None:
    block, write = blocked
    assert aio.aio_suspend([]) is True  # C on glibc: 0 at once
    assert aio.aio_suspend([None, None]) is True
    assert aio.aio_suspend([None, block, None], 0) is False
    os.write(write, b"x")
    assert aio.aio_suspend(block for block in [None, block]) is True


def test_any_of_several(pipe: Pipe) -> None:
    ends = [pipe() for _ in range(5)]
    blocks = [Aiocb(read, bytearray(1)) for read, _ in ends]
    for block in blocks:
        aio.aio_read(block)
    assert not aio.aio_suspend(blocks, 0)
    os.write(ends[3][1], b"x")
    assert aio.aio_suspend(blocks)
    assert [aio.aio_error(block) == 0 for block in blocks] == [False, False, False, True, False]
    assert aio.aio_suspend(blocks)  # it has still ended
    assert not aio.aio_suspend([*blocks[:3], blocks[0]], 0)  # one may be there twice
    for block, (_, write) in zip(blocks, ends, strict=True):
        os.write(write, b"x")
        assert aio.aio_suspend([block], 60)


def test_junk(blocked: tuple[Aiocb, int]) -> None:
    block, _ = blocked
    for junk in (block, 5, [5], [block, "x"], None):
        with pytest.raises(TypeError):
            aio.aio_suspend(junk)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="never started"):
        aio.aio_suspend([block, Aiocb(0)])


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("timeout", [None, 300])
def test_signal_handlers_run_and_the_wait_goes_on(
    timeout: float | None, restart: bool, blocked: tuple[Aiocb, int], alarm: Callable[..., None]
) -> None:
    # With SA_RESTART and no time limit the C call does not come back for a signal.
    block, write = blocked
    alarm(lambda: os.write(write, b"x"), restart)
    assert aio.aio_suspend([block], timeout) is True
    assert aio.aio_return(block) == 1


def test_a_signal_does_not_shorten_the_wait(blocked: tuple[Aiocb, int], alarm: Callable[..., None]) -> None:
    ran: list[int] = []
    alarm(lambda: ran.append(1), False)
    start = time.monotonic()
    assert aio.aio_suspend([blocked[0]], 0.3) is False
    assert time.monotonic() - start >= 0.3
    assert ran == [1]


@pytest.mark.parametrize("restart", [False, True])
def test_control_c(restart: bool, blocked: tuple[Aiocb, int], alarm: Callable[..., None]) -> None:
    block, write = blocked

    def interrupt() -> None:
        raise KeyboardInterrupt

    alarm(interrupt, restart)
    with pytest.raises(KeyboardInterrupt):
        aio.aio_suspend([block])
    assert aio.aio_error(block) == errno.EINPROGRESS  # only the wait has ended
    os.write(write, b"x")
    assert aio.aio_suspend([block])


def test_other_threads_run_meanwhile(blocked: tuple[Aiocb, int]) -> None:
    block, write = blocked
    answers: list[bool] = []
    threads = [
        threading.Thread(target=lambda: answers.append(aio.aio_suspend([block], 60))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    os.write(write, b"x")  # nobody could, if the waiting threads kept the GIL
    for thread in threads:
        thread.join()
    assert answers == [True, True, True]


def test_a_block_may_be_started_again_while_others_still_wait_for_it(pipe: Pipe) -> None:
    # Each start has a control block of its own in C: whoever waited for the last one sees its end.
    read, write = pipe()
    block = Aiocb(read, bytearray(1))
    for _ in range(20):
        aio.aio_read(block)
        threads = [threading.Thread(target=aio.aio_suspend, args=([block], 60)) for _ in range(2)]
        for thread in threads:
            thread.start()
        os.write(write, b"x")
        assert aio.aio_suspend([block], 60)
        aio.aio_read(block)
        os.write(write, b"y")
        for thread in threads:
            thread.join()
        assert aio.aio_suspend([block], 60)


def test_many(blocked: tuple[Aiocb, int], glibc: bool) -> None:
    block, write = blocked
    assert not aio.aio_suspend([block] * 500, 0)
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            aio.aio_suspend([block] * 20_000, 0)
        except ValueError as error:
            caught.append(error)

    old = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=wait)  # glibc would write past the end of this stack
        thread.start()
    finally:
        threading.stack_size(old)
    thread.join()
    assert ["stack" in str(error) for error in caught] == ([True] if glibc else [])
    os.write(write, b"x")
