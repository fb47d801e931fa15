"""The environment of driver and browser."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..wire.credentials import environment_without_credentials
from .user_directories import PRIVATE_NAME


def environment(
    user_env: Mapping[str, str | None], launch_env: Mapping[str, str], tmpdir: str
) -> dict[str, str]:
    """The environment of driver and browser: this process's, the launch's, and the user's over them.

    A value of None removes a variable.  BROWSERKEEPER_REMOTE is removed, since it may hold a Grid's
    password.  The XDG directories lie in TMPDIR, since browsers leave crash reports and caches in them
    (``~/.config/chromium/Crash Reports``, ``~/.config/mozilla``, ``~/.cache/mozilla``: measured).  What
    the user has put into the original ones is linked there (``user_directories.py``).
    """
    private = {name: os.path.join(tmpdir, place) for name, place in PRIVATE_NAME.items()}
    inherited = environment_without_credentials()
    merged: dict[str, str | None] = {**inherited, **private, **launch_env, **user_env}
    return {name: str(value) for name, value in merged.items() if value is not None}
