"""Conflicts of an identity with other arguments: two arguments for the same thing, and words that cannot
work with an argument."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import NamedTuple

from ..errors import ConfigError
from .check import Arguments, everything_said
from .identity import Identity
from .policy import Place
from .proxy import Proxy


class Other(NamedTuple):
    """Another argument, option or variable that sets the same thing as a word of an identity.  ``names``
    are patterns of ``fnmatch``."""

    place: Place
    names: tuple[str, ...]


OTHERS: Mapping[str, tuple[Other, ...]] = {
    "proxy": (
        Other("argument", ("proxy-*", "no-proxy-server", "*webrtc-ip-handling-policy")),
        Other("capability", ("proxy",)),
        Other("preference", ("proxy", "proxy.*", "network.proxy.*", "webrtc.*")),
        Other("preference", ("media.peerconnection.ice.proxy_only*",)),
    ),
    "locale": (
        Other("argument", ("lang", "accept-lang")),
        Other("preference", ("intl.accept_languages", "intl.selected_languages")),
        Other("preference", ("intl.locale.requested", "intl.regional_prefs.use_os_locales")),
        Other("preference", ("intl.locale.privacy.web_exposed", "javascript.use_us_english_locale")),
        Other("env= variable", ("LANGUAGE", "LC_ALL")),
    ),
    "timezone": (
        Other("argument", ("time-zone-for-testing",)),
        Other("capability", ("timezone", "timeZone", "browserless:timezone")),
        Other("env= variable", ("TZ",)),
    ),
    "user_agent": (
        Other("argument", ("user-agent", "headless-user-agent", "use-mobile-user-agent")),
        Other("preference", ("general.useragent.override*",)),
        Other("experimental option", ("mobileEmulation",)),
    ),
    "geolocation": (
        Other(
            "preference", ("geo.provider.*", "geo.enabled", "geo.wifi.uri", "permissions.default.geo")
        ),
        Other("preference", ("profile.default_content_setting_values.geolocation",)),
        Other("preference", ("profile.managed_default_content_settings.geolocation",)),
    ),
}
"""For each word the other ways to set it, of both engines."""

ON_A_GRID: Mapping[str, str] = {
    "timezone": "the zone is an environment variable of the Grid's browser",
    "geolocation": "it needs a BiDi connection of its own, which not every Grid passes on",
    "extra_headers": "they need a BiDi connection of their own, which not every Grid passes on",
    "storage_state": "it needs a BiDi connection of its own, which not every Grid passes on",
    "block": "it needs a BiDi connection of its own, which not every Grid passes on",
}
"""Words that cannot be used with a Grid, and why."""

WORKS_ON_A_GRID = "On a Grid these work: user_agent=, locale=, and proxy= without a user"


def check_identity(config: Arguments, identity: Identity) -> None:
    """Raises ConfigError for a word that cannot work with the other arguments of ``browser()``.

    ``identity`` is the one of the configuration, or of a lease of a pool with this configuration.
    """
    words = identity.words
    if words and config.debugger_address:
        name = next(iter(words))
        raise ConfigError(
            f"{name}= cannot be used with options.debugger_address: the session is attached to the "
            f"browser at {config.debugger_address}, which was started without it. Leave it out."
        )
    if identity.proxy is not None:
        _check_proxy(config, identity.proxy)
    if config.remote is not None:
        for name in words:
            if name in ON_A_GRID:
                raise ConfigError(
                    f"{name}= cannot be used with remote=: {ON_A_GRID[name]}. {WORKS_ON_A_GRID}."
                )
    for said in everything_said(config) if words else ():
        for name in words:
            if any(_is_said(other, said.place, said.name) for other in OTHERS.get(name, ())):
                text = said.name if name == "proxy" else said.text  # which may have a password
                raise ConfigError(
                    f"{name}= and the {said.place} {text!r} ({said.source}) say the same thing. "
                    "Give only one of the two."
                )


def _check_proxy(config: Arguments, proxy: Proxy) -> None:
    if config.remote is None:
        if config.engine == "firefox" and config.profile is not None:
            raise ConfigError(
                "proxy= cannot be used with profile= on Firefox: it would write the address of this "
                "session's proxy into the profile, and use it ever after. Leave profile= out, or use "
                "Chromium."
            )
        return
    why = ""
    if proxy.username:
        why = (
            "with a user: the password is known to a relay on this machine, which the Grid cannot reach"
        )
    elif proxy.bypass:
        why = "with bypass=: a relay on this machine reads that list, and the Grid cannot reach it"
    elif config.engine == "firefox" and proxy.scheme == "https":
        why = "with https:// on Firefox, which has no preference for it"
    if why:
        raise ConfigError(f"proxy= cannot be used with remote= {why}. {WORKS_ON_A_GRID}.")


def _is_said(other: Other, place: str, name: str) -> bool:
    if other.place != place:
        return False
    return any(fnmatch.fnmatchcase(name.casefold(), pattern.casefold()) for pattern in other.names)


__all__ = ["ON_A_GRID", "WORKS_ON_A_GRID", "check_identity"]
