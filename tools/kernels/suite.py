"""What a guest runs: the test suite, and what must be there for it."""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Slow disks (made by configfs), USB gadgets with no hardware, and disks that delay or copy.
MODULES = {
    "null_blk": "nr_devices=0",
    "dummy_hcd": "",
    "libcomposite": "",
    "usb_f_fs": "",
    "dm_delay": "",
    "loop": "",
}
# pytest loads every plugin that is installed, and some take a guest half a minute to import.
PLUGINS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_timeout"}


def collect(python: str, directory: Path, pytest: list[str]) -> None:
    """Have pytest collect the tests: it compiles them, in its own way, and what is wrong shows early.

    A guest would take half a minute and more to compile them.
    """
    command = [python, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-qq", *pytest]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= PLUGINS
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}{done.stderr}pytest does not even collect the tests")


def script(python: str, directory: Path, pytest: list[str], variables: Mapping[str, str]) -> str:
    """Return a script that runs the tests in `directory`; init.sh takes the report from where it is left."""
    every = {
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        **PLUGINS,
        "TMPDIR": "/mnt/scratch",
        "IOCANCEL_GUEST": "1",
        "IOCANCEL_REQUIRE": "uring,libaio,posix_aio",  # Debian's kernels have them all
        "IOCANCEL_SCRATCH": "/mnt/scratch",
        **variables,
    }
    ours = ["-v", "-p", "no:cacheprovider", "-o", "timeout_method=signal", "--junitxml=/run/report.xml"]
    command = [python, "-m", "pytest", *ours, *pytest]
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in every.items())
    return f"cd {shlex.quote(str(directory))} || exit 126\n{exports}exec {shlex.join(command)}\n"
