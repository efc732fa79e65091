"""What is generated is fresh, and who imports whom."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import iocancel

from .support import need

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src/iocancel"
WRAPPERS = ("uring", "libaio", "posix_aio")

# Who may import which of our own modules, by the first part of the name. What is not named here is
# a command on top (doctor, demo, __main__), and may import them all.
ALLOWED = {
    "errors": set(),
    "_lifetime": set(),
    "_record": {"_native"},
    "uring": {"uring", "errors", "_native", "_lifetime", "_record"},
    "libaio": {"libaio", "errors", "_native", "_lifetime", "_record"},
    "posix_aio": {"posix_aio", "errors", "_native", "_lifetime", "_record"},
    "operation": {"operation", "errors", "_lifetime"},
    "engines": {"engines", "operation", *WRAPPERS, "errors", "_native", "_lifetime", "_record"},
    "scope": {"errors"},
    "pool": {"engines", "operation", "errors"},
    "waiting": {"engines", "operation", "errors", "scope", "pool"},
    "blocking": {"blocking", "waiting", "engines", "operation", *WRAPPERS, "errors", "scope"},
    "transfers": {"transfers", "waiting", "engines", "operation", "errors", "scope"},
    "streams": {"transfers", "blocking", "scope", "waiting", "engines", "operation", "errors"},
    "reading": {"transfers", "engines"},
    "files": {"reading", "transfers", "engines", "operation", "errors"},
    "sockets": {"files", "blocking", "operation", "errors"},
    # The adapters: what they share, and no more of theirs than a loop needs.
    "awaiting": {"awaiting", "engines", "operation", *WRAPPERS, "errors", "scope"},
    "asyncio": {"asyncio", "awaiting", "engines", "operation", "errors", "scope"},
    "trio": {"trio", "awaiting", "engines", "operation", "errors", "scope"},
}
# The engines' hot paths fill and reap by themselves: by `Sqe` objects it takes ten times as long.
NATIVE = {
    "uring",
    "libaio",
    "posix_aio",
    "engines",
    "_record",
    "doctor",
}  # doctor: which libraries it was built with


def imports(path: Path) -> set[str]:
    """The modules of ours that a file imports, by the part behind `iocancel.`; `.` for the package."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            names = (
                [f"iocancel.{alias.name}" for alias in node.names]
                if node.module == "iocancel"
                else [node.module or ""]
            )
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("iocancel.")}
    return found


def part(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    used = imports(path)
    if part(path) in ALLOWED:
        assert used <= ALLOWED[part(path)]
    if part(path) not in NATIVE:
        assert "_native" not in used
    text = path.read_text()
    if part(path) not in {"asyncio", "trio"}:
        assert "import asyncio" not in text
        assert "import trio" not in text
    if part(path) == "asyncio":
        assert "import trio" not in text
    if part(path) == "trio":
        assert "import asyncio" not in text


def test_the_face_loads_no_loop() -> None:
    code = "import sys, iocancel.blocking, iocancel.streams; print({'asyncio', 'trio'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_scope_brings_the_verbs_that_are_called_in_it() -> None:
    """Else loading them would count against its deadline."""
    loaded = "iocancel.engines.uring.carrier"
    there = f"{loaded!r} in sys.modules"
    code = f"import sys, iocancel; before = {there}; iocancel.move_on_after; print(before, {there})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"


def test_the_stub_of_the_native_module_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/make_stub.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_stale_stub_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        make_stub = importlib.import_module("make_stub")
    finally:
        sys.path.pop(0)
    monkeypatch.setattr(make_stub, "ROOT", tmp_path)
    monkeypatch.setattr(make_stub, "TARGET", tmp_path / "stale.pyi")
    monkeypatch.setattr(make_stub, "stub", lambda: "new")
    assert make_stub.main(["--check"]) == 1
    assert make_stub.main([]) == 0
    assert make_stub.main(["--check"]) == 0


def test_the_stub_names_what_the_module_has() -> None:
    from iocancel._native import lib

    tree = ast.parse((SOURCE / "_native.pyi").read_text())
    [stub] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "_Lib"]
    named = {
        node.name if isinstance(node, ast.FunctionDef) else ast.unparse(node.target)
        for node in stub.body
        if isinstance(node, ast.FunctionDef | ast.AnnAssign)
    }
    assert named == {name for name in dir(lib) if not name.startswith("_")}


def test_the_face_loads_late_and_names_what_is_there() -> None:
    code = "import sys, iocancel; print([m for m in sys.modules if m.startswith('iocancel.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['iocancel.errors']"
    for name in iocancel.__all__:
        assert getattr(iocancel, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        iocancel.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"CPPFLAGS": "-nostdinc"}, "liburing.h is missing or does not compile: install liburing-dev (apt)"),
        ({"CC": "no-such-compiler"}, "no C compiler (no-such-compiler)"),
    ],
)
def test_the_builds_errors_are_one_line_each(variables: dict[str, str], text: str) -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import build_ffi"
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables},
    )
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    need("CC" in variables or "no C compiler" not in line, line)
    assert text in line
