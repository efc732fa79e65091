"""What is the same for all operations of a verb, and which verbs there are."""

from __future__ import annotations

import errno
from typing import NamedTuple

# What ends an operation that was cancelled. The kernel's own codes for "interrupted, to be restarted" leak
# out of workers that a cancel has signalled: -512 (ERESTARTSYS) to -516 (ERESTART_RESTARTBLOCK).
STOPPED = frozenset([-errno.ECANCELED, -errno.EINTR, -512, -513, -514, -516])


class Kind(NamedTuple):
    """What is the same for all operations of a verb: `name`, `call`, results that are `fine` or `stopped`."""

    name: str
    """The verb's."""
    call: str
    """The system's name for it, for messages."""
    fine: frozenset[int] = frozenset()
    """Negative results that are its success (a timeout that has run out: -ETIME)."""
    stopped: frozenset[int] = STOPPED
    """Results that say "it did not happen", once a cancel was asked for."""


READ, WRITE = Kind("read", "read"), Kind("write", "write")
RECV, SEND, SEND_ZC = Kind("recv", "recv"), Kind("send", "send"), Kind("send_zc", "send_zc")
POLL = Kind("poll", "poll")
READV, WRITEV, FSYNC = Kind("readv", "readv"), Kind("writev", "writev"), Kind("fsync", "fsync")
RECVMSG, SENDMSG = Kind("recvmsg", "recvmsg"), Kind("sendmsg", "sendmsg")
ACCEPT, CONNECT = Kind("accept", "accept"), Kind("connect", "connect")
TIMEOUT = Kind("timeout", "timeout", frozenset([-errno.ETIME]))
OPENAT, CLOSE = Kind("openat", "openat"), Kind("close", "close")
SPLICE, TEE = Kind("splice", "splice"), Kind("tee", "tee")
WAITID, FUTEX_WAIT = Kind("waitid", "waitid"), Kind("futex_wait", "futex_wait")

KINDS = {"accept": ACCEPT, "recv": RECV, "poll": POLL, "read": READ}
"""Of the verbs that have a multishot form, and of reads."""

VERBS = frozenset(
    [
        *("read", "write", "readv", "writev", "fsync", "splice", "tee", "openat", "close"),
        *("recv", "send", "send_zc", "recvmsg", "sendmsg", "accept", "connect"),
        *("poll", "timeout", "waitid", "futex_wait"),
        *("accept_multishot", "recv_multishot", "poll_multishot"),
    ]
)
"""The verbs that there are; an engine `supports` some or all of them."""
