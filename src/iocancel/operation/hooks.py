"""Callbacks and auditing hooks: what they raise is reported, where nobody can catch it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from sys import audit
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iocancel.operation.operation import Operation


def run_hook(call: Callable[[Operation[Any]], object], op: Operation[Any]) -> None:
    """Call back; what it raises is nobody's, but for what ends the program."""
    try:
        call(op)
    except Exception as error:  # noqa: BLE001 - reported, as Python does where nobody can catch it
        report(error, call, "a callback of an operation")


def tell(event: str, name: str, ops: tuple[Operation[Any], ...], *more: object) -> None:
    """Raise an auditing event about what is done in any case; what a hook raises is reported.

    Whoever calls this has done it already: so what a hook raises to end the program (KeyboardInterrupt) does
    not undo it either.
    """
    try:
        audit(event, name, ops, *more)
    except Exception as error:  # noqa: BLE001 - a hook's refusal has no effect here
        report(error, event, "an auditing hook")


def report(error: BaseException, what: object, where: str) -> None:
    """Have `sys.unraisablehook` tell of it."""
    hook: Any = sys.unraisablehook
    hook(_Unraisable(error, what, where))


class _Unraisable:
    """What `sys.unraisablehook` takes (its own type can't be made from Python)."""

    def __init__(self, error: BaseException, what: object, where: str) -> None:
        self.exc_type, self.exc_value, self.exc_traceback = type(error), error, error.__traceback__
        self.err_msg, self.object = f"Exception ignored in {where}", what
