"""The policy: what options may not hold, why, and what to do instead.  Data only.

``docs/options.md`` shows the same rows, and a test compares them.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

Place = Literal["argument", "experimental option", "capability", "preference", "env= variable"]
"""``argument``: of the browser's command line.  ``experimental option``: of ChromeDriver, as set by
``add_experimental_option()`` or by a property of Selenium's options.  ``preference``: Chromium's
``prefs`` or Firefox's ``about:config``."""

Engine = Literal["", "chromium", "firefox"]
Where = Literal["", "local", "grid", "pool"]


@dataclasses.dataclass(frozen=True)
class Rule:
    """What is refused: all ``names`` at this ``place``, which are patterns of :mod:`fnmatch`.

    Names of arguments are given without dashes, and compared without regard to case.

    ``why`` and ``instead``: the reason and the remedy, as in the error message.
    ``engine``: "" for both engines.
    ``values``: only these values are refused, in lower case; None for all.
    ``unless_port``: values that are let through with ``debugging="port"`` and with ``remote=``.
    ``beside``: only refused where this argument of ``browser()`` is given too and says something else.
    ``where``: ``local`` is not for ``remote=``, ``grid`` only for that; ``pool`` is for pools only.
    ``not_for``: a browser that the rule is not for.
    """

    place: Place
    names: tuple[str, ...]
    why: str
    instead: str
    engine: Engine = ""
    values: tuple[str, ...] | None = None
    unless_port: tuple[str, ...] = ()
    beside: str = ""
    where: Where = ""
    not_for: str = ""


_NO_PORT = (
    "Leave it out: the driver uses a pipe, so that no DevToolsActivePort file is waited for. Where a "
    "debugging port is needed, debugging='port' takes a free one"
)
_GIVE_ONCE = "Give only one of the two"

