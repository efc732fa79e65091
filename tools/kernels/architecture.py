"""What differs from architecture to architecture: qemu's command, Debian's word for it, the console."""

from __future__ import annotations

import platform
from typing import NamedTuple


class Architecture(NamedTuple):
    """One that guests can have."""

    name: str
    """as `uname -m` has it, and qemu."""
    debian: str
    """as Debian's packages have it."""
    board: str
    """qemu's `-M`."""
    emulated: str
    """the processor that qemu is to emulate."""
    console: str

    @property
    def qemu(self) -> str:
        """The command."""
        return f"qemu-system-{self.name}"


ARCHITECTURES = {
    each.name: each
    for each in (
        # No cmpxchg16b, since QEMU before 8 lets that instruction spoil the flags, which makes kernels panic
        # early now and then; and no AVX and no five-level page tables, since emulating them is slow.
        Architecture("x86_64", "amd64", "q35", "max,-cx16,-avx,-avx2,-fma,la57=off", "ttyS0"),
        # The processor has atomic instructions (LSE), and no pointer authentication, whose emulation is slow.
        Architecture("aarch64", "arm64", "virt", "neoverse-n1", "ttyAMA0"),
    )
}


def native() -> Architecture:
    """Return this machine's own."""
    try:
        return ARCHITECTURES[platform.machine()]
    except KeyError:
        known = ", ".join(ARCHITECTURES)
        raise SystemExit(f"no guests on {platform.machine()}: there are those of {known}") from None
