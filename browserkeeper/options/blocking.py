"""Requests that are not sent: what users give as ``block=``, as a checked value."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence

from ..errors import ConfigError

RESOURCE_TYPES: Mapping[str, frozenset[str]] = {
    "image": frozenset({"image"}),
    "media": frozenset({"audio", "video", "track"}),
    "font": frozenset({"font"}),
    "stylesheet": frozenset({"style"}),
    "script": frozenset(
        {"script", "worker", "sharedworker", "serviceworker", "audioworklet", "paintworklet"}
    ),
}
"""The resource types, each with its request destinations (fetch.spec.whatwg.org, "destination")."""

OTHER_NAMES: Mapping[str, str] = {
    "images": "image",
    "img": "image",
    "picture": "image",
    "pictures": "image",
    "audio": "media",
    "video": "media",
    "videos": "media",
    "fonts": "font",
    "webfont": "font",
    "css": "stylesheet",
    "style": "stylesheet",
    "styles": "stylesheet",
    "stylesheets": "stylesheet",
    "js": "script",
    "javascript": "script",
    "scripts": "script",
}

EVERYTHING = re.compile(r"(\*|https?)(://)?[*/?:]*|\*\.\*")
SCHEME = re.compile(r"([a-z*][a-z0-9+.*-]*)://", re.IGNORECASE)
PLACE = re.compile(r"([a-zA-Z*]+)://((?:\*\.)?[^/?*]*)([/?*].*)?")
"""Scheme, host with port, and the rest of a pattern.  (What follows another ``*`` may be a path.)"""
DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@dataclasses.dataclass(frozen=True)
class Blocking:
    """Which requests are not sent: those of a type, and those whose address matches a pattern.

    A pattern must match the whole address, without the part after ``#``.  ``*`` matches any characters,
    and every other character matches itself.  A pattern without ``?`` matches addresses with any query.
    """

    types: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()

    @classmethod
    def parse(cls, given: object) -> Blocking:
        """Check what a user gave.  Raises ConfigError, which names the entry."""
        if isinstance(given, Blocking):
            return given
        if isinstance(given, str | bytes):
            raise ConfigError(f"block={given!r} is one entry. Give a list: block=[{given!r}].")
        if not isinstance(given, Sequence | set | frozenset) or isinstance(
            given, bytearray | memoryview
        ):
            raise ConfigError(
                f"block={given!r} is no list of URL patterns and resource types. "
                "Give a list such as ['image', '*://ads.example.com/*']."
            )
        types, patterns = [], []
        for entry in given:
            if _check(entry):
                types.append(entry)
            else:
                patterns.append(_as_browsers_write(entry))
        return cls(tuple(dict.fromkeys(types)), tuple(dict.fromkeys(patterns)))

    def __bool__(self) -> bool:
        return bool(self.types or self.patterns)

    def blocks(self, url: str, destination: str) -> bool:
        """True if a request for this address, and with this destination, is not sent."""
        if any(destination in RESOURCE_TYPES[name] for name in self.types):
            return True
        return self._expression is not None and self._expression.fullmatch(url) is not None

    @functools.cached_property
    def _expression(self) -> re.Pattern[str] | None:
        parts = [
            ".*".join(map(re.escape, pattern.split("*"))) + ("" if "?" in pattern else r"(\?.*)?")
            for pattern in self.patterns
        ]
        return re.compile("|".join(f"(?:{part})" for part in parts), re.DOTALL) if parts else None


def _check(entry: object) -> bool:
    """True for a resource type, False for a pattern.  Raises ConfigError for what is neither."""
    types = ", ".join(RESOURCE_TYPES)
    if not isinstance(entry, str):
        raise ConfigError(f"block= has {entry!r}, which is no text: give URL patterns and types as str.")
    if entry in RESOURCE_TYPES:
        return True
    if not re.search(r"[*?/:.]", entry):
        meant = OTHER_NAMES.get(entry.strip().lower(), entry.strip().lower())
        hint = f" Write {meant!r}." if meant in RESOURCE_TYPES else ""
        raise ConfigError(
            f"block= has {entry!r}, which is no resource type ({types}) and no URL pattern "
            f"('*.png', '*://ads.example.com/*').{hint}"
        )
    if any(not character.isprintable() or character in " \\#" for character in entry):
        raise ConfigError(
            f"block= has {entry!r}: an address has no blanks, control characters, '\\' and '#' "
            "where requests are blocked. Write a blank as %20."
        )
    if not entry.isascii():
        raise ConfigError(
            f"block= has {entry!r}: browsers send addresses in ASCII. Write other characters as "
            "%C3%BC, and in a host's name as xn--…."
        )
    if EVERYTHING.fullmatch(entry):
        raise ConfigError(f"block= has {entry!r}, which would block every page. Name a host or a path.")
    scheme = SCHEME.match(entry)
    if scheme is None and not entry.startswith("*"):
        whole = entry if re.search("[/?*]", entry) else f"{entry}/*"
        better = f"*{entry}" if entry.startswith("/") else f"*://{whole}"
        raise ConfigError(
            f"block= has {entry!r}, which matches no address: a pattern is for the whole address. "
            f"Write {better!r}, or begin with a scheme or '*'."
        )
    if scheme and "*" not in scheme[1] and scheme[1].lower() not in ("http", "https"):
        raise ConfigError(
            f"block= has {entry!r}: only requests of http and https can be blocked, no websockets, "
            "data: or blob:."
        )
    return False


def _as_browsers_write(pattern: str) -> str:
    """The pattern with scheme and host in lower case.

    Raises ConfigError for a pattern that matches no address, since browsers write addresses with a path,
    without a user, and without the default port of the scheme.
    """
    match = PLACE.fullmatch(pattern)
    if match is None:
        return pattern
    scheme, host, rest = match[1].lower(), match[2].lower(), match[3] or ""
    port = DEFAULT_PORTS.get(scheme, ":")
    why, better = "", ""
    if "@" in host:
        why, better = "has a user", f"{scheme}://{host.rpartition('@')[2]}{rest or '/*'}"
    elif host.endswith(port) and not rest.startswith("*"):
        why, better = "has the port of its scheme", f"{scheme}://{host.removesuffix(port)}{rest or '/*'}"
    elif host and (not rest or rest.startswith("?")):
        why, better = "has no path", f"{scheme}://{host}/{rest or '*'}"
    if why:
        raise ConfigError(
            f"block= has {_without_user(pattern)!r}, which matches no address: it {why}. "
            f"Write {better!r}."
        )
    return f"{scheme}://{host}{rest}"


def _without_user(pattern: str) -> str:
    """The pattern for messages, without a user and a password."""
    return re.sub("//[^/]*@", "//…@", pattern)


__all__ = ["RESOURCE_TYPES", "Blocking"]