RULES = (
    # ---------------------------------------------------------------- a debugging port
    Rule(
        "argument",
        ("remote-debugging-port",),
        "every local program can drive the browser through this port, a second session with the same "
        "number gets this browser, and the browser outlives its driver",
        _NO_PORT,
        engine="chromium",
        unless_port=("0",),
    ),
    Rule(
        "argument",
        ("remote-debugging-[!p]*", "remote-allow-*"),
        "it opens the browser's debugging port to other machines or to web pages",
        _NO_PORT,
        engine="chromium",
    ),
    Rule(
        "argument",
        ("remote-debugging-pipe",),
        "the driver can use the pipe in its default format only",
        "Leave it out: debugging='pipe' is the default",
        engine="chromium",
        values=("cbor", "asciiz"),
    ),
    Rule(
        "argument",
        ("remote-debugging-pipe",),
        "it asks for a pipe",
        "Leave debugging='port' out: an extension of options.enable_webextensions needs the pipe",
        engine="chromium",
        beside="debugging",
    ),
    Rule(
        "argument",
        ("remote-debugging-*", "remote-allow-*", "marionette", "marionette-*"),
        "geckodriver sets it itself, with a free port for each session, and refuses another one",
        "Leave it out; options.enable_bidi = True gives a BiDi connection",
        engine="firefox",
    ),
    Rule(
        "argument",
        ("start-debugger-server", "wait-for-jsdebugger"),
        "it opens a port through which every local program can drive the browser",
        "Leave it out; options.enable_bidi = True gives a BiDi connection",
        engine="firefox",
    ),
    Rule(
        "preference",
        ("devtools.debugger.remote-enabled",),
        "it lets the browser open a port through which other programs can drive it",
        "Leave it out; options.enable_bidi = True gives a BiDi connection",
        engine="firefox",
        values=("true",),
    ),
    Rule(
        "preference",
        ("devtools.debugger.force-local",),
        "it opens the port of Firefox's debugger to other machines",
        "Leave it out; options.enable_bidi = True gives a BiDi connection",
        engine="firefox",
        values=("false",),
    ),
    Rule(
        "preference",
        ("marionette.port",),
        "geckodriver sets it itself, with a free port for each session",
        "Leave it out",
        engine="firefox",
    ),
    # ---------------------------------------------------------------- a browser that stays
    Rule(
        "experimental option",
        ("detach",),
        "browserkeeper ends every browser that it has started",
        "Leave it out; for a browser that stays use plain Selenium, or start it yourself and attach to "
        "it with options.debugger_address",
        values=("true",),
    ),
    # ---------------------------------------------------------------- no browser to drive
    Rule(
        "argument",
        ("no-startup-window", "silent-launch"),
        "the driver waits for a window",
        "Leave it out; headless=True, the default, shows none",
        engine="chromium",
    ),
    Rule(
        "argument",
        ("type", "version", "product-version", "help", "h"),
        "the program does something else then, and exits",
        "Leave it out",
        engine="chromium",
    ),
    Rule(
        "argument",
        ("dump-dom", "screenshot", "print-to-pdf", "repl"),
        "the browser closes its window after this one task",
        "Use driver.page_source, driver.save_screenshot() or driver.print_page()",
        engine="chromium",
    ),
    Rule(
        "argument",
        (
            *("silent", "createprofile", "profilemanager", "migration", "backgroundtask", "contentproc"),
            *("screenshot", "version", "v", "full-version", "help", "h"),
        ),
        "the program does something else then, or waits for a person",
        "Leave it out",
        engine="firefox",
    ),
    # ---------------------------------------------------------------- two statements about one thing
    Rule(
        "argument",
        ("headless",),
        "it contradicts headless=False",
        "Leave out the one or the other",
        beside="headless",
    ),
    Rule(
        "argument",
        ("headless",),
        "new versions of Chromium have the new headless mode only, whatever the value",
        "Use browser('chromium-headless-shell') for the old mode, headless=False for a window",
        engine="chromium",
        values=("old", "false", "0", "no", "off"),
        where="local",
        not_for="chromium-headless-shell",
    ),
    Rule(
        "argument",
        ("window-size", "start-maximized", "start-fullscreen", "kiosk"),
        "it contradicts window_size=",
        _GIVE_ONCE,
        engine="chromium",
        beside="window_size",
    ),
    Rule(
        "argument",
        ("width", "height", "kiosk"),
        "it contradicts window_size=",
        _GIVE_ONCE,
        engine="firefox",
        beside="window_size",
    ),
    Rule(
        "argument",
        ("user-data-dir",),
        "it names no directory",
        "Write it as one string, '--user-data-dir=DIRECTORY', or use profile=",
        engine="chromium",
        values=("",),
    ),
    Rule(
        "preference",
        ("download.default_directory", "savefile.default_directory"),
        "it contradicts download_dir=",
        _GIVE_ONCE,
        engine="chromium",
        beside="download_dir",
    ),
    Rule(
        "preference",
        ("browser.download.dir",),
        "it contradicts download_dir=",
        _GIVE_ONCE,
        engine="firefox",
        beside="download_dir",
    ),
    Rule(
        "preference",
        ("browser.download.folderList",),
        "Firefox then saves to a directory other than download_dir=",
        _GIVE_ONCE,
        engine="firefox",
        values=("0", "1"),
        beside="download_dir",
    ),
    Rule(
        "env= variable",
        ("MOZ_HEADLESS",),
        "it contradicts headless=False",
        "Leave out the one or the other",
        engine="firefox",
        beside="headless",
    ),
    Rule(
        "env= variable",
        ("MOZ_HEADLESS_WIDTH", "MOZ_HEADLESS_HEIGHT"),
        "it contradicts window_size=",
        _GIVE_ONCE,
        engine="firefox",
        beside="window_size",
    ),
    Rule(
        "argument",
        ("display", "ozone-platform", "ozone-platform-hint"),
        "it contradicts display=",
        _GIVE_ONCE,
        engine="chromium",
        beside="display",
    ),
    Rule(
        "argument",
        ("display",),
        "it contradicts display=",
        _GIVE_ONCE,
        engine="firefox",
        beside="display",
    ),
    Rule(
        "env= variable",
        ("DISPLAY", "WAYLAND_DISPLAY", "WAYLAND_SOCKET", "GDK_BACKEND", "MOZ_ENABLE_WAYLAND"),
        "it contradicts display=",
        _GIVE_ONCE,
        beside="display",
    ),
    # ---------------------------------------------------------------- what the session sets itself
    Rule(
        "env= variable",
        (
            *("BROWSERKEEPER_SESSION", "BROWSERKEEPER_LOCK", "BROWSERKEEPER_DOCUMENT"),
            "BROWSERKEEPER_FIREFOX_BINARY",
        ),
        "by it the session's processes are found, or its browser",
        "Leave it out",
    ),
    Rule(
        "env= variable",
        ("XRE_PROFILE_PATH",),
        "Firefox uses that profile in the place of the session's",
        "Use profile=",
        engine="firefox",
    ),
    Rule(
        "env= variable",
        ("TMPDIR",),
        "each session has a TMPDIR of its own, which is removed at its end",
        "Set BROWSERKEEPER_TMPDIR in the environment of your program to have that elsewhere",
    ),
    # ---------------------------------------------------------------- a browser that is not the guard's
    Rule(
        "experimental option",
        ("android*", "wdp*", "windowsApp", "deviceSerial"),
        "the browser would be on another device, where no guard can end it",
        "Use plain Selenium for it, or a Grid with remote=",
        where="local",
    ),
    Rule(
        "capability",
        ("browserName",),
        "WebView2 is a part of another application, which would be ended with it",
        "Use plain Selenium for it",
        values=("webview2",),
    ),
    Rule(
        "experimental option",
        ("debuggerAddress",),
        "a pool's browsers must be its own: it ends and replaces them, and cleans up between leases",
        "Use browser(options=...), which attaches one session to that browser",
        where="pool",
    ),
    Rule(
        "capability",
        ("webSocketUrl",),
        "only BiDi can stop a page load of Firefox on a Grid that a command waits for",
        "Leave it out",
        engine="firefox",
        values=("false",),
        where="grid",
    ),
    # ---------------------------------------------------------------- what Selenium itself drops
    Rule(
        "experimental option",
        ("args",),
        "Selenium replaces it by options.arguments",
        "Use options.add_argument()",
    ),
    Rule(
        "experimental option",
        ("extensions",),
        "Selenium replaces it by options.extensions",
        "Use options.add_extension() or options.add_encoded_extension()",
    ),
    # ---------------------------------------------------------------- shared by the browsers of a pool
    Rule(
        "argument",
        ("disk-cache-dir", "media-cache-dir"),
        "all browsers of the pool would share it, and so their leases would not be isolated",
        "Leave it out: each browser has a cache of its own",
        engine="chromium",
        where="pool",
    ),
    Rule(
        "preference",
        ("browser.cache.disk.parent_directory",),
        "all browsers of the pool would share it, and so their leases would not be isolated",
        "Leave it out: each browser has a cache of its own",
        engine="firefox",
        where="pool",
    ),
)
"""What is refused, with a ConfigError that has the name, the reason and the remedy."""


