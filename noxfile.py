"""The project's commands. `./dev NAME` runs the session NAME, in the environment that `dev` keeps.

All sessions share that one environment: what one of them needs is installed when it first runs, and the
package itself is installed editable, and built again when what it is built from has changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nox

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent
ENVIRONMENT = Path(sys.prefix)
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
GUEST = ("xz", "mke2fs")  # what making a guest of any architecture takes
BUILD_VARIABLES = ("CC", "CFLAGS", "CPPFLAGS", "LDFLAGS", "CPATH", "LIBRARY_PATH", "IOCANCEL_WERROR")

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "typing", "tests"]


def python(session: nox.Session, *args: str | Path, env: dict[str, str] | None = None) -> None:
    """Run this environment's interpreter."""
    session.run(sys.executable, *map(str, args), env=env, external=True)


def build_key() -> str:
    """Name what the extension would be built from, and what it was built to."""
    digest = hashlib.sha256(repr([os.environ.get(name) for name in BUILD_VARIABLES]).encode())
    files = [ROOT / name for name in ("pyproject.toml", "setup.py", "build_ffi.py")]
    files += sorted((ROOT / "csrc").rglob("*.[ch]"))
    # Headers come and go with the distribution's packages. One that is elsewhere is not seen here.
    files += [Path("/usr/include/liburing.h"), Path("/usr/include/libaio.h")]
    for file in files:
        digest.update(str(file).encode() + b"\0" + (file.read_bytes() if file.exists() else b"-"))
    # Another environment (another interpreter, a container) builds into the same tree.
    for built in sorted((ROOT / "src" / "iocancel").glob("_native*.so")):
        status = built.stat()
        digest.update(f"{built.name} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


@contextlib.contextmanager
def state() -> Iterator[dict[str, Any]]:
    """Hold what this environment has, locked: two sessions may be started at once."""
    if not (ENVIRONMENT / "dev-identity").exists():
        raise SystemExit("these sessions install into the environment that ./dev keeps: use ./dev, not nox")
    with (ENVIRONMENT / "dev-state.json").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        try:
            known: dict[str, Any] = json.load(file)
        except ValueError:
            known = {}
        yield known
        file.seek(0)
        file.truncate()
        json.dump(known, file, indent=1)


def ready(session: nox.Session, *groups: str, build: bool = True) -> None:
    """Install these dependency groups and the package, unless they are there already."""
    wanted = set(nox.project.dependency_groups(PYPROJECT, *groups))
    if build:
        wanted.update(PYPROJECT["build-system"]["requires"], PYPROJECT["project"].get("dependencies", ()))
    pip = ("-m", "pip", "install", "-q", "--disable-pip-version-check")
    with state() as known:
        missing = sorted(wanted - set(known.get("requirements", ())))
        if missing:
            python(session, *pip, *missing)
            known["requirements"] = sorted({*known.get("requirements", ()), *missing})
        if build and known.get("build") != build_key():
            # No isolation: the build's needs are in this environment, and a rebuild must work offline.
            python(session, *pip, "--no-build-isolation", "--no-deps", "-e", ROOT)
            known["build"] = build_key()


def need(session: nox.Session, *tools: str) -> None:
    """Have `dev` install these commands where they are missing."""
    session.run("sh", str(ROOT / "dev"), "--need", *tools, external=True)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; arguments go to pytest (also: ./dev test)."""
    ready(session, "test")
    python(session, "-m", "pytest", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests and fail under 95 % of lines and branches; arguments go to pytest."""
    ready(session, "test")
    python(session, "-m", "coverage", "erase")
    options = ("--parallel-mode", "--branch", "--source=iocancel")
    python(session, "-m", "coverage", "run", *options, "-m", "pytest", *session.posargs)
    python(session, "-m", "coverage", "combine", "-q")
    python(session, "-m", "coverage", "report", "--show-missing", "--skip-covered", "--fail-under=95")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, workflows, the wheels' configuration; by shellcheck and actionlint where installed."""
    ready(session, "lint", build=False)
    python(session, "-m", "ruff", "check", ".")
    python(session, "-m", "ruff", "format", "--check", ".")
    if shutil.which("shellcheck"):
        scripts = ["tools/build_deps.sh", *sorted(str(path) for path in Path("tools/wheel").glob("*.sh"))]
        session.run("shellcheck", "dev", ".ci/run", *scripts, external=True)
        session.run("shellcheck", "-s", "dash", "tools/kernels/init.sh", external=True)
    python(session, "-m", "tools.wheel.identifiers")
    if (ROOT / ".github").is_dir():  # an sdist has no workflows
        session.run("zizmor", "--offline", "--no-progress", "--quiet", ".github", external=True)
        workflows = sorted(str(path) for path in (ROOT / ".github/workflows").iterdir())
        schema = ("--builtin-schema", "vendor.github-workflows")
        session.run("check-jsonschema", "--quiet", *schema, *workflows, external=True)
        if shutil.which("actionlint"):
            session.run("actionlint", external=True)


@nox.session
def typing(session: nox.Session) -> None:
    """Check types: mypy --strict and pyright."""
    ready(session, "test", "lint", "docs", "typing")
    folders = ("src", "tests", "tools", "benchmarks", "examples", "docs")
    paths = [folder for folder in folders if any((ROOT / folder).rglob("*.py"))]
    python(session, "-m", "mypy", "--strict", *paths, "noxfile.py", "setup.py", "build_ffi.py")
    python(session, "-m", "pyright", "--pythonpath", sys.executable)


@nox.session
def demo(session: nox.Session) -> None:
    """Cancel real operations on all three systems and show the outcomes (iocancel demo)."""
    ready(session)
    python(session, "-m", "iocancel", "demo", *session.posargs)


@nox.session
def doctor(session: nox.Session) -> None:
    """Find out what this machine allows (iocancel doctor)."""
    ready(session)
    python(session, "-m", "iocancel", "doctor", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure against C and against peers; arguments go to benchmarks."""
    drawing = {"--plot", "--keep"} & set(session.posargs)
    ready(session, *(["bench"] if drawing else []))
    if not {"--no-peer", "--plot"} & set(session.posargs):
        # Where it can't be had its column stays empty, and says why.
        session.run("sh", str(ROOT / "dev"), "--need", "fio", external=True, success_codes=range(256))
    python(session, "-m", "benchmarks", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site, and follow every link: [--collect [KERNEL...]], --help."""
    ready(session, "docs")
    if "--collect" in session.posargs:
        need(session, "qemu-system-x86_64", "busybox", "xz", "mke2fs")
    python(session, "-m", "tools.docs", *session.posargs)


@nox.session
def race(session: nox.Session) -> None:
    """Play with operations and cancels at random, and account for every one: --ops N --seed S, --help."""
    ready(session, "test")  # the loops that it plays on
    python(session, "-m", "tools.race", *session.posargs)


@nox.session
def headers(session: nox.Session) -> None:
    """Build with warnings as errors against the installed headers and those in the directories given."""
    ready(session)
    for directory in ["", *session.posargs]:
        flags = os.environ.get("CFLAGS", "") + " -Wall -Wextra -Werror"
        if directory:
            flags += f" -I{Path(directory).resolve(strict=True)}"
        session.log("headers: %s", directory or "as installed")
        with tempfile.TemporaryDirectory() as scratch:
            where = ("--build-lib", f"{scratch}/lib", "--build-temp", f"{scratch}/temp")
            flagged = {"CFLAGS": flags, "IOCANCEL_WERROR": "1"}
            python(session, "setup.py", "-q", "build_ext", *where, env=flagged)


@nox.session
def sanitize(session: nox.Session) -> None:
    """Run the tests under ASan and UBSan, and the leak tests under valgrind; arguments go to pytest."""
    ready(session, "test")
    need(session, "valgrind")
    python(session, "-m", "tools.sanitize", *session.posargs)


@nox.session
def kernels(session: nox.Session) -> None:
    """Run the tests under other kernels, in qemu: [VERSION...] [OPTION...] [-- pytest's arguments]."""
    ready(session, "test")
    need(session, *GUEST, f"qemu-system-{platform.machine()}", "busybox")
    python(session, "-m", "tools.kernels", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the wheel, try it in fresh roots of Debian: [SUITE...] [OPTION...] [-- pytest's arguments]."""
    given, tools = set(session.posargs), ["make", "curl", "unshare"]
    tried, foreign = not {"--build-only", "--sdist-only", "-h", "--help"} & given, "--aarch64" in given
    if (ROOT / ".git").exists():  # the sdist is held against what it tracks
        tools.append("git")
    musl = "--musl" in given
    if musl:
        tools += ["xz", "perl", "autoreconf", "automake", "libtoolize"]
    if foreign:
        tools.append("aarch64-linux-gnu-gcc")
    if tried and not musl:
        tools += [*GUEST, "qemu-system-aarch64"] if foreign else ["debootstrap"]
    # A guest's tests are compiled here, which takes all that they import.
    guest = tried and foreign
    ready(session, "wheel", *(["test"] if guest else []), build=guest)
    need(session, *tools)
    python(session, "-m", "tools.wheel", *session.posargs)
