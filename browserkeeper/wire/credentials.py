"""The environment variables that may hold a password or a token, and the environment without them."""

from __future__ import annotations

import os

GRID_VARIABLE = "BROWSERKEEPER_REMOTE"
SERVER_VARIABLE = "BROWSERKEEPER_SERVER"
VARIABLES = (GRID_VARIABLE, SERVER_VARIABLE)


def environment_without_credentials() -> dict[str, str]:
    """A copy of this process's environment without the variables that may hold a password or a token.

    For every program that browserkeeper starts: guards, drivers, browsers, helpers.  Only a command
    that the user runs below ``browserkeeper run`` gets the whole environment.
    """
    return {name: value for name, value in os.environ.items() if name not in VARIABLES}


__all__ = ["GRID_VARIABLE", "SERVER_VARIABLE", "VARIABLES", "environment_without_credentials"]
