"""The machinery of `./dev kernels` and of the wheel for aarch64, as far as no guest is booted for it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tools.kernels import boot, fetch, initramfs, suite, tree
from tools.kernels.architecture import ARCHITECTURES, Architecture, native
from tools.kernels.report import Result
from tools.wheel import __main__ as command
from tools.wheel import aarch64, cross

from .support import need

X86, ARM = ARCHITECTURES["x86_64"], ARCHITECTURES["aarch64"]


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


@pytest.mark.parametrize("accelerator", boot.ACCELERATORS)
@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=lambda each: each.name)
def test_qemus_command(accelerator: str, architecture: Architecture, tmp_path: Path) -> None:
    kernel = fetch.Kernel("6.12", "6.12.1", tmp_path / "vmlinuz", tmp_path / "modules")
    machine = boot.Machine(accelerator, architecture=architecture, root=tmp_path / "root")
    command = boot.arguments(kernel, machine, tmp_path)
    assert command[0] == f"qemu-system-{architecture.name}"
    assert option(command, "-M") == architecture.board
    assert option(command, "-cpu") == ("host" if accelerator == "kvm" else architecture.emulated)
    assert option(command, "-append").startswith(f"console={architecture.console} ")
    assert f",path={tmp_path / 'root'}," in option(command, "-fsdev")
    assert "readonly=on" in option(command, "-fsdev")


def test_a_guest_is_of_this_architecture_and_has_this_root() -> None:
    assert boot.Machine().architecture == native()
    assert boot.Machine().root == Path("/")


def test_an_architecture_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "s390x")
    with pytest.raises(SystemExit, match="no guests on s390x: there are those of x86_64, aarch64"):
        native()


NAMES = """
linux-image-6.12.9+deb13-arm64 linux-image-6.12.10+deb13-arm64 linux-image-6.12.11+deb13-arm64-16k
linux-image-6.12.11+deb13-rt-arm64 linux-image-6.12.11+deb13-cloud-arm64 linux-image-6.12.11+deb13-amd64
linux-image-6.12.11+deb13-arm64-unsigned linux-image-6.12.11+deb13-arm64-dbg linux-image-6.12-arm64
"""


@pytest.mark.parametrize(
    ("debian", "expected"),
    [("arm64", "linux-image-6.12.10+deb13-arm64"), ("amd64", "linux-image-6.12.11+deb13-amd64")],
)
def test_the_newest_generic_kernel_is_chosen(
    debian: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def apt(configuration: Path, *command: str) -> str:
        if command[1] == "show":
            return f"Version: {command[-1].split('-')[2]}-1\n"
        assert command[1] == "pkgnames"
        return NAMES

    monkeypatch.setattr(fetch, "apt", apt)
    [chosen] = fetch.choose(Path("apt.conf"), "6.12", debian)
    assert chosen == f"{expected}={expected.split('-')[2]}-1"


def test_each_architecture_has_kernels_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOCANCEL_CACHE", str(tmp_path))
    for name in ("6.12", "6.12-arm64"):
        (tmp_path / name / "boot").mkdir(parents=True)
        (tmp_path / name / "boot" / "vmlinuz-1").write_text(name)
        (tmp_path / name / "usr/lib/modules" / name / "kernel").mkdir(parents=True)
        (tmp_path / name / "complete").touch()
    assert fetch.find("6.12", architecture=X86).release == "6.12"
    found = fetch.find("6.12", architecture=ARM)
    assert (found.release, found.image.read_text()) == ("6.12-arm64", "6.12-arm64")


def test_no_dynamic_busybox(tmp_path: Path) -> None:
    program = tmp_path / "busybox"
    program.write_bytes(b"\x7fELF" + bytes(60) + b"/lib/ld-linux-aarch64.so.1\0")
    with pytest.raises(FileNotFoundError, match=r"busybox is not static"):
        initramfs.busybox(program)
    program.write_bytes(b"\x7fELF" + bytes(60))
    assert initramfs.busybox(program) == program.read_bytes()


def package(path: Path, **files: str) -> Path:
    """Makes a .deb by hand: an ar archive of three members."""

    def packed(named: dict[str, str]) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.GNU_FORMAT) as archive:
            for name, text in named.items():
                for parent in reversed(Path(name).parents[:-1]):
                    directory = tarfile.TarInfo(f"./{parent}")
                    directory.type, directory.mode = tarfile.DIRTYPE, 0o755
                    archive.addfile(directory)
                entry = tarfile.TarInfo(f"./{name}")
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
        return out.getvalue()

    control = packed(
        {"control": "Package: a\nVersion: 1\nArchitecture: all\nMaintainer: a\nDescription: a\n"}
    )
    members = {"debian-binary": b"2.0\n", "control.tar.gz": control, "data.tar.gz": packed(files)}
    deb = b"!<arch>\n"
    for name, data in members.items():
        deb += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data
        deb += b"\n" * (len(data) % 2)
    path.write_bytes(deb)
    return path


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_what_a_package_has_in_lib_goes_where_the_link_leads(tmp_path: Path) -> None:
    (tmp_path / "root/usr/lib").mkdir(parents=True)
    (tmp_path / "root/lib").symlink_to("usr/lib")
    tree.unpack(package(tmp_path / "a.deb", **{"lib/a.so": "a", "usr/lib/b.so": "b"}), tmp_path / "root")
    assert (tmp_path / "root/lib").is_symlink()
    assert {each.name for each in (tmp_path / "root/usr/lib").iterdir()} == {"a.so", "b.so"}


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_a_package_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.deb").write_bytes(b"!<arch>\n")
    (tmp_path / "root").mkdir()
    with pytest.raises((fetch.FetchError, subprocess.CalledProcessError)):
        tree.unpack(tmp_path / "a.deb", tmp_path / "root")


def test_a_tree_is_made_once_and_again_when_its_packages_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    base = {"usr/share/base-passwd/passwd.master": "root:", "usr/share/base-passwd/group.master": "root:"}

    def download(suite: str, architecture: object, *packages: str) -> list[Path]:
        made.append(package(tmp_path / "a.deb", **base, **{"etc/a": "a"}))
        return made[-1:]

    monkeypatch.setenv("IOCANCEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tree, "download", download)
    if not shutil.which("dpkg-deb"):
        pytest.skip("needs dpkg-deb")
    root = tree.find("bookworm", ARM)
    assert root.name == "bookworm-arm64"
    assert (root / "etc/passwd").read_text() == "root:"
    assert "localhost" in (root / "etc/hosts").read_text()
    assert os.readlink(root / "bin") == "usr/bin"
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert (tree.find("bookworm", ARM), len(made)) == (root, 1)
    monkeypatch.setattr(tree, "PACKAGES", [*tree.PACKAGES, "more"])
    assert (tree.find("bookworm", ARM), len(made)) == (root, 2)
    assert (tree.find("bookworm", ARM, update=True), len(made)) == (root, 3)


def test_the_script_of_a_guest(tmp_path: Path) -> None:
    told = tmp_path / "told"
    told.write_text('#!/bin/sh\nprintf "%s|" "$PWD" "$HOME" "$IOCANCEL_GUEST" "$@"\n')
    told.chmod(0o755)
    there = tmp_path / "a directory"
    there.mkdir()
    script = suite.script(str(told), there, ["-k", "a or 'b'"], {"HOME": "/a home"})
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.split("|")
    assert said[:5] == [str(there), "/a home", "1", "-m", "pytest"]
    assert said[-3:] == ["-k", "a or 'b'", ""]


def test_the_tests_are_compiled_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "test_a.py").write_text("def test(): assert True\n")
    suite.collect(sys.executable, tmp_path, [])
    assert list((tmp_path / "__pycache__").glob("test_a.*-pytest-*.pyc"))


def test_tests_that_cannot_be_collected(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("import there_is_no_such_module\n")
    with pytest.raises(SystemExit, match="there_is_no_such_module"):
        suite.collect(sys.executable, tmp_path, [])


def test_a_wheel_that_is_cross_compiled_says_so(tmp_path: Path) -> None:
    # Not imported: cffi has brought Python 3.11's own distutils, which setuptools does not bear beside it.
    version = next((d.version for d in importlib.metadata.distributions(name="setuptools")), "0")
    knows = tuple(map(int, version.split(".")[:2])) >= (70, 1) or importlib.util.find_spec("wheel")
    need(knows, "no setuptools here that makes wheels by itself")
    environment = cross.environment(Path("/include"), "3.11", tmp_path)
    assert environment["CC"].split() == ["aarch64-linux-gnu-gcc", "-I/include/python3.11", "-I/include"]
    ask = "import setuptools as s; d = s.Distribution(); d.parse_config_files(); d.parse_command_line();"
    ask += "c = d.get_command_obj('bdist_wheel'); c.ensure_finalized(); print(c.plat_name)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv = ['setup.py', 'bdist_wheel']; {ask}"],
        env={**os.environ, **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "linux_aarch64"


def test_what_cannot_be_had_for_aarch64_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[dependency-groups]\ntest = ["a[b]>=1", "libaio>=0.9", "c-d"]\n'
    )
    assert aarch64.requirements(tmp_path) == ["a[b]>=1", "c-d"]


def test_a_python_that_no_guest_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aarch64, "PYTHON", "3.12")
    with pytest.raises(SystemExit, match=r"use PYTHON=python3\.11 or PYTHON=python3\.13"):
        aarch64.debian()


def test_a_guest_that_does_not_come_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = boot.Run(None, "", b"", "the console", 1.0, False)
    monkeypatch.setattr(aarch64, "OUT", tmp_path)
    monkeypatch.setattr(aarch64, "steps", SimpleNamespace(ROOT=tmp_path))
    monkeypatch.setattr(aarch64, "start", lambda *a: ("6.12.1", dead))
    assert not aarch64.show(tmp_path, "6.12")
    result = aarch64.attempt(tmp_path, "6.12", [], 1)
    assert result.broken == "the guest did not come up"
    assert "the console" in (tmp_path / result.log).read_text()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--aarch64", "trixie"], "it takes no SUITE"),
        (["--aarch64", "--uring", "forbidden"], "and no --uring"),
        (["--whole"], "--whole is for --aarch64"),
    ],
)
def test_options_that_do_not_go_together(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.parse(arguments)
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "shown", "failed", "status", "done"),
    [
        ([], True, {}, 0, ["build", "install", "show", "attempt"]),
        ([], True, {"a test": "why"}, 1, ["build", "install", "show", "attempt"]),
        ([], False, {}, 1, ["build", "install", "show"]),
        (["--no-tests"], True, {}, 0, ["build", "install", "show"]),
        (["--build-only"], False, {}, 0, ["build"]),
        (["--wheel", "wheel"], True, {}, 0, ["install", "show", "attempt"]),
    ],
)
def test_what_is_done(
    arguments: list[str],
    shown: bool,
    failed: dict[str, str],
    status: int,
    done: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "wheel").touch()
    monkeypatch.chdir(tmp_path)
    called: list[str] = []
    answers: dict[str, object] = {
        "build": tmp_path / "wheel",
        "install": tmp_path,
        "show": shown,
        "attempt": Result("6.12", failed=failed),
    }

    def stands_for(name: str) -> Callable[..., object]:
        def call(*arguments: object, **more: object) -> object:
            called.append(name)
            return answers[name]

        return call

    for name in answers:
        monkeypatch.setattr(aarch64, name, stands_for(name))
    options, pytests = command.parse(["--aarch64", *arguments, "--", "-x"])
    assert aarch64.main(options, tmp_path, pytests) == status
    assert called == done
