"""Kernel I/O that Python programs on Linux can cancel.

`iocancel.uring`, `iocancel.libaio` and `iocancel.posix_aio` are the three systems, one to one;
`iocancel.errors` has the exceptions. The modules load when they are first asked for.
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
    QueueFull,
    WrongThread,
    check,
)

if TYPE_CHECKING:
    from iocancel import doctor, libaio, posix_aio, uring

__version__ = "0.1.0"

__all__ = [
    "CancelNotFound",
    "CancelTimeout",
    "CancelTooLate",
    "Cancelled",
    "EngineUnavailable",
    "FeatureUnavailable",
    "OperationCancelled",
    "QueueFull",
    "WrongThread",
    "__version__",
    "check",
    "doctor",
    "libaio",
    "posix_aio",
    "uring",
]

_LATE = frozenset(["doctor", "libaio", "posix_aio", "uring"])


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return importlib.import_module(f"iocancel.{name}")
    raise AttributeError(f"module 'iocancel' has no attribute {name!r}")
