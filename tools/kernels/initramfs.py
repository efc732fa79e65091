"""Make the initial file system of a guest: busybox, the modules that it needs, and our /init."""

from __future__ import annotations

import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tools.kernels.fetch import Kernel

# What the guest needs itself. What a kernel does not have as a module it has built in.
BASE = ["virtio_pci", "virtio_console", "virtio_blk", "9pnet_virtio", "9p"]
BASE += ["overlay", "crc32c_generic", "ext4"]


def build(kernel: Kernel, extra: Mapping[str, str], scripts: Mapping[str, str], busybox: bytes) -> bytes:
    """Return a cpio archive: `extra` are more modules and their parameters, `scripts` go to the top."""
    load, files = modules(kernel, {**dict.fromkeys(BASE, ""), **extra})
    directories = ("bin", "modules", "proc", "sys", "dev", "new", "root", "memory")
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in directories]
    entries += [
        ("bin/busybox", stat.S_IFREG | 0o755, busybox),
        ("load", stat.S_IFREG | 0o644, "".join(f"{line}\n" for line in load).encode()),
    ]
    entries += [(name, stat.S_IFREG | 0o755, text.encode()) for name, text in scripts.items()]
    entries += [(f"modules/{name}.ko", stat.S_IFREG | 0o644, data) for name, data in files.items()]
    return cpio(entries)


def busybox(path: Path | None) -> bytes:
    """Return this busybox, or the machine's own (None), which must be a static one."""
    found = path or shutil.which("busybox")
    if found is None:
        raise FileNotFoundError("no busybox here: install busybox-static")
    with open(found, "rb") as file:
        program = file.read()
    # A dynamic program names its loader in the first page.
    if b"/ld-" in program[:4096]:
        raise FileNotFoundError(f"{found} is not static: install busybox-static instead")
    return program


def modules(kernel: Kernel, wanted: Mapping[str, str]) -> tuple[list[str], dict[str, bytes]]:
    """Return the lines "NAME PARAMETERS" in the order to load, and the modules' contents."""
    files = {plain(file.name.split(".ko")[0]): file for file in kernel.modules.rglob("*.ko*")}
    load: list[str] = []
    contents: dict[str, bytes] = {}

    def add(name: str, parameters: str) -> None:
        if name in contents or name not in files:
            return
        contents[name] = read(files[name])
        for needed in depends(contents[name]):
            add(plain(needed), "")
        load.append(f"{name} {parameters}".rstrip())

    for name, parameters in wanted.items():
        add(plain(name), parameters)
    return load, contents


def plain(name: str) -> str:
    """Return a module's name as the kernel spells it."""
    return name.replace("-", "_")


def read(file: Path) -> bytes:
    """Return a module's contents, whatever they are packed with (not every Python has lzma)."""
    unpack = {".xz": "xz", ".zst": "zstd", ".gz": "gzip"}.get(file.suffix)
    if unpack is None:
        return file.read_bytes()
    return subprocess.run([unpack, "-dc", file], stdout=subprocess.PIPE, check=True).stdout


def depends(module: bytes) -> list[str]:
    """Return the modules that this one names in its .modinfo. (So depmod is not needed.)"""
    start = module.find(b"\0depends=")
    if start < 0:
        return []
    start += len(b"\0depends=")
    return [name for name in module[start : module.index(b"\0", start)].decode().split(",") if name]


def cpio(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """Return a "newc" archive of (name, mode, contents)."""
    out = bytearray()
    for number, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)
