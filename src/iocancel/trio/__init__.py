"""The verbs of `iocancel`, awaited in trio.

    with trio.fail_after(2):
        data = await iocancel.trio.recv(sock, 4096)

What is cancelled has its request cancelled in the kernel, and goes on when that has ended: nothing is read,
written or accepted afterwards, and no buffer touched. A success that is first is returned, and the next
checkpoint raises. Each verb is a checkpoint, and a KeyboardInterrupt comes before it or behind, never within.
See `iocancel.awaiting.Verbs` for what they have in common.
"""

from iocancel.awaiting.verbs import Verbs
from iocancel.trio.hub import current, protected
from iocancel.trio.streams import Listener, Stream, multishots
from iocancel.trio.threads import to_thread

_verbs = protected(Verbs)(current)

accept = _verbs.accept
accept_multishot = multishots.accept_multishot
close_fd = _verbs.close_fd
connect = _verbs.connect
engine = _verbs.engine
fsync = _verbs.fsync
futex_wait = _verbs.futex_wait
open = _verbs.open  # noqa: A001
poll = _verbs.poll
poll_multishot = multishots.poll_multishot
read = _verbs.read
readv = _verbs.readv
recv = _verbs.recv
recv_into = _verbs.recv_into
recv_multishot = multishots.recv_multishot
recvmsg = _verbs.recvmsg
result = _verbs.result
send = _verbs.send
sendall = _verbs.sendall
sendmsg = _verbs.sendmsg
sleep = _verbs.sleep
sleep_until = _verbs.sleep_until
splice = _verbs.splice
tee = _verbs.tee
waitid = _verbs.waitid
write = _verbs.write
write_all = _verbs.write_all
writev = _verbs.writev

__all__ = [
    "Listener",
    "Stream",
    "accept",
    "accept_multishot",
    "close_fd",
    "connect",
    "engine",
    "fsync",
    "futex_wait",
    "open",
    "poll",
    "poll_multishot",
    "read",
    "readv",
    "recv",
    "recv_into",
    "recv_multishot",
    "recvmsg",
    "result",
    "send",
    "sendall",
    "sendmsg",
    "sleep",
    "sleep_until",
    "splice",
    "tee",
    "to_thread",
    "waitid",
    "write",
    "write_all",
    "writev",
]
