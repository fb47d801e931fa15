"""Selenium browser sessions that cannot leak.  Start at :func:`browser`.

A public name is imported when it is first used, so that ``import browserkeeper`` alone imports no
selenium and takes less than a millisecond.
"""

from __future__ import annotations

import importlib
import os
import sys

from ._version import __version__ as __version__
from .guard.options import SENTINEL

if SENTINEL in os.environ:  # before anything else: this process was started to be a guard
    from .frozen import serve

    serve()  # does not return

TYPE_CHECKING = False  # known to type checkers by its name; importing typing takes most of our import
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    from .admission.drain import Drain
    from .cleanup.draining import Running, drain, draining, resume
    from .cleanup.end_sessions import SessionEnd, end_sessions
    from .cleanup.sweeper import Finding, sweep
    from .errors import (
        BrowserDied,
        BrowserkeeperError,
        CommandTimeout,
        ConfigError,
        ContainmentError,
        DockerError,
        DownloadError,
        DownloadFailed,
        DownloadTimeout,
        DownloadTooLarge,
        ForkedSessionError,
        GridError,
        HookError,
        HostBusy,
        IdentityError,
        LaunchError,
        LeakError,
        LeaseEnded,
        LeaseTimeout,
        LedgerError,
        LimitError,
        NoSuchSession,
        PoolClosed,
        PoolError,
        PoolTimeout,
        PoolUnavailable,
        ProfileError,
        ProxyError,
        ResolveError,
        SeleniumVersionError,
        ServerError,
        SessionClosed,
        SessionTimeout,
        StorageStateError,
        TooManyWaiting,
        VersionMismatch,
    )
    from .options.identity import Identity
    from .pool import BrowserPool, Lease, LeaseInfo, Outcome, lease_of, per_host
    from .report import ExitReport, Operator, ProcessExit, RemoteEnd, Survivor
    from .session import BrowserSession, browser, session_of
    from .session.adopted import AdoptedSession, adopt
    from .session.download import Download
    from .session.downloads import expect_download

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
    "Download",
    "DownloadError",
    "DownloadFailed",
    "DownloadTimeout",
    "DownloadTooLarge",
    "Drain",
    "ExitReport",
    "Finding",
    "ForkedSessionError",
    "GridError",
    "HookError",
    "HostBusy",
    "Identity",
    "IdentityError",
    "LaunchError",
    "LeakError",
    "Lease",
    "LeaseEnded",
    "LeaseInfo",
    "LeaseTimeout",
    "LedgerError",
    "LimitError",
    "NoSuchSession",
    "Operator",
    "Outcome",
    "PoolClosed",
    "PoolError",
    "PoolTimeout",
    "PoolUnavailable",
    "ProcessExit",
    "ProfileError",
    "ProxyError",
    "RemoteEnd",
    "ResolveError",
    "Running",
    "SeleniumVersionError",
    "ServerError",
    "SessionClosed",
    "SessionEnd",
    "SessionTimeout",
    "StorageStateError",
    "Survivor",
    "TooManyWaiting",
    "VersionMismatch",
    "adopt",
    "browser",
    "drain",
    "draining",
    "end_sessions",
    "expect_download",
    "lease_of",
    "per_host",
    "resume",
    "session_of",
    "sweep",
]

_NAMES = {
    ".session.adopted": ("AdoptedSession", "adopt"),
    ".session.download": ("Download",),
    ".session.downloads": ("expect_download",),
    ".session": ("BrowserSession", "browser", "session_of"),
    ".admission.drain": ("Drain",),
    ".cleanup.draining": ("Running", "drain", "draining", "resume"),
    ".cleanup.end_sessions": ("SessionEnd", "end_sessions"),
    ".cleanup.sweeper": ("Finding", "sweep"),
    ".options.identity": ("Identity",),
    ".report": ("ExitReport", "Operator", "ProcessExit", "RemoteEnd", "Survivor"),
    ".pool": ("BrowserPool", "Lease", "LeaseInfo", "Outcome", "lease_of", "per_host"),
}
"""The public names by the module that defines them.  All others are in ``errors``."""
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_MODULE_OF.get(name, ".errors"), __name__)
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


_MOVED = {
    "browserkeeper.logs": "browserkeeper.telemetry.logs",
    "browserkeeper.metrics": "",  # a package without code, so that the next one can be imported
    "browserkeeper.metrics.collector": "browserkeeper.telemetry.collector",
}
"""Documented modules by their former names, and their present names."""


class _MovedModules:
    """Finds modules by their former names: the same module objects, with a DeprecationWarning.

    Python asks this finder last, and only for names that no other finder knows, so other imports
    are not slower.
    """

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name not in _MOVED:
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, self, is_package=not _MOVED[name])  # type: ignore[arg-type] # by duck type

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        if not _MOVED[spec.name]:
            return None
        import warnings

        what = f"{spec.name} is now {_MOVED[spec.name]}; import it from there."
        warnings.warn(what, DeprecationWarning, stacklevel=2)
        module = importlib.import_module(_MOVED[spec.name])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Runs nothing, since the module has run; gives it back the spec that import replaced."""
        if module.__spec__ and module.__spec__.loader_state:
            module.__spec__ = module.__spec__.loader_state


sys.meta_path.append(_MovedModules())
