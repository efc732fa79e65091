"""`iocancel.doctor`: what is found out by trying, and how it is told."""

from __future__ import annotations

import errno
import io
import json
import os
import select
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

import iocancel
from iocancel import doctor, uring
from iocancel.doctor import live as live_module
from iocancel.doctor import machine, reach, rings, verbs, workers
from iocancel.doctor.live import Live, NotHere, Overdue, code, interrupted, needs, stopped
from iocancel.doctor.props import pipe
from iocancel.doctor.report import Check, Checks, Finding, Report, Seen, Wrong, found
from iocancel.doctor.show import Painter, table, width_of
from iocancel.doctor.text import as_text
from iocancel.errors import EngineUnavailable, FeatureUnavailable, feature_unavailable
from iocancel.operation import VERBS


@pytest.fixture(scope="module")
def report() -> doctor.Report:
    return doctor.examine()


@pytest.fixture
def uring_report(report: doctor.Report) -> doctor.Report:
    if "io_uring" not in report.systems:
        pytest.skip(str(report.find("io_uring", "io_uring")))
    return report


@pytest.fixture
def live() -> object:
    try:
        with uring.Ring(8) as ring:
            yield Live(ring)
    except EngineUnavailable as error:
        pytest.skip(str(error))


def test_no_fault_of_our_own_and_no_bound_was_reached(report: doctor.Report) -> None:
    bad = [f for f in report.findings if "a fault of" in f.seen or "within" in f.seen]
    assert bad == []


def test_what_does_not_work_says_why(report: doctor.Report) -> None:
    assert [f for f in report.findings if not f.works and not f.seen] == []


def test_systems(report: doctor.Report) -> None:
    assert "posix_aio" in report.systems
    for finding in report.findings:
        if finding.area == "system":
            assert finding.works == (finding.system in report.systems)
            assert finding.works or finding.remedy


def test_requests_have_a_reach_where_they_work(report: doctor.Report) -> None:
    for finding in report.findings:
        asked = finding.area in ("request", "verb") and finding.works
        wanted = {"total", "partial", "none"} if asked else {None}
        assert finding.reach in wanted, finding


@pytest.mark.parametrize(
    "kind", ["read (empty pipe)", "recv", "accept", "poll", "timeout", "open (FIFO, IOSQE_ASYNC)"]
)
def test_what_every_kernel_cancels_in_full(uring_report: doctor.Report, kind: str) -> None:
    assert uring_report.works("io_uring", kind)
    assert uring_report.reach("io_uring", kind) == "total"


def test_what_no_kernel_cancels(uring_report: doctor.Report) -> None:
    assert uring_report.reach("io_uring", "read (regular file)") == "none"


def test_cancel_flags_are_those_of_the_probe(uring_report: doctor.Report) -> None:
    works = uring.cancel_flags()
    for flag in uring.CancelFlags:
        assert uring_report.works("io_uring", f"IORING_ASYNC_CANCEL_{flag.name}") == bool(works & flag)


def test_opcodes_are_those_of_the_probe(uring_report: doctor.Report) -> None:
    with uring.Ring(8) as ring:
        probe = ring.probe()
    for opcode in uring.Opcode:
        finding = uring_report.find("io_uring", f"IORING_OP_{opcode.name}")
        assert finding is not None
        assert finding.works == probe.supports(opcode)
        assert finding.works or finding.remedy.startswith("Linux ")


def test_libaio(report: doctor.Report) -> None:
    if "libaio" not in report.systems:
        pytest.skip(str(report.find("libaio", "libaio")))
    assert report.reach("libaio", "poll (empty pipe)") == "total"
    assert report.reach("libaio", "pread (regular file)") == "none"


def test_posix_aio(report: doctor.Report) -> None:
    assert report.reach("posix_aio", "aio_read, queued behind another (empty pipe)") == "total"
    expected = "none" if machine.is_glibc() else "total"
    assert report.reach("posix_aio", "aio_read, running (empty pipe)") == expected


# The engines


def test_verbs_are_what_the_engines_say(report: doctor.Report) -> None:
    assert set(verbs.ENGINE_OF) == {"io_uring", "libaio", "posix_aio"}
    for system in report.systems:
        engine = report.find(system, f"engine {verbs.ENGINE_OF[system]}")
        assert engine is not None
        if not engine.works:
            assert engine.remedy
            continue
        with iocancel.open_engine(verbs.ENGINE_OF[system]) as opened:
            for verb in VERBS:
                finding = report.find(system, f"engine.{verb}")
                assert finding is not None
                assert finding.area == "verb"
                assert finding.works == opened.supports(verb)
                assert finding.reach == opened.reach(verb)


