"""What builds and checks the wheels: that it finds what it is there to find. And what an import costs."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tools.wheel import content, identifiers, musl, roots, sdist, steps

from .skips import excused
from .support import need, not_measured

ROOT = Path(__file__).parents[1]
NAME = "iocancel-1.0-cp311-abi3-manylinux_2_28_x86_64.whl"
CODE = b"\x7fELF" + bytes(14) + (62).to_bytes(2, "little") + b"\0PyInit__native\0"


def made(folder: Path, name: str = NAME, code: bytes = CODE, **changes: bytes | None) -> Path:
    """A wheel that is as it must be, but for what is changed: None leaves a file out."""
    about = "iocancel-1.0.dist-info"
    files: dict[str, bytes | None] = dict.fromkeys(content.sources(), b"")
    files |= {f"{about}/licenses/{licence}": b"" for licence in content.LICENCES}
    files |= {
        f"{about}/METADATA": b"",
        content.EXTENSION: code,
        "iocancel.libs/libaio-1a2b.so.1": b"",
        **changes,
    }
    wheel = folder / name
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in files.items():
            if data is not None:
                archive.writestr(path, data)
    return wheel


def test_a_good_wheel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert content.main([str(made(tmp_path))]) == 0
    assert "in it is what there should be" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "iocancel-1.0-cp311-cp311-manylinux_2_28_x86_64.whl"}, "the name should be"),
        ({"name": "iocancel-1.0-cp311-abi3-linux_x86_64.whl"}, "has auditwheel repaired it?"),
        ({"name": "iocancel-1.0-cp311-abi3-manylinux_2_28_aarch64.whl"}, "not code for aarch64"),
        ({"code": CODE + b"liburing.so.2\0"}, "wants a liburing.so"),
        ({"code": CODE + b"io_uring_queue_init\0"}, "should be hidden"),
        ({"code": CODE + b"\0.symtab\0"}, "should be stripped"),
        ({content.EXTENSION: None}, "there is no iocancel/_native.abi3.so"),
        ({"iocancel.libs/libaio-1a2b.so.1": None}, "there should be libaio"),
        ({"iocancel.libs/libc-1a2b.so.6": b""}, "there should be libaio"),
        ({"iocancel-1.0.dist-info/licenses/LICENSE.libaio.COPYING": None}, "the licences should be"),
        ({"iocancel/errors.py": None}, "missing: ['iocancel/errors.py']"),
        ({"iocancel/py.typed": None}, "missing: ['iocancel/py.typed']"),
        ({"tests/test_wheel.py": b""}, "not of the package: ['tests/test_wheel.py']"),
        ({"iocancel.libs/libaio-1a2b.so.1": bytes(content.LIMIT)}, "and at most"),
    ],
)
def test_what_is_wrong_with_a_wheel(
    tmp_path: Path, changes: dict[str, bytes | None], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert content.main([str(made(tmp_path, **changes))]) == 1  # type: ignore[arg-type]
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


def test_what_differs_between_an_sdist_and_git() -> None:
    tracked = {"dev": True, "setup.py": False, ".ci/run": True, "tests/new.py": False}
    held = {"dev": False, "setup.py": False, "PKG-INFO": False, "stray.txt": False}
    assert sdist.compare(tracked, held) == [
        "not in the sdist: tests/new.py",
        "in the sdist, and not tracked: stray.txt",
        "executable in one of the two only: dev",
    ]
    assert not sdist.compare({"dev": True, ".gitignore": False}, {"dev": True, "setup.cfg": False})


def test_the_pythons_that_wheels_are_for() -> None:
    claimed = identifiers.claimed()
    assert "cp311-manylinux_x86_64" in claimed
    assert "cp314-musllinux_aarch64" in claimed
    assert len(claimed) % 4 == 0
    assert set(roots.SUITES.values()) <= {f"3.{name[3:5]}" for name in claimed}


def test_flags_are_cibuildwheels_with_another_prefix(tmp_path: Path) -> None:
    flags = steps.flags(ROOT, tmp_path)
    assert f"-I{tmp_path}/include" in flags["CFLAGS"].split()
    assert f"-L{tmp_path}/lib" in flags["LDFLAGS"].split()
    assert steps.CONTAINERS_PREFIX not in str(flags)


def test_a_root_with_a_compiler_or_another_python_is_refused(tmp_path: Path) -> None:
    binaries = tmp_path / "usr/bin"
    binaries.mkdir(parents=True)
    with pytest.raises(roots.RootError, match=r"no Python 3\.13 any more"):
        roots.check(tmp_path, "trixie")
    (binaries / "python3.13").touch()
    roots.check(tmp_path, "trixie")
    (binaries / "gcc").touch()
    with pytest.raises(roots.RootError, match="should not have usr/bin/gcc"):
        roots.check(tmp_path, "trixie")


def test_a_root_is_copied_and_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, to = tmp_path / "kept", tmp_path / "roots/trixie"
    kept.mkdir()
    (kept / "file").touch()
    monkeypatch.setattr(roots, "kept", lambda suite: kept)
    with roots.copied("trixie", to) as root:
        (root / "file").unlink()
        with pytest.raises(roots.RootError, match="is in use"), roots.copied("trixie", to):
            pass
        assert root.is_dir(), "the second one has left it alone"
    assert not to.exists()
    assert (kept / "file").exists()


def deps(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run build_deps.sh where every tool is there, and none does anything."""
    for tool in ("make", "cc", "ar"):
        (folder / tool).symlink_to("/bin/true")
    return subprocess.run(
        ["sh", ROOT / "tools/build_deps.sh", folder / "prefix"],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "CC": "cc", "AR": "ar", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_library_that_is_not_the_release_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "liburing.tar.gz"
    other.write_bytes(b"another")
    done = deps(tmp_path, LIBURING_TARBALL=str(other))
    assert done.returncode == 1
    assert f"{other} is not the release: its sha256 sum is not efd299ff" in done.stderr
    assert not list((tmp_path / "prefix").iterdir())


def test_a_library_that_cannot_be_read(tmp_path: Path) -> None:
    done = deps(tmp_path, LIBURING_TARBALL=str(tmp_path / "none"))
    assert done.returncode == 1
    assert done.stderr == f"build_deps: liburing-2.15: {tmp_path}/none cannot be read\n"


def without_uring(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run this Python where io_uring is forbidden."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/wheel/no_uring.py"), sys.executable, *command],
        cwd=ROOT,
        env={**not_measured(), **variables} if variables else None,
        capture_output=True,
        text=True,
        check=False,
    )
    need("no seccomp filter" not in done.stderr, "this kernel has no seccomp filters")
    return done


