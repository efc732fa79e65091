"""A wheel, tried in a fresh root: installed from files alone; then its command, and the sdist's tests."""

from __future__ import annotations

import os
import shutil
import time
import tomllib
from pathlib import Path

from tools.wheel import house, roots, steps

URING = ("both", "allowed", "forbidden")
TEST = "tools/wheel/test.sh"
# What is run once more where io_uring is forbidden: every engine and face, and what says so.
WITHOUT_URING = (
    "tests/contract",
    "tests/engines",
    "tests/blocking/test_verbs.py",
    "tests/blocking/test_verbs_files.py",
    "tests/blocking/test_verbs_forks.py",
    "tests/asyncio_",
    "tests/awaiting/test_worlds.py",
    "tests/test_demo.py",
    "tests/test_doctor.py",
    "tests/test_examples.py",
)
# What Docker leaves to root.
CAPABILITIES = (
    "chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot mknod "
    "audit_write setfcap"
)
CONTAINED = (
    "setpriv",
    f"--bounding-set=-all,{','.join(f'+{name}' for name in CAPABILITIES.split())}",
    "--inh-caps=-all",
    "python",
    "tools/wheel/no_uring.py",
)
INSTALL = ("/opt/venv/bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check")
OFFLINE = ("--no-index", "--find-links=/opt/wheels")


class Trial:
    """One wheel in one root."""

    def __init__(self, suite: str, root: Path) -> None:
        self.failed: list[str] = []
        self._suite, self._root = suite, root
        self._variables = {"PATH": "/opt/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self._variables |= {name: value for name, value in os.environ.items() if name.startswith("IOCANCEL_")}

    def bring(self, tree: Path, wheel: Path, *, tests: bool) -> tuple[str, ...]:
        """Put the tree, the wheel and the wheels of what it needs into the root.

        Returns:
            What the tests need, as far as it can be had; nothing unless `tests`.
        """
        about = tomllib.loads((tree / "pyproject.toml").read_text())
        needs = about["project"]["dependencies"]
        wanted = about["dependency-groups"]["test"] if tests else []
        wheels = self._root / "opt/wheels"
        lacking = house.fetch(roots.SUITES[self._suite], [*needs, *wanted], wheels)
        for requirement, reason in lacking.items():
            print(f"wheel: {self._suite} goes without {requirement}: {reason}", flush=True)
        shutil.copytree(tree, self._root / "opt/iocancel", symlinks=True)
        shutil.copy(wheel, wheels)
        return tuple(each for each in wanted if each not in lacking)

    def step(self, name: str, *command: str, **variables: str) -> bool:
        """Run a command in the root, in the tree; return whether it did well."""
        print(f"\n=== {self._suite}: {name}", flush=True)
        status = roots.run(self._root, roots.shell(*command), {**self._variables, **variables})
        if status:
            self.failed.append(f"{self._suite}: {name} (exit status {status})")
            print(f"\nfailed: {self.failed[-1]}", flush=True)
        return not status

    def install(self, wheel: Path) -> bool:
        """Make an environment and install the wheel there; return whether it went well."""
        return self.step("an environment", "python3", "-m", "venv", "/opt/venv") and self.step(
            "the wheel, installed", *INSTALL, *OFFLINE, f"/opt/wheels/{wheel.name}"
        )

    def test(self, pytest: list[str], uring: str) -> None:
        """Run the command and the tests; those of `WITHOUT_URING` with what a container allows."""
        if uring != "forbidden":
            # Nothing may be lacking, but what one builds with.
            self.step("the command and the tests", TEST, *pytest, IOCANCEL_NO_SKIPS="bare")
        if uring != "allowed":
            # What is forbidden can't be required.
            forbidden = (*CONTAINED, TEST, *(pytest or WITHOUT_URING))
            lax = {"IOCANCEL_REQUIRE": "", "IOCANCEL_NO_SKIPS": ""}
            self.step("as in a container, where io_uring is forbidden", *forbidden, **lax)


def attempt(suite: str, tree: Path, wheel: Path, pytest: list[str], *, tests: bool, uring: str) -> list[str]:
    """Try a wheel in a root of a suite.

    Args:
        suite: one of `roots.SUITES`.
        tree: the sdist, unpacked.
        wheel: the wheel.
        pytest: arguments of pytest's.
        tests: run the tests, too, not the command alone.
        uring: run them where io_uring is "allowed", where it is "forbidden", or "both".

    Returns:
        What failed.
    """
    began = time.monotonic()
    with roots.copied(suite, steps.OUT / "roots" / suite) as root:
        trial = Trial(suite, root)
        needed = trial.bring(tree, wheel, tests=tests)
        if trial.install(wheel):
            if not tests:
                trial.step("the command", TEST, "--no-tests")
            elif trial.step("what the tests need", *INSTALL, *OFFLINE, *needed):
                trial.test(pytest, uring)
    print(f"\n=== {suite}: {time.monotonic() - began:.0f} s", flush=True)
    return trial.failed
