"""Which engine: the best one that works here, found by trying."""

from __future__ import annotations

import errno
import importlib
import os
import select
import warnings
from collections.abc import Callable
from typing import Any

from iocancel import errors
from iocancel.errors import EngineUnavailable
from iocancel.operation import Outcome, Verbs, counting
from iocancel.operation.operation import CALLER
from iocancel.operation.stats import Counting

ENGINES = ("uring", "libaio", "posix_aio")
"""The engines, the best one first."""
_CLASSES = {"uring": "UringEngine", "libaio": "LibaioEngine", "posix_aio": "PosixAioEngine"}
_SYSTEMS = {"uring": "io_uring", "libaio": "Linux AIO", "posix_aio": "POSIX AIO"}
# The call that stands for the system in `errors.engine_unavailable`.
_CALLS = {"uring": "io_uring_enter", "libaio": "io_setup"}
_EXPLAINED = frozenset([errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOMEM, errno.EMFILE, errno.ENFILE])
_PATIENCE = 5.0  # seconds that an engine is given to do what it is tried with
_said = False


def open_engine(name: str | None = None, *, stats: bool | None = None, **options: Any) -> Any:
    """Open an engine.

    Args:
        name: "uring", "libaio", "posix_aio", or "auto": the first of these that works here, found by trying
            (opening it and cancelling something), not by version numbers. None takes the environment's
            IOCANCEL_ENGINE, and "auto" without one.
        stats: whether it counts what it does, for `engine.stats()`. None: where the environment has
            IOCANCEL_STATS=1.
        options: for the engine's class, where `name` is one of the three.

    Returns:
        An engine: a context manager; `close()` it.

    Raises:
        EngineUnavailable: it can't be had here (with "auto": none can); `.reason` and `.remedy` say why and
            what helps.
        ValueError: no such name.
        TypeError: options beside "auto".

    Raises the auditing event `iocancel.open_engine` for each engine that is opened, or tried; a hook's
    OSError is a refusal like another, behind which "auto" goes on with the next.

    Where "auto" can't have io_uring it warns, once in a process (RuntimeWarning), and says what would help.
    """
    wanted = name if name is not None else os.environ.get("IOCANCEL_ENGINE") or "auto"
    if wanted == "auto":
        if options:
            given = ", ".join(options)
            raise TypeError(f"{given}: an option of one engine: with options, name the engine, too")
        return _best(stats)
    if wanted not in ENGINES:
        source = "" if name is not None else " (from IOCANCEL_ENGINE)"
        raise ValueError(f"no engine {wanted!r}{source}: there are {', '.join(ENGINES)}, and auto")
    return engine_class(wanted, stats)(**options)


def engine_class(name: str, stats: bool | None = None) -> Callable[..., Any]:
    """The class of an engine, imported when it is first asked for.

    Args:
        name: one of `ENGINES`.
        stats: as for `open_engine`.
    """
    found = getattr(importlib.import_module(f"iocancel.engines.{name}"), _CLASSES[name])
    counts = os.environ.get("IOCANCEL_STATS", "0") not in ("", "0") if stats is None else stats
    made: Callable[..., Any] = counting(found) if counts else found
    return made


def _best(stats: bool | None) -> Any:
    """The first that works."""
    refused: dict[str, EngineUnavailable] = {}
    for name in ENGINES:
        try:
            engine = _opened(name, stats)
        except OSError as error:
            # Without its frames: they hold what the attempt had opened.
            refused[name] = explained(name, error.with_traceback(None))
            continue
        if "uring" in refused:
            try:
                _say(name, refused["uring"])
            except BaseException:  # warnings are errors here
                engine.close()
                raise
        return engine
    raise _none(refused)


def _opened(name: str, stats: bool | None) -> Verbs:
    """An engine that was tried out; one that does not work leaves nothing behind."""
    if name == "uring":
        _try_ring()
    engine: Verbs = engine_class(name, stats)()
    try:
        try_out(engine)
    except BaseException:
        with warnings.catch_warnings():
            # What it did not get done is no news, and nothing of the caller's.
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                engine.close()
            except OSError:  # what has refused the work refuses its cancelling, too; it is closed
                pass
        raise
    if isinstance(engine, Counting):
        engine.reset()  # what it was tried with is not its user's
    return engine


def _try_ring() -> None:
    """Make each of the three system calls of io_uring: a filter may let some of them through.

    On a small ring of its own: one that is given up with a request in it is given back late.

    Raises:
        OSError: one was refused.
    """
    from iocancel.uring import Ring

    with Ring(8) as ring:
        ring.probe()
        ring.get_sqe()
        ring.submit()


def try_out(engine: Verbs) -> None:
    """Cancel something where the engine can always cancel, else do something.

    Raises:
        EngineUnavailable: it does not work.
        OSError: the system has refused.
    """
    read_end, write_end = os.pipe()
    try:
        if engine.supports("poll"):
            op: Any = engine.poll(read_end, select.POLLIN)
            engine.submit()
            op._ask(CALLER)  # no auditing hook refuses this one
            wanted = Outcome.CANCELLED
        else:
            os.write(write_end, b"x")
            op = engine.read(read_end, 1)
            wanted = Outcome.COMPLETED
        outcome = op.wait(_PATIENCE)
        if outcome is not wanted:
            error = op.exception()
            if isinstance(error, OSError):
                raise error
            raise _refusal(
                errno.EIO, engine.name, f"a {op.name} that was to be {wanted.value} {outcome.value}"
            )
    finally:
        os.close(read_end)
        os.close(write_end)


def explained(name: str, error: OSError) -> EngineUnavailable:
    """A refusal as an EngineUnavailable, with a reason and a remedy.

    Args:
        name: the engine that was tried.
        error: what came.
    """
    if isinstance(error, EngineUnavailable) and error.reason:
        return error
    if name in _CALLS and error.errno in _EXPLAINED:
        return errors.engine_unavailable(error.errno, _CALLS[name])
    return _refusal(error.errno or errno.EIO, name, error.strerror or str(error))


def _refusal(number: int, name: str, reason: str) -> EngineUnavailable:
    error = EngineUnavailable(number, f"{os.strerror(number)}: {_SYSTEMS[name]} does not work here")
    error.reason = reason
    error.remedy = "look at the limits (ulimit -a), the seccomp profile and dmesg"
    return error


def _none(refused: dict[str, EngineUnavailable]) -> EngineUnavailable:
    """What to say when nothing works: of each, why, and what would help."""
    number = next(iter(refused.values())).errno or errno.EIO
    error = EngineUnavailable(number, f"{os.strerror(number)}: no engine works here")
    error.reason = "; ".join(f"{_SYSTEMS[name]}: {each.reason}" for name, each in refused.items())
    error.remedy = "; ".join(f"{_SYSTEMS[name]}: {each.remedy}" for name, each in refused.items())
    return error


def _say(name: str, error: EngineUnavailable) -> None:
    """Say once why it is not io_uring."""
    global _said
    if _said:
        return
    _said = True
    warnings.warn(
        f"io_uring can't be used here: {error.reason}. What helps: {error.remedy}. iocancel goes on with "
        f"{name}; IOCANCEL_ENGINE={name} chooses it without this warning.",
        RuntimeWarning,
        stacklevel=4,
    )
