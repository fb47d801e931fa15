"""Chrome, Chromium, Edge and the headless shell: how to launch a configuration."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import SessionConfig
from ..options.check import flat, switch_of
from ..wire.credentials import environment_without_credentials
from .bound_program import obstacle, write_wrapper
from .browser_handle import AttachedBrowserHandle
from .identity import check as check_identity
from .identity import launch_words
from .launch import Launch, check_ignored, copy_options, take_version
from .probe import Program
from .profile import profile_of
from .proxies import CONTEXT_ARGUMENTS, open_route
from .resolve import Resolved
from .stand_in import isolation_of

if TYPE_CHECKING:
    from selenium.webdriver.chromium.options import ChromiumOptions

    from ..proxy.relay import Route

logger = logging.getLogger("browserkeeper")

DEFAULT_ARGUMENTS = {
    "--no-first-run": "no welcome page",
    "--no-default-browser-check": "no question that a user would have to answer",
    "--disable-background-networking": "no requests other than those of the pages",
    "--disable-component-update": "no downloads in the background",
    "--disable-sync": "no requests to a Google account",
    "--disable-breakpad": "no crash dumps are written or sent",
    "--disable-features=Translate,OptimizationHints,MediaRouter": "each sends requests of its own",
    "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup": "two hidden pages for each window: "
    "a quarter of the time to open one, and 50 MB",
    "--disk-cache-size=67108864": "64 MB: the profile is temporary, and may lie in memory",
}
"""Arguments that Chromium gets unless ``ignore_default_arguments`` names it (or is True), and why.
ChromeDriver adds its own (``--enable-automation``, ``--password-store=basic`` …)."""

BINARY = "BROWSERKEEPER_CHROMIUM_BINARY"
"""The environment variable that tells the script of :func:`bound_binary` which program to start."""

SMALL_SHARED_MEMORY = 256 * 2**20
"""Bytes below which ``/dev/shm`` makes tabs crash; a container's default is 64 MiB."""


def check(config: SessionConfig, found: Resolved) -> None:
    """Raises ConfigError for options of another browser or of another version, and for a name in
    ``ignore_default_arguments`` that is none."""
    if config.options is not None:
        user_options(config)
        take_version(config, found.browser)
    defaults = {*DEFAULT_ARGUMENTS, *CONTEXT_ARGUMENTS, "--no-sandbox", "--disable-dev-shm-usage"}
    check_identity(config)
    check_ignored(config, {*defaults, *(a.partition("=")[0] for a in defaults)}, switches=True)


def prepare(config: SessionConfig, found: Resolved, tmpdir: str, directory: Path) -> Launch:
    """How to launch this configuration, which was checked, with the programs that were found.

    ``directory`` is where the script is kept that binds a browser with a debugging port to its driver.
    Raises ProfileError for a profile that cannot be used.
    """
    if profile := profile_of(config):
        profile.check()
    level = ("--log-level=INFO",) if config.log else ()
    binary, note, bound_to = found.browser.path, "", {}
    isolation, stand_in = isolation_of(config, found.driver.path, directory)
    if config.debugging == "port":
        binary, note = bound_binary(found.browser, directory)
        bound_to = {BINARY: found.browser.path}
    route = open_route(config)
    launch = Launch(
        # ChromeDriver sends the browser's stderr, its last words included, to /dev/null without this.
        command=(found.driver.path, "--port=0", "--enable-chrome-logs", *level),
        env={**bound_to, **launch_words(config).env},
        build_options=lambda: build_options(config, binary, tmpdir, route),
        port_pattern=rb"on port (\d+)\.",
        note=note,
        profile=profile,
        route=route,
        isolation=isolation,
        browser=binary,
        stand_in=stand_in,
    )
    if address := config.debugger_address:
        attached = AttachedBrowserHandle(address)
        note = f"attached to the browser at {address}, which is not ended"
        return dataclasses.replace(launch, note=note, find_browser=lambda capabilities, tree: attached)
    return launch


