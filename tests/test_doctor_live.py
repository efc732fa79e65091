"""How a finding of the doctor's comes about: its live requests, what the machine says."""

from __future__ import annotations

import errno
import os
import select
import threading
from pathlib import Path

import pytest

from iocancel import doctor, uring
from iocancel.doctor import live as live_module
from iocancel.doctor import machine, reach, rings, workers
from iocancel.doctor.live import Live, NotHere, Overdue, code, interrupted, needs, stopped
from iocancel.doctor.props import pipe
from iocancel.doctor.report import Check, Checks, Finding, Seen, Wrong, found
from iocancel.errors import EngineUnavailable, FeatureUnavailable, feature_unavailable

from .support import refuse


@pytest.fixture
def live() -> object:
    try:
        with uring.Ring(8) as ring:
            yield Live(ring)
    except EngineUnavailable as error:
        pytest.skip(str(error))


def test_a_ring_with_something_stuck_is_replaced(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    del live  # it skips where there is no io_uring
    made: list[object] = []

    def ring(*args: int) -> uring.Ring:
        if made:
            refuse()
        made.append(uring.Ring(*args))
        return made[-1]  # type: ignore[return-value]

    monkeypatch.setattr(doctor, "Ring", ring)
    monkeypatch.setattr(Live, "finish", lambda self: False)
    finding = doctor.examine(["io_uring"]).find("io_uring", "another ring")
    assert finding is not None
    assert finding.seen == "the examination ended here: it is forbidden"


MEMLOCK = "more memory that may be locked (ulimit -l, LimitMEMLOCK=)"


@pytest.mark.parametrize(
    ("error", "works", "seen", "remedy"),
    [
        (Wrong("it lied"), False, "it lied", "Linux 6.0 or later"),
        (Overdue("too long"), False, "too long", "Linux 6.0 or later"),
        (OSError(5, "broken"), False, "refused: [Errno 5] broken", "Linux 6.0 or later"),
        (OSError(12, "no memory"), False, "refused: [Errno 12] no memory", MEMLOCK),
        (NotHere("a tty"), None, "could not be tried: needs a tty", ""),
        (feature_unavailable("F", "6.0", "c"), False, "this kernel lacks it", "Linux 6.0 or later"),
        (EngineUnavailable(1, "no"), False, "[Errno 1] no", ""),
        (KeyError("k"), None, "a fault of iocancel's own: KeyError: 'k'", "please report it"),
    ],
)
def test_findings(error: Exception, works: bool | None, seen: str, remedy: str) -> None:
    def try_it(_: None) -> Seen:
        raise error

    finding = found("io_uring", Check("mechanism", "x", "6.0", try_it), None)
    assert (finding.works, finding.seen, finding.remedy, finding.reach) == (works, seen, remedy, None)


def test_what_the_c_library_lacks() -> None:
    def try_it(_: None) -> Seen:
        raise feature_unavailable("aio_init", "glibc", "aio_init")

    finding = found("posix_aio", Check("mechanism", "aio_init", "", try_it), None)
    assert (finding.seen, finding.remedy) == ("the C library lacks it", "needs glibc (aio_init)")


def test_a_good_finding() -> None:
    checks: Checks[int] = Checks("request")

    @checks.add("name", "5.1")
    def try_it(stage: int) -> Seen:
        return Seen(f"saw {stage}", "partial")

    [check] = checks
    assert found("libaio", check, 3) == Finding("libaio", "request", "name", True, "saw 3", "", "partial")


def test_needs() -> None:
    assert needs(feature_unavailable("F", "6.0", "c")) == "Linux 6.0 (F)"
    assert needs(feature_unavailable("aio_init", "glibc", "c")) == "glibc (aio_init)"
    assert needs(FeatureUnavailable(22, "text")) == "[Errno 22] text"


def test_codes() -> None:
    assert [code(n) for n in (0, 5, -125, -512, -4000)] == [
        "0",
        "5",
        "-ECANCELED",
        "-ERESTARTSYS (-512)",
        "-4000",
    ]
    assert interrupted(-errno.EINTR)
    assert interrupted(-516)
    assert not interrupted(-errno.ECANCELED)
    assert stopped(-errno.ECANCELED)
    assert not stopped(5)


def test_what_does_not_end_is_overdue(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    real = live.collect
    monkeypatch.setattr(live, "collect", lambda until, limit=0.0: real(until, 0.02))
    with pipe() as (read_end, _):
        number = live.start(lambda sqe: sqe.prep_poll_add(read_end, select.POLLIN))
        assert live.ended(number) is None
        with pytest.raises(Overdue, match="has not ended"):
            live.final(number)
        with pytest.raises(Overdue, match="no completion"):
            live.first(number)
        monkeypatch.undo()
        assert live.finish()
        assert live.final(number).res == -errno.ECANCELED


def test_a_cancel_that_can_not_reach_its_target(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "LIMIT", 0.2)
    with pipe() as (read_end, write_end):
        number = live.start(lambda sqe: sqe.prep_poll_add(read_end, select.POLLIN))
        with monkeypatch.context() as patch:
            patch.setattr(Live, "_answer", lambda self, prepare: -errno.ENOENT)
            with pytest.raises(Overdue, match="cancelled \\(-ENOENT\\)"):
                live.cancel(number)
            assert not live.finish()
        os.write(write_end, b"x")
        assert live.final(number).res == select.POLLIN


def test_an_entry_that_was_not_filled_does_no_harm(live: Live) -> None:
    with pytest.raises(TypeError):
        live.start(lambda sqe: sqe.prep_read("no file", bytearray(1)))  # type: ignore[arg-type]
    assert live.ask(lambda sqe: sqe.prep_nop()) == 0


def test_an_fd_that_arrives_is_closed(live: Live) -> None:
    before = set(os.listdir("/proc/self/fd"))
    number = live.start(lambda sqe: sqe.prep_open("/dev/null", os.O_RDONLY), fd=True)
    fd = live.final(number).res
    assert fd >= 0
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_refused_cancel_is_a_missing_feature(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    if uring.cancel_flags() & uring.CancelFlags.ALL:
        pytest.skip("this kernel has the flag")
    with pipe() as (read_end, _):
        number = live.start(lambda sqe: sqe.prep_poll_add(read_end, select.POLLIN))
        with pytest.raises(FeatureUnavailable):
            live.cancel(number, lambda sqe: sqe.prep_cancel64(number, uring.CancelFlags.ALL))
        live.finish()


def test_a_request_that_ends_at_once_is_no_blocked_one(live: Live) -> None:
    with pytest.raises(Wrong, match="ended at once"):
        reach.blocked(live, lambda sqe: sqe.prep_nop())
    with pytest.raises(Wrong, match="after its first event"):
        reach.multishot(live, lambda sqe: sqe.prep_nop(), lambda: None)


def test_reach_of_endings() -> None:
    def of(res: int) -> str | None:
        return reach.end(0, uring.Cqe(1, res), 8).reach

    assert [of(res) for res in (-errno.ECANCELED, -512, 3, 8)] == ["total", "total", "partial", "none"]
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        of(-errno.EIO)


def test_a_queued_open_that_fails_raises_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "Ring", refuse)
    with pytest.raises(EngineUnavailable):
        workers.queued_open()


def test_a_queued_open_that_hangs_is_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang() -> None:
        release.wait(60)

    monkeypatch.setattr(workers, "_queued_open", hang)
    monkeypatch.setattr(workers, "LIMIT", 0.01)
    with pytest.raises(Overdue):
        workers.queued_open()
    release.set()
    for thread in threading.enumerate():
        if thread.name == "iocancel-queued-open":
            thread.join()


def test_a_machine_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object) -> str:
        raise OSError(errno.ENOENT, "no such file")

    monkeypatch.setattr(Path, "read_text", nothing)
    told = machine.describe()
    assert told["seccomp"] == "unknown"
    assert told["liburing"] == "linked in"
    assert told["aio_nr"] is None


def test_musl(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: str) -> str:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "confstr", unknown)
    monkeypatch.setattr(machine, "_loaded", lambda pattern: "ld-musl-x86_64.so.1")
    assert machine.describe()["libc"] == "musl"
    assert not machine.is_glibc()


def test_an_old_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        def probe(self) -> None:
            raise feature_unavailable("IORING_REGISTER_PROBE", "5.6", "c")

    [finding] = rings.opcodes(Old())  # type: ignore[arg-type]
    assert (finding.works, finding.remedy) == (False, "Linux 5.6 or later")
