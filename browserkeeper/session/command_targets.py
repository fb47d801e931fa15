"""What may be shown of a WebDriver command: its name, and what it was about, without values.

Errors, reports, logs and the history are read by more people than a program's variables are.  So none of
them may hold what a program types, stores or asks for: texts, cookies, scripts, tokens in addresses.
:data:`SHOWN` is the whole list of parameters that are looked at.  Everything else is left out, and a
command that is not in the table has only its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

SHOWN: Mapping[str, tuple[str, ...]] = {
    "get": ("url",),
    "findElement": ("using", "value"),
    "findElements": ("using", "value"),
    "findChildElement": ("using", "value"),
    "findChildElements": ("using", "value"),
    "findElementFromShadowRoot": ("using", "value"),
    "findElementsFromShadowRoot": ("using", "value"),
    "executeCdpCommand": ("cmd",),
    "bidi": ("method",),
    "devtools": ("method",),
}
"""The parameters of which a part is shown, by the name of the command."""

LONGEST_TARGET = 120
"""Characters of a target; a longer one loses its middle."""
LONGEST_NAME = 60
CUT = "..."
"""Stands where something is left out."""

_NAME = re.compile(r"[A-Za-z_][\w.]*", re.ASCII)
_METHOD = re.compile(r"(?:[a-z]{1,20}:)?[A-Za-z]{1,40}\.[A-Za-z]{1,60}", re.ASCII)
"""A method of the DevTools protocol, such as ``Page.navigate``, or of BiDi."""
_RUN = re.compile(r"[A-Za-z0-9_-]{16,}", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def shown_name(name: str) -> str:
    """The name of a command; "?" where it cannot be one, since it may be anything that a program has
    passed to ``driver.execute``."""
    return name if len(name) <= LONGEST_NAME and _NAME.fullmatch(name) else "?"


def target_of(name: str, given: tuple[str | None, ...]) -> str:
    """The target of a command, in ASCII; ``given`` are its parameters in the order of :data:`SHOWN`,
    None for one that is missing or no text."""
    first = given[0] if given else None
    if first is None:
        return ""
    if name == "get":
        text = address(first)
    elif name in ("executeCdpCommand", "bidi", "devtools"):
        text = first if _METHOD.fullmatch(first) else ""
    else:
        text = selector(first, given[1] or "")
    return shorten(text)


def shorten(text: str) -> str:
    """ASCII without control characters, at most :data:`LONGEST_TARGET` of them."""
    text = text.encode("ascii", "backslashreplace").decode("ascii")
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    if len(text) <= LONGEST_TARGET:
        return text
    end = LONGEST_TARGET // 4
    return f"{text[: LONGEST_TARGET - end - len(CUT)]}{CUT}{text[-end:]}"


def mask_tokens(text: str) -> str:
    """Leaves out what looks like a random number or a key: UUIDs, 16 letters and digits in one, or as
    many of upper and lower case with digits and dashes, and 13 digits with dashes."""
    return _RUN.sub(lambda found: CUT if _is_token(found[0]) else found[0], _UUID.sub(CUT, text))


def _is_token(text: str) -> bool:
    parts = re.split("[_-]+", text)
    for part in (part for part in parts if len(part) >= 16):
        if not part.isalpha() or len(part) >= 40:
            return True
    digits = sum(map(str.isdigit, text))
    if digits >= 13 and not any(map(str.isalpha, text)):  # of a payment card, in groups
        return True
    return digits > 0 and any(map(str.islower, text)) and any(map(str.isupper, text))


# ------------------------------------------------------------------------------------- addresses

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30}):", re.ASCII)
_AUTHORITY = re.compile(r"(?P<host>[^\s:@\[\]]*|\[[0-9A-Fa-f:.]+\])(?P<port>:[0-9]{0,5})?")
_SEPARATOR = re.compile("[;=&]|%(?:3[BDF]|2[36])", re.IGNORECASE)
"""Stands before or in a parameter: ``; = &``, and encoded: ``; = ? # &``."""
_WITH_HOST = {"http", "https", "ws", "wss", "ftp", "file", "chrome", "edge", "resource"}
_WITH_HOST |= {"chrome-extension", "moz-extension"}


def address(url: str) -> str:
    """Scheme, host, port and path of an address.

    Left out: user name and password, the whole query and fragment, parameters of a path
    (``;jsessionid=1``, ``key=value``, also where they are percent-encoded), another address in the path,
    and parts of a path that are an e-mail address or look like a token.  Of other schemes (``data:``,
    ``javascript:``), and of an address that could be read in two ways, only the scheme is shown.
    """
    url = re.sub(r"[\t\r\n]", "", url.strip("".join(map(chr, range(33)))))  # as browsers do
    found = _SCHEME.match(url)
    if found is None:
        return "?"
    scheme, rest = found[1].lower(), url[found.end() :]
    if scheme == "about" and re.fullmatch("[a-z]{1,20}", rest):
        return f"about:{rest}"
    if scheme not in _WITH_HOST or not rest.startswith("//"):
        return f"{scheme}:{CUT}"
    authority, path, has_query, has_fragment = _split(rest[2:].replace("\\", "/"))
    userinfo, _, place = authority.rpartition("@")
    parsed = _AUTHORITY.fullmatch(place)
    segments = path.split("/")
    first = segments[1] if path else rest[2 + len(authority) :]
    # http://me:12/34@host or http://me:12#34@host: a password?
    ambiguous = not userinfo and ":" in place and "@" in first[1:]
    # A host is followed by something, unless it is cut off in the middle of a password.
    if parsed is None or ambiguous or (not place and scheme != "file") or len(place) > 253:
        return f"{scheme}:{CUT}"
    inner = next((i for i, one in enumerate(segments) if _SCHEME.fullmatch(one)), len(segments))
    shown = [*map(_segment, segments[:inner]), *([CUT] if inner < len(segments) else [])]
    text = f"{scheme}://{place}{'/'.join(shown)}"
    return text + (f"?{CUT}" if has_query else "") + (f"#{CUT}" if has_fragment else "")


