"""`iocancel trace` as a process: what it prints, how it ends, and that nothing of it stays in the kernel."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ..support import BOUND, need_uring, until
from .conftest import OURS, left

# A mount namespace of its own, with tracefs where it usually is.
INSIDE = f'mountpoint -q {OURS} || mount -t tracefs tracefs {OURS}; exec "$@"'
TRACE = [sys.executable, "-m", "iocancel", "trace"]


def inside(command: Sequence[str], first: str = INSIDE) -> list[str]:
    return ["unshare", "--mount", "sh", "-c", first, "sh", *command]


def run(*args: str, first: str = INSIDE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        inside([*TRACE, *args], first), capture_output=True, text=True, timeout=BOUND, check=False
    )


@pytest.fixture(autouse=True)
def _tracing(tracefs: Path, namespaces: None) -> None:
    """All of these need it."""


def test_lines(cancels: str) -> None:
    done = run("--", cancels)
    assert done.returncode == 0, done.stderr
    said, _, summary = done.stdout.partition("\n\n")
    program = [line for line in said.splitlines() if line.count("=") or line.startswith(("async", "sync"))]
    assert len(program) == 9, "the program's own output comes through"
    shown = [line for line in said.splitlines() if line.count(":") > 1]
    assert len(shown) == 9
    assert ["TIME", "PID", "COMM", "MECHANISM"] in [line.split()[:4] for line in said.splitlines()]
    [rejected] = [line for line in shown if "rejected" in line]
    assert "key 0x3e7" in rejected
    assert "EINVAL" in rejected
    [link] = [line for line in shown if "link_timeout" in line]
    assert "POLL_ADD 0x9 ECANCELED" in link
    assert "9 cancels. Events lost: 0." in summary
    assert "\x1b" not in done.stdout, "no colours where it is no terminal"
    assert done.stderr == ""


def test_json(cancels: str) -> None:
    done = run("--json", "--", "sh", "-c", f"{cancels} >/dev/null; exit 3")
    assert done.returncode == 3, "the command's own status"
    *cancelled, last = map(json.loads, done.stdout.splitlines())
    assert len(cancelled) == last["cancels"] == 9
    assert last["lost_events"] == 0
    assert {row["mechanism"] for row in last["summary"]} == {each["mechanism"] for each in cancelled}
    [row] = [row for row in last["summary"] if row["mechanism"] == "async_cancel"]
    assert row["cancels"] == 5
    assert row["verdicts"] == {"cancelled": 2, "not found": 1, "rejected": 1, "accepted": 1}
    assert row["ended"] == 3
    assert 0 < row["latency"]["p50"] <= row["latency"]["p99"] <= row["latency"]["p100"]
    first = cancelled[0]
    assert (first["system"], first["comm"], first["user_data"]) == ("uring", "cancels", 2)
    assert first["targets"][0]["ending"] == "ECANCELED"
    assert "iocb" not in first


def test_json_of_linux_aio() -> None:
    """The arguments by the names and types that security tracers have for them."""
    program = """
        import os, select
        from iocancel import open_engine
        with open_engine("libaio") as engine:
            poll = engine.poll(os.pipe()[0], select.POLLIN)
            engine.submit()
            poll.cancel()
            poll.wait()
    """
    done = run("--json", "--system", "libaio", "--", sys.executable, "-c", textwrap.dedent(program))
    assert done.returncode == 0, done.stderr
    cancel, *again, last = map(json.loads, done.stdout.splitlines())
    assert last["cancels"] == 1 + len(again)
    # Its event comes somewhat later than the answer; a busy machine's engine may ask once more.
    assert {each["verdict"] for each in again} <= {"not found"}
    assert [(each["name"], each["type"]) for each in cancel["args"]] == [
        ("ctx_id", "io_context_t"),
        ("iocb", "struct iocb*"),
        ("result", "struct io_event*"),
    ]
    assert all(each["value"] for each in cancel["args"])
    assert (cancel["result"], cancel["ending"], cancel["verdict"]) == (-115, "EINPROGRESS", "cancelled")


def test_stats(cancels: str) -> None:
    done = run("--stats", "--", "sh", "-c", f"{cancels} >/dev/null")
    assert done.returncode == 0
    head, *rows = done.stdout.splitlines()
    assert head.split()[:4] == ["PID", "COMM", "MECHANISM", "CANCELS"]
    assert rows[-1] == "9 cancels. Events lost: 0."
    assert len(rows) == 6


def test_a_table_that_renews_itself(tracefs: Path) -> None:
    """On a terminal, in its own place, until it is ended."""
    ours, theirs = os.openpty()
    child = subprocess.Popen(inside([*TRACE, "--stats", "-p", str(os.getpid())]), stdout=theirs)
    os.close(theirs)
    shown = b""
    while shown.count(b"\x1b[H\x1b[J") < 3:
        assert select.select([ours], [], [], BOUND)[0]
        shown += os.read(ours, 65536)
    child.send_signal(signal.SIGTERM)
    assert child.wait(BOUND) == 0
    os.close(ours)
    assert shown.count(b"Events lost: 0.") >= 2


def test_colours_on_a_terminal(cancels: str) -> None:
    ours, theirs = os.openpty()
    child = subprocess.Popen(inside([*TRACE, "--", "sh", "-c", f"{cancels} >/dev/null"]), stdout=theirs)
    os.close(theirs)
    shown = b""
    while True:
        assert select.select([ours], [], [], BOUND)[0]
        try:
            shown += os.read(ours, 65536)
        except OSError:  # EIO: the other end was closed
            break
    os.close(ours)
    assert child.wait(BOUND) == 0
    assert b"\x1b[32mcancelled" in shown
    assert b"\x1b[31mrejected" in shown


@pytest.mark.parametrize(
    ("command", "status"), [("kill -9 $$", 137), ("exit 0", 0), ("exit 7", 7)], ids=["killed", "0", "7"]
)
def test_the_commands_status(command: str, status: int) -> None:
    assert run("--", "sh", "-c", command).returncode == status


def test_a_command_that_is_not_there() -> None:
    done = run("--", "/nowhere/at all")
    assert done.returncode == 2
    assert done.stderr == "iocancel trace: /nowhere/at all: No such file or directory\n"


def test_a_duration() -> None:
    done = run("--duration", "0.05", "--comm", "nothing of that name")
    assert done.returncode == 0
    assert done.stdout.strip() == "0 cancels. Events lost: 0."


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(tracefs: Path, number: int) -> None:
    """With the summary, and nothing left."""
    child = started(tracefs)
    child.send_signal(number)
    out, err = child.communicate(timeout=BOUND)
    assert child.returncode == 0, err
    assert "Events lost: 0." in out
    assert left(tracefs, child.pid) == []


def started(tracefs: Path, *args: str) -> subprocess.Popen[str]:
    """Running: its instance is there, and records. (unshare, sh and it are one process.)"""
    command = inside([*TRACE, "-p", str(os.getpid()), *args])
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, restore_signals=True
    )

    def records() -> bool:
        assert child.poll() is None, child.communicate()
        found = left(tracefs, child.pid)
        events = tracefs / "instances" / found[0] / "set_event" if found else None
        # io_cancel's are the last to be switched on.
        return events is not None and "sys_exit_io_cancel" in events.read_text()

    until(records, "it has begun")
    return child


def test_after_a_crash(tracefs: Path) -> None:
    """What SIGKILL leaves is an empty directory, that records nothing; the next start removes it."""
    child = started(tracefs)
    child.kill()
    child.communicate(timeout=BOUND)
    [kept] = left(tracefs, child.pid)
    assert (tracefs / "instances" / kept / "tracing_on").read_text() == "0\n"
    assert run("--duration", "0").returncode == 0
    assert left(tracefs, child.pid) == []


def test_whoever_read_it_has_gone(tracefs: Path, cancels: str) -> None:
    """As with `iocancel trace | head -1`."""
    line = f"{' '.join(TRACE)} -- sh -c '{cancels} >/dev/null; {cancels} >/dev/null' | head -1; echo $?"
    done = subprocess.run(
        inside(["bash", "-o", "pipefail", "-c", line]),
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert done.stdout.splitlines()[0].startswith("TIME")
    assert done.stdout.splitlines()[1] in ("0", "1"), "1 where it was still writing"
    assert "Traceback" not in done.stderr


# Where it can't be


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("iocancel trace: ")
    for word in words:
        assert word in line


def test_without_tracefs() -> None:
    """One line, with the remedy."""
    gone = 'umount -l -a -t tracefs; umount -l -a -t debugfs; exec "$@"'
    refused(run(first=gone), "tracefs is not mounted", f"mount -t tracefs tracefs {OURS}")


def test_without_privilege() -> None:
    program = """
        import os, sys
        from iocancel.__main__ import _parser
        from iocancel.trace import command
        options = _parser().parse_args(["trace"])  # what it imports, nobody may not be able to read
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        sys.exit(command.main(options, sys.stdout))
    """
    done: Any = subprocess.run(
        inside([sys.executable, "-c", textwrap.dedent(program)]),
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    refused(done, "root")


@pytest.mark.parametrize(
    "args",
    [["--system", "posix"], ["--duration", "-1"], ["--duration", "nan"], ["--pid", "x"], ["--buffer", "0"]],
    ids=" ".join,
)
def test_wrong_arguments(args: list[str]) -> None:
    done = run(*args)
    assert done.returncode == 2
    assert "usage: iocancel trace" in done.stderr


def test_no_such_process() -> None:
    done = run("--pid", "4194305", "--duration", "0")
    refused(done, "no such process: 4194305")


def test_a_command_that_does_not_end() -> None:
    """It ignores SIGTERM: then it is killed, and we end."""
    # A shell is there long before the time is over, also where Python is not.
    done = run("--duration", "0.3", "--", "sh", "-c", "trap '' TERM; exec sleep 1000")
    assert done.returncode == 137
    assert "Events lost: 0." in done.stdout


def test_a_name_that_is_a_terminals_command() -> None:
    """Anybody can give it to a process; root's terminal does not get it, and it is one line."""
    need_uring()
    program = """
        import ctypes
        from iocancel import open_engine
        assert ctypes.CDLL(None).prctl(15, b"\\x1b[31mev\\nil\\xff", 0, 0, 0) == 0
        with open_engine("uring") as engine:
            assert engine.name == "uring"
    """
    done = run("--", sys.executable, "-c", textwrap.dedent(program))
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "\\x1b[31mev\\nil\\ufffd" in done.stdout


def test_in_a_pid_namespace() -> None:
    """The kernel's numbers of processes are others: it says so, and does not show nothing."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", *TRACE, "--", "true"]
    done = subprocess.run(inside(command), capture_output=True, text=True, timeout=BOUND, check=False)
    refused(done, "PID namespace")
    gone = 'mount -t tmpfs none /proc; exec "$@"'
    refused(run("-p", "1", first=gone), "/proc")
