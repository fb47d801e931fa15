"""Callbacks that check and convert the values of options, for all commands."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from .completion import labels
from .environment import Words

F = TypeVar("F", bound=Callable[..., Any])

CONTAINER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
"""Docker's own rule for names.  Other text could change the path of an API request."""
UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def seconds(_: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """Seconds; None if the option was not given and has no default."""
    if value is not None and not (math.isfinite(value) and value > 0):
        raise click.BadParameter("give a positive, finite number of seconds.", param=parameter)
    return value


def seconds_or_zero(_: click.Context, parameter: click.Parameter, value: float) -> float:
    """Seconds, or 0 for none."""
    if not (math.isfinite(value) and value >= 0):
        raise click.BadParameter("give a finite number of seconds, 0 or more.", param=parameter)
    return value


def container_names(
    _: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    """Names or ids of containers."""
    for name in value:
        if not CONTAINER.fullmatch(name):
            raise click.BadParameter(f"{name!r} is not the name or id of a container.", param=parameter)
    return value


def label_option(function: F) -> F:
    """Adds ``--label`` to a command, as the parameter ``labels``: a tuple of patterns."""
    return click.option(
        "--label",
        "labels",
        multiple=True,
        type=Words(),
        shell_complete=labels,
        callback=_patterns,
        metavar="LABEL",
        help='Only those with this label; "*" stands for any text, "?" for one character. May be '
        "repeated.",
    )(function)


def _patterns(_: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    if "" in value:
        raise click.BadParameter("give a label, or a pattern such as 'checkout-*'.", param=parameter)
    return value


def duration(_: click.Context, parameter: click.Parameter, value: str) -> float:
    """Seconds, from ``90``, ``90s``, ``30m``, ``6h`` or ``1.5d``."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([a-z]*)", value.strip(), re.ASCII)
    unit = UNITS.get(found[2]) if found else None
    if found is None or unit is None or not float(found[1]):
        raise click.BadParameter(
            f"{value!r} is not a duration. Examples: 90s, 30m, 6h, 2d.", param=parameter
        )
    return float(found[1]) * unit