def _split(rest: str) -> tuple[str, str, bool, bool]:
    """Authority, path, and whether there are a query and a fragment, of what follows ``scheme://``."""
    rest, hash_sign, _ = rest.partition("#")
    rest, question, _ = rest.partition("?")
    authority, slash, path = rest.partition("/")
    return authority, slash + path, bool(question), bool(hash_sign)


def _segment(segment: str) -> str:
    """A part of a path without its parameters."""
    found = _SEPARATOR.search(segment)
    head, sign = (segment[: found.start()], found[0]) if found else (segment, "")
    if "@" in head[1:] or "%40" in head or mask_tokens(head) != head:
        head = CUT
    return head + (f"{sign}{CUT}" if sign else "")


# ------------------------------------------------------------------------------------- selectors

_IDENTIFIER = re.compile(r"-{0,2}[A-Za-z_][\w.:-]{0,50}", re.ASCII)
_KEPT_ATTRIBUTES = re.compile(r"id|name|class|type|role|for|data-test(?:id|-id)?|data-cy|data-qa")
"""Attributes that name an element, and do not hold what a user enters."""
_CSS = re.compile(
    r"""\[\s*(?P<attribute>[\w|*-]+)\s*[~|^$*]?=\s*
          (?P<value>"(?:\\.|[^"\\])*(?:"|\Z)|'(?:\\.|[^'\\])*(?:'|\Z)|(?:\\.|[^\]"'\\])*)
        |(?P<literal>"(?:\\.|[^"\\])*(?:"|\Z)|'(?:\\.|[^'\\])*(?:'|\Z))
        |(?P<comment>/\*.*?(?:\*/|\Z))
        |(?P<function>:(?!(?:is|not|where|has|host|host-context|slotted|part|lang|dir|nth-[a-z-]+)\()
          [A-Za-z-]+\()(?P<arguments>(?:"(?:\\.|[^"\\])*(?:"|\Z)|'(?:\\.|[^'\\])*(?:'|\Z)|[^()"'])*)
        |(?<=\[)(?P<odd>[\s\w|*-]*[\\/].*)
    """,
    re.VERBOSE | re.DOTALL,
)
_AFTER_CSS = re.compile(r"\s*(?:[iIsS]\s*)?[\],)]|\s*\Z")
_XPATH = re.compile(
    r"""@(?P<attribute>[\w:-]+)\s*[,=]\s*(?P<value>"[^"]*(?:"|\Z)|'[^']*(?:'|\Z))
        |(?P<literal>"[^"]*(?:"|\Z)|'[^']*(?:'|\Z))
        |(?<=[,(])\s*(?P<number>[0-9.]*[0-9][0-9.]*)
        |(?<![\w.-])(?P<compared>[0-9][0-9.]*)(?=\s*!?[=<>])
        |(?<=[=<>])\s*(?P<bare>[^\s\]'"@()=<>.$][^\]'"@()]*)(?=[\]'"@)]|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_AFTER_XPATH = re.compile(r"\s*(?:[\],)|=<>+*-]|!=|(?:and|or|div|mod)\b)|\s*\Z")
"""What may follow a literal, in CSS and in XPath."""


def selector(strategy: str, value: str) -> str:
    """Strategy and selector.

    Left out: literals and values, except those of attributes that name an element (``id``, ``name``,
    ``class``, ...); the text of a link; and all that looks like a token.  Where a selector goes on after
    a literal in a way that no browser understands, the rest is left out: a value has a quote in it.
    """
    if strategy == "css selector":
        return f"{strategy} {mask_tokens(_mask(value, _CSS, _AFTER_CSS))}"
    if strategy == "xpath":
        return f"{strategy} {mask_tokens(_mask(value, _XPATH, _AFTER_XPATH))}"
    if strategy in ("id", "name", "class name", "tag name"):
        return f"{strategy} {value if _is_identifier(value) else CUT}"
    if strategy in ("link text", "partial link text"):
        return f"{strategy} {CUT}"
    return "?"


def _is_identifier(text: str) -> bool:
    return bool(_IDENTIFIER.fullmatch(text)) and mask_tokens(text) == text


def _mask(text: str, pattern: re.Pattern[str], after: re.Pattern[str]) -> str:
    """Leave out the literals of a selector; ``after`` matches what may follow one."""
    done, position = "", 0
    for found in pattern.finditer(text):
        done += text[position : found.start()] + _masked(found)
        position = found.end()
        if not found.groupdict().get("comment") and not after.match(text, position):
            return done + CUT
    return done + text[position:]


def _masked(literal: re.Match[str]) -> str:
    """What is shown of a literal, with the attribute or function that it is a value of."""
    groups = literal.groupdict()
    if function := groups.get("function"):
        return function + (CUT if groups["arguments"] else "")
    value = groups.get("value")
    if value is None:
        lead = len(literal[0]) - len(literal[0].lstrip())
        return literal[0][:lead] + CUT
    head = literal[0][: len(literal[0]) - len(value)]
    quote = value[:1] if value[:1] in ("'", '"') else ""
    content = value[1:-1] if quote and len(value) > 1 and value.endswith(quote) else value
    if _KEPT_ATTRIBUTES.fullmatch(literal["attribute"]) and _is_identifier(content):
        return literal[0]
    return f"{head}{quote}{CUT}{quote}"
