"""The command: `iocancel doctor`, `demo` and `trace`; `python -m iocancel` is the same."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import TextIO

import iocancel

__all__ = ["main"]


_COMMANDS = {
    "doctor": (
        "what works on this machine, found out by trying, and what would help where it does not",
        "Exit status: 0 when io_uring, Linux AIO or POSIX AIO works here, 1 when none does.",
    ),
    "demo": (
        "start real requests on all three systems, cancel them, and show what became of each",
        "Exit status: 0 when something could be tried and all of it came out as it must, 1 otherwise.",
    ),
    "trace": (
        "show every cancel of I/O that any process asks for, as it happens, and how it came out (as root)",
        "It ends with its duration, with the command, or by Ctrl-C. Exit status: 0, the command's own, or 2.",
    ),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="iocancel",
        description="Kernel I/O that can be cancelled: what this machine allows, a demonstration, a view of "
        "all that is cancelled.",
    )
    parser.add_argument("--version", action="version", version=f"iocancel {iocancel.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (text, status) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=f"{name}: {text}.", epilog=status)
        command.add_argument("--json", action="store_true", help="print JSON and no tables")
        if name == "trace":
            from iocancel.trace import command as tracing

            tracing.add_arguments(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: its arguments; those of the process when None.

    Returns:
        The exit status: as each command says; 1 when the output could not be written; 130 after
        Ctrl-C.

    Raises:
        SystemExit: for wrong arguments (2), --help and --version (0).
    """
    options = _parser().parse_args(argv)
    try:
        # Where there is no standard output at all (`>&-`), the exit status is the answer.
        with contextlib.nullcontext(sys.stdout) if sys.stdout else open(os.devnull, "w") as out:
            status = _run(options, out)
            out.flush()
    except BrokenPipeError:
        _forget_output()  # whoever read it has gone, as after `iocancel doctor | head`
        return 1
    except OSError as error:
        print(f"iocancel: the output could not be written: {error}", file=sys.stderr)
        _forget_output()
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _run(options: argparse.Namespace, out: TextIO) -> int:
    if options.command == "doctor":
        from iocancel import doctor

        return doctor.main(options.json, out)
    if options.command == "trace":
        from iocancel.trace import command

        return command.main(options, out)
    from iocancel import demo

    return demo.main(options.json, out)


def _forget_output() -> None:
    """Sends what is still in a buffer nowhere, so that the interpreter's exit does not try it again."""
    with contextlib.suppress(OSError, ValueError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)


if __name__ == "__main__":
    sys.exit(main())
