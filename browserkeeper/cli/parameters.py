"""What the commands share in taking arguments."""

from __future__ import annotations

import math

import click


def seconds(_: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """A callback for options: None where the option was not given and has no default."""
    if value is not None and not (math.isfinite(value) and value > 0):
        raise click.BadParameter("give a positive, finite number of seconds.", param=parameter)
    return value
