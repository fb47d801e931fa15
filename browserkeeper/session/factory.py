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
    Isolate,
    OnLeak,
    SessionConfig,
    Wait,
)
from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..options.check import refuse_unknown
from ..options.identity import Identity
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
    server: str | os.PathLike[str] | Literal[False] | None = None,
    label: str | None = None,
    wait: Wait = "start_timeout",
    max_browsers: int | None = None,
    min_memory: int | str | None = None,
    max_download: int | str | None = None,
    display: str | None = None,
    isolate_driver: Isolate = "auto",
    identity: Identity | Mapping[str, Any] | None = None,
    proxy: str | Mapping[str, Any] | None = None,
    locale: str | None = None,
    timezone: str | None = None,
    user_agent: str | None = None,
    geolocation: tuple[float, float] | tuple[float, float, float] | None = None,
    extra_headers: Mapping[str, str] | None = None,
    storage_state: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    block: Sequence[str] | None = None,
    **unknown: Any,
) -> BrowserSession[Any]:
    """A browser session, which ends whole and verified: ``with browser() as driver: ...``.

    Starts nothing yet: the ``with`` block does, or ``start()``, or as a decorator each call.

    Args:
        name: which browser: ``chrome`` (Google Chrome, or else Chromium), ``chromium``,
            ``chromium-headless-shell``, ``edge`` or ``firefox``.
        headless: False shows a window, which needs a display (``display``).
        options: Selenium's ChromeOptions, EdgeOptions or FirefoxOptions.  They are copied at once, and
            not changed.  With ``debugger_address`` the session is attached to a browser that runs
            already, which it does not end.
        arguments: more command-line arguments for the browser.
        ignore_default_arguments: names of the package's default arguments or preferences to leave out,
            or True for all of them (``drivers.chromium.DEFAULT_ARGUMENTS``,
            ``drivers.firefox.DEFAULT_PREFERENCES``).
        preferences: Chrome's ``prefs``, or Firefox's ``about:config`` values.
        profile: a profile directory, which is kept.  Default: a new profile, removed at the end.
            One that is named among the browser's arguments is checked and kept alike.
        download_dir: a directory for downloads.  Default: one that is removed at the end.
        window_size: (width, height) in pixels.
        binary: path of the browser.  Default: ``options.binary_location``, else it is searched for.
        driver_path: path of the driver.  Default: it is searched for.
        debugging: how the driver talks to Chromium.  ``pipe``: Chromium ends when its driver does, in
            whatever way, and opens no port.  ``port``: needed by the old ``driver.bidi_connection()``.
        timeout: seconds from the start of the session to its end.  The guard ends it then.
        start_timeout: seconds for the start, with all attempts.  The search for the driver has limits of
            its own: 20 s for a version query, 300 s for a download where no driver is installed.
        command_timeout: seconds for one WebDriver command.  The session is ended after that.
        close_timeout: seconds for the kill.  Before it a browser with a kept profile is asked to quit,
            and has half as many for that.
        attempts: how often a launch is tried, where another one may help.
        containment: how the processes are kept together: ``cgroup``, ``subreaper``, ``portable``, or
            ``auto`` for the strongest that this machine allows.
        offline: True never downloads a driver.  Default: the environment's ``BROWSERKEEPER_OFFLINE`` or
            ``SE_OFFLINE``.
        env: environment variables for driver and browser, over those of this process; None removes one.
        log: a file that the driver's detailed log is appended to.
        on_leak: what to do if anything of the session survives its end: ``raise`` LeakError, ``warn``
            with a ResourceWarning, or ``ignore``.
        remote: the URL of a Selenium Grid to start the browser on, with credentials if the Grid needs
            them: ``https://USER:PASSWORD@HOST``.
        server: the address of a server (`browserkeeper serve`) to lease the browser from: a unix socket
            as ``unix:/PATH`` or its path, or ``http://TOKEN@HOST:PORT`` (``docs/server.md``).  Default:
            that of the environment's ``BROWSERKEEPER_SERVER``, if it is set.  False or ``""``: a browser
            of this process, whatever the variable says.
        label: a name for the session, which ``ps``, ``top``, ``history``, ``report``, logs and spans
            show: one line of at most 200 visible characters.
        wait: seconds to wait for a slot while the host's limit is reached, its memory is short or it is
            drained (``docs/host.md``); with ``server``, in the server's queue.  0 tries once, None waits
            without a limit.  HostBusy after that, and PoolTimeout with ``server``.
            Default: as many as ``start_timeout``, which counts from the moment when the start has its
            slot.
        max_browsers: start only while fewer browsers than this run for the state directory, whoever has
            started them.  The host's own limit holds as well.
        min_memory: start only while this much memory is left, in bytes or as ``"1GiB"``.  The host's own
            bound holds as well.
        max_download: the largest size of all downloads together, in bytes or as ``"500MB"``.  If they
            pass it, Chromium's download is cancelled, and with Firefox the session is ended
            (``docs/identity.md``, "Downloads").
        display: with ``headless=False``: the name of an X display, such as ``:7``; or ``virtual`` for an
            Xvfb that is started for this session, with a screen as large as ``window_size`` or else of
            1920x1080, and that ends with it.  Default: the environment's ``DISPLAY`` or
            ``WAYLAND_DISPLAY``.
        isolate_driver: whether ChromeDriver gets a network namespace of its own, so that no other user
            of this machine can connect to its port, nor any other program
            (``docs/security.md``, "The driver's port").  ``auto``: where the system allows it.  True: an
            error where it does not.  False: never.
        identity: an :class:`Identity`, or a dict of its words.  The following arguments replace its
            words one by one (``docs/identity.md``).
        proxy: the proxy for all requests, as a URL or a dict.
        locale: a language tag such as ``de-DE``: for ``navigator.language``, ``Intl`` and the header
            Accept-Language.
        timezone: an IANA name such as ``Europe/Berlin``: for ``Date`` and ``Intl``.
        user_agent: the browser's name for itself: for ``navigator.userAgent`` and the header User-Agent.
        geolocation: (latitude, longitude) or (latitude, longitude, accuracy in metres): the place that
            ``navigator.geolocation`` gives to every page.
        extra_headers: a dict of headers for every request to every host.
        storage_state: cookies, localStorage and IndexedDB to start with, in Playwright's format:
            the path of a file, or a dict.
        block: a list of URL patterns and resource types; requests that match are not sent.

    Raises:
        ConfigError: an argument makes no sense, is not known, or undoes what a session promises
            (``docs/options.md``).

    The start itself raises HostBusy where it gets no slot within ``wait``, and PoolTimeout where the
    server gives no browser in that time.
    """
    given = {name: value for name, value in locals().items() if name != "unknown"}
    refuse_unknown(set(unknown), "browser()")
    return BrowserSession(SessionConfig.build(**given))


__all__ = ["browser"]