def test_reach_of_verbs_on_io_uring(uring_report: doctor.Report) -> None:
    assert uring_report.reach("io_uring", "engine.poll") == "total"
    assert uring_report.reach("io_uring", "engine.read") == "partial"
    assert uring_report.reach("io_uring", "engine.fsync") == "none"


def test_no_engine_without_its_system() -> None:
    assert {finding.system for finding in doctor.examine(["io_uring"]).findings} == {"io_uring"}


@pytest.mark.parametrize(
    ("error", "works", "seen"),
    [(None, False, "it is forbidden"), (ValueError("so so"), None, "a fault of iocancel's own: ValueError")],
)
def test_an_engine_that_can_not_be_opened(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, works: bool | None, seen: str
) -> None:
    def fail(**_: object) -> None:
        if error is None:
            refuse()
        raise error or AssertionError

    monkeypatch.setattr(verbs, "engine_class", lambda name: fail)
    [finding] = verbs.found_out("io_uring")
    assert (finding.area, finding.works) == ("engine", works)
    assert finding.seen.startswith(seen)
    assert finding.remedy


def test_engines_as_text() -> None:
    findings = [
        Finding("io_uring", "system", "io_uring", True),
        Finding("io_uring", "engine", "engine uring", True, "2 of 3 verbs"),
        Finding("io_uring", "verb", "engine.accept", True, "", "", "total"),
        Finding("io_uring", "verb", "engine.poll", True, "", "", "total"),
        Finding("io_uring", "verb", "engine.waitid", False, "not here"),
        Finding("libaio", "system", "libaio", True),
        Finding("libaio", "engine", "engine libaio", False, "it is forbidden", "allow it"),
    ]
    text = as_text(Report(machine.describe(), tuple(findings)), Painter(io.StringIO()), 60)
    assert "engine uring, 2 of 3 verbs: works\n  total     accept poll\n  not here  waitid\n" in text
    assert "engine libaio: can not be had here\nit is forbidden. What would help: allow it.\n" in text


def test_machine(report: doctor.Report) -> None:
    told = report.machine
    assert told["kernel"] == os.uname().release
    assert told["uid"] == os.geteuid()
    assert told["seccomp"] in ("off", "strict", "filter", "unknown")
    assert told["liburing"] == "linked in" or told["liburing"].startswith("liburing")


def test_as_dict_is_json(report: doctor.Report) -> None:
    found = json.loads(json.dumps(report.as_dict()))
    assert found["systems"] == list(report.systems)
    assert len(found["findings"]) == len(report.findings)
    assert set(found["findings"][0]) == {"system", "area", "name", "works", "seen", "remedy", "reach"}


def test_one_system_alone() -> None:
    report = doctor.examine(["libaio"])
    assert {finding.system for finding in report.findings} == {"libaio"}
    assert report.find("posix_aio", "aio_init") is None
    assert report.reach("posix_aio", "aio_init") is None
    assert not report.works("posix_aio", "aio_init")


def test_an_unknown_system() -> None:
    with pytest.raises(ValueError, match="'epoll'"):
        doctor.examine(["epoll"])  # type: ignore[list-item]


def test_it_leaves_nothing_behind() -> None:
    doctor.examine()
    fds, threads = set(os.listdir("/proc/self/fd")), threading.active_count()
    doctor.examine()
    assert set(os.listdir("/proc/self/fd")) == fds
    assert threading.active_count() == threads


# Refusals

FORBID = """
import ctypes, platform, struct, sys
numbers = {"x86_64": (425, 206), "aarch64": (425, 0)}.get(platform.machine())
if numbers is None:
    sys.exit(77)
libc = ctypes.CDLL(None, use_errno=True)
code = [(0x20, 0, 0, 0), *((0x15, 0, 1, n) if i % 2 == 0 else (0x06, 0, 0, 0x50001)
        for n in numbers for i in range(2)), (0x06, 0, 0, 0x7FFF0000)]
raw = b"".join(struct.pack("HBBI", *line) for line in code)
memory = ctypes.create_string_buffer(raw)
program = struct.pack("HxxxxxxQ", len(code), ctypes.addressof(memory))
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.create_string_buffer(program)):
    sys.exit(77)
from iocancel.__main__ import main
sys.exit(main(["doctor", "--json"]) * 10 + main(["demo", "--json"]))
"""


