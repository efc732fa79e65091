"""Which modules are for users. Tests ask, too, where there is no Sphinx."""

from __future__ import annotations

# The modules whose names are for users, and are documented.
PUBLIC = (
    "iocancel",
    "iocancel.errors",
    "iocancel.blocking",
    "iocancel.scope",
    "iocancel.streams",
    "iocancel.files",
    "iocancel.sockets",
    "iocancel.engines",
    "iocancel.operation",
    "iocancel.uring",
    "iocancel.libaio",
    "iocancel.posix_aio",
    "iocancel.asyncio",
    "iocancel.trio",
    "iocancel.awaiting",
    "iocancel.trace",
    "iocancel.doctor",
    "iocancel.demo",
    "iocancel.testing",
)
