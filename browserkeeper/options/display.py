"""The argument ``display=``: where the windows of a browser with ``headless=False`` are shown."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import Protocol

from ..errors import ConfigError

VIRTUAL = "virtual"
"""The value of ``display=`` that stands for an Xvfb of the session's own."""
DEFAULT_SIZE = (1920, 1080)
"""Width and height of a virtual display, in pixels, where ``window_size=`` is not given."""
DEPTH = 24
"""Bits of a pixel of a virtual display."""
_NAME = re.compile(r"[\w.\-/\[\]]*:\d+(\.\d+)?", re.ASCII)
"""An X display: host, number and screen (X(7), "DISPLAY NAMES")."""


class Arguments(Protocol):
    """The arguments of ``browser()``: what is read of a SessionConfig."""

    @property
    def name(self) -> str: ...
    @property
    def headless(self) -> bool: ...
    @property
    def display(self) -> str: ...
    @property
    def window_size(self) -> tuple[int, int] | None: ...
    @property
    def env(self) -> Mapping[str, str | None]: ...


def check_display(config: Arguments) -> None:
    """Raises ConfigError where a browser of this machine could show no window, or ``display=`` makes no
    sense."""
    if config.display:
        _check_value(config)
    if config.headless or sys.platform != "linux":
        return
    if config.name == "chromium-headless-shell":
        raise ConfigError(
            "chromium-headless-shell shows no windows: use browser('chromium', headless=False)."
        )
    environment = {**os.environ, **config.env}
    if config.display or environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"):
        return
    raise ConfigError(
        "headless=False needs a display, and neither DISPLAY nor WAYLAND_DISPLAY is set. Pass "
        "display='virtual' for an Xvfb of the session's own, run under `xvfb-run`, set DISPLAY, or "
        "leave headless=True."
    )


def _check_value(config: Arguments) -> None:
    display = config.display
    if display != VIRTUAL and not _NAME.fullmatch(display):
        raise ConfigError(
            f"display={display!r}: give 'virtual', the name of an X display such as ':7', or None "
            "for the one in the environment."
        )
    if sys.platform != "linux":
        raise ConfigError(
            f"display={display!r} needs Linux: browsers on {sys.platform} use no X display. Leave it "
            "out."
        )
    if config.headless:
        raise ConfigError(
            f"display={display!r} needs headless=False: a headless browser shows no window anywhere. "
            "Leave out the one, or give the other."
        )
    if display == VIRTUAL and config.env.get("XAUTHORITY") is not None:
        raise ConfigError(
            "env= holds XAUTHORITY, and display='virtual' has a key of its own. Leave out the one or "
            "the other."
        )


def screen_of(config: Arguments) -> str:
    """The screen of the virtual display, as Xvfb wants it: the size of the window, if it is given."""
    width, height = config.window_size or DEFAULT_SIZE
    return f"{width}x{height}x{DEPTH}"


def variables_of(config: Arguments, tmpdir: str) -> dict[str, str | None]:
    """What ``display=`` sets in the environment of driver and browser; None removes a variable.

    Wayland's are removed: browsers prefer it where they are set.  DISPLAY of a virtual display is set by
    the guard, which learns the number.
    """
    if not config.display:
        return {}
    found: dict[str, str | None] = {
        "DISPLAY": config.display,
        "XDG_SESSION_TYPE": "x11",
        "WAYLAND_DISPLAY": None,
        "WAYLAND_SOCKET": None,
        "MOZ_ENABLE_WAYLAND": None,
        "GDK_BACKEND": None,
    }
    if config.display == VIRTUAL:
        found |= {"DISPLAY": None, "XAUTHORITY": os.path.join(tmpdir, "Xauthority")}
    return found


__all__ = ["DEFAULT_SIZE", "VIRTUAL", "check_display", "screen_of", "variables_of"]
