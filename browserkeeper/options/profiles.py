"""Which profiles the user names, in whatever way: the only reader of that, for all who need to know."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigError
from .check import Arguments, everything_said

SWITCHES = {"chromium": ("user-data-dir",), "firefox": ("profile", "p")}
"""The command-line arguments that name a profile, by engine; without dashes, in lower case."""


class NamedProfile(NamedTuple):
    """One profile that the user names, and that stays after the session.

    ``text``: as it was written.  ``directory``: an absolute path; None for ``-P NAME`` of Firefox, whose
    directory is in ``profiles.ini``, and for a switch without a value.  ``name``: that of ``-P NAME``.
    """

    text: str
    directory: Path | None
    name: str = ""

    @property
    def identity(self) -> str:
        """Two that have the same one are the same profile, perhaps by different paths."""
        return os.path.realpath(self.directory) if self.directory else f"-P {self.name}"


def named_profiles(config: Arguments) -> list[NamedProfile]:
    """``profile=`` first, then those in ``arguments=`` and ``options.arguments``.

    The path of an argument is read as the browser does: from the working directory, where "~" is a name
    like others.  ``options.profile`` is not among them: Selenium copies it, and the copy is temporary.
    """
    found = [NamedProfile("profile=", Path(config.profile))] if config.profile is not None else []
    for said in everything_said(config):
        if said.place != "argument" or said.name not in SWITCHES[config.engine]:
            continue
        if config.engine == "firefox" and not said.text.startswith("-"):
            continue  # the value of another argument; ChromeDriver adds dashes that are missing
        text = said.text if "=" in said.text or not said.value else f"{said.text} {said.value}"
        by_name = said.name == "p"
        directory = None if by_name or not said.value else Path(said.value).absolute()
        found.append(NamedProfile(text, directory, said.value if by_name else ""))
    return found


def check_profiles(config: Arguments) -> None:
    """Raises ConfigError where two profiles are named that differ, or one beside a profile to copy."""
    named = named_profiles(config)
    texts = [profile.text for profile in named]
    texts += ["options.profile"] * (getattr(config.options, "profile", None) is not None)
    copied = len(texts) - len(named)
    if len({profile.identity for profile in named}) + copied > 1:
        raise ConfigError(f"{' and '.join(texts)} are two profiles. Give only one of the two.")


__all__ = ["NamedProfile", "check_profiles", "named_profiles"]