def test_forbidden_by_seccomp() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORBID], capture_output=True, text=True, timeout=110, check=False
    )
    if done.returncode == 77:
        pytest.skip("no seccomp filter can be installed here")
    assert done.returncode == 0, done.stderr
    decoder = json.JSONDecoder()
    doctors, end = decoder.raw_decode(done.stdout)
    assert doctors["systems"] == ["posix_aio"]
    assert doctors["machine"]["seccomp"] == "filter"
    refused = [finding for finding in doctors["findings"] if finding["works"] is False]
    assert {finding["name"] for finding in refused} >= {"io_uring", "libaio"}
    assert all("seccomp" in f["seen"] and f["remedy"] for f in refused if f["area"] == "system")
    demos = json.loads(done.stdout[end:])
    assert set(demos["missing"]) == {"io_uring", "libaio"}
    assert demos["ok"]


def refuse(*_: object, **__: object) -> None:
    error = EngineUnavailable(1, "Operation not permitted")
    error.reason, error.remedy = "it is forbidden", "allow it"
    raise error


def test_no_system_at_all_is_exit_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    from iocancel.doctor import others

    monkeypatch.setattr(doctor, "Ring", refuse)
    monkeypatch.setattr(doctor, "Context", refuse)
    monkeypatch.setattr(others, "aio_read", refuse)
    monkeypatch.setattr(others, "aio_write", refuse)
    out = io.StringIO()
    assert doctor.main(out=out) == 1
    assert out.getvalue().count("can not be had here\nit is forbidden. What would help: allow it.\n") == 3


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


# How a finding comes about

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


# Live requests


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
    with pytest.raises(OSError, match="Input/output"):
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


# The machine


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


# Tables


def test_report_as_tables(report: doctor.Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: report)
    out = io.StringIO()
    assert doctor.main(out=out) == 0
    text = out.getvalue()
    assert "\x1b" not in text
    assert "this machine" in text
    assert "POSIX AIO (the C library's): works" in text
    out = io.StringIO()
    assert doctor.main(as_json=True, out=out) == 0
    assert json.loads(out.getvalue()) == json.loads(json.dumps(report.as_dict()))


def test_report_of_what_is_missing() -> None:
    told = {**machine.describe(), "memlock": None, "nofile": 7, "capabilities": [], "aio_nr": None}
    findings = (
        Finding("io_uring", "system", "io_uring", True),
        Finding("io_uring", "mechanism", "thing", False, "this kernel lacks it", "Linux 9 or later"),
        Finding("io_uring", "mechanism", "other", None, "could not be tried"),
        Finding("io_uring", "opcode", "IORING_OP_NEW", False, "", "Linux 9 or later"),
        Finding("io_uring", "opcode", "IORING_OP_ODD", False),
        Finding("libaio", "system", "libaio", False, "forbidden"),
    )
    text = as_text(Report(told, findings), Painter(io.StringIO()), 100)
    assert "memlock unlimited, nofile 7" in text
    assert "aio_nr (none)" in text
    assert "no capability that matters" in text
    assert "opcodes: 0 of the 2 that this version knows" in text
    assert "not IORING_OP_NEW: Linux 9 or later" in text
    assert "can not be had here\nforbidden.\n" in text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Painter(Terminal())("yes", "good") == "\x1b[32myes\x1b[0m"
    assert Painter(Terminal())("maybe", "") == "maybe"
    assert Painter(io.StringIO())("yes", "good") == "yes"
    monkeypatch.setenv("NO_COLOR", "1")
    assert Painter(Terminal())("yes", "good") == "yes"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert Painter(Terminal())("yes", "good") == "yes"


def test_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "77")
    assert width_of(io.StringIO()) == 77
    monkeypatch.delenv("COLUMNS")
    assert width_of(io.StringIO()) == 120
    assert width_of(Terminal()) > 0


def test_cells_are_wrapped_and_columns_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    rows = [["a cell of several words", "NO", "last"], ["b", "yes", ""]]
    text = table(["first", "ok", "third"], rows, 1, Painter(io.StringIO()), 24)
    expected = """\
        first         ok   third
        a cell of     NO   last
        several
        words
        b             yes
        """
    assert text.replace(" ", "").split("\n") == textwrap.dedent(expected).replace(" ", "").split("\n")
    assert all(len(line) <= 24 for line in text.splitlines())
    coloured = table(["first", "ok", "third"], rows, 1, Painter(Terminal()), 24)
    assert "\x1b[31;1mNO\x1b[0m" in coloured
    assert "\x1b[32myes\x1b[0m" in coloured


def test_it_is_quick(report: doctor.Report) -> None:
    if "IOCANCEL_GUEST" in os.environ or "IOCANCEL_SANITIZE" in os.environ:
        pytest.skip("an emulated machine is slow")
    start = time.monotonic()
    doctor.examine()
    assert time.monotonic() - start < 10
