"""What an engine says about a verb that its system does not have: who has it."""

from __future__ import annotations

import errno
import os

from iocancel.errors import FeatureUnavailable
from iocancel.operation import VERBS

CAN = {
    "uring": VERBS,
    "libaio": frozenset(
        [
            *("read", "write", "readv", "writev", "fsync", "splice", "tee"),
            *("recv", "send", "recvmsg", "sendmsg", "accept", "connect"),
            *("poll", "timeout", "waitid", "close"),
        ]
    ),
    "posix_aio": frozenset(["read", "write", "fsync", "timeout"]),
}
"""What each engine has at all, whichever the kernel is; what is there is said by `engine.supports`."""


class VerbUnavailable(FeatureUnavailable):
    """This engine does not have the verb, on any kernel (EOPNOTSUPP). The text names those that have."""

    __str__ = OSError.__str__


def no_verb(engine_name: str, verb: str) -> FeatureUnavailable:
    """The exception for a verb that an engine does not have.

    Args:
        engine_name: the engine that was asked: "libaio".
        verb: what it was asked for: "openat".

    Returns:
        The exception. Its `feature` is the verb, `since` names the engines that have it, `running` this one.
    """
    names = [name for name, verbs in CAN.items() if verb in verbs and name != engine_name]
    if len(names) > 1:
        there = f"the {' and '.join(names)} engines have"
    else:
        there = f"the {names[0]} engine has" if names else "no engine has"
    text = f"{os.strerror(errno.EOPNOTSUPP)}: {engine_name} has no {verb}: {there}"
    error = VerbUnavailable(errno.EOPNOTSUPP, text)
    error.feature, error.since, error.running = verb, ", ".join(names), engine_name
    return error
