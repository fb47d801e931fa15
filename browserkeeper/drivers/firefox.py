"""Firefox: how to launch a configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import GECKODRIVER, SessionConfig
from ..options.check import preferences_of_profile
from .bound_program import obstacle, place, write_wrapper
from .identity import check as check_identity
from .identity import launch_words
from .launch import Launch, check_ignored, copy_options, take_version
from .probe import Program
from .profile import profile_of
from .proxies import CONTEXT_PREFERENCES, open_route
from .resolve import Resolved

if TYPE_CHECKING:
    from selenium.webdriver.firefox.options import Options

    from ..proxy.relay import Route

DEFAULT_PREFERENCES: dict[str, tuple[bool | int | str, str]] = {
    "browser.startup.page": (0, "no home page"),
    "browser.newtabpage.enabled": (False, "an empty tab needs no process"),
    "browser.cache.disk.enable": (False, "the profile is temporary, and may lie in memory"),
    "toolkit.storage.synchronous": (0, "no fsync for databases of a temporary profile"),
    "browser.sessionstore.resume_from_crash": (False, "pages of a killed session are not restored"),
    "toolkit.telemetry.enabled": (False, "no reports to Mozilla"),
    "datareporting.policy.dataSubmissionEnabled": (False, "no reports to Mozilla"),
    "app.normandy.enabled": (False, "no studies, no requests for them"),
    "app.update.enabled": (False, "no downloads in the background"),
    "extensions.systemAddon.update.enabled": (False, "no downloads in the background"),
    "browser.search.update": (False, "no downloads in the background"),
    "network.captive-portal-service.enabled": (False, "no requests other than those of the pages"),
    "network.connectivity-service.enabled": (False, "no requests other than those of the pages"),
    "browser.safebrowsing.malware.enabled": (False, "no list downloads at every start"),
    "browser.safebrowsing.phishing.enabled": (False, "no list downloads at every start"),
    "services.settings.server": ("data:,", "no downloads in the background"),
    "dom.ipc.processPrelaunch.enabled": (False, "no spare content processes"),
}
"""Preferences that Firefox gets unless ``ignore_default_arguments`` names it (or is True), and why.
geckodriver adds its own."""

INSTALLATIONS = ("/usr/lib/firefox-esr", "/usr/lib/firefox", "/usr/lib64/firefox", "/opt/firefox")
"""Directories that may hold the ``application.ini`` of a Firefox whose launcher is in ``/usr/bin``."""


def check(config: SessionConfig, found: Resolved) -> None:
    """Raises ConfigError for options of another browser or of another version, and for a name in
    ``ignore_default_arguments`` that is none."""
    if config.options is not None:
        user_options(config)
        take_version(config, found.browser)
    check_identity(config)
    check_ignored(config, {*DEFAULT_PREFERENCES, *CONTEXT_PREFERENCES}, switches=False)


def prepare(config: SessionConfig, found: Resolved, tmpdir: str, directory: Path) -> Launch:
    """How to launch this configuration, which was checked, with the programs that were found.

    ``directory`` is where the wrapper script is kept.  Raises ProfileError for a profile that cannot be
    used.
    """
    if profile := profile_of(config):
        profile.check()
    binary, obstacle = bound_binary(found.browser, directory)
    route = open_route(config)
    return Launch(
        command=(
            *(found.driver.path, "--port", "0", "--websocket-port", "0"),
            *("--log", "debug" if config.log else "info"),
        ),
        env={"BROWSERKEEPER_FIREFOX_BINARY": found.browser.path, **launch_words(config).env},
        build_options=lambda: build_options(config, binary, tmpdir, route),
        port_pattern=rb"Listening on 127\.0\.0\.1:(\d+)\s",
        note=obstacle,
        profile=profile,
        route=route,
        isolation="isolate_driver=False" if config.isolate_driver is False else GECKODRIVER,
    )


def user_options(config: SessionConfig) -> Options:
    """A copy of the user's options, or new ones.  Raises ConfigError for options of another browser."""
    from selenium.webdriver.firefox.options import Options

    if config.options is None:
        return Options()
    options: Options = copy_options(config, Options, "FirefoxOptions", Options.KEY)
    return options


def build_options(
    config: SessionConfig, binary: str, tmpdir: str, route: Route | None = None
) -> Options:
    """The options of the session: the user's, over the defaults of this module.

    ``route``: the relay's route to the proxy; None without a proxy.
    """
    options = user_options(config)
    options.capabilities.pop("browserVersion", None)  # it was checked
    options.binary_location = binary
    of_user = {**options.preferences, **config.preferences, **launch_words(config, route).preferences}
    in_profile = preferences_of_profile(options)  # which the options' would overwrite
    defaults = {k: v for k, v in _defaults(config, tmpdir).items() if k not in in_profile}
    for name, value in {**defaults, **of_user}.items():
        options.set_preference(name, value)
    if config.headless:
        options.add_argument("-headless")
    if config.window_size:
        options.add_argument(f"--width={config.window_size[0]}")
        options.add_argument(f"--height={config.window_size[1]}")
    if config.profile:
        options.add_argument("-profile")
        options.add_argument(str(config.profile))
    for argument in config.arguments:
        options.add_argument(argument)
    return options


def _defaults(config: SessionConfig, tmpdir: str) -> dict[str, bool | int | str]:
    ignored = config.ignore_default_arguments
    downloads: dict[str, bool | int | str] = {
        "browser.download.folderList": 2,
        "browser.download.dir": str(config.download_dir or Path(tmpdir, "downloads")),
        "browser.download.useDownloadDir": True,
        "browser.download.alwaysOpenPanel": False,
    }
    if ignored is True:
        return downloads
    defaults = {
        name: value
        for name, (value, _) in DEFAULT_PREFERENCES.items()
        if not (ignored and name in ignored)
    }
    if not config.disposable:  # a profile of the user's must reach the disk
        defaults.pop("toolkit.storage.synchronous", None)
        defaults.pop("browser.cache.disk.enable", None)
    return {**downloads, **defaults}


def bound_binary(browser: Program, directory: Path) -> tuple[str, str]:
    """The program to start, so that Firefox is killed when its driver ends, and "".

    Where that is not possible: Firefox itself, and why it would outlive its driver.  The program is a
    script that is written to ``directory`` once for each version of Firefox.
    """
    if why := obstacle(directory, "Firefox"):
        return browser.path, why
    home = directory / f"firefox-{browser.version}"
    wrapper = home / "firefox-bound"
    write_wrapper(wrapper, "Firefox", "geckodriver", "BROWSERKEEPER_FIREFOX_BINARY")
    version = home / "application.ini"
    if not version.exists():
        place(version, lambda draft: _link_version(draft, browser))
    return str(wrapper), ""


def _link_version(draft: Path, browser: Program) -> None:
    """Link Firefox's ``application.ini`` to where the wrapper script is.

    geckodriver reads the version from that file beside the binary.  Where there is none it starts the
    binary once more, which costs 0.1 s of each session (mozversion).
    """
    for installation in (os.path.dirname(os.path.realpath(browser.path)), *INSTALLATIONS):
        ini = Path(installation, "application.ini")
        if ini.is_file() and f"\nVersion={browser.version}\n" in ini.read_text():
            draft.symlink_to(ini)
            return
