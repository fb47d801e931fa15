"""Checks of the single words of an identity: each function returns the checked value of one word.

All raise ConfigError for a value that no browser could use, or that a browser would ignore without an
error.  They return a value that was checked before unchanged.  No error text shows the value of a
header, which may be a password.
"""

from __future__ import annotations

import difflib
import functools
import math
import numbers
import re
import zoneinfo
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import ConfigError
from .locale_codes import LANGUAGES, REGIONS, SCRIPTS

LONGEST_USER_AGENT = 1000
"""Characters.  Many servers refuse requests whose headers have more than 8,000 in all."""
LONGEST_HEADERS = 8000
"""Characters of all names and values of ``extra_headers``, for the same reason."""

NOT_A_PLACE = ("Factory", "localtime", "posixrules")
"""Files of the time zone database that name no time zone."""

ITS_OWN = "the browser gives each request its own"
FORBIDDEN_HEADERS: Mapping[str, str] = {
    "accept": ITS_OWN,
    "accept-charset": ITS_OWN,
    "accept-encoding": ITS_OWN,
    "accept-language": "use locale=, which the pages' scripts see as well",
    "access-control-request-headers": ITS_OWN,
    "access-control-request-method": ITS_OWN,
    "connection": ITS_OWN,
    "content-encoding": ITS_OWN,
    "content-length": ITS_OWN,
    "content-type": ITS_OWN,
    "cookie": "use storage_state=, or driver.add_cookie()",
    "cookie2": "Chromium then sends no request at all",
    "date": ITS_OWN,
    "expect": ITS_OWN,
    "host": ITS_OWN,
    "http2-settings": ITS_OWN,
    "keep-alive": ITS_OWN,
    "origin": ITS_OWN,
    "proxy-authorization": "use proxy=, with user name and password",
    "referer": ITS_OWN,
    "set-cookie": "only a server's answer has it",
    "te": ITS_OWN,
    "trailer": ITS_OWN,
    "transfer-encoding": ITS_OWN,
    "upgrade": ITS_OWN,
    "user-agent": "use user_agent=, which the pages' scripts see as well",
    "via": ITS_OWN,
}
"""Headers, in lower case, that ``extra_headers`` cannot have, and why.  ``Proxy-*`` and ``Sec-*`` are
refused as well."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A ``token`` of RFC 9110, section 5.6.2."""
_LOCALE = re.compile(r"([A-Za-z]{2,3})(?:-([A-Za-z]{4}))?(?:-([A-Za-z]{2}|[0-9]{3}))?")
_TAG = re.compile(r"[A-Za-z0-9]+([-_][A-Za-z0-9]+)*")


class Geolocation(NamedTuple):
    """Latitude and longitude in degrees, and the accuracy in metres."""

    latitude: float
    longitude: float
    accuracy: float = 1.0


class Headers(tuple[tuple[str, str], ...]):
    """The names and values of ``extra_headers``.  Its repr and its str show only the names."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{name!r}: '…'" for name, _ in self) + "}"

    __str__ = __repr__


def check_locale(value: object) -> str:
    """Returns a language tag with its letters in the usual case: ``de-DE``, ``zh-Hant-TW``,
    ``es-419``."""
    if not isinstance(value, str):
        raise ConfigError(f"locale={value!r}: give a language tag such as 'de-DE'.")
    match = _LOCALE.fullmatch(value)
    if match is None:
        near = value.partition(".")[0].replace("_", "-")
        hint = f" Did you mean {near!r}?" if near != value and _LOCALE.fullmatch(near) else ""
        more = (
            " Extensions and variants are not supported." if _TAG.fullmatch(value) and not hint else ""
        )
        raise ConfigError(
            f"locale={value!r} is not a language tag such as 'de', 'de-DE' or 'zh-Hant-TW'.{hint}{more}"
        )
    language, script, region = match.groups()
    parts = [language.lower()]
    parts += [script.title()] if script else []
    parts += [region.upper()] if region else []
    tag = "-".join(parts)
    known = {parts[0]: LANGUAGES}
    known.update({parts[1]: SCRIPTS} if script else {})
    known.update({parts[-1]: REGIONS} if region else {})
    for part, codes in known.items():
        if part not in codes:
            kind = {id(LANGUAGES): "language", id(SCRIPTS): "script", id(REGIONS): "region"}[id(codes)]
            raise ConfigError(f"locale={value!r}: no browser knows the {kind} {part!r}.")
    return tag


@functools.cache
def _time_zones() -> frozenset[str]:
    """The IANA names that this machine knows; empty if it has no time zone database."""
    return frozenset(zoneinfo.available_timezones()) - {*NOT_A_PLACE}


def check_timezone(value: object) -> str:
    """Returns an IANA name.  Without a time zone database on this machine, the name is left to the
    browser, which refuses an unknown one."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_+/-]*", value):
        raise ConfigError(f"timezone={value!r}: give an IANA name such as 'Europe/Berlin'.")
    known = _time_zones()
    if value in known or (not known and value not in NOT_A_PLACE):
        return value
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(value.lower(), by_lower, n=1)
    by_city = [name for name in sorted(known) if name.lower().endswith(f"/{value.lower()}")]
    meant = by_city[0] if by_city else by_lower[near[0]] if near else ""
    hint = f" Did you mean {meant!r}?" if meant else " Give an IANA name such as 'Europe/Berlin'."
    raise ConfigError(f"timezone={value!r} is not known.{hint}")


