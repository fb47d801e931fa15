"""``proxy=``: the proxy of a session or a lease, as one checked value whose texts show no password.

The relay (``proxy/``) applies ``bypass``, not the browser: Chromium and Firefox read such lists
differently (measured: ``example.com`` covers its subdomains in Firefox only).
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from ..errors import ConfigError

PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
"""The schemes, each with its port for a URL that names none."""
FORM = (
    "give http://USER:PASSWORD@HOST:PORT (or https, socks5), or dict(server=, username=, password=, "
    "bypass=)"
)
KEYS = ("server", "username", "password", "bypass")
SOCKS_LIMIT = 255
"""Bytes of a user name and of a password in SOCKS5 (RFC 1929)."""

_URL = re.compile(
    r"(?:(?P<scheme>[^:/?#@\[\]]*)://)?(?:(?P<login>.*)@)?"
    r"(?P<host>\[[^\[\]]*\]|[^:/?#@\[\]]*)(?::(?P<port>[^/?#@\[\]]*))?(?P<rest>[/?#].*)?"
)
"""The last ``@`` ends the login, so that a password with an unquoted ``@`` never becomes part of the
host, which messages show."""
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9_-]{1,63}(?<!-))*\.?")
_QUOTED = re.compile(r"%(?![0-9a-fA-F]{2})")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")


@dataclasses.dataclass(frozen=True)
class Bypass:
    """One entry of ``bypass``: a host, all hosts below a suffix, or a network; with a port or without.

    ``host`` is in lower case: ``example.com``, ``.example.com`` for all hosts below it, ``*`` for every
    host, ``<local>`` for names without a dot.
    """

    text: str
    host: str = ""
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    port: int | None = None

    def covers(self, host: str, port: int) -> bool:
        """True if this entry covers the host and port.  ``host`` is a name in lower case, or an address
        without brackets."""
        if self.port is not None and self.port != port:
            return False
        address = _address(host)
        if self.network is not None:
            return address is not None and address in self.network
        if self.host == "*":
            return True
        if address is not None:
            return False
        if self.host == "<local>":
            return "." not in host
        if self.host.startswith("."):
            return host.endswith(self.host)
        return host == self.host


@dataclasses.dataclass(frozen=True)
class Proxy:
    """A proxy.  ``str()`` and ``repr()`` show no password; ``host`` has no brackets."""

    scheme: str
    host: str
    port: int
    username: str = ""
    password: str = dataclasses.field(default="", repr=False)
    bypass: tuple[Bypass, ...] = ()

    @classmethod
    def parse(cls, given: object) -> Proxy:
        """Returns the proxy for what a user gave: a URL, or a dict with the keys of Playwright's
        ``proxy``.

        Raises ConfigError, whose message shows neither user nor password.
        """
        if isinstance(given, Proxy):
            return given
        if isinstance(given, str):
            return _of_url(given)
        if isinstance(given, Mapping):
            return _of_mapping(given)
        raise ConfigError(f"proxy= is of type {type(given).__name__}, not a string or a dict: {FORM}.")

    def bypasses(self, host: str, port: int) -> bool:
        """True if requests to this host and port go there directly, as ``bypass`` says."""
        host = host.casefold().rstrip(".")
        return any(entry.covers(host, port) for entry in self.bypass)

    @property
    def is_socks(self) -> bool:
        return self.scheme.startswith("socks")

    @property
    def address(self) -> str:
        """``HOST:PORT``, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def to_json(self) -> dict[str, Any]:
        """The proxy as a dict, as :meth:`parse` takes it: the password is in it."""
        facts: dict[str, Any] = {"server": str(self)}
        if self.username:
            facts |= {"username": self.username, "password": self.password}
        return facts | ({"bypass": [one.text for one in self.bypass]} if self.bypass else {})

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}"

    def __repr__(self) -> str:
        login = f"{self.username}:…@" if self.username else ""
        return f"<Proxy {self.scheme}://{login}{self.address}>"


def _of_url(url: str) -> Proxy:
    url = url.strip()
    if _UNPRINTABLE.search(url):
        raise ConfigError(f"proxy=: a space or a control character in the URL; {FORM}.")
    match = _URL.fullmatch(url)
    if match is None or not match["scheme"]:
        raise ConfigError(f"proxy=: it has no scheme such as http://, or is not a URL; {FORM}.")
    scheme = match["scheme"].casefold()
    login = match["login"]
    _check_scheme(scheme, has_login=login is not None)
    if (match["rest"] or "/") != "/" or re.search("[/?#]", login or ""):
        raise ConfigError(
            "proxy=: a path, a query or a fragment in the URL, or one of / ? # in the password; write "
            f"those as %2F %3F %23. Else {FORM}."
        )
    username, password = _login(login)
    return _checked(scheme, match["host"], match["port"], username, password, ())


def _check_scheme(scheme: str, *, has_login: bool) -> None:
    if scheme in PORTS:
        return
    if scheme in ("socks", "socks4", "socks4a"):
        why = "SOCKS4 has no passwords" if has_login else "SOCKS4 is not supported"
        raise ConfigError(f"proxy=: the scheme {scheme}://: {why}. Use socks5://.")
    shown = scheme if re.fullmatch(r"[a-z][a-z0-9+.-]{0,15}", scheme) else "of the URL"
    raise ConfigError(
        f"proxy=: the scheme {shown} is not one of {', '.join(PORTS)}. For a PAC file use options.proxy."
    )


