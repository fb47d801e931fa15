"""The exit status of a command that raises: told apart from the statuses that a command returns.

Without this, Python and click would give 1 to an unexpected exception and to Ctrl-C, and 1 says here
that something was found.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import traceback
from collections.abc import Callable
from typing import Any

import click

from ..errors import BrowserkeeperError
from . import output
from .environment import origins, with_variables
from .statuses import ExitStatus, of_error

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of a write to standard output; errors about other files have a file name."""


def status_of(ctx: click.Context, call: Callable[[], Any]) -> int:
    """Call a command, flush standard output, and return the exit status.

    Wrong usage, errors of ours, Ctrl-C, output that cannot be written, and unexpected exceptions are
    printed.
    """
    try:
        status = call()
        sys.stdout.flush()  # raises here, and not at exit, if the reader of the pipe has gone
    except click.UsageError as error:
        with_variables(ctx, error).show()
        return of_error(ctx.invoked_subcommand, error)
    except (click.exceptions.Exit, click.ClickException):
        raise
    except (KeyboardInterrupt, click.Abort):
        click.echo(err=True)  # ends the line where the terminal has printed ^C
        return ExitStatus.INTERRUPTED
    except BrowserkeeperError as error:
        output.print_error(error, origins(ctx, str(error)), as_json=output.wants_json(ctx))
        return of_error(ctx.invoked_subcommand, error)
    except Exception as error:  # noqa: BLE001 - whatever it is, Python's status 1 would be a wrong answer
        return _status_of_unexpected(ctx, error)
    return int(status or 0)


def _status_of_unexpected(ctx: click.Context, error: Exception) -> int:
    if isinstance(error, BrokenPipeError) and output_has_no_reader():
        discard_output()
        return ExitStatus.BROKEN_PIPE
    if isinstance(error, OSError) and error.errno in NO_ROOM and not error.filename:
        discard_output()
        output.print_warning(f"the output cannot be written: {error.strerror}.")
    else:
        traceback.print_exception(error)
        output.print_warning("this is a bug of browserkeeper's; please report it with these lines.")
    return of_error(ctx.invoked_subcommand, error)


def output_has_no_reader() -> bool:
    """POLLERR (poll(2)): the other end of the pipe is closed.  Else another pipe has broken."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def discard_output() -> None:
    """Standard output becomes /dev/null: else Python fails again, with status 120, when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


__all__ = ["discard_output", "output_has_no_reader", "status_of"]
