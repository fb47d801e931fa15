"""``Launch``: how to start the driver of one session; and what the engines share in making it."""

from __future__ import annotations

import copy
import dataclasses
import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..config import SessionConfig
from ..errors import ConfigError
from ..process.identity import ProcessFacts
from .browser_handle import BrowserHandle, find_local
from .probe import Program
from .profile import ProfileInUse

if TYPE_CHECKING:
    from ..proxy.relay import Route


def copy_options(config: SessionConfig, kind: type[Any], wanted: str, key: str) -> Any:
    """A copy of the user's Selenium options.

    Raises ConfigError unless they are of this ``kind``, and make the capability ``key``: a driver
    ignores that of another browser.
    """
    if not isinstance(config.options, kind) or key != config.options.KEY:
        given = f"{type(config.options).__module__}.{type(config.options).__name__}"
        raise ConfigError(f"browser({config.name!r}) needs {wanted}, not {given}.")
    return copy.deepcopy(config.options)


def take_version(config: SessionConfig, browser: Program) -> None:
    """Check ``options.browser_version`` against the browser that was found.

    Raises ConfigError for another version, and for a channel: a browser does not tell its own.
    """
    wanted = getattr(config.options, "browser_version", None)
    if not wanted or str(wanted).casefold() == "stable":
        return
    asked, found = str(wanted).split("."), browser.version.split(".")
    if found[: len(asked)] != asked:
        raise ConfigError(
            f"options.browser_version={wanted!r}, but {browser.path} is version {browser.version}. "
            "browserkeeper downloads no browser: pass the path of that version as binary=, or leave "
            "browser_version out."
        )


def check_ignored(config: SessionConfig, names: Collection[str], *, switches: bool) -> None:
    """Raises ConfigError for a name in ``ignore_default_arguments`` that is none of ``names``.

    ``switches``: looks at the names with dashes, of Chromium; else at those without, of Firefox.  One
    list may serve both browsers.
    """
    ignored = config.ignore_default_arguments
    for given in () if isinstance(ignored, bool) else ignored:
        if given.startswith("-") == switches and given not in names:
            near = difflib.get_close_matches(given, names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"ignore_default_arguments: {given!r} is none of the defaults.{hint}")


@dataclasses.dataclass(frozen=True)
class Launch:
    """The driver's command line and environment, and what is needed once it runs.

    ``build_options`` returns Selenium's options for the new session.  It imports selenium, which takes
    0.2 s the first time, so it is called while the driver starts.
    ``port_pattern`` finds the driver's port in its log.
    ``note`` says why the browser would outlive the SIGKILL of its driver; "" where it would not.
    ``stop_grace_period`` is the time, in seconds, that the driver may take after SIGTERM to end a
    session on another machine, and ``status_file`` is where it writes how that went.
    ``url_path`` is the beginning of the path of all commands; it may be a secret.
    ``profile`` is the directory that the user wants to keep, None for a temporary one.
    ``route`` is the relay's route to the browser's proxy, None without one; closed after the browser's
    end. ``find_browser`` returns the browser, given its capabilities and the processes of the session.
    ``isolation`` and ``browser`` are as in :class:`GuardPlan`; ``stand_in`` is the program that an
    isolated driver takes for the browser.
    """

    command: tuple[str, ...]
    env: Mapping[str, str]
    build_options: Callable[[], Any]
    port_pattern: bytes
    note: str
    stop_grace_period: float = 0
    status_file: str = ""
    url_path: str = dataclasses.field(default="", repr=False)
    profile: ProfileInUse | None = None
    route: Route | None = None
    find_browser: Callable[[Mapping[str, Any], Sequence[ProcessFacts]], BrowserHandle] = find_local
    isolation: str = ""
    browser: str = ""
    stand_in: str = ""
