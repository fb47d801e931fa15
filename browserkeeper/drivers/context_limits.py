"""The options of a Chromium that have no effect in a new user context.

A pool with ``isolation="context"`` gives each lease a new context: an incognito profile of the same
process.  Command-line arguments apply to the whole process, and so to its contexts.  Of preferences
and extensions a context takes over only a part.  This module has the table of what was measured with
Chromium 156 (a plain Selenium driver against a lease, each with the same option), and judges a
configuration by it.  What the table does not have is judged as lost, since a new process surely has it.
``tests/pool/test_options_in_leases.py`` repeats the measurement.  ``firefox_limits.py`` has Firefox's
table.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..config import SessionConfig
from ..errors import LaunchError
from .firefox_limits import lost_arguments, lost_options

NO_EXTENSIONS = "a context runs no extensions"
NO_ALLOWANCE = "a context asks again, unless the preference blocks"
NO_SCRIPTS = "without JavaScript the clipboard cannot be emptied between two leases"
NOT_MEASURED = "it was never measured whether a context takes it over"
OTHER_LANGUAGES = "a context has the languages of --lang or of the system"
NO_EXCEPTIONS = "a context takes over only some of the settings for single sites"
NO_PROMPT = "a context saves its downloads without a question"
NO_GUEST = "a guest's browser can make no contexts"
FIRST_WINDOW = "it applies only to the first window, which no lease gets"

ALLOW, BLOCK, ASK = 1, 2, 3
"""Values of content settings."""
HARMLESS: Mapping[str, tuple[object, ...]] = {
    NO_ALLOWANCE: (BLOCK, ASK),
    NO_SCRIPTS: (ALLOW, True),
    NO_PROMPT: (False,),
}
"""Values with which a preference of the table is taken over all the same."""

PREFERENCES: Mapping[str, str] = {
    # Content settings.  Blocking is taken over, allowing is not where the setting is a permission.
    "profile.default_content_setting_values.geolocation": "",
    "profile.default_content_setting_values.javascript": NO_SCRIPTS,
    "profile.managed_default_content_settings.javascript": NO_SCRIPTS,
    "profile.default_content_setting_values.clipboard": NO_ALLOWANCE,
    "profile.default_content_setting_values.idle_detection": NO_ALLOWANCE,
    "profile.default_content_setting_values.local_fonts": NO_ALLOWANCE,
    "profile.default_content_setting_values.media_stream": NO_ALLOWANCE,
    "profile.default_content_setting_values.media_stream_camera": NO_ALLOWANCE,
    "profile.default_content_setting_values.media_stream_mic": NO_ALLOWANCE,
    "profile.default_content_setting_values.midi_sysex": NO_ALLOWANCE,
    "profile.default_content_setting_values.notifications": NO_ALLOWANCE,
    "profile.default_content_setting_values.window_placement": NO_ALLOWANCE,
    "profile.default_content_setting_values.automatic_downloads": "",
    "profile.default_content_setting_values.cookies": "",
    "profile.default_content_setting_values.images": "",
    "profile.default_content_setting_values.mixed_script": "",
    "profile.default_content_setting_values.plugins": "",
    "profile.default_content_setting_values.popups": "",
    "profile.default_content_setting_values.ppapi_broker": "",
    "profile.default_content_setting_values.protected_media_identifier": "",
    "profile.default_content_setting_values.sensors": "",
    "profile.default_content_setting_values.sound": "",
    "profile.default_content_setting_values.stylesheets": "",
    "profile.default_content_settings.*": "",
    "profile.managed_default_content_settings.*": "",
    "profile.content_settings.*": NO_EXCEPTIONS,
    # Languages.
    "intl.accept_languages": OTHER_LANGUAGES,
    "intl.selected_languages": OTHER_LANGUAGES,
    # Pages.
    "browser.theme.color_scheme*": "",
    "enable_do_not_track": "",
    "https_only_mode_enabled": "",
    "partition.default_zoom_level": "",
    "plugins.*": "",
    "profile.block_third_party_cookies": "",
    "profile.cookie_controls_mode": "",
    "webkit.webprefs.javascript_enabled": NO_SCRIPTS,
    "webkit.webprefs.default_fixed_font_size": "",
    "webkit.webprefs.default_font_size": "",
    "webkit.webprefs.fonts.*": "",
    "webkit.webprefs.loads_images_automatically": "",
    "webrtc.*": "",
    # Downloads.  ``download.default_directory`` is given to each context.
    "download.prompt_for_download": NO_PROMPT,
    "download.*": "",
    "download_restrictions": "the downloads of a context are always allowed",
    "savefile.*": "",
    # The proxy.
    "proxy": "",
    # The first window.
    "browser.window_placement": "",
    "homepage": "",
    "homepage_is_newtabpage": "",
    "session.restore_on_startup": FIRST_WINDOW,
    "session.startup_urls": FIRST_WINDOW,
    # No page sees these: they are about saving, questions and bars, of which a context has none.
    "alternate_error_pages.enabled": "",
    "autofill.*": "",
    "bookmark_bar.*": "",
    "browser.enable_spellchecking": "",
    "browser.show_home_button": "",
    "credentials_enable_autosignin": "",
    "credentials_enable_service": "",
    "devtools.*": "",
    "distribution.*": "",
    "dns_prefetching.enabled": "",
    "net.network_prediction_options": "",
    "profile.exit_type": "",
    "profile.exited_cleanly": "",
    "profile.name": "",
    "profile.password_manager_allow_show_passwords": "",
    "profile.password_manager_enabled": "",
    "profile.password_manager_leak_detection": "",
    "safebrowsing.*": "",
    "safebrowsing_for_trusted_sources_enabled": "",
    "search.suggest_enabled": "",
    "signin.*": "",
    "spellcheck.*": "",
    "translate*": "",
}
"""Preferences, as patterns of ``fnmatch``, and why a context does not take them over; "" if it does.
The first pattern that fits counts."""

ARGUMENTS: Mapping[str, str] = {
    "app": FIRST_WINDOW,
    "bwsi": NO_GUEST,
    "disable-extensions-except": NO_EXTENSIONS,
    "enable-unsafe-extension-debugging": NO_EXTENSIONS,
    "guest": NO_GUEST,
    "load-extension": NO_EXTENSIONS,
    "restore-last-session": FIRST_WINDOW,
}
"""Arguments without their dashes, and why they are lost.  All others apply to the whole process."""


class NoContextsError(LaunchError):
    """The browser is too old: it has no user contexts that a pool can use."""


@dataclasses.dataclass(frozen=True)
class Loss:
    """An option that a lease with ``isolation="context"`` would not have."""

    option: str
    """As the user knows it, such as ``argument '--load-extension=/x'``."""
    why: str

    @property
    def is_measured(self) -> bool:
        """False for a preference that is not in the table: it may be taken over."""
        return self.why != NOT_MEASURED

    def __str__(self) -> str:
        return f"{self.option} ({self.why})"


def losses(config: SessionConfig) -> list[Loss]:
    """Returns the options of this configuration that would have no effect in a new context."""
    if config.engine == "firefox":
        lost = [
            *lost_options(config.options, config.preferences),
            *lost_arguments(_all_arguments(config)),
        ]
        return [Loss(option, why) for option, why in lost]
    return [*_extensions(config.options), *_arguments(config), *_preferences(config)]


def download_dir_of(config: SessionConfig) -> Path | None:
    """The user's own directory for downloads, by argument or by preference; None without one."""
    named = preferences_of(config).get("download.default_directory")
    return Path(named) if isinstance(named, str) and named else config.download_dir


