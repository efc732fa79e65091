"""The model of an operation: what can be asked of it, and how it ends. It knows no system and no loop.

The way of an operation: a verb (verbs.py, waits.py) makes it and stages it; a turn of the thread that leads
(leading.py) hands it over to a carrier (carrier.py) and settles it from the carrier's records (core.py);
cancels go out by cancelling.py, the end is closing.py's.
"""

from iocancel.operation.carrier import Batch, Carrier, Record
from iocancel.operation.engine import Engine
from iocancel.operation.kinds import VERBS, Kind
from iocancel.operation.ledger import Ledger
from iocancel.operation.model import (
    ANSWER,
    MORE,
    NEXT,
    NOTIF,
    OTHER,
    Event,
    Outcome,
    Reach,
    State,
    Verdict,
    following,
)
from iocancel.operation.multishot import Multishot
from iocancel.operation.operation import FdOperation, Operation, Released
from iocancel.operation.stats import Latency, Stats, counting
from iocancel.operation.verbs import Verbs

__all__ = [
    "ANSWER",
    "MORE",
    "NEXT",
    "NOTIF",
    "OTHER",
    "VERBS",
    "Batch",
    "Carrier",
    "Engine",
    "Event",
    "FdOperation",
    "Kind",
    "Latency",
    "Ledger",
    "Multishot",
    "Operation",
    "Outcome",
    "Reach",
    "Record",
    "Released",
    "State",
    "Stats",
    "Verbs",
    "Verdict",
    "counting",
    "following",
]