ATTACHED = {
    "profile": "the browser has opened its own",
    "download_dir": "the browser runs with its own",
    "preferences": "the browser has read its own",
    "arguments": "the browser was started without them",
    "window_size": "the browser was started without it; use driver.set_window_size()",
    "env": "the browser was started with its own",
    "max_browsers": "no browser is started, so that none is counted",
    "min_memory": "no browser is started",
    "max_download": "the browser saves to a directory of its own",
    "display": "the browser shows its windows on its own",
}
"""Arguments of ``browser()`` that cannot be used with ``options.debugger_address``, and why."""

ATTACHED_OPTIONS = (
    *("debuggerAddress", "enableExtensionTargets", "perfLoggingPrefs", "w3c"),
    "windowTypes",
)
"""Experimental options that ChromeDriver accepts where it is attached to a browser (tried with 156)."""

ATTACHED_CAPABILITIES = {"proxy": "ChromeDriver sets a proxy only where it starts the browser"}
"""Capabilities that ChromeDriver drops there, and why."""


HONOURED = {
    "--no-zygote": "the renderers are the browser's own children; Chromium wants `--no-sandbox` with it",
    "--single-process": "there is one process to end; Chromium calls the mode unsupported",
    "--disable-dev-shm-usage": "shared memory is in the session's TMPDIR",
    "--enable-logging": "`chrome_debug.log` is in the profile, and is removed with a temporary one",
    "--log-file": "a file of your own, which stays",
    "--crash-dumps-dir": "a directory of your own, which stays, as with ChromeDriver's `minidumpPath`",
    "--disk-cache-dir": "a directory of your own, which stays; not in a pool",
    "--kiosk": "a matter of the window",
    "--user-data-dir": "a directory of your own, which stays, as with `profile=`; not in a pool",
    "--daemon": "no browser knows it",
    "--window-size": "as `window_size=`",
    "--headless": "as `headless=True`",
}
"""Arguments of Chromium that look as if they could do harm, were tried, and are passed on; and why."""


