"""Kernel I/O that Python programs on Linux can cancel.

`open_engine()` gives an engine, whose verbs return operations that can be cancelled, on whichever of the
three systems works here. `iocancel.uring`, `iocancel.libaio` and `iocancel.posix_aio` are the three systems,
one to one; `iocancel.errors` has the exceptions. The modules load when they are first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from iocancel.errors import (
    Cancelled,
    CancelNotFound,
    CancelTimeout,
    CancelTooLate,
    EngineUnavailable,
    FeatureUnavailable,
    OperationCancelled,
    OperationTimedOut,
    QueueFull,
    WrongThread,
    check,
)

if TYPE_CHECKING:
    from iocancel import doctor, engines, libaio, operation, posix_aio, testing, uring
    from iocancel.engines import open_engine
    from iocancel.operation import Engine, Operation, Outcome, Reach, Verdict

__version__ = "0.1.0"

__all__ = [
    "CancelNotFound",
    "CancelTimeout",
    "CancelTooLate",
    "Cancelled",
    "Engine",
    "EngineUnavailable",
    "FeatureUnavailable",
    "Operation",
    "OperationCancelled",
    "OperationTimedOut",
    "Outcome",
    "QueueFull",
    "Reach",
    "Verdict",
    "WrongThread",
    "__version__",
    "check",
    "doctor",
    "engines",
    "libaio",
    "open_engine",
    "operation",
    "posix_aio",
    "testing",
    "uring",
]

_LATE = frozenset(["doctor", "engines", "libaio", "operation", "posix_aio", "testing", "uring"])
_FROM = {"open_engine": "engines"} | dict.fromkeys(
    ["Engine", "Operation", "Outcome", "Reach", "Verdict"], "operation"
)


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return importlib.import_module(f"iocancel.{name}")
    if name in _FROM:
        return getattr(importlib.import_module(f"iocancel.{_FROM[name]}"), name)
    raise AttributeError(f"module 'iocancel' has no attribute {name!r}")
