"""What the tests of each verb share: a call of it on an engine, and that nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iocancel import move_on_after

from .case import Case
from .cases import CASES
from .conftest import of_engine
from .helpers import ENGINES, Thread, warm, whole

MAIN = threading.main_thread()
LACKING = {("libaio", "open"), ("libaio", "futex_wait")}
ROWS = [(engine, name) for engine in ENGINES for name in CASES if (engine, name) not in LACKING]
FILES = [row for row in ROWS if row[1] not in ("open", "waitid", "futex_wait", "sleep")]
NONBLOCKING = [row for row in FILES if row[1] not in ("poll", "splice", "tee", "connect")]


@contextlib.contextmanager
def set_up(engine: str, name: str, folder: Path) -> Iterator[Any]:
    with of_engine(engine) as found, contextlib.ExitStack() as stack:
        if not warm().supports(CASES[name].verb) and CASES[name].verb != "waitid":
            pytest.skip(f"{engine} has no {name} here")
        case: Any = CASES[name](stack, folder)
        case.pool = found
        yield case


def calls(rows: list[tuple[str, str]]) -> Any:
    """A fixture: a call of a verb on an engine, for each of these rows."""

    @pytest.fixture(params=rows, ids="-".join)
    def found(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
        engine, name = request.param
        with set_up(engine, name, tmp_path) as made:
            yield made

    return found


case = calls(ROWS)
filed = calls(FILES)
"""Of those that wait for a file."""
staying = calls([row for row in ROWS if CASES[row[1]].stays])
"""Of those where what comes stays until a call takes it."""


@pytest.fixture(params=NONBLOCKING, ids="-".join)
def nonblocking(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A call of a verb on an engine, of those that O_NONBLOCK means something to."""
    engine, name = request.param
    with set_up(engine, name, tmp_path) as found:
        os.set_blocking(found.fd, False)
        yield found


def goes_on(case: Case) -> None:
    """What has ended has left nothing behind: the next call is whole, and takes what comes."""
    whole()
    if case.timed and not case.is_ready:
        with pytest.raises(TimeoutError):
            case.call(timeout=0)
    if case.stays:
        if not case.is_ready:
            case.ready()
        assert case.right(case.call())
    elif type(case).ready is not Case.ready:
        thread = Thread(case.call)
        thread.until_blocked()
        case.ready()
        assert case.right(thread.join())
    else:
        with move_on_after(0):
            case.call()
    whole()
