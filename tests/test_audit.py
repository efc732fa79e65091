"""The auditing events: when each is raised, and what becomes of it when a hook raises."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import iocancel
from iocancel import CancelScope, Outcome, open_engine, pool
from iocancel.operation import VERBS
from iocancel.pool import Pool
from iocancel.testing import Answer, BlockedPipe, ScriptedEngine

from .blocking.helpers import Thread as Blocking
from .operation.helpers import real
from .support import BOUND, leaving_nothing


class Hook:
    """What this process's hook does with our events; a hook can't be taken out again."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.act: Callable[..., object] = lambda *_: None

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        self.heard.append((event, *args))
        self.act(event, *args)

    def named(self, event: str) -> list[tuple[Any, ...]]:
        return [heard[1:] for heard in self.heard if heard[0] == f"iocancel.{event}"]

    def refuse(self, event: str, error: BaseException) -> None:
        def act(name: str, *_: object) -> None:
            if name == f"iocancel.{event}":
                raise error

        self.act = act


_listening: list[Hook] = []
_added = False


def _listen(event: str, args: tuple[Any, ...]) -> None:
    if _listening and event.startswith("iocancel."):
        _listening[-1](event, args)


@pytest.fixture
def hook() -> Iterator[Hook]:
    global _added
    if not _added:
        sys.addaudithook(_listen)
        _added = True
    with leaving_nothing():
        made = Hook()
        _listening.append(made)
        yield made
        _listening.clear()
        made.heard.clear()  # it holds operations


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException]]:
    found: list[BaseException] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: found.append(report.exc_value))
    yield found
    found.clear()


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine() as made:
        yield made


# Who asks


def test_a_cancel_is_told_once(hook: Hook, engine: ScriptedEngine) -> None:
    op = engine.read(0, 1)
    engine.submit()
    assert op.cancel()
    assert op.cancel()
    assert hook.named("cancel") == [("scripted", (op,), "caller")]
    assert op.wait() is Outcome.CANCELLED
    assert not op.cancel()
    assert len(hook.heard) == 1


def test_many_are_told_in_one_event(hook: Hook, engine: ScriptedEngine) -> None:
    ops = [engine.read(i % 3, 1) for i in range(3000)]
    engine.submit()
    engine.complete(ops[0], b"x")
    engine.reap(0)
    assert engine.cancel(ops[:10]) == 9
    assert engine.cancel_fd(1) == 1000 - 3
    assert engine.cancel_all() == 3000 - 10 - 997
    events = hook.named("cancel")
    assert [len(ops) for _, ops, _ in events] == [9, 997, 1993]
    assert {(name, who) for name, _, who in events} == {("scripted", "caller")}
    assert {op for _, told, _ in events for op in told} == set(ops[1:])
    assert engine.cancel(ops) == 0
    assert len(hook.heard) == 3


def test_a_deadline_and_a_closing_say_so(hook: Hook) -> None:
    engine = ScriptedEngine()
    first, second = engine.read(0, 1), engine.read(1, 1)
    assert first.wait(0) is Outcome.CANCELLED
    third = engine.read(2, 1, timeout=0.0)
    engine.reap(0)
    assert hook.named("cancel") == [
        ("scripted", (first,), "deadline"),
        ("scripted", (third,), "deadline"),
    ]
    hook.heard.clear()
    engine.close()
    assert hook.heard == [
        ("iocancel.close", "scripted", (second,)),
        ("iocancel.cancel", "scripted", (second,), "closing"),
    ]
    engine.close()
    assert len(hook.heard) == 2


def test_the_closing_of_a_file_says_so(hook: Hook, engine: ScriptedEngine) -> None:
    read_end, write_end = os.pipe()
    op = engine.read(read_end, 1)
    engine.close_fd(read_end)
    os.close(write_end)
    assert hook.named("cancel") == [("scripted", (op,), "closing")]