def bound_binary(browser: Program, directory: Path) -> tuple[str, str]:
    """The program that starts a browser without the debugging pipe, and a note for the report.

    The program is a script by which the kernel kills the browser when its driver ends; the note is "".
    If that is not possible: the browser itself, and why it would outlive its driver.
    """
    if sys.platform != "linux":
        return browser.path, "debugging='port': the browser outlives its driver"
    if why := obstacle(directory, "the browser"):
        return browser.path, f"debugging='port': {why}"
    wrapper = directory / "chromium-bound"
    write_wrapper(wrapper, "the browser", "ChromeDriver", BINARY)
    return str(wrapper), ""


def user_options(config: SessionConfig) -> ChromiumOptions:
    """A copy of the user's options, or new ones.  Raises ConfigError for options of another browser."""
    from selenium.webdriver.chrome.options import Options as ChromeOptions
    from selenium.webdriver.chromium.options import ChromiumOptions
    from selenium.webdriver.edge.options import Options as EdgeOptions

    if config.options is None:
        return EdgeOptions() if config.name == "edge" else ChromeOptions()
    wanted = EdgeOptions if config.name == "edge" else ChromeOptions
    named = "EdgeOptions" if config.name == "edge" else "ChromeOptions"
    options: ChromiumOptions = copy_options(config, ChromiumOptions, named, wanted.KEY)
    return options


def build_options(
    config: SessionConfig, binary: str, tmpdir: str, route: Route | None = None
) -> ChromiumOptions:
    """The options of the session: the user's, completed by the defaults of this module.

    ``route``: the relay's route to the proxy; None without a proxy.
    A browser that is attached to was started already: its options are the user's alone.
    """
    from ..selenium_internals.private import set_arguments

    options = user_options(config)
    options.capabilities.pop("browserVersion", None)  # it was checked, and may be less than the driver's
    if config.debugger_address:
        return options
    options.binary_location = binary
    theirs = [*options.arguments, *config.arguments, *launch_words(config, route).arguments]
    set_arguments(options, merge_features([*_our_arguments(config, enabled_by(theirs)), *theirs]))
    given = {**(options.experimental_options.get("prefs") or {}), **config.preferences}
    ours = {
        "download.default_directory": str(config.download_dir or Path(tmpdir, "downloads")),
        "download.prompt_for_download": False,
    }
    named = flat(given)  # the user's may be nested
    preferences = {**{k: v for k, v in ours.items() if k not in named}, **given}
    options.add_experimental_option("prefs", preferences)
    return options


LOG_OPTIONS = ("perfLoggingPrefs", "devToolsEventsToLog", "windowTypes")
"""Experimental options that ChromeDriver also takes for a session that is attached to a browser."""
OF_THE_BROWSER = frozenset({"browserVersion", "platformName", "proxy", "webSocketUrl"})
"""Capabilities that are not given to an attached session: it has those of the session that has started
the browser, or cannot have them."""


def attach_options(config: SessionConfig, address: str) -> ChromiumOptions:
    """The options for a further WebDriver session in a browser that was started with ``config`` and
    listens at ``address``: those of the user's that belong to the session."""
    from selenium.webdriver.chrome.options import Options as ChromeOptions
    from selenium.webdriver.edge.options import Options as EdgeOptions

    of_user = user_options(config)
    options = EdgeOptions() if config.name == "edge" else ChromeOptions()
    for name, value in of_user.capabilities.items():
        if name not in OF_THE_BROWSER:
            options.set_capability(name, value)
    for name in LOG_OPTIONS:
        if name in of_user.experimental_options:
            options.add_experimental_option(name, of_user.experimental_options[name])
    options.debugger_address = address
    return options


