"""The page of the exceptions: from the classes, and from what `iocancel.errors.check` raises."""

from __future__ import annotations

import errno
import inspect
import re

from iocancel import errors
from tools.docs.tables import table

__all__ = ["page"]

HEAD = """\
# Errors

All but `Cancelled` are `OSError`s with the true errno, in `iocancel.errors` and at the top of the package.
[Errors](../api/errors.md) has their attributes.

"""
CHECKS = """\
## Which errno becomes what

What `iocancel.errors.check` raises for a call and an errno. Everything else is an `OSError` of the
subclass that Python chooses: a read's ECONNRESET is a `ConnectionResetError`, an open's ENOENT a
`FileNotFoundError`. For a call that needs what a kernel may lack, EINVAL, EOPNOTSUPP and ENOSYS become
`FeatureUnavailable`.

"""
BESIDE = (
    (
        "`operation`",
        "`CancelTooLate` of a blocking verb; KeyboardInterrupt and the like, where a value had come by then",
        "the [operation](../glossary.md#operation): `result()` has the value, or it can be waited for",
    ),
    (
        "`operation`",
        "asyncio's `CancelledError`, where something was done all the same (a `write` to a file, a `splice`)",
        "the same; [which guarantee holds where](../tasks.md#which-guarantee-holds-where)",
    ),
    ("`sent`", "whatever ends `write_all`, `sendall`, `send_all`", "how many bytes had gone out"),
)
STREAMS = """\
## What streams and listeners raise

| | `iocancel` | `iocancel.asyncio` | `iocancel.trio` |
|---|---|---|---|
| it is closed, or was meanwhile | `ValueError` | `ValueError` | `trio.ClosedResourceError` |
| somebody else is in such a call already | `RuntimeError` | `RuntimeError` | `trio.BusyResourceError` |
| the connection is broken | `OSError` (`BrokenPipeError` ...) | `OSError` | `trio.BrokenResourceError` |
| its end came too early for `receive_exactly` | | `EOFError` | `EOFError` |
| its end, in anyio's `receive` | | `anyio.EndOfStream` | `anyio.EndOfStream` |

`iocancel.trace` has one more: `TracingUnavailable`, with `reason` and `remedy`.

"""
CALLS = {
    "a cancel by an entry, or a synchronous one": "io_uring_prep_cancel64",
    "io_cancel": "io_cancel",
    "submitting to a ring": "io_uring_submit",
    "io_submit": "io_submit",
    "registering with a ring": "io_uring_register_files",
    "setting up a ring": "io_uring_queue_init_params",
    "io_setup": "io_setup",
}
ERRNOS = (
    errno.ECANCELED,
    errno.ENOENT,
    errno.EALREADY,
    errno.EAGAIN,
    errno.EBUSY,
    errno.ETIME,
    errno.EEXIST,
    errno.EINVAL,
    errno.EPERM,
    errno.ENOSYS,
    errno.ENOMEM,
    errno.EMFILE,
)
OWN = tuple(getattr(errors, name) for name in errors.__all__ if isinstance(getattr(errors, name), type))


def raised(call: str, number: int) -> str:
    """Return the exception of ours for a call that fails; "" where it is Python's own."""
    try:
        errors.check(-number, call)
    except OWN as error:
        return type(error).__name__
    except OSError:
        pass
    return ""


def classes() -> str:
    """Return the table of the classes."""
    rows = []
    for kind in sorted(
        OWN, key=lambda each: (each is not errors.Cancelled, errors.__all__.index(each.__name__))
    ):
        first, _, rest = (inspect.getdoc(kind) or "").partition("\n\n")
        more = re.split(r"\n\n|^Attributes:", rest, maxsplit=1, flags=re.MULTILINE)[0]
        attributes = re.findall(r"^    (\w+) \(", rest, re.MULTILINE)
        bases = ", ".join(f"`{base.__name__}`" for base in bases_of(kind))
        has = ", ".join(f"`{name}`" for name in attributes)
        rows.append([f"`{kind.__name__}`", bases, f"{first} {more}", has])
    return table(["exception", "is a", "when", "has"], rows)


def spoken(found: list[int]) -> str:
    """Return errnos, in few words."""
    rest = [errno.errorcode[number] for number in ERRNOS if number not in found]
    if len(rest) == 1:
        return f"any but {rest[0]}"
    return ", ".join(errno.errorcode[number] for number in found)


def bases_of(kind: type) -> list[type]:
    """Return the base classes that say something to a user: of an OSError not that it is an Exception."""
    bases = [base for base in kind.__mro__[1:] if base is not object]
    return [base for base in bases if base not in (Exception, BaseException)] or bases


def page() -> str:
    """Return the page."""
    rows = []
    for what, call in CALLS.items():
        by_kind: dict[str, list[int]] = {}
        for number in ERRNOS:
            kind = raised(call, number)
            if kind:
                by_kind.setdefault(kind, []).append(number)
        for kind, found in by_kind.items():
            if found != [errno.ECANCELED]:  # which is the same for all
                rows.append([what, spoken(found), f"`{kind}`"])
    rows.append(["any", errno.errorcode[errno.ECANCELED], f"`{raised('read', errno.ECANCELED)}`"])
    beside = table(["attribute", "on", "it is"], BESIDE)
    more = f"## What else is on an exception\n\n{beside}\n{STREAMS}"
    return f"{HEAD}{classes()}\n{more}{CHECKS}{table(['call', 'errno', 'raises'], rows)}"