def _login(text: str | None) -> tuple[str, str]:
    """User and password of the part before the ``@``; "" and "" without one."""
    if text is None:
        return "", ""
    if _QUOTED.search(text):
        raise ConfigError(
            "proxy=: a % in the user or the password that is not followed by two hexadecimal digits. "
            "Write the % as %25, or use dict(server=, username=, password=), which takes it as it is."
        )
    user, _, password = text.partition(":")
    try:
        return unquote_to_bytes(user).decode(), unquote_to_bytes(password).decode()
    except UnicodeDecodeError:
        raise ConfigError(
            "proxy=: the user or the password is not UTF-8. Write the bytes of its UTF-8 form as %C3%BC."
        ) from None


def _of_mapping(given: Mapping[Any, Any]) -> Proxy:
    if unknown := sorted(str(key) for key in given if key not in KEYS):
        raise ConfigError(f"proxy= has no key {unknown[0]!r}. It has {', '.join(KEYS)}.")
    server = given.get("server")
    if not isinstance(server, str) or not server:
        raise ConfigError("proxy=dict(…): give server=, such as 'http://HOST:PORT'.")
    proxy = _of_url(server if "://" in server else f"http://{server}")
    words = {}
    for name in ("username", "password"):
        value = given.get(name)
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"proxy=dict({name}=) is {type(value).__name__}, not a string.")
        words[name] = value or ""
    if any(words.values()):
        if proxy.username or proxy.password:
            raise ConfigError("proxy=dict(…): a user in server= and in username=. Give it once.")
    else:
        words = {"username": proxy.username, "password": proxy.password}
    bypass = _bypass(given.get("bypass"))
    return _checked(
        proxy.scheme, proxy.host, str(proxy.port), words["username"], words["password"], bypass
    )


def _checked(
    scheme: str, host: str, port: str | None, username: str, password: str, bypass: tuple[Bypass, ...]
) -> Proxy:
    if password and not username:
        raise ConfigError("proxy=: a password without a user. Give both.")
    if ":" in username:
        raise ConfigError("proxy=: a colon in the user, which HTTP's Basic authentication cannot send.")
    for name, value in (("user", username), ("password", password)):
        if any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
            raise ConfigError(f"proxy=: a control character in the {name}. Remove it.")
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise ConfigError(f"proxy=: the {name} cannot be written as UTF-8.") from None
        if scheme.startswith("socks") and size > SOCKS_LIMIT:
            raise ConfigError(f"proxy=: the {name} is longer than the {SOCKS_LIMIT} bytes of SOCKS5.")
    if scheme.startswith("socks") and username and not password:
        raise ConfigError("proxy=: a user without a password, which SOCKS5 cannot send. Give both.")
    return Proxy(scheme, _host(host), _port(port, PORTS[scheme]), username, password, bypass)


def _host(text: str) -> str:
    """The host in lower case; a name with other letters in the form of the DNS (IDNA)."""
    if not text:
        raise ConfigError(f"proxy=: no host; {FORM}.")
    if text.startswith("[") or ":" in text:
        address = _address(text.strip("[]"))
        if address is None or address.version != 6:
            raise ConfigError("proxy=: what is in the brackets is not an IPv6 address.")
        return str(address)
    name = _ascii_name(text)
    if not name:
        raise ConfigError(f"proxy=: the host is not a valid name; {FORM}.")
    return name


def _ascii_name(text: str) -> str:
    """The name in lower case, and in ASCII (IDNA); "" if it is not a valid name."""
    try:
        name = text.encode("idna").decode() if not text.isascii() else text
    except UnicodeError:
        return ""
    name = name.casefold()
    if name.replace(".", "").isdigit() and _address(name) is None:
        return ""  # such as 10.0.0 and 300.1.1.1
    return name if len(name) <= 253 and _NAME.fullmatch(name) else ""


def _port(text: str | None, default: int, where: str = "proxy=") -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise ConfigError(f"{where}: the port is not a number from 1 to 65535.")
    return int(text)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _bypass(given: Any) -> tuple[Bypass, ...]:
    """The entries of ``bypass``: a list, or as in Playwright a string with commas.  Raises
    ConfigError."""
    if given is None:
        return ()
    if isinstance(given, str):
        given = [part for part in (part.strip() for part in given.split(",")) if part]
    if not isinstance(given, Sequence) or not all(isinstance(entry, str) for entry in given):
        raise ConfigError(
            "proxy=dict(bypass=): give a list of strings, such as ['localhost', '*.example.com']."
        )
    return tuple(_bypass_entry(entry) for entry in given)


def _bypass_entry(text: str) -> Bypass:
    """Raises ConfigError for an entry that the relay cannot apply: it knows only host and port of a
    request."""
    where = f"proxy=dict(bypass=[{text!r}])"
    forms = "HOST, *.SUFFIX, <local>, an address or a network such as 10.0.0.0/8, with :PORT or without"
    entry = text.strip().casefold()
    if entry == "<-loopback>":
        raise ConfigError(f"{where}: leave it out; requests to the loopback use the proxy anyway.")
    if "://" in entry:
        raise ConfigError(f"{where}: the scheme of a request is not known here; give {forms}.")
    host, port = entry, None
    if match := re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*):([^:\]]*)", entry):
        host, port = match[1], _port(match[2], 0, where)
    is_bracketed = host.startswith("[")
    host = host.strip("[]")
    if is_bracketed or "/" in host or _address(host) is not None:
        try:
            return Bypass(text, network=ipaddress.ip_network(host, strict=False), port=port)
        except ValueError:
            raise ConfigError(f"{where}: not a network; give {forms}.") from None
    if host in ("*", "<local>"):
        return Bypass(text, host, port=port)
    suffix = host.removeprefix("*")
    name = _ascii_name(suffix.removeprefix("."))
    if not name or (host.startswith("*") and not suffix.startswith(".")):
        raise ConfigError(f"{where}: not a valid host or pattern; give {forms}.")
    return Bypass(text, f".{name}" if suffix.startswith(".") else name, port=port)


__all__ = ["Bypass", "Proxy"]