def _our_arguments(config: SessionConfig, enabled: set[str]) -> Iterator[str]:
    """``enabled``: features that the user enables, which are not disabled by default."""
    ignored = config.ignore_default_arguments
    for argument in _defaults(config):
        name, _, value = argument.partition("=")
        if ignored is True or (ignored and {argument, name} & set(ignored)):
            continue
        if name != "--disable-features":
            yield argument
        elif left := [feature for feature in value.split(",") if feature not in enabled]:
            yield f"{name}={','.join(left)}"
    if config.headless and config.name != "chromium-headless-shell":
        yield "--headless=new"
    if config.debugging == "pipe":
        yield "--remote-debugging-pipe"
    if config.window_size:
        yield "--window-size={},{}".format(*config.window_size)
    if config.profile:
        yield f"--user-data-dir={config.profile}"


def _defaults(config: SessionConfig) -> Iterator[str]:
    yield from DEFAULT_ARGUMENTS
    if reason := why_no_sandbox():
        _warn_once(reason)
        yield "--no-sandbox"
    if sys.platform == "linux" and shared_memory_size() < SMALL_SHARED_MEMORY:
        yield "--disable-dev-shm-usage"


def enabled_by(arguments: list[str]) -> set[str]:
    """The features that these arguments enable.  For Chromium one that is disabled as well is off."""
    found = set()
    for argument in arguments:
        name, value = switch_of(argument)
        if name == "enable-features":  # each may have a trial or parameters: Feature<Trial, Feature:a/b
            found |= {re.split("[<:]", feature)[0].strip() for feature in value.split(",")}
    return found


def merge_features(arguments: list[str]) -> list[str]:
    """Merge all ``--disable-features`` into one argument, and all ``--enable-features`` into another.

    Chromium uses only the last of each, so the defaults would undo the user's, or the reverse.
    ChromeDriver takes them without dashes, too.
    """
    merged: dict[str, None] = {}
    features: dict[str, list[str]] = {"--disable-features": [], "--enable-features": []}
    for argument in arguments:
        name, _, value = argument.partition("=")
        name = name if name.startswith("-") else f"--{name}"
        if name in features:
            features[name] += [f for f in value.split(",") if f not in features[name]]
        merged[name if name in features else argument] = None
    return [f"{a}={','.join(features[a])}" if a in features else a for a in merged]


@functools.cache
def why_no_sandbox() -> str:
    """Why Chromium's sandbox cannot work here; "" where it can.

    Chromium refuses to start as root with its sandbox, and needs unprivileged user namespaces
    or a setuid helper otherwise (chromium/docs/linux/sandboxing.md).
    """
    if sys.platform != "linux":
        return ""
    if os.geteuid() == 0:
        return "Chromium runs without its sandbox: it refuses to use it as root"
    helpers = ("/usr/lib/chromium/chrome-sandbox", "/opt/google/chrome/chrome-sandbox")
    if any(os.path.exists(h) and os.stat(h).st_mode & 0o4000 for h in helpers):
        return ""
    if has_user_namespaces():
        return ""
    return "Chromium runs without its sandbox: this user can make no user namespaces"


@functools.cache
def has_user_namespaces() -> bool:
    """True if this user can make a user namespace.

    Found out by making one, since sysctls, seccomp and AppArmor can each forbid it.  Without unshare(1):
    True if the kernel has user namespaces.
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        return os.path.exists("/proc/self/ns/user")
    env = environment_without_credentials()
    done = subprocess.run([unshare, "-U", "true"], env=env, capture_output=True, check=False, timeout=10)
    return done.returncode == 0


@functools.cache
def _warn_once(reason: str) -> None:
    logger.warning(reason)


def shared_memory_size() -> int:
    """Bytes of ``/dev/shm``; 0 where it cannot be written."""
    try:
        facts = os.statvfs("/dev/shm")
    except OSError:
        return 0
    return facts.f_blocks * facts.f_frsize if os.access("/dev/shm", os.W_OK) else 0
