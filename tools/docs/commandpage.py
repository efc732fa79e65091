"""The page of the command's options, and of the environment: the former from the command itself."""

from __future__ import annotations

import argparse

from iocancel.__main__ import _parser
from tools.docs.tables import table

__all__ = ["VARIABLES", "commands", "page"]

HEAD = """\
# The command, and the environment

`iocancel` is installed with the library; `python -m iocancel` is the same. `iocancel --version` tells which
one it is.

"""
# Beside what a command says of itself: where there is more to read.
MORE = {
    "doctor": "[What this machine allows](../howto/allowed.md) tells how to read it.",
    "demo": "",
    "trace": "[Seeing cancels](../trace.md) tells how to read it.",
}
ENVIRONMENT = """\
## The environment

"""
VARIABLES = {
    "IOCANCEL_ENGINE": "`uring`, `libaio`, `posix_aio` or `auto`: the engine of `open_engine()` without a"
    " name, of the blocking verbs, and of event loops. See [which engine](../engines.md#which-engine)",
    "IOCANCEL_STATS": "`1`: each engine counts what it does. See"
    " [`engine.stats()`](../trace.md#numbers-enginestats)",
    "IOCANCEL_RECORD": "a file: each cancel that is sent is appended to it, in a line. See"
    " [the record](../trace.md#the-record)",
}
DISPLAY = """\
The command's tables are as wide as `COLUMNS` says, or the terminal; with `NO_COLOR` they have no colours.
"""


def commands() -> dict[str, argparse.ArgumentParser]:
    """Return the commands' parsers, by name."""
    [choices] = [
        action.choices for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)
    ]
    return dict(choices)


def options(command: argparse.ArgumentParser) -> list[list[str]]:
    """Return a row for each option: how it is written, and what it does."""
    rows = []
    for action in command._actions:
        takes = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        value = "" if action.nargs == 0 else f" {takes}"
        if action.option_strings:
            written = ", ".join(f"`{option}{value}`" for option in action.option_strings)
        else:
            written = f"`{takes} ...`"
        rows.append([written, action.help or ""])
    return rows


def page() -> str:
    """Return the page."""
    text = [HEAD]
    for name, command in commands().items():
        said = (command.description or "").removeprefix(f"{name}: ")
        said = said[:1].upper() + said[1:]
        about = " ".join(filter(None, (said, command.epilog, MORE[name])))
        text.append(
            f"## `iocancel {name}`\n\n{about}\n\n{table(['option', 'what it does'], options(command))}\n"
        )
    rows = [[f"`{name}`", says] for name, says in VARIABLES.items()]
    text.append(f"{ENVIRONMENT}{table(['variable', 'its value'], rows)}\n{DISPLAY}")
    return "".join(text)
