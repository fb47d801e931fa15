"""The operator that this process acts for: what is written into requests, drains and reports."""

from __future__ import annotations

import os
import time

from ..errors import ConfigError
from ..process import own_name
from ..report.operator import LONGEST, Operator


def this_operator(reason: str = "", program: str = "") -> Operator:
    """This user and process, now.  ``program``: the tool's name, by default that of this program.

    Raises ConfigError where ``reason`` is no single line of text.
    """
    _check_reason(reason)
    name, user = (program or own_name())[:LONGEST], _user_name()
    return Operator(user, name, os.getpid(), time.time(), reason)


def _user_name() -> str:
    """The login name of the effective user.  ``sudo`` says who has called it; that is added."""
    import pwd

    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container's user without an entry in /etc/passwd
        name = f"uid {os.geteuid()}"
    before = os.environ.get("SUDO_USER", "")
    if before and before != name and before.isprintable():
        name = f"{before} as {name}"
    return name[:LONGEST]


def _check_reason(reason: object) -> None:
    if not isinstance(reason, str):
        raise ConfigError(f"reason={reason!r}: give text, such as 'deploy of 12.3'.")
    if len(reason) > LONGEST or not reason.isprintable():
        raise ConfigError(
            f"reason={reason!r}: give at most {LONGEST} printable characters, without line breaks."
        )


__all__ = ["this_operator"]