def check_user_agent(value: object) -> str:
    """Returns one line of printable ASCII text, of LONGEST_USER_AGENT characters at the most."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"user_agent={value!r}: give a non-empty string.")
    if problem := _not_for_a_header(value):
        raise ConfigError(f"user_agent={value!r} {problem}.")
    if len(value) > LONGEST_USER_AGENT:
        raise ConfigError(
            f"user_agent= has {len(value)} characters: give it {LONGEST_USER_AGENT} at most."
        )
    return value


def _not_for_a_header(value: str) -> str:
    """Why a header cannot have this value; "" if it can (RFC 9110, section 5.5)."""
    for position, character in enumerate(value):
        if not " " <= character <= "~":
            kind = "a control character" if ord(character) < 32 or character == "\x7f" else "a character"
            other = "" if kind == "a control character" else " that is not ASCII"
            return f"holds {kind}{other} at position {position}, which no header can have"
    return "begins or ends with a space" if value != value.strip() else ""


def check_geolocation(value: object) -> Geolocation:
    """Takes (latitude, longitude) or (latitude, longitude, accuracy), or a dict with these names."""
    names = Geolocation._fields
    if isinstance(value, Mapping):
        unknown = [name for name in value if name not in names]
        if unknown or not {"latitude", "longitude"} <= value.keys():
            raise ConfigError(
                f"geolocation={dict(value)!r}: give latitude, longitude and, if you like, accuracy."
            )
        numbers_given = [value[name] for name in names if name in value]
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)) and len(value) in (2, 3):
        numbers_given = list(value)
    else:
        raise ConfigError(
            f"geolocation={value!r}: give (latitude, longitude), such as (52.5, 13.4), or (latitude, "
            "longitude, accuracy in metres)."
        )
    checked = [_number(name, one) for name, one in zip(names, numbers_given, strict=False)]
    place = Geolocation(*checked)
    for name, number, limit in (("latitude", place[0], 90), ("longitude", place[1], 180)):
        if abs(number) > limit:
            swapped = (
                " Is it (longitude, latitude)?" if name == "latitude" and abs(place[1]) <= 90 else ""
            )
            raise ConfigError(
                f"geolocation: the {name} {number:g} is not from -{limit} to {limit} degrees.{swapped}"
            )
    if place.accuracy < 0:
        raise ConfigError(f"geolocation: the accuracy {place.accuracy:g} is less than 0 metres.")
    return place


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ConfigError(f"geolocation: the {name} {value!r} is not a number.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ConfigError(f"geolocation: the {name} {number} is not a finite number.")
    return number


def check_headers(value: object) -> Headers:
    """Takes a dict of header names and values, all str."""
    if isinstance(value, Headers):
        return value
    if not isinstance(value, Mapping):
        kind = type(value).__name__
        raise ConfigError(f"extra_headers: give a dict of names and values, not {kind}.")
    if not value:
        raise ConfigError("extra_headers is empty: give a header, or leave it out.")
    headers = Headers(_checked_headers(value))
    names = [name.lower() for name, _ in headers]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"extra_headers holds {name!r} twice: upper and lower case are the same.")
    if (total := sum(len(name) + len(text) for name, text in headers)) > LONGEST_HEADERS:
        raise ConfigError(
            f"extra_headers has {total} characters: give it {LONGEST_HEADERS} at most, or servers "
            "refuse the requests."
        )
    return headers


def _checked_headers(given: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    for name, value in given.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise ConfigError(
                f"extra_headers: {name!r} is not the name of a header: letters, digits and hyphens."
            )
        why = FORBIDDEN_HEADERS.get(name.lower())
        if name.lower().startswith(("proxy-", "sec-")):
            why = why or ITS_OWN
        if why:
            raise ConfigError(f"extra_headers cannot have {name!r}: {why}.")
        if not isinstance(value, str):
            kind = type(value).__name__
            raise ConfigError(f"extra_headers: the value of {name!r} must be a string, not {kind}.")
        if not value:
            raise ConfigError(f"extra_headers: the value of {name!r} is empty. Leave it out.")
        if problem := _not_for_a_header(value):
            raise ConfigError(f"extra_headers: the value of {name!r} {problem}.")
        yield name, value


__all__ = [
    "FORBIDDEN_HEADERS",
    "Geolocation",
    "Headers",
    "check_geolocation",
    "check_headers",
    "check_locale",
    "check_timezone",
    "check_user_agent",
]
