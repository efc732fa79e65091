"""What is said where there is no tracefs, or it refuses."""

from __future__ import annotations

import errno
import functools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from iocancel.trace import mount
from iocancel.trace.tracefs import Instance, TracingUnavailable, find

from ..support import need
from .marks import COMPLETE, MARKS, SUBMIT

# Where it can't be had


def refused(call: Callable[[], object]) -> TracingUnavailable:
    with pytest.raises(TracingUnavailable) as caught:
        call()
    error = caught.value
    assert str(error) == f"{error.reason}. {error.remedy}"
    assert "\n" not in str(error)
    assert error.remedy
    return error


def enter(path: Path, *events: str) -> TracingUnavailable:
    return refused(lambda: Instance(events or (COMPLETE,), tracefs=path).__enter__())


def test_not_mounted(tmp_path: Path) -> None:
    error = enter(tmp_path)
    assert error.errno == errno.ENOENT
    assert str(error) == (
        f"tracefs is not mounted at {tmp_path}. Try mount -t tracefs tracefs /sys/kernel/tracing"
    )
    assert enter(tmp_path / "nowhere").errno == errno.ENOENT


def test_not_mounted_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount, "_WHERE", (str(tmp_path / "a"), str(tmp_path)))
    monkeypatch.setattr(mount, "_mounts", list)
    error = refused(find)
    assert error.errno == errno.ENOENT
    assert str(error) == "tracefs is not mounted. Try mount -t tracefs tracefs /sys/kernel/tracing"


def test_a_kernel_without_tracing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount, "_known_file_systems", lambda: "nodev\tproc\n\text4\n")
    error = refused(lambda: find(tmp_path))
    assert error.errno == errno.ENODEV
    assert "CONFIG_TRACING" in error.remedy


def test_it_is_found_where_it_is_mounted(
    tracefs: Path, instances: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find(tracefs) == find(str(tracefs)) == tracefs
    assert str(tracefs) in mount._mounts()
    monkeypatch.setattr(mount, "_WHERE", ())
    assert (find() / "events").is_dir()
    with Instance([MARKS]) as instance:
        assert instance.path is not None


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A tree like that of tracefs, of a kernel with one event."""
    (tmp_path / "instances").mkdir()
    (tmp_path / "events/sched/sched_switch").mkdir(parents=True)
    (tmp_path / "events/sched/sched_switch/format").write_text("name: sched_switch\nID: 1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("events", "reason", "option"),
    [
        ((COMPLETE, *SUBMIT), "this kernel has no io_uring events", "CONFIG_IO_URING"),
        (("syscalls/sys_enter_io_cancel",), "this kernel has no syscalls events", "CONFIG_FTRACE_SYSCALLS"),
        (
            (COMPLETE, "syscalls/sys_enter_io_cancel"),
            "this kernel has no io_uring or syscalls events",
            "CONFIG_IO_URING and CONFIG_FTRACE_SYSCALLS",
        ),
        (("made/up",), "this kernel has no made events", "them"),
    ],
)
def test_a_kernel_without_these_events(fake: Path, events: tuple[str, ...], reason: str, option: str) -> None:
    error = enter(fake, *events)
    assert (error.errno, error.reason) == (errno.ENOENT, reason)
    assert error.remedy == f"It takes Linux 5.10 or later with {option}"
    assert list((fake / "instances").iterdir()) == []


def test_a_tree_that_is_not_as_it_should_be(fake: Path) -> None:
    error = enter(fake, "sched/sched_switch")  # there is no header_page
    assert "header_page" in error.reason
    assert "not as it is known to be" in error.remedy
    for name in ("header_page", "header_event"):
        (fake / "events" / name).write_text("nothing that is known")
    error = enter(fake, "sched/sched_switch")
    assert error.errno == errno.ENOTSUP
    assert "written in a way that is not known here" in error.reason
    (fake / "instances").rmdir()
    assert "can't make an instance" in enter(fake, "sched/sched_switch").reason


def as_nobody(call: Callable[[], object]) -> str:
    """What a call says that is made by a process without privileges."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            try:
                call()
            except TracingUnavailable as error:
                os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as answers:
        said = answers.read().decode()
    os.waitpid(child, 0)
    return said


def test_without_the_privilege(
    tracefs: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    need(os.geteuid() == 0, "only root can become nobody")
    for folder in (tracefs.parent, tracefs.parent.parent):  # pytest's are private, as tracefs itself is
        request.addfinalizer(functools.partial(folder.chmod, folder.stat().st_mode & 0o7777))
        folder.chmod(0o755)
    said = as_nobody(lambda: Instance([COMPLETE], tracefs=tracefs).__enter__())
    assert said == f"can't look into {tracefs}: Permission denied. Tracing needs root"
    monkeypatch.setattr(mount, "_WHERE", (str(tracefs),))
    assert as_nobody(find) == said
    monkeypatch.setattr(mount, "_mounts", list)  # only debugfs is there, which nobody may look into either
    assert as_nobody(find) == (
        "tracefs is not mounted. Tracing needs root: mount -t tracefs tracefs /sys/kernel/tracing"
    )


def test_read_only(tracefs: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "--bind", str(tracefs), str(tmp_path)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(tmp_path)], check=True)
        error = enter(tmp_path, MARKS)
        assert error.errno == errno.EROFS
        assert "Read-only file system" in error.reason
        assert "remount it" in error.remedy
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("root", [True, False])
def test_refusals_have_a_remedy_each(monkeypatch: pytest.MonkeyPatch, root: bool) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    told = mount.refused(PermissionError(errno.EPERM, "no"), "can't trace")
    assert str(told).startswith("can't trace: Operation not permitted. ")
    assert ("lockdown" in told.remedy) == root
    assert ("needs root" in told.remedy) != root
    assert "smaller" in mount.refused(OSError(errno.ENOMEM, "no"), "can't trace").remedy


def test_a_buffer_that_is_too_large(tracefs: Path, instances: Path) -> None:
    error = refused(lambda: Instance([MARKS], buffer=1 << 60, tracefs=tracefs).__enter__())
    assert "buffer_size_kb" in error.reason