def test_a_block_that_is_left_is_told_and_left(hook: Hook, unraisable: list[BaseException]) -> None:
    with ScriptedEngine(verbs=[verb for verb in VERBS if "multishot" not in verb]) as engine:
        hook.refuse("cancel", PermissionError("no"))
        with engine.poll_multishot(0, 1):
            assert engine.in_flight == 1
        assert engine.in_flight == 0
        [(_, [op], who)] = hook.named("cancel")
        assert op.cancelled()
        assert who == "caller"
        assert [str(each) for each in unraisable] == ["no"]


# A hook that refuses


def test_a_refused_cancel_was_never_asked(hook: Hook, engine: ScriptedEngine) -> None:
    op = engine.read(0, 1)
    engine.submit()
    hook.refuse("cancel", PermissionError("not you"))
    for _ in range(2):
        with pytest.raises(PermissionError, match="not you"):
            op.cancel()
    engine.submit()
    assert engine.cancels == []
    assert op.verdict is None
    engine.complete(op, -errno.ECANCELED)  # the kernel's own doing: nobody asked for it
    assert op.wait() is Outcome.FAILED


@pytest.mark.parametrize("how", ["cancel", "cancel_fd", "cancel_all"])
def test_a_refused_batch_was_never_asked(hook: Hook, engine: ScriptedEngine, how: str) -> None:
    ops = [engine.read(0, 1) for _ in range(3)]
    engine.submit()
    arguments: dict[str, list[Any]] = {"cancel": [ops], "cancel_fd": [0], "cancel_all": []}
    hook.refuse("cancel", PermissionError("not you"))
    with pytest.raises(PermissionError, match="not you"):
        getattr(engine, how)(*arguments[how])
    engine.submit()
    assert engine.cancels == []
    engine.complete(ops[0], -errno.ECANCELED)
    assert ops[0].wait() is Outcome.FAILED
    hook.act = lambda *_: None
    assert getattr(engine, how)(*arguments[how]) == 2
    assert [op.outcome for op in ops[1:]] == [Outcome.CANCELLED] * 2


def test_a_prepared_one_whose_cancel_is_refused_is_submitted(hook: Hook, engine: ScriptedEngine) -> None:
    op = engine.read(0, 1)
    hook.refuse("cancel", PermissionError("not you"))
    with pytest.raises(PermissionError):
        op.cancel()
    engine.complete(op, b"x")
    assert op.wait() is Outcome.COMPLETED


@pytest.mark.parametrize("error", [PermissionError("no"), RuntimeError("no")])
def test_no_hook_stops_a_deadline_or_a_closing(
    hook: Hook, unraisable: list[BaseException], error: Exception
) -> None:
    engine = ScriptedEngine()
    hook.act = lambda *_: (_ for _ in ()).throw(error)
    op, left = engine.read(0, 1), engine.read(1, 1)
    assert op.wait(0) is Outcome.CANCELLED
    assert unraisable == [error]
    engine.close()
    assert left.cancelled()
    assert engine.closed
    assert unraisable == [error] * 3  # the closing's, and its cancel's


