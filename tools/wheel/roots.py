"""Root file systems of Debian, made by debootstrap, in which there is a Python and nothing to build with.

One of each suite is kept, and made anew when the suite has changed (by the archive's own signed list) or the
way it is made has. What is run, is run in a copy that is thrown away. Everything is mounted in a mount
namespace of its own, which ends with the command: nothing stays mounted, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from tools.kernels import fetch

SUITES = {"bookworm": "3.11", "trixie": "3.13", "testing": "3.14"}
PACKAGES = "python3,python3-venv"
# What would be found missing only on a machine that has no compiler must not be there.
FORBIDDEN = (
    "usr/bin/cc",
    "usr/bin/gcc",
    "usr/include/liburing.h",
    "usr/include/libaio.h",
    "usr/include/stdlib.h",
)
# The root is a mount of its own, as that of a container is: in a mere chroot no namespace can be made.
MOUNT = """
mount --bind "$0" "$0"
cd "$0"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /dev dev
pivot_root . mnt
exec chroot . sh -euc 'umount -l /mnt; exec "$0" "$@"' "$@"
"""


class RootError(Exception):
    """A root file system cannot be had, and why."""


def check_here() -> None:
    """Raise where no root can be made."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise RootError(
            "the roots take Debian and root (debootstrap and chroot do); --build-only takes neither"
        )
    if not fetch.KEYRING.exists():
        raise RootError(f"{fetch.KEYRING} is missing: install the package debian-archive-keyring")


def cache() -> Path:
    """Return where the roots are kept: in `$IOCANCEL_CACHE`, or under the user's cache directory."""
    if given := os.environ.get("IOCANCEL_CACHE"):
        return Path(given).resolve() / "roots"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iocancel" / "roots"


def identity(suite: str) -> str:
    """Return a sum that changes with the suite, as the archive lists it now, and with how a root is made."""
    configuration = fetch.configure(suite)
    [signed] = (configuration.parent / "lists").glob(f"*_debian_dists_{suite}_InRelease")
    return hashlib.sha256(f"{PACKAGES} {SUITES[suite]}\n".encode() + signed.read_bytes()).hexdigest()


def kept(suite: str) -> Path:
    """Return the kept root of a suite, made if it is not there or not that of today."""
    wanted, tree = identity(suite), cache() / suite
    stamp = tree.with_suffix(".identity")
    if tree.is_dir() and stamp.exists() and stamp.read_text() == wanted:
        return tree
    print(f"wheel: making a root of Debian {suite}", flush=True)
    stamp.unlink(missing_ok=True)
    fresh = tree.with_suffix(".new")
    for old in (fresh, tree):
        shutil.rmtree(old, ignore_errors=True)
    tree.parent.mkdir(parents=True, exist_ok=True)
    log = tree.with_suffix(".log")
    options = ["--variant=minbase", f"--include={PACKAGES}", f"--keyring={fetch.KEYRING}"]
    with log.open("w") as output:
        done = subprocess.run(
            ["debootstrap", *options, suite, str(fresh), fetch.mirror("Debian")],
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        ending = "\n    ".join(log.read_text().splitlines()[-8:])
        raise RootError(f"debootstrap {suite}: exit status {done.returncode}; {log} ends with:\n    {ending}")
    check(fresh, suite)
    (fresh / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost ip6-localhost\n")
    fresh.rename(tree)
    stamp.write_text(wanted)
    return tree


def check(root: Path, suite: str) -> None:
    """Raise unless a root has the Python that it is for, and nothing to build with."""
    headers = f"usr/include/python{SUITES[suite]}/Python.h"
    if there := [name for name in (*FORBIDDEN, headers) if (root / name).exists()]:
        raise RootError(f"Debian {suite}: a root to try a wheel in should not have {', '.join(there)}")
    if not (root / f"usr/bin/python{SUITES[suite]}").exists():
        raise RootError(f"Debian {suite} has no Python {SUITES[suite]} any more: see SUITES in {__file__}")


@contextlib.contextmanager
def copied(suite: str, to: Path) -> Iterator[Path]:
    """Copy the root of a suite to `to`, for the block that this manages; nobody else may have it there."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with to.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RootError(f"{to} is in use: another ./dev wheel runs in this tree") from None
        yield from _copied(suite, to)


def _copied(suite: str, to: Path) -> Iterator[Path]:
    shutil.rmtree(to, ignore_errors=True)
    try:
        subprocess.run(["cp", "-a", "--reflink=auto", str(kept(suite)), str(to)], check=True)
        yield to
    finally:
        shutil.rmtree(to, ignore_errors=True)


def run(root: Path, command: list[str], variables: Mapping[str, str]) -> int:
    """Run a command in a root; return its exit status. Ctrl-C ends it, and all that it started."""
    given = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        **variables,
    }
    inside = ["unshare", "--mount", "sh", "-euc", MOUNT, str(root), *command]
    # A session of its own, so that all of it can be ended by its number.
    process = subprocess.Popen(inside, env=given, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        return process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def shell(*command: str) -> list[str]:
    """Return a command that goes to the tree first."""
    return ["sh", "-euc", f"cd /opt/iocancel && exec {shlex.join(command)}"]
