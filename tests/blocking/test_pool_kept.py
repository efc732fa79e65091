"""What a review found in the pool: closed engines that count, waits without an end, a choice in a crowd."""

from __future__ import annotations

import errno
import threading
import time
from typing import Any

import pytest

from iocancel import open_engine, pool
from iocancel.errors import EngineUnavailable, OperationTimedOut


class Patience:
    """Somebody who waits for an engine, and is not to."""

    waiter: Any = None

    def left(self) -> float | None:
        raise AssertionError("it waits for an engine that never comes back")


class Limited(pool.Pool):
    """A pool that can be told to get no more engines."""

    over = False

    def _open(self, into: list[Any]) -> None:
        if self.over:
            raise EngineUnavailable(errno.ENOMEM, "there is no more")
        super()._open(into)


def test_a_closed_engine_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        open_engine("uring").close()
    except EngineUnavailable as error:
        pytest.skip(str(error))
    monkeypatch.setattr(pool, "IDLE", 0)  # what comes back is closed
    lent, held = Limited("uring"), list[Any]()
    kept = lent.take(held, Patience()).timeout(0)
    kept.wait()
    lent.give_back(held)
    assert not held
    assert len(lent) == 0
    lent.over = True
    with pytest.raises(EngineUnavailable):
        lent.take(held, Patience())
    assert kept.done()
    lent.close()


class Slow(pool.Pool):
    """One engine, and each try to open another one takes longer than the wait between two tries."""

    tries = 0

    def _open(self, into: list[Any]) -> None:
        self.tries += 1
        if self.tries == 1:
            super()._open(into)
            return
        threading.Event().wait(1.2 * pool._LOOK)
        assert self.tries < 30, "nobody asked whether the wait is over"
        raise EngineUnavailable(errno.ENOMEM, "there is no more")


class Counting:
    """Somebody who gives up when he was asked three times."""

    waiter: Any = None
    asked = 0

    def left(self) -> float | None:
        self.asked += 1
        if self.asked > 3:
            raise OperationTimedOut(errno.ECANCELED, "the time is over")
        return 1.0


def test_who_waits_is_asked_in_each_round() -> None:
    lent, held = Slow(), list[Any]()
    lent.take(held, Counting())
    try:
        with pytest.raises(OperationTimedOut):
            lent.take([], Counting())
    finally:
        lent.give_back(held)
        lent.close()


def test_one_thread_chooses_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many at once would use up the locked memory together, and choose another one for ever."""
    choosing, go_on = threading.Event(), threading.Event()
    many = []

    def chosen(name: str | None) -> Any:
        many.append(name)
        choosing.set()
        assert go_on.wait(20)
        return real(name)

    real = open_engine
    monkeypatch.setattr(pool, "open_engine", chosen)
    lent, helds = pool.Pool(), [list[Any]() for _ in range(3)]
    threads = [threading.Thread(target=lent.take, args=(held, Forever())) for held in helds]
    for thread in threads:
        thread.start()
    assert choosing.wait(20)
    until = time.monotonic() + 20
    while len(lent._waiting) < 2 and time.monotonic() < until:
        time.sleep(0)
    go_on.set()
    for thread in threads:
        thread.join()
    assert many == [None]
    for held in helds:
        assert len(held) == 1
        lent.give_back(held)
    lent.close()


class Forever:
    """Somebody who waits."""

    waiter: Any = None

    def left(self) -> float | None:
        return None