def test_a_hook_that_ends_the_program_does_so_and_no_more(hook: Hook) -> None:
    engine = ScriptedEngine()
    op = engine.read(0, 1)
    hook.refuse("cancel", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        op.wait(0)
    assert op.wait() is Outcome.CANCELLED  # it was asked, and is not told again
    hook.refuse("close", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        engine.close()
    assert engine.closed


def test_in_a_signal_handler_a_refusal_is_the_handlers(
    hook: Hook, engine: ScriptedEngine, handler: Callable[[Callable[[], object]], None]
) -> None:
    op = engine.read(0, 1)
    hook.refuse("cancel", PermissionError("not you"))
    handler(op.cancel)
    engine.while_waiting(lambda: signal.raise_signal(signal.SIGUSR1))
    with pytest.raises(PermissionError, match="not you"):
        op.wait()
    assert engine.cancels == []
    assert engine.in_flight == 1
    hook.act = lambda *_: None
    engine.while_waiting(lambda: signal.raise_signal(signal.SIGUSR1))
    assert op.wait() is Outcome.CANCELLED
    assert [who for *_, who in hook.named("cancel")] == ["caller", "caller"]


def test_a_hook_may_cancel_another_one(hook: Hook, engine: ScriptedEngine) -> None:
    first, second = engine.read(0, 1), engine.read(1, 1)
    engine.submit()

    def act(_event: str, _name: str, ops: tuple[Any, ...], *_: object) -> None:
        if ops == (first,):
            second.cancel()

    hook.act = act
    first.cancel()
    engine.wait([first, second])
    assert first.cancelled()
    assert second.cancelled()


def test_the_answer_may_be_too_late_and_the_event_is_told_once(hook: Hook, engine: ScriptedEngine) -> None:
    op = engine.read(0, 1)
    engine.answer(op, Answer.NOT_FOUND, Answer.NOT_FOUND)  # the engine asks again by itself
    op.cancel()
    assert op.wait() is Outcome.CANCELLED
    assert len(hook.named("cancel")) == 1


# The real ones


@pytest.mark.parametrize("name", ["uring", "libaio", "posix_aio"])
def test_an_engine_says_when_it_opens_and_closes(hook: Hook, name: str) -> None:
    with real(name):
        assert hook.named("open_engine") == [(name,)]
        assert hook.named("close") == []
    assert hook.named("close") == [(name, ())]


@pytest.mark.parametrize("name", ["uring", "libaio", "posix_aio"])
def test_an_engine_that_is_refused_leaves_nothing(hook: Hook, name: str) -> None:
    real(name).close()
    hook.refuse("open_engine", RuntimeError("none for you"))
    with pytest.raises(RuntimeError, match="none for you"):
        open_engine(name)
    assert hook.named("close") == [(name, ())]  # of the first


def test_what_auto_tries_is_not_refused(hook: Hook, unraisable: list[BaseException]) -> None:
    with open_engine("auto") as engine:
        name = engine.name
    hook.refuse("cancel", PermissionError("no"))
    with open_engine("auto") as engine:
        assert engine.name == name


def test_auto_goes_on_behind_a_refusal(hook: Hook) -> None:
    real("uring").close()
    real("libaio").close()

    def act(event: str, *args: Any) -> None:
        if event == "iocancel.open_engine" and args == ("uring",):
            raise PermissionError(errno.EPERM, "no rings")

    hook.act = act
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # said once in a process
        with open_engine("auto") as engine:
            assert engine.name == "libaio"


@pytest.mark.parametrize("name", ["uring", "libaio"])
def test_no_hook_stops_a_scope(
    hook: Hook, unraisable: list[BaseException], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real(name).close()
    borrowed = Pool(name)
    monkeypatch.setattr(pool, "current", borrowed)
    scope = CancelScope()
    with BlockedPipe() as pipe:

        def read() -> None:
            with scope:
                iocancel.read(pipe.fileno(), 1)

        thread = Blocking(read)
        thread.until_blocked()
        hook.heard.clear()
        hook.refuse("cancel", PermissionError("no"))
        scope.cancel()
        thread.join()
    assert scope.cancelled_caught
    [(told, [op], who)] = hook.named("cancel")
    assert (told, op.cancelled(), who) == (name, True, "caller")
    assert [str(each) for each in unraisable] == ["no"]
    borrowed.close()


def test_the_cancel_of_a_task_is_told_and_not_refused(hook: Hook, unraisable: list[BaseException]) -> None:
    real("uring").close()
    with BlockedPipe() as pipe:

        async def main() -> None:
            tasks = [asyncio.ensure_future(iocancel.asyncio.poll(pipe.fileno(), 1)) for _ in range(3)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            hook.heard.clear()
            hook.refuse("cancel", PermissionError("no"))
            for task in tasks:
                task.cancel()
            done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), BOUND)
            assert [type(each) for each in done] == [asyncio.CancelledError] * 3

        asyncio.run(main())
    assert [(len(ops), who) for _, ops, who in hook.named("cancel")] == [(3, "caller")]
    assert [str(each) for each in unraisable] == ["no"]
