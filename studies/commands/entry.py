"""Where the command line goes when its first word names what to do with studies."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer

from pruners.errors import PrunetuneError

COMMANDS = ("studies", "dashboard")
"""First words of command lines that search nothing."""

USER_ERROR = 2
"""Exit status for what the user can mend, as the shell's own for wrong usage."""

_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE)


def run_command(arguments: Sequence[str]) -> int:
    """Run ``prunetune studies`` or ``prunetune dashboard``.

    Args:
        arguments: Command-line arguments without the program's name, the first one of `COMMANDS`.

    Returns:
        Exit status: 0 when done, 2 for a user's mistake.
    """
    name, *others = arguments
    return exit_status(_application(name), others, f"prunetune {name}")


def exit_status(
    application: typer.Typer, arguments: Sequence[str], program: str, obj: object = None
) -> int:
    """Run a command line, and print a user's mistake as one line.

    Args:
        application: What runs it.
        arguments: Command-line arguments without the program's name.
        program: The program's name.
        obj: Handed to the command as its context's `obj`.

    Returns:
        Exit status: the command's own, 2 for a user's mistake, 1 where nobody reads the output any
        more.
    """
    command = typer.main.get_command(application)
    try:
        status = _status(command, arguments, program, obj)
        sys.stdout.flush()  # else the interpreter does it, and ends with a traceback where it fails
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        _drop_output()
        if error.errno == errno.EPIPE:
            return 1
        print(f"error: the output cannot be written ({error.strerror})", file=sys.stderr)
        return USER_ERROR
    return status


def _status(command: Any, arguments: Sequence[str], program: str, obj: object) -> int:
    try:
        # Standalone mode ends the process itself, also after printing usage errors.
        command.main(args=list(arguments), prog_name=program, obj=obj, standalone_mode=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except PrunetuneError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    return 0


def _drop_output() -> None:
    """Send nowhere what is still to be written, or the interpreter tries again as it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _application(name: str) -> typer.Typer:
    # Imported late: each needs libraries that the other does not.
    if name == "dashboard":
        from studies.commands.dashboard import application as dashboard

        return dashboard
    from studies.commands.application import application as studies

    return studies
