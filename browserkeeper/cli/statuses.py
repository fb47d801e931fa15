"""The exit statuses of all commands.  ``docs/reference/exit-statuses.md`` has them by command."""

from __future__ import annotations

import enum

import click

from ..errors import ConfigError, NoSuchSession


class ExitStatus(enum.IntEnum):
    """What a status means, for all commands but ``run``, which has the status of its command.

    A program that ends by signal N has 128 + N in a shell.  INTERRUPTED and BROKEN_PIPE are these
    statuses for SIGINT and SIGPIPE, of which the commands do not die.
    """

    OK = 0
    """Done, and all is well."""
    FOUND = 1
    """Done, and the answer is bad: something is wrong, is left over, or does not exist."""
    USAGE = 2
    """Wrong words on the command line or in the environment, or a setting that cannot be used here: a
    ConfigError.  Nothing was done."""
    ERROR = 3
    """browserkeeper could not do what was asked, and says why: any other BrowserkeeperError.  Or a bug,
    with its traceback."""
    INCOMPLETE = 4
    """A part of what was asked was not done, or not in time."""
    TIMED_OUT = 124
    """``run``: the command was ended at ``--timeout``, as with timeout(1)."""
    RUN_FAILED = 125
    """``run``: USAGE or ERROR, as with timeout(1) and env(1): the command's own status may be 2 or 3."""
    CANNOT_RUN = 126
    """``run``: the command cannot be executed."""
    NOT_FOUND = 127
    """``run``: there is no such command."""
    INTERRUPTED = 130
    """Ended by Ctrl-C or SIGINT before it was done."""
    BROKEN_PIPE = 141
    """The reader of standard output has gone."""


def of_error(command: str | None, error: Exception) -> ExitStatus:
    """The status of a command, or with None of the program without a command, that has raised."""
    if isinstance(error, NoSuchSession):
        return ExitStatus.FOUND
    if command == "run":
        return ExitStatus.RUN_FAILED
    is_usage = isinstance(error, (click.UsageError, ConfigError))
    return ExitStatus.USAGE if is_usage else ExitStatus.ERROR


__all__ = ["ExitStatus", "of_error"]
