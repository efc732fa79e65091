"""What somebody keeps of an engine that the pool has closed does not count as an engine of the pool."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from iocancel import open_engine, pool
from iocancel.errors import EngineUnavailable


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