def test_io_uring_is_forbidden_as_docker_does_it() -> None:
    code = (
        "import errno, iocancel\n"
        "try: iocancel.open_engine('uring')\n"
        "except iocancel.EngineUnavailable as error: print(errno.errorcode[error.errno], error.reason)\n"
        "else: print('io_uring works')"
    )
    done = without_uring("-c", code)
    assert done.stderr == ""
    assert done.stdout.startswith("EPERM io_uring is forbidden here")


# Of a test that says nothing of what decides whether it may be skipped.
ITS_TEST = ("-m", "pytest", "-q", "tests/test_examples.py::test_blocking_calls_that_end[fifo_deadline-uring]")


def test_an_engine_that_is_required_is_not_skipped() -> None:
    done = without_uring(*ITS_TEST, IOCANCEL_REQUIRE="uring")
    assert "(and IOCANCEL_REQUIRE names it)" in done.stdout
    assert "1 failed" in done.stdout


def test_a_skip_without_an_excuse_is_a_failure() -> None:
    done = without_uring(*ITS_TEST, IOCANCEL_REQUIRE="", IOCANCEL_NO_SKIPS="bare")
    assert "(and with IOCANCEL_NO_SKIPS there is no excuse for that: tests/skips.py)" in done.stdout
    assert "1 failed" in done.stdout


@pytest.mark.parametrize(
    ("reason", "strictness", "release", "is_excused"),
    [
        ("no io_uring here", "", "6.8.0", True),
        ("no io_uring here", "1", "6.8.0", False),
        ("no io_uring here", "bare", "6.8.0", False),
        ("posix_aio has no recv here", "1", "6.8.0", True),
        ("no C compiler (cc)", "1", "6.8.0", False),
        ("no C compiler (cc)", "bare", "6.8.0", True),
        ("synchronous cancels are of Linux 6.0", "1", "5.19.17", True),
        ("synchronous cancels are of Linux 6.0", "1", "6.0.0-rc1", False),
        ("CQE_SKIP_SUCCESS needs Linux 5.17", "bare", "5.4", True),
        ("CQE_SKIP_SUCCESS needs Linux 5.17", "bare", "5.17", False),
        ("send_zc is there from 6.0", "1", "6.1", False),
        ("send_zc is there from 6.0", "1", "5.19", True),
        ("this kernel has no multishot receives", "1", "6.14.0-1014-azure", True),
        ("this kernel has no multishot receives", "1", "6.18.1", False),
        ("this kernel has no io_uring", "bare", "6.17", False),
    ],
)
def test_what_is_an_excuse(reason: str, strictness: str, release: str, is_excused: bool) -> None:
    assert excused(reason, strictness, release) is is_excused


def test_a_command_that_is_not_there_is_said() -> None:
    command = [sys.executable, str(ROOT / "tools/wheel/no_uring.py"), "no-such-command"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    need("no seccomp filter" not in done.stderr, "this kernel has no seccomp filters")
    assert done.stderr == "no_uring: no-such-command: No such file or directory\n"
    assert done.returncode == 1


def test_an_import_is_cheap() -> None:
    """At most 30 ms of CPU, whatever it loads: the best of several, as the first one compiles."""
    need(not os.environ.get("IOCANCEL_SANITIZE"), "a sanitizer's time is not the import's")
    code = (
        "import sys, time; began = time.process_time(); import iocancel;"
        "print(time.process_time() - began, *{'asyncio', 'trio'} & {*sys.modules})"
    )
    command, plain = [sys.executable, "-c", code], not_measured()
    best = min(
        float(subprocess.run(command, capture_output=True, env=plain, check=True).stdout) for _ in range(7)
    )
    assert best <= 0.030


def test_a_source_is_built_with_what_was_built_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sources").mkdir()
    with tarfile.open(tmp_path / "sources/thing_1.2.orig.tar.gz", "w:gz") as archive:
        (tmp_path / "inside").write_text("inside")
        archive.add(tmp_path / "inside", "thing-1.2/inside")
    prefix = tmp_path / "prefix"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin/cc").touch()
    monkeypatch.setitem(
        musl.RECIPES, "thing", 'printf "%s " "$CC" >"$PREFIX/made"; cat inside >>"$PREFIX/made"'
    )
    musl.build("thing", tmp_path, prefix)
    assert (prefix / "made").read_text() == f"{prefix}/bin/cc inside"
    assert "building thing" in capsys.readouterr().out
    monkeypatch.setitem(musl.RECIPES, "thing", "echo why; false; echo not so")
    with pytest.raises(roots.RootError, match=r"thing: exit status 1; .*thing.log ends with:\s+why$"):
        musl.build("thing", tmp_path, prefix)
