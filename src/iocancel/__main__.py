"""The command: `iocancel doctor`, `iocancel demo`; `python -m iocancel` is the same."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

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
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="iocancel",
        description="Kernel I/O that can be cancelled: what this machine allows, and a demonstration.",
    )
    parser.add_argument("--version", action="version", version=f"iocancel {iocancel.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (text, status) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=f"{name}: {text}.", epilog=status)
        command.add_argument("--json", action="store_true", help="print JSON and no tables")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: its arguments; those of the process when None.

    Returns:
        The exit status: 0 or 1, as each command says; 1 when the output could not be written; 130 after
        Ctrl-C.

    Raises:
        SystemExit: for wrong arguments (2), --help and --version (0).
    """
    options = _parser().parse_args(argv)
    try:
        if options.command == "doctor":
            from iocancel import doctor

            status = doctor.main(options.json)
        else:
            from iocancel import demo

            status = demo.main(options.json)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has gone (`iocancel doctor | head`): nothing more can be said, also not at exit.
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
