"""The command line: the group of commands, and the translation of errors into exit statuses.

A command is a module with a function ``command`` that returns the exit status; the module is imported
when its command is called, and imports no other command.  ``watch`` runs the service of the layer below.
Shared by the commands:

    statuses.py      the exit statuses of all commands
    failures.py      the status of a command that raises
    environment.py   options that come from the environment, and errors that name the variable
    parameters.py    the parsing of options
    completion.py    what a shell may complete
    output.py        tables, trees, JSON, errors, units
    session_text.py  sessions, pools and problems as text, for ps and top
    disk_usage.py    the room that files take
    host_text.py     the host's limits, and the starts that wait, for the same
    foreign_text.py  what plain Selenium has left, for sweep --foreign
    top_readings.py  what top shows of a session; top_screen.py draws it on a terminal

Nothing here imports selenium.
"""

from __future__ import annotations

import difflib
import importlib
import io
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from .._version import __version__
from .failures import discard_output, status_of
from .statuses import ExitStatus

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SUMMARIES = {
    "ps": "List the live sessions and pools, and what is wrong with any of them.",
    "top": "Watch the live sessions and pools: memory, processor, ages, zombies.",
    "sweep": "Find, and with --yes remove, what dead owners left.",
    "drain": "Let no session start on this host, and wait for those that run.",
    "resume": "Let sessions start again after a drain.",
    "end": "End live sessions of any program, verified.",
    "history": "List the sessions that have ended, newest first, or show one of them whole.",
    "report": "Show the last hours: sessions, how each ended, memory; as a page with --html.",
    "doctor": "Check this machine for all that sessions need, with a remedy for each finding.",
    "watch": "Sweep what dead owners left, from time to time, and say what else is wrong.",
    "serve": "Give this host's browsers to any WebDriver client.",
    "run": "Run any command so that nothing of it survives.",
}
"""Help texts by command, whose module has the same name; --help imports none of them."""


class LazyGroup(click.Group):
    """Imports a command's module when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUMMARIES:
            return None
        module = importlib.import_module(f".{cmd_name}", __name__)
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in SUMMARIES and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], SUMMARIES, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=text)
            for name, text in SUMMARIES.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def make_context(self, *args: Any, **facts: Any) -> click.Context:
        try:
            return super().make_context(*args, **facts)
        except BrokenPipeError:  # of --help and --version, which print in here
            discard_output()
            raise click.exceptions.Exit(ExitStatus.BROKEN_PIPE) from None

    def invoke(self, ctx: click.Context) -> Any:
        ctx.exit(status_of(ctx, lambda: super(LazyGroup, self).invoke(ctx)))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="browserkeeper", message="%(prog)s %(version)s")
def group() -> None:
    """Show, check and clean up Selenium browser sessions, or run a command that cannot leak.

    Each option is also an environment variable, which COMMAND --help names: BROWSERKEEPER_WATCH_LISTEN
    for watch --listen. The command line wins. Options that decide what is harmed, such as sweep --yes,
    are taken from the command line only.

    Exit status: 0 all is well; 1 something was found (COMMAND --help says what); 2 wrong usage; 3
    browserkeeper could not do what was asked; 4 it was not all done, or not in time; 130 Ctrl-C. `run`
    has its command's.
    """


def main() -> NoReturn:
    """The console script."""
    # Python has None for a stream that the caller has closed.  The next file that is opened gets its
    # descriptor.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 # for the life of this process
    # A label may be of any language, and standard output of an encoding that has no letters for it.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    group(prog_name="browserkeeper")
    raise AssertionError("click exits by itself")


__all__ = ["main"]
