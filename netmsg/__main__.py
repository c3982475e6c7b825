"""The command line: ``python -m netmsg``, or ``netmsg`` where it is installed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final

from . import __version__
from .cli import demo, outbox

COMMANDS: Final = (demo, outbox)

DONE: Final = 0
FAILED: Final = 1
INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command: ``argv``, or by default what the program was called with.

    Returns the exit status: 0, 1 (the command failed), 2 (it was called wrongly) or 130 (Ctrl-C).
    """
    try:
        return _run(argv)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone, as in `netmsg demo | head`. What is still to be flushed at exit has to go
        # somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _run(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="netmsg", description="Threaded, blocking networking and messaging.",
                                     epilog="netmsg COMMAND --help tells more about a command.")
    parser.add_argument("--version", action="version", version=f"netmsg {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as end:  # how argparse ends --help (0) and a wrong call (2)
        return end.code if isinstance(end.code, int) else DONE
    status: int = arguments.run(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
