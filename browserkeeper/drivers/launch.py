"""What an engine makes of a configuration: all that is needed to start it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..process.identity import ProcessFacts
from .browser_handle import BrowserHandle, find_local


@dataclasses.dataclass(frozen=True)
class Launch:
    """The driver's command line and environment, and what makes the options for the new session.

    ``build_options`` imports selenium, 0.2 s the first time, so it is called when the driver is
    on its way already.
    ``port_pattern`` finds the port in the driver's log.  ``stop_grace_period`` is how many seconds the
    driver may take, after SIGTERM, to end a session on another machine; ``status_file`` is where it
    writes how that went.  ``see`` finds the browser, by its capabilities and the processes below the
    guard.  ``note`` says why the browser would not end by itself when its driver is killed; it is ""
    where it would.
    """

    command: tuple[str, ...]
    env: Mapping[str, str]
    build_options: Callable[[], Any]
    port_pattern: bytes
    note: str
    stop_grace_period: float = 0
    status_file: str = ""
    see: Callable[[Mapping[str, Any], Sequence[ProcessFacts]], BrowserHandle] = find_local