SELENIUM_PREFERENCES = ("remote.active-protocols",)
"""Preferences that Selenium's FirefoxOptions have from the start: ``preferences=`` may change them."""

SELENIUM_ARGUMENTS = {
    "service": "driver_path= for its executable_path, log= for its log_output, env= for its env",
    "executable_path": "driver_path=",
    "service_args": "log= for a detailed log of the driver",
    "service_log_path": "log=",
    "log_path": "log=",
    "chrome_options": "options=",
    "firefox_options": "options=",
    "edge_options": "options=",
    "desired_capabilities": "options=, with options.set_capability()",
    "capabilities": "options=, with options.set_capability()",
    "firefox_profile": "profile=, or options.profile",
    "firefox_binary": "binary=",
    "command_executor": "remote=",
    "client_config": "command_timeout= for its timeout, remote= for its address and password",
    "keep_alive": "nothing: connections are kept alive",
    "file_detector": "driver.file_detector after the start",
}
"""Keyword arguments of Selenium's drivers that ``browser()`` does not have, and what it has instead."""


@dataclasses.dataclass(frozen=True)
class Variable:
    """A variable of Selenium's environment that would choose another browser or driver than the search.

    ``field``: the argument of ``browser()`` that leaves it without effect, in Selenium too.
    """

    name: str
    why: str
    instead: str
    field: str


_NO_DOWNLOAD = "browserkeeper uses the browser that is installed, and a driver that fits it"

SELENIUM_VARIABLES = (
    Variable("SE_BROWSER_VERSION", _NO_DOWNLOAD, "pass binary=", "binary"),
    Variable("SE_FORCE_BROWSER_DOWNLOAD", _NO_DOWNLOAD, "pass binary=", "binary"),
    Variable("SE_SKIP_BROWSER_IN_PATH", _NO_DOWNLOAD, "pass binary=", "binary"),
    Variable("SE_DRIVER_VERSION", _NO_DOWNLOAD, "pass driver_path=", "driver_path"),
    Variable("SE_SKIP_DRIVER_IN_PATH", _NO_DOWNLOAD, "pass driver_path=", "driver_path"),
    Variable("SE_DEBUG", "the driver's log is in the session's TMPDIR", "pass log='driver.log'", "log"),
)
"""Refused while they are set, unless they are empty, ``0`` or ``false``.

``SE_OFFLINE`` is taken as ``offline=``, ``SE_BROWSER_PATH`` and ``SE_CHROMEDRIVER``, ``SE_EDGEDRIVER``,
``SE_GECKODRIVER`` as paths, and those about downloads by Selenium Manager itself, where it is run."""
