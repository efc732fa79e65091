"""What Linux AIO is still needed for, a USB gadget's endpoints; and a disk that is slow. In guests alone."""

from __future__ import annotations

import asyncio
import gc
import mmap

import pytest

import iocancel
from iocancel import Outcome, Verdict, pool
from iocancel.engines.libaio import LibaioEngine
from iocancel.errors import CancelTooLate, OperationTimedOut
from iocancel.libaio import kernel as kernel_module

from ..libaio.test_devices import endpoints as endpoints
from ..libaio.test_devices import slow_disk as slow_disk
from ..support import BOUND, GUEST
from .libaio_stage import engine as engine
from .libaio_stage import flying

pytestmark = pytest.mark.skipif(not GUEST, reason="needs a guest kernel (IOCANCEL_GUEST=1, ./dev kernels)")


def test_endpoints_can_be_cancelled(engine: LibaioEngine, endpoints: tuple[int, int]) -> None:
    """io_cancel's own success: -EINPROGRESS, and an event with -ECONNRESET (facts 9.6)."""
    buffer = bytearray(512)
    parts = bytearray(256), bytearray(256)
    for op in (
        engine.read(endpoints[0], buffer),
        engine.readv(endpoints[0], parts),
        engine.write(endpoints[1], bytes(512)),
        engine.writev(endpoints[1], [bytes(256), bytes(256)]),
    ):
        flying(engine, op)
        assert op._entry.disk
        op.cancel()
        assert op.wait(BOUND) is Outcome.CANCELLED
        assert op.verdict is Verdict.CANCELLED
    buffer.clear()


def test_an_endpoints_deadline(engine: LibaioEngine, endpoints: tuple[int, int]) -> None:
    own, waited = engine.read(endpoints[0], 512, timeout=0.05), engine.write(endpoints[1], bytes(512))
    assert waited.wait(0.05) is Outcome.CANCELLED
    assert own.wait() is Outcome.CANCELLED
    for op in (own, waited):
        with pytest.raises(OperationTimedOut):
            op.result()


def test_close_cancels_endpoints(endpoints: tuple[int, int]) -> None:
    buffer = bytearray(512)
    with LibaioEngine() as engine:
        op = engine.read(endpoints[0], buffer)
        flying(engine, op)
        with pytest.raises(BufferError):
            buffer.clear()
    assert op.outcome is Outcome.CANCELLED
    buffer.clear()


def test_endpoints_and_blocking_calls(endpoints: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "current", pool.Pool("libaio"))
    with pytest.raises(OperationTimedOut):
        iocancel.read(endpoints[0], 512, timeout=0.05)
    with pytest.raises(OperationTimedOut):
        iocancel.write(endpoints[1], bytes(512), timeout=0.05)
    pool.current.close()


def test_endpoints_and_asyncio(endpoints: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    import iocancel.asyncio as asyncio_

    monkeypatch.setenv("IOCANCEL_ENGINE", "libaio")

    async def main() -> int:
        for waiting in (asyncio_.read(endpoints[0], 512), asyncio_.write(endpoints[1], bytes(512))):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await waiting
        in_flight: int = asyncio_.engine().in_flight
        return in_flight

    assert asyncio.run(main()) == 0


def test_endpoints_and_trio(endpoints: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    trio = pytest.importorskip("trio")
    trio_ = pytest.importorskip("iocancel.trio")
    monkeypatch.setenv("IOCANCEL_ENGINE", "libaio")

    async def main() -> int:
        for verb, end, what in ((trio_.read, endpoints[0], 512), (trio_.write, endpoints[1], bytes(512))):
            with trio.move_on_after(0.05) as scope:
                await verb(end, what)
            assert scope.cancelled_caught
        in_flight: int = trio_.engine().in_flight
        return in_flight

    assert trio.run(main) == 0


def test_a_slow_read_is_not_found_and_ends_by_itself(engine: LibaioEngine, slow_disk: int) -> None:
    memory = mmap.mmap(-1, 4096)
    op = engine.read(slow_disk, memory, 0)
    flying(engine, op)
    op.cancel()
    assert op.wait(BOUND) is Outcome.COMPLETED
    assert op.verdict is Verdict.NOT_FOUND
    assert op.result() == 4096
    memory.close()


def test_a_deadline_that_a_disk_does_not_keep(
    engine: LibaioEngine, slow_disk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = mmap.mmap(-1, 4096)
    op = engine.read(slow_disk, memory, 0)
    monkeypatch.setattr(type(engine._carrier), "patience", lambda *_: 0.0)
    with pytest.raises(CancelTooLate, match="can't be stopped"):
        op.wait(0.01)
    assert op.wait() is Outcome.COMPLETED
    memory.close()


def test_close_gives_up_and_keeps_the_memory(slow_disk: int) -> None:
    memory = mmap.mmap(-1, 4096)
    engine = LibaioEngine()
    op = engine.read(slow_disk, memory, 0)
    flying(engine, op)
    with pytest.warns(ResourceWarning, match="1 operations still ran"):
        engine.close(0.05)
    assert op.outcome is Outcome.FAILED
    with pytest.raises(CancelTooLate):
        op.result()
    with pytest.raises(BufferError):
        memory.close()
    [kept] = kernel_module._abandoned
    assert kept.shut(-1)  # waits until it has ended
    kernel_module.sweep()
    del engine, kept
    gc.collect()
    memory.close()
    assert op.outcome is Outcome.FAILED, "it is alive, and has no hold of the memory"
