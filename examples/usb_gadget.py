"""A Linux machine as a USB device: it reads what the host sends, and stops waiting when it wants to.

The endpoints of functionfs are the one kind of file whose requests only Linux AIO can cancel: io_uring does
not find them. It needs root, configfs, the modules libcomposite and usb_f_fs, and a USB device controller;
the module dummy_hcd makes one out of nothing.

    modprobe -a libcomposite usb_f_fs dummy_hcd
    python examples/usb_gadget.py [CONTROLLER]
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import iocancel

CONFIG = Path("/sys/kernel/config/usb_gadget")
FROM_HOST, TO_HOST = 0x01, 0x82  # the endpoints' addresses; the upper bit says: to the host
ENABLED = 2  # FUNCTIONFS_ENABLE


def interface(packet: int) -> bytes:
    """The descriptors of an interface with an endpoint each way (USB 2.0, 9.6.5 and 9.6.6).

    Args:
        packet: the endpoints' packet size, in bytes.
    """
    endpoints = (struct.pack("<BBBBHB", 7, 5, address, 2, packet, 0) for address in (FROM_HOST, TO_HOST))
    return struct.pack("<BBBBBBBBB", 9, 4, 0, 0, 2, 255, 0, 0, 1) + b"".join(endpoints)


@contextlib.contextmanager
def gadget(controller: str, name: str = "example") -> Iterator[tuple[int, int]]:
    """Be a USB device while this lasts; gives two fds, one to read from the host and one to write to it.

    Args:
        controller: as in /sys/class/udc.
        name: the gadget's, in configfs.
    """
    with contextlib.ExitStack() as stack:
        root = CONFIG / name
        for folder in ("", "strings/0x409", "configs/c.1", f"functions/ffs.{name}"):
            (root / folder).mkdir()
            stack.callback((root / folder).rmdir)
        (root / "idVendor").write_text("0x1d6b")
        (root / "idProduct").write_text("0x0104")
        (root / "configs/c.1/ffs").symlink_to(root / f"functions/ffs.{name}")
        stack.callback((root / "configs/c.1/ffs").unlink)

        mounted = stack.enter_context(tempfile.TemporaryDirectory())
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(name.encode(), mounted.encode(), b"functionfs", 0, None):
            raise OSError(ctypes.get_errno(), "mount functionfs")
        stack.callback(libc.umount, mounted.encode())

        control = os.open(f"{mounted}/ep0", os.O_RDWR)
        stack.callback(os.close, control)
        both = struct.pack("<II", 3, 3) + interface(64) + interface(512)  # 3 descriptors each, full and high
        os.write(control, struct.pack("<III", 3, len(both) + 12, 1 | 2) + both)
        os.write(control, struct.pack("<IIIIH", 2, 16 + 7, 1, 1, 0x409) + b"test\0")
        (root / "UDC").write_text(controller)
        stack.callback(unbind, root / "UDC")

        event = -1
        while event != ENABLED:  # a host has to see it first
            iocancel.poll(control, select.POLLIN, timeout=60)
            event = os.read(control, 12)[8]
        ends = []
        for number in (1, 2):
            ends.append(os.open(f"{mounted}/ep{number}", os.O_RDWR))
            stack.callback(os.close, ends[-1])
        yield ends[0], ends[1]


def unbind(path: Path) -> None:
    """Leave the bus; the host may have done that already."""
    with contextlib.suppress(OSError):
        path.write_text("\n")


def serve(from_host: int, to_host: int, seconds: float) -> Iterator[str]:
    """Wait for the host, for so long; tells what came of it.

    Args:
        from_host, to_host: the endpoints.
        seconds: how long.
    """
    with iocancel.open_engine("libaio") as engine:
        yield f"how far a read can be cancelled here: {engine.reach('read')}"
        read = engine.read(from_host, 512)
        read.wait(timeout=seconds)
        yield f"a read of what the host never sends: {read.outcome.value}"
        write = engine.write(to_host, bytes(512))  # controllers take a few bytes ahead of the host
        engine.submit()
        write.cancel()
        yield f"a write that the host never takes: {write.wait().value}"
        yield f"in flight: {engine.in_flight}"


def main() -> int:
    """Run it and show what happened."""
    there = sorted(path.name for path in Path("/sys/class/udc").glob("*"))
    controller = sys.argv[1] if len(sys.argv) > 1 else next(iter(there), "")
    if not CONFIG.is_dir() or not controller:
        print(
            "no USB device controller, or no configfs: try `modprobe -a libcomposite usb_f_fs dummy_hcd` "
            "and `mount -t configfs configfs /sys/kernel/config`",
            file=sys.stderr,
        )
        return 2
    with gadget(controller) as (from_host, to_host):
        for line in serve(from_host, to_host, 0.5):
            print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
