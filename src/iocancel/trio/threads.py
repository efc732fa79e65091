"""Worker threads that a cancel ends.

`trio.to_thread.run_sync` waits for its thread, however long it blocks, or gives up on it. Here the thread
runs inside of an `iocancel.CancelScope`, which is cancelled when the task is:

1. the task's scope is cancelled (or a KeyboardInterrupt is to be delivered); the thread's scope is cancelled,
   and the task stays where it is;
2. the thread's blocking verb of `iocancel` ends: `iocancel.Cancelled` is raised in it, and caught by the
   scope;
3. the thread is done, and the task goes on: with what the function returned or raised, where it did, and
   with trio's cancellation where it was cancelled.

trio's own abort function can't be added to. So a child of the task calls `run_sync`, inside of the same
scopes, and the task itself waits for the child, by an abort function of ours.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple

import outcome
import trio
from trio.lowlevel import Abort

from iocancel.awaiting.threads import Work

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@trio.lowlevel.enable_ki_protection
async def to_thread(
    func: Callable[[*Ts], T],
    *args: *Ts,
    abandon_on_cancel: bool = False,
    limiter: trio.CapacityLimiter | None = None,
) -> T:
    """Run a function in a worker thread whose blocking verbs of `iocancel` end when this task is cancelled.

        with trio.move_on_after(1):
            data = await iocancel.trio.to_thread(iocancel.read, fd, 4096)

    The thread is one of `trio.to_thread.run_sync`'s: `trio.from_thread` works in it, and it sees a copy of
    this task's context variables. `func` runs in an `iocancel.CancelScope`: when the task is cancelled so is
    the scope, and the end of the thread's call is awaited. Code that computes calls `iocancel.checkpoint()`
    or `trio.from_thread.check_cancelled()` now and then; a call that is none of this library's (`time.sleep`)
    is waited for. Threads that `func` starts are in no scope.

    Args:
        func: what to call.
        args: what to call it with.
        abandon_on_cancel: let a cancel end the await at once. The scope is cancelled all the same; what the
            call returns then is dropped, what it raises goes to `threading.excepthook`.
        limiter: bounds how many such threads run at once; as `trio.to_thread.run_sync` takes it.

    Returns:
        What `func` returned; also where a cancel came while it ran: the next checkpoint raises then.

    Raises:
        trio.Cancelled: the task was cancelled, and so was what `func` did, or it has not begun.
        RuntimeError: `func` has cancelled the scope that it runs in, by `iocancel.current_scope()`; or it
            let a Cancelled of another thread out.
        What `func` raised; also where a cancel came while it ran.

    `iocancel.Cancelled` is never raised here. This is a checkpoint.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    abandon = bool(abandon_on_cancel)
    work: Work[T] = Work(functools.partial(func, *args), (trio.Cancelled,))
    task = trio.lowlevel.current_task()
    to_raise: Any = None
    came: outcome.Outcome[Any] | None = None
    name = f"{getattr(func, '__name__', None)} from {task.name}"

    @trio.lowlevel.enable_ki_protection
    async def child() -> None:
        nonlocal came
        came = await outcome.acapture(
            functools.partial(
                trio.to_thread.run_sync,
                work.run,
                thread_name=name,
                abandon_on_cancel=abandon,
                limiter=limiter,
            )
        )
        trio.lowlevel.reschedule(task)  # the child has ended before the task's next step

    async with trio.open_nursery() as nursery:

        def abort(raise_cancel: Any) -> Abort:
            nonlocal to_raise
            if to_raise is not None:  # this very cancel, of the nursery
                return Abort.FAILED
            to_raise = raise_cancel
            work.cancel()
            nursery.cancel_scope.cancel()  # of a KeyboardInterrupt trio tells only this task
            return Abort.FAILED

        nursery.start_soon(child, name=name)
        await trio.lowlevel.wait_task_rescheduled(abort)
        nursery.cancel_scope.shield = True  # what has come is not lost to a cancel that comes now
    assert came is not None
    over = work.leave()
    try:
        if to_raise is not None and isinstance(work.error, trio.Cancelled):
            work.error = None  # of check_cancelled(): the child's; the task may have had a KeyboardInterrupt
        if over and (work.returned or work.error is not None):
            if not (isinstance(came, outcome.Error) and isinstance(came.error, trio.Cancelled)):
                came.unwrap()  # raises where trio refuses the value: a coroutine
            return work.result()
        if to_raise is not None:
            to_raise()
        came.unwrap()  # raises where the thread could not be had
        return work.result()
    finally:
        del came, to_raise  # an exception's frames hold this one


__all__ = ["to_thread"]
