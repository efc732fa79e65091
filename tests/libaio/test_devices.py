"""Devices that only a guest kernel with its modules has: a slow disk, a USB gadget's endpoints.

`./dev kernels` runs them. Elsewhere they are skipped: a test does not load modules into anybody's machine.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from iocancel import CancelNotFound
from iocancel.libaio import Context, Iocb
from iocancel.libaio import kernel as kernel_module

from ..support import GUEST

CONFIG = Path("/sys/kernel/config")
pytestmark = pytest.mark.skipif(not GUEST, reason="needs a guest kernel (IOCANCEL_GUEST=1, ./dev kernels)")


@pytest.fixture
def slow_disk() -> Iterator[int]:
    """A disk each request of which takes 0.7 s, open with O_DIRECT."""
    if not (CONFIG / "nullb").is_dir():
        pytest.skip("no null_blk in this kernel")
    folder = CONFIG / "nullb" / "nullb7"
    folder.mkdir()
    settings = {"size": 64, "blocksize": 512, "queue_mode": 2, "irqmode": 2, "completion_nsec": 700_000_000}
    for name, value in settings.items():
        (folder / name).write_text(str(value))
    (folder / "power").write_text("1")
    index = (folder / "index").read_text().strip()
    device = next(path for path in (Path("/dev/nullb7"), Path(f"/dev/nullb{index}")) if path.exists())
    fd = os.open(device, os.O_RDONLY | os.O_DIRECT)
    yield fd
    os.close(fd)
    (folder / "power").write_text("0")
    folder.rmdir()


def test_a_slow_read_is_not_found_and_ends_by_itself(
    context: Context, slow_disk: int, pages: Callable[[int], Any]
) -> None:
    iocb = Iocb.pread(slow_disk, pages(4096))
    start = time.monotonic()
    context.submit([iocb])
    for _ in range(2):
        with pytest.raises(CancelNotFound, match="only polls"):
            context.cancel(iocb)
    assert context.getevents(0) == []
    assert iocb.in_flight
    [event] = context.getevents()
    assert event.check() == 4096
    assert time.monotonic() - start >= 0.6


def test_close_waits_for_a_slow_read(slow_disk: int, pages: Callable[[int], Any]) -> None:
    context, start = Context(), time.monotonic()
    context.submit([Iocb.pread(slow_disk, pages(4096))])
    [event] = context.close()
    assert event.check() == 4096
    assert time.monotonic() - start >= 0.6


def test_close_gives_up_and_keeps_the_memory(slow_disk: int, pages: Callable[[int], Any]) -> None:
    """io_destroy would have blocked until the read had ended."""
    memory = pages(4096)
    iocb, eventfd = Iocb.pread(slow_disk, memory), os.eventfd(0)
    iocb.set_eventfd(eventfd)
    context, start = Context(), time.monotonic()
    context.submit([iocb])
    with pytest.warns(ResourceWarning, match="could not be closed in time"):
        assert context.close(0.05) == []
    assert time.monotonic() - start < 0.6
    assert iocb.in_flight
    with pytest.raises(BufferError):
        memory.close()
    assert os.eventfd_read(eventfd) == 1  # now it has ended
    kernel_module.sweep()
    assert not iocb.in_flight
    os.close(eventfd)


def interface(packet: int) -> bytes:
    """An interface with an endpoint each way (USB 2.0, 9.6.5 and 9.6.6)."""
    endpoints = (struct.pack("<BBBBHB", 7, 5, address, 2, packet, 0) for address in (0x01, 0x82))
    return struct.pack("<BBBBBBBBB", 9, 4, 0, 0, 2, 255, 0, 0, 1) + b"".join(endpoints)


@pytest.fixture
def endpoints() -> Iterator[tuple[int, int]]:
    """A USB gadget's endpoints, one to read and one to write, with nobody on the other side (functionfs)."""
    if not (CONFIG / "usb_gadget").is_dir() or not list(Path("/sys/class/udc").glob("dummy_udc*")):
        pytest.skip("no libcomposite, usb_f_fs or dummy_hcd in this kernel")
    gadget, mounted = CONFIG / "usb_gadget" / "iocancel", Path("/run/iocancel-ffs")
    libc = ctypes.CDLL(None, use_errno=True)
    for folder in ("", "strings/0x409", "configs/c.1", "functions/ffs.iocancel"):
        (gadget / folder).mkdir()
    (gadget / "idVendor").write_text("0x1d6b")
    (gadget / "idProduct").write_text("0x0104")
    (gadget / "configs/c.1/ffs").symlink_to(gadget / "functions/ffs.iocancel")
    mounted.mkdir()
    if libc.mount(b"iocancel", str(mounted).encode(), b"functionfs", 0, None):
        raise OSError(ctypes.get_errno(), "mount functionfs")
    control = os.open(mounted / "ep0", os.O_RDWR)
    descriptors = struct.pack("<II", 3, 3) + interface(64) + interface(512)
    os.write(
        control, struct.pack("<III", 3, len(descriptors) + 12, 1 | 2) + descriptors
    )  # v2, full and high speed
    os.write(control, struct.pack("<IIII", 2, 16 + 7, 1, 1) + struct.pack("<H", 0x409) + b"test\0")
    (gadget / "UDC").write_text("dummy_udc.0")
    poll, kind = select.poll(), -1
    poll.register(control, select.POLLIN)
    while kind != 2:  # enabled
        assert poll.poll(60_000), "the gadget was never enabled"
        kind = os.read(control, 12)[8]
    opened = os.open(mounted / "ep1", os.O_RDWR), os.open(mounted / "ep2", os.O_RDWR)
    yield opened
    for fd in (*opened, control):
        os.close(fd)
    with suppress(OSError):
        (gadget / "UDC").write_text("\n")
    libc.umount(str(mounted).encode())
    mounted.rmdir()
    (gadget / "configs/c.1/ffs").unlink()
    for folder in ("functions/ffs.iocancel", "configs/c.1", "strings/0x409", ""):
        (gadget / folder).rmdir()


def test_endpoints_can_be_cancelled(context: Context, endpoints: tuple[int, int]) -> None:
    """What Linux AIO is still needed for: io_uring can't cancel these."""
    for iocb in (Iocb.pread(endpoints[0], bytearray(512)), Iocb.pwrite(endpoints[1], bytes(512))):
        context.submit([iocb])
        assert context.getevents(0) == []
        assert context.cancel(iocb) is None
        with pytest.raises(CancelNotFound):
            context.cancel(iocb)
        [event] = context.getevents()
        assert event.res == -errno.ECONNRESET
        assert event.res2 in (0, event.res)  # the same on 5.10
        with pytest.raises(ConnectionResetError):
            event.check()


def test_close_cancels_endpoints(endpoints: tuple[int, int]) -> None:
    context, buffer = Context(), bytearray(512)
    context.submit([Iocb.pread(endpoints[0], buffer)])
    with pytest.raises(BufferError):
        buffer.clear()
    assert [event.res for event in context.close(None)] == [-errno.ECONNRESET]
    buffer.clear()
