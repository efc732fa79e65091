"""`iocancel demo`: real requests, cancelled; and an exit status that tells when one came out wrong."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import threading

import pytest

from iocancel import demo
from iocancel.demo import libaio as libaio_scenes
from iocancel.demo import posix_aio as posix_scenes
from iocancel.demo import uring as uring_scenes
from iocancel.demo.row import Scenes, Shown, answered, ended
from iocancel.doctor.live import Live, NotHere, Overdue
from iocancel.doctor.machine import is_glibc
from iocancel.doctor.show import Painter
from iocancel.errors import EngineUnavailable, feature_unavailable


@pytest.fixture(scope="module")
def show() -> demo.Show:
    return demo.run()


def row_of(show: demo.Show, started: str) -> demo.Row:
    row = next((row for row in show.rows if row.started == started), None)
    if row is None:
        pytest.skip(f"not to be had here: {show.missing}")
    if row.as_it_must is None:
        pytest.skip(row.note)
    return row


def test_nothing_came_out_wrong(show: demo.Show) -> None:
    assert [row for row in show.rows if row.as_it_must is False] == []
    assert show.ok


def test_what_was_not_tried_says_what_it_needs(show: demo.Show) -> None:
    for row in show.rows:
        if row.as_it_must is None:
            assert row.note.startswith("not here: needs ")
        else:
            assert row.answer
            assert row.ending
            assert not row.note


def test_every_system_is_shown_or_missing(show: demo.Show) -> None:
    shown = {row.system for row in show.rows}
    assert shown | set(show.missing) == {"io_uring", "libaio", "posix_aio"}
    assert not shown & set(show.missing)
    assert "posix_aio" in shown


def test_a_blocked_pipe_read_did_not_happen(show: demo.Show) -> None:
    row = row_of(show, "read of an empty pipe")
    # A kernel that reads pipes in a worker (5.15 does) interrupts it there.
    assert row.answer.startswith(("0:", "-EALREADY:"))
    assert row.ending.startswith(("-ECANCELED:", "-EINTR:"))
    assert row.ending.endswith("later bytes are in the pipe")


def test_a_success_that_beats_the_cancel_is_delivered(show: demo.Show) -> None:
    row = row_of(show, "read of a pipe with data in it")
    # Linux AIO can't read a pipe: where io_uring is missing, the row is POSIX AIO's.
    assert row.answer.startswith("-ENOENT" if row.system == "io_uring" else "ALLDONE")
    assert row.ending.startswith("5:")


def test_a_cancelled_libaio_poll_has_an_event_of_0(show: demo.Show) -> None:
    row = row_of(show, "poll of an empty pipe")
    assert row.answer.startswith("-EINPROGRESS")
    assert row.ending.startswith("res 0")


def test_a_running_posix_read(show: demo.Show) -> None:
    row = row_of(show, "read of an empty pipe, running")
    assert row.answer.startswith("NOTCANCELED" if is_glibc() else "CANCELED")


def test_it_leaves_nothing_behind() -> None:
    demo.run()
    fds, threads = set(os.listdir("/proc/self/fd")), threading.active_count()
    assert demo.run().ok
    assert set(os.listdir("/proc/self/fd")) == fds
    assert threading.active_count() == threads


def test_json(show: demo.Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "run", lambda: show)
    out = io.StringIO()
    assert demo.main(as_json=True, out=out) == 0
    found = json.loads(out.getvalue())
    assert found["ok"] is True
    assert found["kernel"] == os.uname().release
    assert found["rows"] == [dataclasses.asdict(row) for row in show.rows]
    assert found["missing"] == show.missing


def test_table(show: demo.Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "run", lambda: show)
    out = io.StringIO()
    assert demo.main(out=out) == 0
    text = out.getvalue()
    assert "\x1b" not in text  # no terminal, no colours
    assert "as it must" in text
    assert "came out as they must" in text
    for word in ("io_uring", "Linux AIO (libaio)", "POSIX AIO"):
        assert word in text


def only(monkeypatch: pytest.MonkeyPatch, play: object) -> None:
    """Leaves nothing to show but one scene, of POSIX AIO, which is always to be had."""
    scenes: Scenes[None] = Scenes()
    scenes.add("something", "somehow")(play)  # type: ignore[arg-type]
    monkeypatch.setattr(posix_scenes, "SCENES", scenes)
    monkeypatch.setattr(uring_scenes, "SCENES", Scenes())
    monkeypatch.setattr(libaio_scenes, "SCENES", Scenes())


def raising(error: Exception) -> object:
    def play(_: None) -> Shown:
        raise error

    return play


def test_a_wrong_row_is_exit_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, lambda _: Shown("0: found and cancelled", "5: it had happened", right=False))
    out = io.StringIO()
    assert demo.main(out=out) == 1
    assert "NO" in out.getvalue()
    assert "0 of 1 came out as they must." in out.getvalue()


@pytest.mark.parametrize("error", [OSError(5, "broken"), Overdue("too long"), ValueError("a fault of ours")])
def test_an_error_is_a_wrong_row(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    only(monkeypatch, raising(error))
    out = io.StringIO()
    assert demo.main(as_json=True, out=out) == 1
    [row] = json.loads(out.getvalue())["rows"]
    assert row["as_it_must"] is False
    assert row["ending"] == f"{type(error).__name__}: {error}"


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (NotHere("Linux 99"), "not here: needs Linux 99"),
        (feature_unavailable("F", "6.0", "call"), "not here: needs Linux 6.0 (F)"),
        (EngineUnavailable(1, "forbidden"), "not here: [Errno 1] forbidden"),
    ],
)
def test_what_is_not_here_does_not_count(
    monkeypatch: pytest.MonkeyPatch, error: Exception, note: str
) -> None:
    only(monkeypatch, raising(error))
    show = demo.run()
    assert [(row.as_it_must, row.note) for row in show.rows] == [(None, note)]
    assert not show.ok  # nothing at all was tried
    assert "1 could not be tried here" in demo.render(show, Painter(io.StringIO()), 120)


def test_systems_that_are_missing(show: demo.Show, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        error = EngineUnavailable(1, "Operation not permitted")
        error.reason, error.remedy = "forbidden by a profile", "Allow it"
        raise error

    monkeypatch.setattr(demo, "Ring", refused)
    monkeypatch.setattr(demo, "Context", refused)
    out = io.StringIO()
    assert demo.main(out=out) == 0  # POSIX AIO came out as it must
    assert out.getvalue().count("not to be had here: forbidden by a profile. What would help: Allow it.") == 2


def test_a_ring_with_something_stuck_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    if "io_uring" in demo.run().missing:
        pytest.skip("io_uring can't be had here")
    rings: list[int] = []
    scenes: Scenes[object] = Scenes()
    for name in ("first", "second"):

        @scenes.add(name, "not at all")
        def play(live: object) -> Shown:
            rings.append(id(live))
            return Shown("-", "-", right=True)

    monkeypatch.setattr(uring_scenes, "SCENES", scenes)
    monkeypatch.setattr(Live, "finish", lambda self: False)
    assert [row.as_it_must for row in demo.run().rows if row.system == "io_uring"] == [True, True]
    assert len(set(rings)) == 2


@pytest.mark.parametrize(
    ("answer", "res", "right"),
    [
        (0, -errno.ECANCELED, True),
        (-errno.EALREADY, -errno.EINTR, True),
        (-errno.EALREADY, -512, True),
        (-errno.ENOENT, -errno.EINTR, True),  # seen on 7.2
        (-errno.ENOENT, -errno.ECANCELED, False),
        (0, 5, False),
        (-errno.EINVAL, -errno.EINTR, False),
    ],
)
def test_answers_and_endings_that_fit(answer: int, res: int, right: bool) -> None:
    assert uring_scenes._gone(answer, res) is right


def test_words() -> None:
    assert answered(0) == "0: found and cancelled"
    assert answered(3) == "3 matched"
    assert answered(-22) == "-EINVAL: refused"
    assert ended(-512) == "-ERESTARTSYS (-512): interrupted, it did not happen"
    assert ended(-62) == "-ETIME: the time ran out"
    assert ended(-5) == "-EIO: it failed"
    assert ended(7) == "7: it had happened"
