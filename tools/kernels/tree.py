"""A root file system of another architecture, made of Debian's packages, without running one of its programs.

The packages are unpacked, and what their scripts would have set up is done here, as far as the tests need it.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from typing import TYPE_CHECKING

from tools.kernels import fetch

if TYPE_CHECKING:
    from pathlib import Path

    from tools.kernels.architecture import Architecture

# busybox-static is for the initial file system; mount, unshare, sh and so on are what the tests run;
# libbpf is for `iocancel trace`. usr-is-merged saves perl, which would do by a script what is done here.
PACKAGES = ["base-files", "base-passwd", "busybox-static", "coreutils", "dash", "libbpf1", "libc-bin"]
PACKAGES += ["mount", "python3", "usr-is-merged", "util-linux"]
FILES = {
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nprotocols: files\nservices: files\n",
}


def find(suite: str, architecture: Architecture, *, update: bool = False) -> Path:
    """Return such a tree, made if it is not there, or if `update`.

    It is in the cache: who wants to change it makes a copy.
    """
    tree = fetch.cache() / "root" / f"{suite}-{architecture.debian}"
    key = hashlib.sha256(repr((PACKAGES, FILES)).encode()).hexdigest()
    made = tree / "made-of"
    if update or not made.exists() or made.read_text() != key:
        fresh = tree.with_name(tree.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        make(fresh, suite, architecture)
        (fresh / "made-of").write_text(key)
        shutil.rmtree(tree, ignore_errors=True)
        fresh.rename(tree)
    return tree


def make(tree: Path, suite: str, architecture: Architecture) -> None:
    """Download the packages and all that they depend on, and unpack them into `tree`."""
    for name in ("bin", "sbin", "lib"):
        (tree / "usr" / name).mkdir(parents=True)
        (tree / name).symlink_to(f"usr/{name}")
    for package in download(suite, architecture, *PACKAGES):
        unpack(package, tree)
    for name in ("tmp", "proc", "sys", "dev", "run", "root", "mnt"):
        (tree / name).mkdir(exist_ok=True)
    (tree / "tmp").chmod(0o1777)
    for name in ("passwd", "group"):
        shutil.copy(tree / f"usr/share/base-passwd/{name}.master", tree / "etc" / name)
    for name, text in FILES.items():
        (tree / name).write_text(text)


def download(suite: str, architecture: Architecture, *packages: str, depends: bool = True) -> list[Path]:
    """Return the files of these packages, and of those that they depend on."""
    configuration = fetch.configure(suite, architecture.debian)
    archives = configuration.with_name("cache") / "archives"
    for old in archives.glob("*.deb"):
        old.unlink()
    if depends:
        options = ("-qq", "--yes", "--download-only", "--no-install-recommends")
        fetch.apt(configuration, "apt-get", *options, "install", *packages)
    else:
        fetch.apt(configuration, "apt-get", "-qq", "download", *packages, directory=archives)
    return sorted(archives.glob("*.deb"))


def unpack(package: Path, tree: Path) -> None:
    """Unpack one: what it has in /lib goes where the link leads."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as contents:
        command = ["tar", "-x", "--keep-directory-symlink", "-C", str(tree)]
        subprocess.run(command, stdin=contents.stdout, check=True)
    if contents.returncode:
        raise fetch.FetchError(f"{package.name}: dpkg-deb cannot read it ({contents.returncode})")
