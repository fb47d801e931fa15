"""Options that come from the environment: ``BROWSERKEEPER_WATCH_LISTEN`` for ``watch --listen``.

The command line wins.  A variable that is empty counts as not set.  An option whose value says what is
to be harmed, such as ``--yes``, is declared with ``allow_from_autoenv=False`` and comes from the command
line only: a variable that was left in a shell, or in a service's environment, must not end sessions.

click's ``auto_envvar_prefix`` would name variables after the parameters of our functions (``AS_JSON``
for ``--json``), so the names are made here.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Iterator
from typing import Any

import click
from click.core import ParameterSource

PREFIX = "BROWSERKEEPER"
_CONTEXT = "browserkeeper.command"
SERVICE_LINK = re.compile(r"SERVICE_(HOST|PORT)(_.*)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?")
"""What Kubernetes sets in each pod for a service, for one named ``browserkeeper-watch`` with our prefix
(https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables)."""


class Command(click.Command):
    """A command whose options may come from the environment, each from one variable."""

    def __init__(self, name: str, **facts: Any):
        super().__init__(name, **facts)
        for option in self.options():
            if option.allow_from_autoenv:
                option.envvar, option.show_envvar = variable(name, option), True

    def options(self) -> list[click.Option]:
        return [parameter for parameter in self.params if isinstance(parameter, click.Option)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Also raises UsageError for a variable that no option has."""
        ctx.meta[_CONTEXT] = ctx
        rest = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:  # not while a shell asks for completions
            self.refuse_unknown_variables(ctx)
        return rest

    def refuse_unknown_variables(self, ctx: click.Context) -> None:
        words = {variable(self.name, option): option for option in self.options()}
        prefix = f"{PREFIX}_{as_word(self.name)}_"
        for name in sorted(os.environ):
            if not (name.startswith(prefix) and os.environ[name]):
                continue
            if name not in words and not SERVICE_LINK.fullmatch(name.removeprefix(prefix)):
                known = [word for word, option in words.items() if option.envvar]
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"Did you mean {near[0]}?" if near else "Unset it."
                ctx.fail(f"{name} is set, but `browserkeeper {self.name}` has no such option. {hint}")
            if name in words and not words[name].envvar:
                option = long_name(words[name])
                ctx.fail(f"{name} is set, but {option} is taken from the command line only. Unset it.")


class Words(click.types.StringParamType):
    """Text of an option that may be repeated.  In a variable, values are separated as words of a shell
    are: by white space, and a value that has some is quoted."""

    def split_envvar_value(self, rv: str) -> list[str]:
        try:
            return shlex.split(rv)
        except ValueError as error:
            raise click.BadParameter(f"{rv!r} is not a list of words as in a shell: {error}.") from None


def long_name(option: click.Parameter) -> str:
    """``--listen``."""
    return max(option.opts, key=len)


def as_word(name: str | None) -> str:
    return (name or "").upper().replace("-", "_")


def variable(command: str | None, option: click.Parameter) -> str:
    """The name of the variable for an option of a command."""
    return f"{PREFIX}_{as_word(command)}_{as_word(long_name(option).lstrip('-'))}"


def from_environment(ctx: click.Context, option: click.Parameter) -> bool:
    """Has the option got its value from its variable?  Where click has noted no source yet, the value
    could not be read, and click reads nothing but variables before it notes the source."""
    source = ctx.get_parameter_source(option.name or "")
    if source is None:
        return bool(option.envvar and os.environ.get(str(option.envvar)))
    return source is ParameterSource.ENVIRONMENT


def origins(ctx: click.Context, message: str) -> Iterator[str]:
    """Where the options come from that a message names, if that is the environment; one line each.

    ``ctx``: that of any command; the last command whose options were read is meant.
    """
    found: click.Context | None = ctx.meta.get(_CONTEXT)
    for option in found.command.params if found else ():
        is_named = isinstance(option, click.Option) and re.search(
            rf"(?<![\w-]){re.escape(long_name(option))}(?![\w-])", message
        )
        if found and is_named and from_environment(found, option):
            yield f"({long_name(option)} comes from {option.envvar}.)"


def with_variables(ctx: click.Context, error: click.UsageError) -> click.UsageError:
    """The error with the variables that are to blame in its text, and no others."""
    if isinstance(error, click.BadParameter) and isinstance(error.param, click.Option):
        name = f"'{long_name(error.param)}'"
        if error.ctx and from_environment(error.ctx, error.param):
            name += f" (from {error.param.envvar})"
        error.param_hint = error.param_hint or name
        return error
    text = error.format_message()
    return click.UsageError(" ".join([text, *origins(ctx, text)]), error.ctx)


__all__ = ["Command", "Words", "origins", "with_variables"]
