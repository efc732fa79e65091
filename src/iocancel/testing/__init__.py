"""For tests of code that cancels: of yours, and of this project's own.

- `ScriptedEngine`: an engine without a kernel. The test says what completes, in which order, what a cancel
  is answered, and which system call fails; a wait for what can't come raises `Deadlock`. `stopped_clock`
  makes its deadlines pass without waiting.
- `BlockedPipe`: a pipe whose reads block, for real engines.
- `Canary`: a buffer between guards, which finds what the kernel writes beside it, or too late.
- `hold_back`: completions of a real engine reach it when the test says so.
- `interrupt_everywhere`: a KeyboardInterrupt at each place of a call, one after the other.

Nothing here needs a test framework.
"""

from iocancel.testing.canary import Canary, CanaryDied
from iocancel.testing.clock import Clock, stopped_clock
from iocancel.testing.faults import Deadlock, ScriptError
from iocancel.testing.interrupts import Interruption, Sweep, Tripwire, interrupt_everywhere
from iocancel.testing.late import Held, hold_back
from iocancel.testing.pipes import BlockedPipe
from iocancel.testing.scripted import Answer, ScriptedEngine

__all__ = [
    "Answer",
    "BlockedPipe",
    "Canary",
    "CanaryDied",
    "Clock",
    "Deadlock",
    "Held",
    "Interruption",
    "ScriptError",
    "ScriptedEngine",
    "Sweep",
    "Tripwire",
    "hold_back",
    "interrupt_everywhere",
    "stopped_clock",
]
