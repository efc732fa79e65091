"""Which engine: the best one that works here, found by trying."""

from __future__ import annotations

import importlib
import os
import select
import warnings
from collections.abc import Callable
from typing import Any

from iocancel import errors
from iocancel.operation import Verbs

ENGINES = ("uring", "libaio", "posix_aio")
"""The engines, the best one first."""
_CLASSES = {"uring": "UringEngine", "libaio": "LibaioEngine", "posix_aio": "PosixAioEngine"}
_said: set[str] = set()


def open_engine(name: str | None = None, **options: Any) -> Any:
    """Open an engine.

    Args:
        name: "uring", "libaio", "posix_aio", or "auto": the first of these that works here, found by trying
            (opening it and cancelling something), not by version numbers. None takes the environment's
            IOCANCEL_ENGINE, and "auto" without one.
        options: for the engine's class, where `name` is one of the three.

    Returns:
        An engine: a context manager; `close()` it.

    Raises:
        EngineUnavailable: it can't be had here (with "auto": none can); `.reason` and `.remedy` say why and
            what helps.
        ValueError: no such name.

    Where "auto" can't have io_uring it warns once (RuntimeWarning), and says what would help.
    """
    wanted = name if name is not None else os.environ.get("IOCANCEL_ENGINE") or "auto"
    if wanted == "auto":
        return _best()
    if wanted not in ENGINES:
        source = "" if name is not None else " (from IOCANCEL_ENGINE)"
        raise ValueError(f"no engine {wanted!r}{source}: there are {', '.join(ENGINES)}, and auto")
    return engine_class(wanted)(**options)


def engine_class(name: str) -> Callable[..., Any]:
    """The class of an engine, imported when it is first asked for."""
    found: Callable[..., Any] = getattr(importlib.import_module(f"iocancel.engines.{name}"), _CLASSES[name])
    return found


def _best() -> Any:
    refused: list[OSError] = []
    for name in ENGINES:
        engine = None
        try:
            engine = engine_class(name)()
            try_out(engine)
        except OSError as error:
            refused.append(error)
            if engine is not None:
                engine.close()
            continue
        if refused:
            _say(name, refused)
        return engine
    raise refused[0]


def try_out(engine: Verbs) -> None:
    """Cancel something, as far as the engine can: a seccomp filter may allow the set-up and nothing else.

    Raises:
        EngineUnavailable: it does not work.
    """
    if not engine.supports("poll"):
        return
    read_end, write_end = os.pipe()
    try:
        op = engine.poll(read_end, select.POLLIN)
        engine.submit()
        op.cancel()
        outcome = op.wait(5.0)
        if not op.cancelled():
            raise errors.engine_unavailable(5, f"{engine.name}: a cancelled poll {outcome.value}")
    finally:
        os.close(read_end)
        os.close(write_end)


def _say(name: str, refused: list[OSError]) -> None:
    """Say once why it is not io_uring."""
    error = refused[0]
    reason = getattr(error, "reason", "") or str(error)
    remedy = getattr(error, "remedy", "")
    if reason in _said:
        return
    _said.add(reason)
    warnings.warn(
        f"io_uring can't be used here: {reason}. {remedy} iocancel goes on with {name}; "
        "IOCANCEL_ENGINE chooses one without this warning.",
        RuntimeWarning,
        stacklevel=4,
    )
