"""``browser()``: the arguments of a session, checked, and the session made of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from ..config import (
    ATTEMPTS,
    CLOSE_TIMEOUT,
    COMMAND_TIMEOUT,
    START_TIMEOUT,
    Debugging,
    OnLeak,
    SessionConfig,
)
from ..process.containment import Kind
from .session import BrowserSession

if TYPE_CHECKING:
    from selenium import webdriver
    from typing_extensions import Unpack

    from ..config import BrowserArguments

    ChromeName = Literal["chrome", "chromium", "chromium-headless-shell"]


@overload
def browser(
    name: ChromeName = "chrome", **given: Unpack[BrowserArguments]
) -> BrowserSession[webdriver.Chrome]: ...
@overload
def browser(
    name: Literal["firefox"], **given: Unpack[BrowserArguments]
) -> BrowserSession[webdriver.Firefox]: ...
@overload
def browser(
    name: Literal["edge"], **given: Unpack[BrowserArguments]
) -> BrowserSession[webdriver.Edge]: ...
@overload
def browser(name: str, **given: Unpack[BrowserArguments]) -> BrowserSession[webdriver.Remote]: ...
def browser(
    name: str = "chrome",
    *,
    headless: bool = True,
    options: Any = None,
    arguments: Sequence[str] = (),
    ignore_default_arguments: bool | Sequence[str] = (),
    preferences: Mapping[str, Any] | None = None,
    profile: str | os.PathLike[str] | None = None,
    download_dir: str | os.PathLike[str] | None = None,
    window_size: tuple[int, int] | None = None,
    binary: str | os.PathLike[str] | None = None,
    driver_path: str | os.PathLike[str] | None = None,
    debugging: Debugging = "pipe",
    timeout: float | None = None,
    start_timeout: float = START_TIMEOUT,
    command_timeout: float = COMMAND_TIMEOUT,
    close_timeout: float = CLOSE_TIMEOUT,
    attempts: int = ATTEMPTS,
    containment: Kind = "auto",
    offline: bool | None = None,
    env: Mapping[str, str | None] | None = None,
    log: str | os.PathLike[str] | None = None,
    on_leak: OnLeak = "raise",
    remote: str | None = None,
) -> BrowserSession[Any]:
    """A browser that cannot leak: ``with browser() as driver: ...``.  Nothing is started yet.

    Args:
        name: ``chrome`` (Google Chrome, else Chromium), ``chromium``, ``chromium-headless-shell``,
            ``edge`` or ``firefox``.
        headless: False shows a window; needs a display.
        options: Selenium's ChromeOptions, EdgeOptions or FirefoxOptions; copied, never changed.
        arguments: more command-line arguments for the browser.
        ignore_default_arguments: our defaults to leave out, by name, or True for all of them
            (``drivers.chromium.DEFAULT_ARGUMENTS``, ``drivers.firefox.DEFAULT_PREFERENCES``).
        preferences: Chrome's ``prefs`` or Firefox's ``about:config`` values.
        profile: a profile directory to use and keep; without it each session has a fresh one.
        download_dir: where downloads go; without it they go when the session does.
        window_size: (width, height) in pixels.
        binary, driver_path: which to use, else they are looked for.
        debugging: ``pipe``: Chromium ends with its driver, whatever kills that, and opens no
            port; ``port`` for the old ``driver.bidi_connection()``, which needs one.
        timeout: seconds from the start to the end of the session, enforced by the guard.
        start_timeout: seconds for the start, all attempts included.  Finding the driver has
            limits of its own: 20 s for a version, 300 s for a download where none is there.
        command_timeout: seconds for one command; the session is ended when it passes.
        close_timeout: seconds for a polite ending, and again for the kill.
        attempts: launches to try where a retry can help.
        containment: ``auto`` (the strongest there is), ``cgroup``, ``subreaper``, ``portable``.
        offline: never ask the drivers' managers; default: ``BROWSERKEEPER_OFFLINE``.
        env: environment for driver and browser, over our own; None unsets.
        log: a file for the driver's log, in detail.
        on_leak: ``raise`` LeakError, ``warn`` or ``ignore`` where anything survives.
        remote: the URL of a Selenium Grid to have the browser on, credentials in it if it wants
            some: ``https://USER:PASSWORD@HOST``.

    Raises:
        ConfigError: an argument makes no sense.
    """
    given = dict(locals())
    return BrowserSession(SessionConfig.build(**given))


__all__ = ["browser"]
