"""``browserkeeper resume``: ends a drain, so that sessions start again."""

from __future__ import annotations

import click

from ..cleanup import draining
from . import output
from .environment import Command
from .statuses import ExitStatus


@click.command("resume", cls=Command)
@output.json_option
def command(as_json: bool) -> int:
    """Let sessions start again on this host, after `browserkeeper drain`.

    Those that wait go on at once. Removes a drain file that is not valid, too.

    Exit status: 0 the host is not drained, whether it was before or not; 3 the drain could not be ended.
    """
    ended = draining.resume()
    if as_json:
        output.print_json({"ended": ended.to_dict() if ended else None})
    elif ended is None:
        output.print_line("The host is not drained.")
    elif ended.operator is None:
        output.print_line(f"Sessions may start again: {ended.path}, which was not valid, is removed.")
    else:
        output.print_line(f"Sessions may start again. They were held back by {ended.operator}.")
    return ExitStatus.OK
