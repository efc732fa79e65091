"""Worker threads that a task's cancel ends.

`asyncio.to_thread` gives up on its thread when the task is cancelled: the thread goes on, and a read in it
may block for ever. Here the thread runs inside of an `iocancel.CancelScope`:

1. the task is cancelled; the scope is cancelled, and the task stays where it is;
2. the thread's blocking verb of `iocancel` ends: `iocancel.Cancelled` is raised in it, and caught by the
   scope;
3. the thread is done, and the task goes on with CancelledError.

A second cancel between 1 and 3 changes nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable
from typing import Any, TypeVar

from iocancel.awaiting.threads import Work

T = TypeVar("T")


class _Done(asyncio.Future[None]):
    """The end of a function's call. The task's cancel is noted, and raised only then.

    A task that is cancelled asks what it waits for to cancel itself, and one that says yes is waited for
    further.
    """

    def __init__(self, work: Work[Any], abandon: bool) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._work = work
        self._abandon = abandon
        self._asked: Any = None  # the cancel's message, in a tuple
        self.queued: asyncio.Future[Any] | None = None
        """The executor's own."""

    def cancel(self, msg: Any = None) -> bool:
        """The task was cancelled."""
        if self.done():
            return False
        if self._asked is None:
            self._asked = () if msg is None else (msg,)
            if self._work.cancel() or self._abandon:
                if self.queued is not None:
                    self.queued.cancel()  # it is not to run, and not to tell a loop that is closed
                self.over()
        return True

    def over(self, _queued: Any = None) -> None:
        """The thread is done with it, or nobody waits for it any more."""
        if self.done():
            return
        if self._asked is not None:
            super().cancel(*self._asked)
        else:
            self.set_result(None)


async def to_thread(
    func: Callable[..., T], /, *args: Any, abandon_on_cancel: bool = False, **kwargs: Any
) -> T:
    """Run a function in a worker thread whose blocking verbs of `iocancel` end when this task is cancelled.

        async with asyncio.timeout(1):
            data = await iocancel.asyncio.to_thread(iocancel.read, fd, 4096)

    The thread is one of the loop's default executor, and sees a copy of this task's context variables, as
    with `asyncio.to_thread`. `func` runs in an `iocancel.CancelScope`: when the task is cancelled so is the
    scope, and the end of the thread's call is awaited. Code that computes calls `iocancel.checkpoint()` now
    and then; a call that is none of this library's (`time.sleep`) is waited for. Threads that `func` starts
    are in no scope.

    Args:
        func: what to call.
        args, kwargs: what to call it with.
        abandon_on_cancel: let a cancel end the await at once. The scope is cancelled all the same; what the
            call returns then is dropped, what it raises goes to `threading.excepthook`. `asyncio.run` waits
            for the thread at its end, as for any of its executor.

    Returns:
        What `func` returned.

    Raises:
        asyncio.CancelledError: the task was cancelled. It is raised also where `func` was done all the same
            (an await that was cancelled has to raise): then its `value` is what `func` returned, or its
            `__cause__` what `func` raised. Where `func` was still queued it does not run.
        RuntimeError: `func` has cancelled the scope that it runs in, by `iocancel.current_scope()`; or it
            let a Cancelled of another thread out.
        What `func` raised.

    `iocancel.Cancelled` is never raised here.
    """
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()
    work: Work[T] = Work(functools.partial(context.run, functools.partial(func, *args, **kwargs)))
    done = _Done(work, abandon_on_cancel)
    done.queued = queued = loop.run_in_executor(None, work.run)
    queued.add_done_callback(done.over)
    try:
        await done
        queued.result()  # raises where the executor has refused
    except BaseException as error:
        work.cancel()  # of a coroutine that is closed the thread is to hear, too
        if work.leave() and isinstance(error, asyncio.CancelledError):
            if work.returned:
                error.value = work.value  # type: ignore[attr-defined]
            elif work.error is not None:
                error.__cause__ = work.error
        raise
    finally:
        done.queued = None
        del done, queued
    return work.result()


__all__ = ["to_thread"]
