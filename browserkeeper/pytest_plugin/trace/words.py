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
from urllib.parse import urlsplit

from ...session.command_targets import mask_tokens, selector

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
_SECRET = re.compile(
    r"auth|code|cred|key|pass|pwd|secret|session|sid|sig|state|token|jwt|otp|pin", re.IGNORECASE
)
"""In the names of parameters of addresses whose values are not shown."""


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
    """An address without user name and password, and without values that look secret: those of query
    parameters with such a name, and whatever looks like a random number or a key."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "?"
    if parts.scheme in ("data", "javascript", "blob"):
        return f"{parts.scheme}:…"
    place = parts.netloc.rpartition("@")[2]
    text = f"{parts.scheme}://{place}" if parts.netloc else f"{parts.scheme}:" * bool(parts.scheme)
    text += mask_tokens(parts.path)
    text += f"?{_pairs(parts.query)}" if parts.query else ""
    text += f"#{_pairs(parts.fragment)}" if parts.fragment else ""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _pairs(query: str) -> str:
    shown = []
    for pair in query.split("&"):
        name, sign, value = pair.partition("=")
        secret = _SECRET.search(name) or mask_tokens(value) != value
        shown.append(f"{mask_tokens(name)}{sign}{'…' if sign and secret else value}")
    return "&".join(shown)


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
