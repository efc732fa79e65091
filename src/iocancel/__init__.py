"""Kernel I/O that Python programs on Linux can cancel.

`read`, `recv`, `accept` and the other verbs are blocking calls for plain threads that a deadline, a
`CancelScope` or Ctrl-C can end; `iocancel.asyncio` and `iocancel.trio` have the same verbs, awaited.
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
    from iocancel import (
        blocking,
        doctor,
        engines,
        files,
        libaio,
        operation,
        pool,
        posix_aio,
        scope,
        sockets,
        streams,
        testing,
        uring,
    )
    from iocancel._record import record_to
    from iocancel.blocking import (
        accept,
        connect,
        fsync,
        futex_wait,
        open,  # noqa: A004
        poll,
        read,
        readv,
        recv,
        recv_into,
        recvmsg,
        send,
        sendall,
        sendmsg,
        sleep,
        sleep_forever,
        sleep_until,
        splice,
        tee,
        waitid,
        write,
        write_all,
        writev,
    )
    from iocancel.engines import open_engine
    from iocancel.files import BufferedReader, RawFile
    from iocancel.operation import Engine, Operation, Outcome, Reach, Stats, Verdict
    from iocancel.scope import (
        CancelScope,
        checkpoint,
        current_effective_deadline,
        current_scope,
        fail_after,
        fail_at,
        move_on_after,
        move_on_at,
    )
    from iocancel.sockets import Socket, create_connection
    from iocancel.streams import Listener, Stream

__version__ = "0.1.0"

__all__ = [
    "BufferedReader",
    "CancelNotFound",
    "CancelScope",
    "CancelTimeout",
    "CancelTooLate",
    "Cancelled",
    "Engine",
    "EngineUnavailable",
    "FeatureUnavailable",
    "Listener",
    "Operation",
    "OperationCancelled",
    "OperationTimedOut",
    "Outcome",
    "QueueFull",
    "RawFile",
    "Reach",
    "Socket",
    "Stats",
    "Stream",
    "Verdict",
    "WrongThread",
    "__version__",
    "accept",
    "blocking",
    "check",
    "checkpoint",
    "connect",
    "create_connection",
    "current_effective_deadline",
    "current_scope",
    "doctor",
    "engines",
    "fail_after",
    "fail_at",
    "files",
    "fsync",
    "futex_wait",
    "libaio",
    "move_on_after",
    "move_on_at",
    "open",
    "open_engine",
    "operation",
    "poll",
    "pool",
    "posix_aio",
    "read",
    "readv",
    "record_to",
    "recv",
    "recv_into",
    "recvmsg",
    "scope",
    "send",
    "sendall",
    "sendmsg",
    "sleep",
    "sleep_forever",
    "sleep_until",
    "sockets",
    "splice",
    "streams",
    "tee",
    "testing",
    "uring",
    "waitid",
    "write",
    "write_all",
    "writev",
]

_LATE = frozenset(
    [
        "asyncio",
        "blocking",
        "doctor",
        "engines",
        "files",
        "libaio",
        "operation",
        "pool",
        "posix_aio",
        "scope",
        "sockets",
        "streams",
        "testing",
        "trio",
        "uring",
    ]
)
_NAMES = {
    "_record": "record_to",
    "engines": "open_engine",
    "operation": "Engine Operation Outcome Reach Stats Verdict",
    "scope": "CancelScope checkpoint current_effective_deadline current_scope fail_after fail_at "
    "move_on_after move_on_at",
    "streams": "Listener Stream",
    "files": "BufferedReader RawFile",
    "sockets": "Socket create_connection",
    "blocking": "accept connect fsync futex_wait open poll read readv recv recv_into recvmsg send sendall "
    "sendmsg sleep sleep_forever sleep_until splice tee waitid write write_all writev",
}
_FROM = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return importlib.import_module(f"iocancel.{name}")
    if name in _FROM:
        module = _FROM[name]
        if module == "scope":  # loading the verbs is not to count against the first deadline
            importlib.import_module("iocancel.blocking")
        found = getattr(importlib.import_module(f"iocancel.{module}"), name)
        globals()[name] = found  # a verb is called often, and found at once from now on
        return found
    raise AttributeError(f"module 'iocancel' has no attribute {name!r}")
