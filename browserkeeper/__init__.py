"""Selenium browser sessions that cannot leak.  Start at :func:`browser`.

Names are imported when they are first used: ``import browserkeeper`` alone costs next to nothing
and imports no selenium.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from .cleanup.sweeper import Finding, sweep
    from .errors import (
        BrowserDied,
        BrowserkeeperError,
        CommandTimeout,
        ConfigError,
        ContainmentError,
        DockerError,
        ForkedSessionError,
        GridError,
        LaunchError,
        LeakError,
        LeaseEnded,
        LeaseTimeout,
        LedgerError,
        PoolClosed,
        PoolError,
        PoolTimeout,
        PoolUnavailable,
        ProfileError,
        ResolveError,
        SessionClosed,
        SessionTimeout,
        TooManyWaiting,
        VersionMismatch,
    )
    from .pool import BrowserPool, Lease, LeaseInfo, Outcome, lease_of
    from .report import ExitReport, ProcessExit, RemoteEnd, Survivor
    from .session import BrowserSession, browser, session_of
    from .session.adopted import AdoptedSession, adopt

_HOMES = {
    ".session.adopted": ("AdoptedSession", "adopt"),
    ".session": ("BrowserSession", "browser", "session_of"),
    ".cleanup.sweeper": ("Finding", "sweep"),
    ".report": ("ExitReport", "ProcessExit", "RemoteEnd", "Survivor"),
    ".errors": (
        "BrowserDied",
        "BrowserkeeperError",
        "CommandTimeout",
        "ConfigError",
        "ContainmentError",
        "DockerError",
        "ForkedSessionError",
        "GridError",
        "LaunchError",
        "LeakError",
        "LeaseEnded",
        "LeaseTimeout",
        "LedgerError",
        "PoolClosed",
        "PoolError",
        "PoolTimeout",
        "PoolUnavailable",
        "ProfileError",
        "ResolveError",
        "SessionClosed",
        "SessionTimeout",
        "TooManyWaiting",
        "VersionMismatch",
    ),
    ".pool": ("BrowserPool", "Lease", "LeaseInfo", "Outcome", "lease_of"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AdoptedSession",
    "BrowserDied",
    "BrowserPool",
    "BrowserSession",
    "BrowserkeeperError",
    "CommandTimeout",
    "ConfigError",
    "ContainmentError",
    "DockerError",
    "ExitReport",
    "Finding",
    "ForkedSessionError",
    "GridError",
    "LaunchError",
    "LeakError",
    "Lease",
    "LeaseEnded",
    "LeaseInfo",
    "LeaseTimeout",
    "LedgerError",
    "Outcome",
    "PoolClosed",
    "PoolError",
    "PoolTimeout",
    "PoolUnavailable",
    "ProcessExit",
    "ProfileError",
    "RemoteEnd",
    "ResolveError",
    "SessionClosed",
    "SessionTimeout",
    "Survivor",
    "TooManyWaiting",
    "VersionMismatch",
    "adopt",
    "browser",
    "lease_of",
    "session_of",
    "sweep",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
