"""Boot a kernel in qemu and run a command there, on the host's root file system or another tree."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tools.kernels import initramfs
from tools.kernels.architecture import Architecture, native

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tools.kernels.fetch import Kernel

SCRATCH_BYTES = 512 << 20
TRIES = 3
# Software emulation by default: it works everywhere, also where /dev/kvm exists and runs no guest, and for
# architectures that are not this machine's.
ACCELERATORS = ("tcg", "kvm")
KERNEL_OPTIONS = "loglevel=5 panic=-1 oops=panic mitigations=off audit=0 random.trust_cpu=1"


@dataclass(frozen=True)
class Machine:
    """How a guest is made."""

    accelerator: str = "tcg"
    processors: int = 1
    megabytes: int = 1024
    modules: tuple[tuple[str, str], ...] = ()
    architecture: Architecture = field(default_factory=native)
    root: Path = Path("/")
    """the tree that is the guest's root file system; it is only read."""


@dataclass(frozen=True)
class Run:
    """What came of it: `status` is None where the guest hung or died before the command's end."""

    status: int | None
    output: str
    report: bytes
    console: str
    seconds: float
    timed_out: bool


def run(kernel: Kernel, machine: Machine, command: str, limit: float) -> Run:
    """Run a shell script in a guest, for `limit` seconds at most.

    A guest that dies before it runs the script is booted again, since the emulator is to blame then.
    """
    scripts = {"init": Path(__file__).with_name("init.sh").read_text(), "command": command}
    initrd = initramfs.build(kernel, dict(machine.modules), scripts, busybox(machine))
    end = time.monotonic() + limit
    with tempfile.TemporaryDirectory(prefix="iocancel-kernel-") as directory:
        home = Path(directory)
        (home / "initrd").write_bytes(initrd)
        for _ in range(TRIES):
            done = boot(kernel, machine, home, end)
            if done.timed_out or "guest: ready" in done.console:
                break
    return replace(done, seconds=limit - (end - time.monotonic()))


def boot(kernel: Kernel, machine: Machine, home: Path, end: float) -> Run:
    """Boot once."""
    with (home / "scratch").open("wb") as scratch:
        scratch.truncate(SCRATCH_BYTES)
    make = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", scratch.name]
    subprocess.run(make, env=sbin(), check=True)
    started = time.monotonic()
    with (
        (home / "qemu").open("wb") as log,
        subprocess.Popen(
            arguments(kernel, machine, home), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        ) as qemu,
    ):
        timed_out = False
        try:
            qemu.wait(max(1.0, end - started))
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:  # also for Ctrl-C: no guest outlives us
            qemu.kill()

    def read(name: str) -> bytes:
        try:
            return (home / name).read_bytes()
        except FileNotFoundError:
            return b""

    status = None
    with contextlib.suppress(ValueError):
        status = int(read("port3"))
    console = (read("console") + read("qemu")).decode(errors="replace").replace("\r", "")
    output = read("port1").decode(errors="replace").replace("\r", "")
    return Run(status, output, read("port2"), console, time.monotonic() - started, timed_out)


def busybox(machine: Machine) -> bytes:
    """Return a busybox that the guest can run."""
    path = machine.root / "bin" / "busybox"
    return initramfs.busybox(None if machine.root == Path("/") else path)


def sbin() -> Mapping[str, str]:
    """Return an environment in which mke2fs is found: a user's PATH may lack the sbin directories."""
    return {**os.environ, "PATH": os.environ["PATH"] + os.pathsep + "/usr/sbin:/sbin"}


def arguments(kernel: Kernel, machine: Machine, home: Path) -> list[str]:
    """Return qemu's command line."""
    architecture = machine.architecture
    emulated = ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", architecture.emulated]
    command = [architecture.qemu, "-M", architecture.board]
    command += ["-accel", "kvm", "-cpu", "host"] if machine.accelerator == "kvm" else emulated
    command += ["-smp", str(machine.processors), "-m", str(machine.megabytes)]
    command += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    command += ["-kernel", str(kernel.image), "-initrd", str(home / "initrd")]
    command += ["-append", f"console={architecture.console} {KERNEL_OPTIONS}"]
    command += ["-serial", f"file:{home / 'console'}"]
    # Read-only on this side, too. Directories of other file systems are shared with it.
    command += [
        "-fsdev",
        f"local,id=root,path={machine.root},security_model=none,readonly=on,multidevs=remap",
    ]
    command += ["-device", "virtio-9p-pci,fsdev=root,mount_tag=root"]
    command += ["-drive", f"file={home / 'scratch'},format=raw,if=none,id=scratch,cache=unsafe"]
    command += ["-device", "virtio-blk-pci,drive=scratch", "-device", "virtio-serial-pci,id=ports"]
    for port in ("1", "2", "3"):
        command += ["-chardev", f"file,id=port{port},path={home / 'port'}{port}"]
        command += ["-device", f"virtserialport,bus=ports.0,nr={port},chardev=port{port}"]
    return command
