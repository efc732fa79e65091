"""What `streams` and `files` are made of: calls whose result is found again, whatever cut them short.

A signal's handler may raise between any two lines: when the kernel has given bytes, and before anybody has
them. So nothing here rests on a value that is being returned. The result of a call is in memory of C (an
attempt's) or in its operation, the call is in the file's `Have` before it begins, and the next call looks
there first. One store changes a `Have`, and a call's last act is the store that says "these were given out";
behind it, CPython runs no handler before the caller has them.

What a call has its file for is in the same `Have`, so that the store that gives the bytes out also lets the
next call in.

A call of a verb is in transfer.py; whose file it is, and who has it, in owned.py; bytes that come and go, in
data.py.
"""

from iocancel.transfers.data import Incoming, Outgoing
from iocancel.transfers.owned import Have, Owned, Side, Use
from iocancel.transfers.transfer import Transfer

__all__ = ["Have", "Incoming", "Outgoing", "Owned", "Side", "Transfer", "Use"]
