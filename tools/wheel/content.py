"""Check what is in a wheel: python tools/wheel/content.py WHEEL. A line for each thing that is wrong.

It is run inside cibuildwheel's containers too, by whatever Python is there: it needs nothing but the standard
library, and the tree that the wheel was built from around it.
"""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"
LIMIT = 560_000  # bytes; most of them are Python, with its docstrings and comments: see docs/install.md
NAME = re.compile(r"iocancel-[^-]+-cp311-abi3-(?P<systems>[a-z0-9_.]+)_(?P<machine>x86_64|aarch64)\.whl")
EXTENSION = "iocancel/_native.abi3.so"
MACHINES = {"x86_64": 62, "aarch64": 183}  # e_machine, the 16 bits at 18 of an ELF file
LICENCES = {
    "LICENSE",
    "LICENSE.libaio.COPYING",
    "LICENSE.liburing.LICENSE",
}


def sources() -> set[str]:
    """Return what of the package every wheel has, by its name in the wheel."""
    package = SOURCE / "iocancel"
    files = [*package.rglob("*.py"), *package.rglob("*.pyi"), package / "py.typed"]
    return {file.relative_to(SOURCE).as_posix() for file in files}


def extension(code: bytes, machine: str) -> list[str]:
    """Return what is wrong with the extension."""
    wrong = []
    if code[:4] != b"\x7fELF" or int.from_bytes(code[18:20], "little") != MACHINES[machine]:
        wrong.append(f"{EXTENSION} is not code for {machine}")
    # A stripped file has the names of what it imports and exports, and no others.
    if b"liburing.so" in code:
        wrong.append(f"{EXTENSION} wants a liburing.so, which many systems do not have or have older")
    if b"io_uring_queue_init" in code:
        wrong.append(f"{EXTENSION} shows liburing's functions to the process: they should be hidden")
    if b"\0.symtab\0" in code:
        wrong.append(f"{EXTENSION} has its symbols: it should be stripped")
    return wrong


def examine(wheel: Path) -> list[str]:
    """Return what is wrong with a wheel, a sentence each."""
    wrong = []
    name = NAME.fullmatch(wheel.name)
    if not name:
        return [f"the name should be iocancel-VERSION-cp311-abi3-SYSTEM_MACHINE.whl, not {wheel.name}"]
    if not all(system.startswith(("manylinux", "musllinux")) for system in name["systems"].split(".")):
        wrong.append(f"{name['systems']} is no tag that PyPI takes: has auditwheel repaired it?")
    size = wheel.stat().st_size
    if size > LIMIT:
        wrong.append(f"{size} bytes, and at most {LIMIT} should be")
    with zipfile.ZipFile(wheel) as archive:
        files = {entry for entry in archive.namelist() if not entry.endswith("/")}
        code = archive.read(EXTENSION) if EXTENSION in files else b""
    if code:
        wrong += extension(code, name["machine"])
    else:
        wrong.append(f"there is no {EXTENSION}")
    about = {entry for entry in files if entry.split("/")[0].endswith(".dist-info")}
    held = {entry.split("/licenses/")[1] for entry in about if "/licenses/" in entry}
    if held != LICENCES:
        wrong.append(f"the licences should be {sorted(LICENCES)}, and are {sorted(held)}")
    libraries = {entry for entry in files if entry.startswith("iocancel.libs/")}
    if len(libraries) != 1 or not all("/libaio" in entry for entry in libraries):
        wrong.append(f"of other libraries there should be libaio, and there are {sorted(libraries)}")
    package = files - about - libraries - {EXTENSION}
    if missing := sources() - package:
        wrong.append(f"missing: {sorted(missing)}")
    if extra := package - sources():
        wrong.append(f"not of the package: {sorted(extra)}")
    return wrong


def main(arguments: list[str]) -> int:
    """Examine each wheel; return the exit status."""
    status = 0
    for argument in arguments:
        wheel = Path(argument)
        wrong = examine(wheel)
        status |= bool(wrong)
        for each in wrong:
            print(f"{wheel.name}: {each}", file=sys.stderr)
        if not wrong:
            print(f"{wheel.name}: {wheel.stat().st_size} bytes, and in it is what there should be")
    return status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
