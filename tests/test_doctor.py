"""`iocancel.doctor`: what is found out by trying, and how it is told."""

from __future__ import annotations

import gc
import io
import json
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import iocancel
from iocancel import doctor, uring
from iocancel.doctor import machine, verbs
from iocancel.doctor.report import Finding, Report
from iocancel.doctor.show import Painter, table, width_of
from iocancel.doctor.text import as_text
from iocancel.engines.posix_aio import lines
from iocancel.operation import VERBS
from iocancel.trace.tracefs import Instance, TracingUnavailable
from iocancel.trace.tracer import events

from .support import BOUND, refuse, until


@pytest.fixture(scope="module")
def report() -> doctor.Report:
    return doctor.examine()


@pytest.fixture
def uring_report(report: doctor.Report) -> doctor.Report:
    if "io_uring" not in report.systems:
        pytest.skip(str(report.find("io_uring", "io_uring")))
    return report


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
    # What the C library's threads still had when their engine was closed is swept up later, by the next one.
    until(lambda: lines.sweep() == 0, "what ran on has ended")
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) <= fds, "more than before; fewer, where the first left something"
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


def test_no_system_at_all_is_exit_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    from iocancel.doctor import aio, others

    monkeypatch.setattr(doctor, "Ring", refuse)
    monkeypatch.setattr(doctor, "Context", refuse)
    monkeypatch.setattr(aio, "aio_read", refuse)
    monkeypatch.setattr(others, "aio_read", refuse)
    monkeypatch.setattr(others, "aio_write", refuse)
    out = io.StringIO()
    assert doctor.main(out=out) == 1
    assert out.getvalue().count("can not be had here\nit is forbidden. What would help: allow it.\n") == 3


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


def test_tracing(report: doctor.Report) -> None:
    """Whether it is possible is what trying it says, and what would help."""
    finding = report.find("io_uring", "iocancel trace")
    assert finding is not None
    try:
        with Instance(events("uring"), 4096):
            possible, why = True, ""
    except TracingUnavailable as error:
        possible, why = False, error.remedy
    assert (finding.works, finding.remedy) == (possible, why)
    assert report.works("libaio", "iocancel trace") == possible
    assert not report.works("posix_aio", "iocancel trace"), "its cancels never reach a kernel"


def test_tracing_without_tracefs() -> None:
    gone = 'umount -l -a -t tracefs; umount -l -a -t debugfs; exec "$@"'
    program = """if True:
        from iocancel import doctor
        print(*doctor.examine(["io_uring"]).find("io_uring", "iocancel trace").as_dict().values())
    """
    command = ["unshare", "--mount", "sh", "-c", gone, "sh", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, check=False)
    if done.stderr.startswith("unshare: "):  # not root; or in a chroot
        pytest.skip(f"no mount namespace can be made here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "False tracefs is not mounted" in done.stdout
    assert "mount -t tracefs" in done.stdout
