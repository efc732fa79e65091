"""What the adapters to asyncio and trio have in common: the verbs and streams, with no loop in them.

An adapter gives a `Hub`, one for each running loop: an engine, and a way to wait for an operation's ending
that a cancel of the task does not cut short. All else is written once, here.
"""

from iocancel.awaiting.hub import Ending, Hub
from iocancel.awaiting.verbs import Verbs

__all__ = ["Ending", "Hub", "Verbs"]
