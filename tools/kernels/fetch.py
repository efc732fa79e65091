"""Fetch Debian's kernels, through an apt configuration of our own: the machine's is left alone.

Nothing is installed: the packages are only unpacked, under the cache directory. Versions are looked up
each time that a kernel is fetched, since they move with every point release.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tools.kernels.architecture import native

if TYPE_CHECKING:
    from tools.kernels.architecture import Architecture

SUITES = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie", "7.2": "sid"}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class FetchError(Exception):
    """A kernel cannot be had, and why."""


class Kernel(NamedTuple):
    """An unpacked kernel."""

    series: str
    release: str
    image: Path
    modules: Path


def cache() -> Path:
    """Where kernels are kept: `$IOCANCEL_CACHE`, or under the user's cache directory."""
    if given := os.environ.get("IOCANCEL_CACHE"):
        return Path(given).resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iocancel" / "kernels"


def find(series: str, *, update: bool = False, architecture: Architecture | None = None) -> Kernel:
    """Return the kernel of a series (a key of `SUITES`), fetched if it is not there, or if `update`.

    It is this machine's architecture's unless another is given.
    """
    debian = (architecture or native()).debian
    # amd64 has none in its name, as before there were others: what is in a cache stays of use.
    tree = cache() / (series if debian == "amd64" else f"{series}-{debian}")
    if update or not (tree / "complete").exists():
        fetch(series, debian, tree)
    image = next(file for file in sorted(tree.rglob("vmlinuz*")) if file.is_file())
    # 5.10 has /lib/modules, later ones /usr/lib/modules.
    modules = next(file for file in sorted(tree.rglob("modules/*/kernel")) if file.is_dir()).parent
    return Kernel(series, modules.name, image, modules)


def fetch(series: str, debian: str, tree: Path) -> None:
    """Download and unpack the newest generic kernel of a series, for an architecture, into `tree`."""
    if not shutil.which("apt-get"):
        raise FetchError(
            "fetching kernels takes apt and dpkg (a Debian machine or container). Elsewhere, unpack Debian's"
            f" linux-image-{series}* package for {debian} into {tree} yourself and create the file 'complete'"
            " in it"
        )
    configuration = configure(SUITES[series], debian)
    packages = choose(configuration, series, debian)
    fresh = tree.with_name(tree.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    downloads = fresh / "packages"
    downloads.mkdir(parents=True)
    apt(configuration, "apt-get", "-qq", "download", *packages, directory=downloads)
    for package in sorted(downloads.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, fresh], check=True)
    shutil.rmtree(downloads)
    (fresh / "complete").touch()
    shutil.rmtree(tree, ignore_errors=True)
    fresh.rename(tree)


def configure(suite: str, debian: str = "") -> Path:
    """Return an apt configuration, a file, that knows this suite and architecture alone; look what is new."""
    debian = debian or native().debian
    if not KEYRING.exists():
        raise FetchError(f"{KEYRING} is missing: install the package debian-archive-keyring")
    home = cache() / "apt" / (suite if debian == "amd64" else f"{suite}-{debian}")
    for part in ("lists/partial", "cache/archives/partial", "state"):
        (home / part).mkdir(parents=True, exist_ok=True)
    (home / "status").touch()
    lines = [f"deb [signed-by={KEYRING}] {mirror('Debian')} {suite} main"]
    # An old suite's newest kernels are in its security archive only; sid has none.
    if suite != "sid" and (security := mirror("Debian-Security", required=False)):
        lines.append(f"deb [signed-by={KEYRING}] {security} {suite}-security main")
    (home / "sources.list").write_text("\n".join(lines) + "\n")
    configuration = home / "apt.conf"
    # The parts of the machine's own configuration stay in force: it may need a proxy.
    settings = {
        "APT::Architecture": debian,
        "APT::Architectures": debian,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Acquire::Check-Valid-Until": "false",
        "Dir::Cache": home / "cache",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::Etc::SourceList": home / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State": home / "state",
        "Dir::State::Lists": home / "lists",
        "Dir::State::status": home / "status",
    }
    configuration.write_text("".join(f'{key} "{value}";\n' for key, value in settings.items()))
    apt(configuration, "apt-get", "-qq", "update")
    return configuration


def mirror(label: str, *, required: bool = True) -> str:
    """Return the base address of an archive, as this machine's own apt knows it."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(LABEL)"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    # Before the first update apt knows no label, but archives are laid out alike.
    for wanted in (rf"(\S+) {label}$", rf"(\S+/{label.lower()}/?) "):
        if found := re.search(wanted, shown, re.MULTILINE):
            return found[1]
    if variable := os.environ.get("IOCANCEL_DEBIAN_MIRROR" if label == "Debian" else ""):
        return variable
    if required:
        raise FetchError("this machine's apt knows no Debian archive: name one in IOCANCEL_DEBIAN_MIRROR")
    return ""


def choose(configuration: Path, series: str, debian: str) -> list[str]:
    """Return the packages, as apt names them, that hold the newest generic kernel of a series."""
    names = apt(configuration, "apt-cache", "pkgnames", f"linux-image-{series}.").split()
    # Neither cloud nor rt nor unsigned ones: these have no "+deb12"-like word, or none before "amd64".
    pattern = rf"linux-image-[0-9][0-9.+a-z]*(-[0-9]+)?-{debian}"
    generic = [name for name in names if re.fullmatch(pattern, name)]
    versions = {}
    for name in generic:
        shown = apt(configuration, "apt-cache", "show", "--no-all-versions", name)
        if version := re.search(r"^Version: (.*)$", shown, re.MULTILINE):
            versions[name] = version[1]
    if not versions:
        raise FetchError(f"Debian {SUITES[series]} has no kernel {series} any more: see SUITES in fetch.py")
    name = max(versions, key=lambda each: [int(number) for number in re.findall(r"\d+", versions[each])])
    # From 7.x on the image package is empty, and these two hold what it held.
    parts = [name.replace("linux-image-", f"linux-{part}-", 1) for part in ("binary", "modules")]
    known = apt(configuration, "apt-cache", "pkgnames", "linux-").split()
    return [f"{part}={versions[name]}" for part in [name, *parts] if part in known]


def apt(configuration: Path, *command: str, directory: Path | None = None) -> str:
    """Run one of apt's commands with our configuration."""
    environment = {**os.environ, "APT_CONFIG": str(configuration), "LC_ALL": "C"}
    done = subprocess.run(
        command, env=environment, cwd=directory, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise FetchError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
