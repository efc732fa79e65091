"""Hold an sdist against what git tracks: python -m tools.wheel.sdist SDIST.

Whoever builds from it needs what is tracked, and no more than that comes along. What differs on purpose is
named here.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEFT_OUT = (".ci/", ".github/", ".gitignore")  # of use in a clone only
ADDED = ("PKG-INFO", "setup.cfg", "src/iocancel.egg-info/")  # setuptools' own


def tracked() -> dict[str, bool]:
    """Return the files that git tracks, with whether they can be executed."""
    listed = subprocess.run(
        ["git", "ls-files", "--stage", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    entries = (entry.split("\t", 1) for entry in listed.split("\0") if entry)
    return {name: mode.startswith("100755") for mode, name in entries}


def held(sdist: Path) -> dict[str, bool]:
    """Return the files in an sdist, less its directory's name, with whether they can be executed."""
    with tarfile.open(sdist) as archive:
        members = [member for member in archive.getmembers() if not member.isdir()]
    return {member.name.partition("/")[2]: bool(member.mode & 0o111) for member in members}


def compare(tracked: dict[str, bool], held: dict[str, bool]) -> list[str]:
    """Return what differs and should not, a line each."""
    wanted = {name: mode for name, mode in tracked.items() if not name.startswith(LEFT_OUT)}
    found = {name: mode for name, mode in held.items() if not name.startswith(ADDED)}
    wrong = [f"not in the sdist: {name}" for name in sorted(wanted.keys() - found.keys())]
    wrong += [f"in the sdist, and not tracked: {name}" for name in sorted(found.keys() - wanted.keys())]
    both = sorted(wanted.keys() & found.keys())
    return wrong + [
        f"executable in one of the two only: {name}" for name in both if wanted[name] != found[name]
    ]


def main(sdist: Path) -> int:
    """Compare; return the exit status."""
    files = held(sdist)
    wrong = compare(tracked(), files)
    for each in wrong:
        print(each, file=sys.stderr)
    if wrong:
        print(
            f"{sdist.name} is not what git tracks: see MANIFEST.in and {Path(__file__).name}", file=sys.stderr
        )
    else:
        print(f"{sdist.name}: {len(files)} files, those that git tracks")
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
