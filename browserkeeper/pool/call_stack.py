"""Where user's code took a lease or opened a pool, for messages about those never given back."""

from __future__ import annotations

import traceback

DEPTH = 12
"""Frames that are kept of a stack."""


class CallStack:
    """The stack of the thread that makes this object.  Source lines are read only when it is shown."""

    def __init__(self) -> None:
        frames = traceback.walk_stack(None)
        self._frames = traceback.StackSummary.extract(frames, limit=DEPTH, lookup_lines=False)

    def __str__(self) -> str:
        """The stack as in a traceback, without the pool's own frames."""
        ours = __name__.rpartition(".")[0].replace(".", "/")
        frames = [frame for frame in reversed(self._frames) if ours not in frame.filename]
        return "".join(traceback.StackSummary.from_list(frames).format())
