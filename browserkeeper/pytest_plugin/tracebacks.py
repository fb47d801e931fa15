"""Keeps the frames of this package out of pytest's tracebacks."""

from __future__ import annotations

import sys

from ..errors import hide_frames

PACKAGE = __name__.partition(".")[0]


def hide_own_frames() -> None:
    """Mark all modules of this package that are imported, as ``hide_frames`` describes.

    The modules that every command passes through mark themselves, for runs without this plugin.
    """
    for name, module in sys.modules.copy().items():
        if name.partition(".")[0] == PACKAGE and module is not None:
            vars(module).setdefault("__tracebackhide__", hide_frames)
