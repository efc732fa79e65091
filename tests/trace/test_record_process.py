"""The library's own record: from everywhere in a process, on and off; off it leaves no trace."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import iocancel
from iocancel import Outcome, _record, open_engine, record_to
from iocancel.testing import BlockedPipe
from iocancel.uring import Ring

from ..operation.helpers import real, running
from ..support import BOUND, few
from .recording import Record
from .recording import record as record

# Anywhere


def test_lines_of_many_threads_do_not_mix(record: Record) -> None:
    rounds = few(100)

    def work() -> None:
        with Ring(64) as ring:
            for _ in range(rounds):
                ring.prep_cancel64_many(range(50), 7)
                ring.submit_and_reap(50)

    with running(work, work, work):
        pass
    found = record.lines()
    assert len(found) == 3 * rounds * 50
    assert len({line["tid"] for line in found}) == 3


def test_in_a_signal_handler_and_from_another_thread(
    record: Record, handler: Callable[[Callable[[], object]], None]
) -> None:
    with open_engine("uring") as engine, BlockedPipe() as pipe:
        record.lines()
        op = engine.read(pipe.fileno(), 1)
        engine.submit()
        handler(lambda: engine._stop(op))
        signal.raise_signal(signal.SIGUSR1)
        assert op.wait(BOUND) is Outcome.CANCELLED
        assert record.of("mechanism", "key") == [("sync_cancel", op.token)]


def test_a_forked_child_goes_on_with_its_own_number(record: Record) -> None:
    child = os.fork()
    if not child:
        code = 1
        try:
            with Ring(8) as ring:
                ring.submit_cancel64(1, 2, n=1)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert record.of("pid", "key") == [(child, 1)]


# On and off


def test_off_the_calls_are_c_s_own(tmp_path: Path) -> None:
    assert _record._points
    for point in _record._points:
        assert point.namespace[point.name] is point.call
    record_to(tmp_path / "one")
    for point in _record._points:
        assert point.namespace[point.name] is not point.call
    record_to(tmp_path / "two")
    with Ring(8) as ring:
        ring.submit_cancel64(1, 2, n=1)
    record_to(None)
    for point in _record._points:
        assert point.namespace[point.name] is point.call
    assert (tmp_path / "one").read_bytes() == b""
    assert (tmp_path / "two").read_bytes().count(b"\n") == 1


def test_each_call_that_cancels_is_joined() -> None:
    """No module has a call that cancels and is not recorded."""
    source = Path(iocancel.__file__).parent
    calls = [
        *("ioc_cancel_many", "ioc_cancel_one", "ioc_push_many", "ioc_sync_cancel"),
        *("ioc_laio_cancel", "ioc_laio_cancel_many", "ioc_laio_cancel_each", "ioc_aio_cancel"),
    ]
    for path in source.rglob("*.py"):
        if path.name == "_record.py" or path.parts[-2] in ("doctor", "demo"):
            continue
        text = path.read_text()
        for call in calls:
            bare = text.replace(f"    return int(lib.{call}(", "")  # of a function that is joined
            assert f"lib.{call}(" not in bare, f"{path} calls {call} by itself"
            if f"lib.{call}" in text:
                assert "_record.join(globals()" in text


def test_a_file_that_can_t_be_opened_changes_nothing(record: Record, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        record_to(tmp_path / "no" / "such")
    with Ring(8) as ring:
        ring.submit_cancel64(1, 2, n=1)
    assert record.of("key") == [(1,)]


def test_a_full_disk_is_told_once_and_stops_no_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: told.append((report.exc_value, report.err_msg)))
    record_to("/dev/full")
    try:
        with open_engine("uring") as engine, BlockedPipe() as pipe:
            for _ in range(3):
                op = engine.read(pipe.fileno(), 1)
                op.cancel()
                engine.submit()
                op = engine.read(pipe.fileno(), 1)
                engine.submit()
                op.cancel()
                assert op.wait(BOUND) is Outcome.CANCELLED
    finally:
        record_to(None)
    [(error, text)] = told
    assert error.errno == errno.ENOSPC
    assert text == "The record of cancels ends here"


PROGRAM = """
import iocancel
with iocancel.open_engine("uring") as engine:
    op = engine.timeout(100.0)
    engine.submit()
    op.cancel()
    op.wait()
    print(op.token)
"""


def program(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """One that knows nothing of the record that it makes."""
    real("uring").close()
    return subprocess.run(
        [sys.executable, *options, "-c", PROGRAM],
        env={**os.environ, "IOCANCEL_RECORD": str(path)},
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=True,
    )


def test_by_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "record"
    done = program(path, "-W", "error")
    keys = [json.loads(line)["key"] for line in path.read_text().splitlines()]
    assert keys.count(int(done.stdout)) == 1


def test_a_wrong_path_in_the_environment_is_a_warning(tmp_path: Path) -> None:
    done = program(tmp_path / "no" / "such")
    assert "RuntimeWarning: IOCANCEL_RECORD: no record is made: [Errno 2]" in done.stderr
    assert done.stdout.strip().isdigit()
