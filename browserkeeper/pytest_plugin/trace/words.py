"""What a trace shows of a command and of an address.

A trace is read by more people than the test's variables are.  So these never get into it: what is typed
into fields and dialogs, scripts' literals and arguments, values of cookies, uploaded files, DevTools
parameters, passwords in addresses.  :data:`PLAIN` is the whole list of parameters that are shown as they
are; of every other one only its kind is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...session import command_targets
from ...session.command_targets import CUT, mask_tokens, selector

NOT_SHOWN = "(not shown)"
LONGEST = 300
"""Characters of one shown value."""

PLAIN = frozenset(
    (
        *("using", "handle", "type", "orientation", "cmd", "method", "name", "propertyName"),
        *("x", "y", "width", "height"),
    )
)
"""Parameters whose texts are shown: they are words of the protocol, handles, and names of attributes."""
UNSAID = ("id", "sessionId")
"""Parameters that the target stands for, or that say nothing."""
SELECTORS = (
    *("findElement", "findElements", "findChildElement", "findChildElements"),
    *("findElementFromShadowRoot", "findElementsFromShadowRoot"),
)
SCRIPTS = ("w3cExecuteScript", "w3cExecuteScriptAsync", "executeScript", "executeAsyncScript")
ATOM = re.compile(r"/\* (findElements|getAttribute|isDisplayed|submitForm) \*/")
"""The head of Selenium's own scripts, such as that of ``is_displayed``."""
READERS = ("findElements", "getAttribute", "isDisplayed")
"""Names of Selenium's own scripts, which change nothing."""
_QUOTE = re.compile("[\"'`]")
_NUMBER = re.compile(r"\b\d{6,}\b")
_SHOWN_PARAMETERS = frozenset(
    (
        *("page", "per_page", "limit", "offset", "size", "n", "count", "seconds"),
        *("sort", "order", "dir", "lang", "locale", "theme", "tab", "view", "layout"),
        *("format", "type", "category"),
    )
)
"""Parameters of a query whose values are shown.  A value of any other name may be a secret."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_NOWHERE = "http://relative"
_PLAIN_NAME = re.compile(r"[\w.\[\]-]{1,40}", re.ASCII)
_PLAIN_VALUE = re.compile(r"[\w.,+-]{0,40}", re.ASCII)
_PLAIN_FRAGMENT = re.compile(r"/[a-z/-]{0,60}", re.ASCII)
"""What may be shown of a query and of a fragment.  In anything else, percent-encoding and ";" above all,
a second reader could find a name or a value that this one has not seen."""


def of_script(text: str) -> str:
    """What is shown of a script: the name of one of Selenium's own; of others the text before the first
    quotation mark, since what follows may be a literal."""
    if found := ATOM.match(text):
        return found[1]
    head = _QUOTE.split(text, maxsplit=1)[0]
    shown = _NUMBER.sub("…", mask_tokens(" ".join(head[:LONGEST].split())))
    return shown if len(shown) and len(head) == len(text) <= LONGEST else f"{shown}…"


def parameters(name: str, params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and texts of the parameters.  Calls no method of a parameter that a program has made."""
    if name in SELECTORS:
        return []
    given = [(key, value) for key, value in params.items() if type(key) is str and key not in UNSAID]
    return [(key, _shown(key, value)) for key, value in given]


def target(name: str, params: Mapping[str, Any], elements: Mapping[str, str]) -> str:
    """What the command is about, in one line; ``elements``: selectors by the elements' ids."""
    element = elements.get(text_of(params.get("id")), "")
    if name in SELECTORS:
        found = selector(text_of(params.get("using")), text_of(params.get("value")))
        text = f"{found} in {element}" if element else found
    elif name in SCRIPTS:
        text = of_script(text_of(params.get("script")))
    elif name == "get":
        text = address(text_of(params.get("url")))
    elif name == "addCookie":
        cookie = params.get("cookie")
        text = text_of(cookie.get("name")) if type(cookie) is dict else ""
    elif name in ("getElementAttribute", "getElementProperty", "getElementValueOfCssProperty"):
        text = (
            f"{text_of(params.get('name') or params.get('propertyName'))} of {element or 'an element'}"
        )
    else:
        named = params.get("cmd") or params.get("method") or params.get("handle") or params.get("name")
        text = element or text_of(named)
    return text[:LONGEST]


def text_of(value: object) -> str:
    """A value that is a text; "" for any other."""
    return value if type(value) is str else ""


def _shown(key: str, value: object) -> str:
    if value is None or type(value) in (bool, int, float):
        return "null" if value is None else str(value).lower() if value in (True, False) else str(value)
    if type(value) is str and key == "url":
        return address(value)
    if type(value) is str and key == "script":
        return of_script(value)
    if type(value) is str and key in PLAIN:
        return value[:LONGEST]
    return NOT_SHOWN


def address(url: str) -> str:
    """An address as in the log (:func:`browserkeeper.session.command_targets.address`), and the values
    of the parameters in :data:`_SHOWN_PARAMETERS`, if they are short words or numbers."""
    url = re.sub(r"[\t\r\n]", "", url.strip())
    if url and not _SCHEME.match(url):  # relative: with the path of a host that is then taken away
        shown = command_targets.address(f"{_NOWHERE}/{url.lstrip('/')}").removeprefix(_NOWHERE)
        shown = shown if url.startswith("/") else shown.removeprefix("/")
    else:
        shown = command_targets.address(url) if url else ""
    rest, _, fragment = url.partition("#")
    if shown.endswith(f"#{CUT}") and _PLAIN_FRAGMENT.fullmatch(fragment) and _is_plain(fragment):
        shown = f"{shown.removesuffix(CUT)}{fragment}"
    place, question, after = shown.partition("?")
    if question:
        shown = f"{place}?{_pairs(rest.partition('?')[2])}{after.removeprefix(CUT)}"
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}{CUT}"


def _pairs(query: str) -> str:
    shown = []
    for pair in query.split("&"):
        name, sign, value = pair.partition("=")
        plain = bool(sign and _PLAIN_NAME.fullmatch(name)) and _is_plain(name)
        open_ = name in _SHOWN_PARAMETERS and _PLAIN_VALUE.fullmatch(value) and _is_plain(value)
        shown.append(f"{name if plain else CUT}{sign}{value if open_ else CUT * bool(value)}")
    return "&".join(shown)


def _is_plain(text: str) -> bool:
    return mask_tokens(text) == text


__all__ = [
    "NOT_SHOWN",
    "READERS",
    "SCRIPTS",
    "SELECTORS",
    "address",
    "of_script",
    "parameters",
    "target",
    "text_of",
]
