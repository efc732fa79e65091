"""Cross compiling for aarch64: by the environment alone, since the steps are those of a native build.

The compiler and the C library are Debian's (gcc-aarch64-linux-gnu). Python's headers for aarch64 are taken
out of Debian's package. All that differs in them is pyconfig.h, and the wheel is for the stable ABI: which
Python does the building is all the same.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tools.kernels import fetch, tree
from tools.kernels.architecture import ARCHITECTURES

if TYPE_CHECKING:
    from pathlib import Path

AARCH64 = ARCHITECTURES["aarch64"]
TRIPLET = "aarch64-linux-gnu"


def headers(suite: str, python: str) -> Path:
    """Return the include directory of a suite's Python ("3.11") for aarch64, fetched if it is not there."""
    directory = fetch.cache() / "headers" / f"python{python}-{AARCH64.debian}"
    include = directory / "usr" / "include"
    if not include.exists():
        fresh = directory.with_name(directory.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for package in tree.download(suite, AARCH64, f"libpython{python}-dev", depends=False):
            tree.unpack(package, fresh)
        fresh.rename(directory)
    return include


def environment(include: Path, python: str, scratch: Path) -> dict[str, str]:
    """Return the variables that have the wheel, and what goes into it, built for aarch64."""
    # With _PYTHON_HOST_PLATFORM instead, pip would take the build's own needs (cffi) for aarch64, too.
    settings = scratch / "cross.cfg"
    settings.write_text(f"[bdist_wheel]\nplat_name = linux_{AARCH64.name}\n")
    # The headers come with the compiler's name, which build_ffi.py's trials go by, too. Those of the
    # interpreter that builds come behind them, and are never looked at.
    return {
        "HOST": TRIPLET,
        "CC": f"{TRIPLET}-gcc -I{include / f'python{python}'} -I{include}",
        "AR": f"{TRIPLET}-ar",
        "LDSHARED": f"{TRIPLET}-gcc -shared",
        "DIST_EXTRA_CONFIG": str(settings),
    }
