"""Processes: who they are, what hangs below them, how to contain them and end them for good.

Knows nothing of browsers.  ``linux.py`` and ``portable.py`` hold the platform differences, one
file each, with the same functions; everybody else says ``from browserkeeper.process import system``.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from typing import Protocol

from .identity import ProcessFacts, ProcessIdentity

if sys.platform == "linux":
    from . import linux as system
else:
    from . import portable as system


class Platform(Protocol):
    """What ``linux`` and ``portable`` both offer; their docstrings say how."""

    def facts(self, pid: int, /) -> ProcessFacts | None: ...
    def tree(self, root: int, /) -> list[ProcessFacts]: ...
    def everyone(self) -> Iterator[ProcessFacts]: ...
    def bears_marker(self, pid: int, marker: str, /) -> bool: ...
    def marker_value(self, pid: int, name: str, /) -> str | None: ...
    def memory(self, pid: int, /) -> int: ...
    def send_signal(self, target: ProcessIdentity, number: signal.Signals, /) -> bool: ...
    def host_id(self) -> str: ...
    def now(self) -> float: ...


__all__ = ["Platform", "system"]
