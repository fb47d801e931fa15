"""Where user's code started a session, took a lease or opened a pool, for messages about those that were
never ended or given back."""

from __future__ import annotations

import contextlib
import os
import traceback

DEPTH = 12
"""Frames that are kept of a stack."""
_NOT_THE_USERS = (os.path.dirname(os.path.dirname(__file__)) + os.sep, contextlib.__file__)
"""This package, and what calls it for an ``ExitStack``."""


class CallStack:
    """The stack of the thread that makes this object.  Source lines are read only when it is shown.

    Keeps no frame alive, and none of the objects in their variables.
    """

    def __init__(self) -> None:
        frames = traceback.walk_stack(None)
        self._frames = traceback.StackSummary.extract(frames, limit=DEPTH, lookup_lines=False)

    def _of_the_user(self) -> list[traceback.FrameSummary]:
        """The frames outside of this package, the outermost first."""
        return [one for one in reversed(self._frames) if not one.filename.startswith(_NOT_THE_USERS)]

    @property
    def place(self) -> tuple[str, int]:
        """The file and line that called this package; ("<unknown>", 0) where no frame shows it."""
        frames = self._of_the_user()
        return (frames[-1].filename, frames[-1].lineno or 0) if frames else ("<unknown>", 0)

    def __str__(self) -> str:
        """The stack as in a traceback, without the package's own frames."""
        return "".join(traceback.StackSummary.from_list(self._of_the_user()).format())
