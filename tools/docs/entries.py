"""The page of io_uring's entries: `Sqe` is made of several classes, each with a text about its methods."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from iocancel.uring import Sqe
from iocancel.uring.entry import Entry

__all__ = ["page"]

HEAD = """\
# Entries of a ring

`Sqe`, by what its entries do. Flags are in [iocancel.uring](uring.md).

```{eval-rst}
.. currentmodule:: iocancel.uring

.. autoclass:: Sqe()
   :no-members:
```
"""


WHERE = ".. currentmodule:: iocancel.uring\n\n"


def groups() -> Iterator[tuple[str, str, list[str]]]:
    """Yield what the parts are called, the text about each, and its names, in the order of the source."""
    shared = [Entry, *(base for base in Sqe.__mro__ if base.__name__ == "Requests")]
    text = "\n\n".join(about(kind)[1] for kind in shared[1:])
    yield "Every entry", text, [name for kind in shared for name in names(kind)]
    for kind in Sqe.__bases__:
        title, text = about(kind)
        yield title, text, names(kind)


def about(kind: type) -> tuple[str, str]:
    """Return a class's docstring: its first sentence, and the rest."""
    first, _, rest = (inspect.getdoc(kind) or "").partition("\n\n")
    return " ".join(first.split()).rstrip("."), rest


def names(kind: type) -> list[str]:
    """Return the public names that a class itself has."""
    return [name for name in vars(kind) if not name.startswith("_")]


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for title, text, members in groups():
        body = text.replace(" (see `Requests`)", "") + "\n\n" if text else ""  # that is the first part here
        lines = "\n".join(directive(name) for name in members)
        parts.append(f"\n## {title}\n\n```{{eval-rst}}\n{WHERE}{body}{lines}```\n")
    return "".join(parts)


def directive(name: str) -> str:
    """Return what describes a member."""
    what = "method" if callable(getattr(Sqe, name)) else "attribute"
    return f".. auto{what}:: Sqe.{name}\n"