def preferences_of(config: SessionConfig) -> dict[str, Any]:
    """The preferences that the user has set, with dotted names; ``preferences=`` has the last word.

    A dict whose name is in the table is a value; any other is a group: ChromeDriver takes
    ``{"profile": {"name": "x"}}`` and ``{"profile.name": "x"}``.
    """
    of_options = _prefs(config.options)
    return {**dict(_flatten(of_options)), **dict(_flatten(config.preferences))}


def grants_geolocation(config: SessionConfig) -> bool:
    """True if a plain driver would let every site ask for the place of the device.

    ChromeDriver allows that in each new profile (``profile.default_content_setting_values``), unless
    the user sets another value, or a dict of that name, which replaces ChromeDriver's.  An incognito
    window does not take it over.
    """
    if "incognito" in map(_name, _all_arguments(config)):
        return False
    prefix = "profile.default_content_setting_values"
    set_by_user = preferences_of(config)
    if f"{prefix}.geolocation" in set_by_user:
        return bool(set_by_user[f"{prefix}.geolocation"] == ALLOW)
    both = (_prefs(config.options), config.preferences)
    return not any(prefix in given or isinstance(given.get("profile"), Mapping) for given in both)


def _prefs(options: Any) -> Mapping[str, Any]:
    prefs = getattr(options, "experimental_options", {}).get("prefs")
    return prefs if isinstance(prefs, Mapping) else {}


def _flatten(given: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in given.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and _entry(name) is None:
            yield from _flatten(value, f"{name}.")
        else:
            yield name, value


def _entry(name: str) -> str | None:
    """The table's word on a preference; None if the table does not have it."""
    fitting = (why for pattern, why in PREFERENCES.items() if fnmatch.fnmatchcase(name, pattern))
    return next(fitting, None)


def _preferences(config: SessionConfig) -> Iterator[Loss]:
    for name, value in preferences_of(config).items():
        why = _entry(name)
        if why is None:
            why = NOT_MEASURED
        elif value in HARMLESS.get(why, ()):
            why = ""
        if why:
            yield Loss(f"preference {name!r}: {value!r}", why)


def _extensions(options: Any) -> Iterator[Loss]:
    if options is None:
        return
    from ..selenium_internals.private import extension_files, has_encoded_extensions

    for file in extension_files(options):
        yield Loss(f"extension {str(file)!r}", NO_EXTENSIONS)
    if has_encoded_extensions(options):
        yield Loss("an extension of add_encoded_extension()", NO_EXTENSIONS)


def _arguments(config: SessionConfig) -> Iterator[Loss]:
    for argument in _all_arguments(config):
        if why := ARGUMENTS.get(_name(argument), ""):
            yield Loss(f"argument {argument!r}", why)


def _all_arguments(config: SessionConfig) -> tuple[str, ...]:
    return (*getattr(config.options, "arguments", ()), *config.arguments)


def _name(argument: str) -> str:
    """ChromeDriver accepts arguments without their dashes."""
    return argument.lstrip("-").partition("=")[0]
