"""Linux AIO, one to one with libaio: contexts, requests, events, cancelling (io_submit(2), io_cancel(2)).

    with Context() as context:
        request = Iocb.poll(pipe, PollEvents.IN, data="anything")
        context.submit([request])
        context.cancel(request)                # None: accepted
        [event] = context.getevents()          # event.res == 0: it was cancelled

Polls can be cancelled, and what USB-gadget endpoints (functionfs) read and write; that is what Linux AIO
is still needed for: io_uring can't cancel the latter.
"""

from iocancel.libaio.context import Context
from iocancel.libaio.event import Event
from iocancel.libaio.flags import IoprioClass, Opcode, PollEvents, RwFlags, ioprio
from iocancel.libaio.iocb import Iocb

__all__ = ["Context", "Event", "Iocb", "IoprioClass", "Opcode", "PollEvents", "RwFlags", "ioprio"]
