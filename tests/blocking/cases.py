"""One call of each verb that blocks: what ends it, and what it must leave alone."""

from __future__ import annotations

from .case import Case
from .cases_data import (
    Read,
    ReadTo,
    Readv,
    Recv,
    RecvInto,
    RecvMsg,
    Send,
    SendAll,
    SendMsg,
    Write,
    WriteAll,
    Writev,
)
from .cases_waits import Accept, Connect, Futex, Open, Poll, Sleep, Splice, Tee, Waitid

CASES: dict[str, type[Case]] = {
    "read": Read,
    "read_to": ReadTo,
    "readv": Readv,
    "recv": Recv,
    "recv_into": RecvInto,
    "recvmsg": RecvMsg,
    "write": Write,
    "write_all": WriteAll,
    "writev": Writev,
    "send": Send,
    "sendall": SendAll,
    "sendmsg": SendMsg,
    "accept": Accept,
    "connect": Connect,
    "poll": Poll,
    "open": Open,
    "waitid": Waitid,
    "splice": Splice,
    "tee": Tee,
    "futex_wait": Futex,
    "sleep": Sleep,
}
