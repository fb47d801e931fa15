"""Who may use the server: the token, and the headers that show that a web page has sent a request.

Over the unix socket the mode of its file decides, and no web page can reach the socket.  Over TCP each
request needs the token, and must name this server in ``Host``.  That header stops "DNS rebinding": the
owner of a page binds the page's name to 127.0.0.1 after the page was loaded.  For the browser, page and
server are then of one origin, but ``Host`` still has the name of the page.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import ipaddress
import os
import re
import socket
import stat
import urllib.parse
from collections.abc import Iterable, Mapping

from ..errors import ConfigError

TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
"""The characters of a bearer token (RFC 6750, section 2.1)."""
SHORTEST_TOKEN = 16
"""Characters.  The server does not limit how often a client may try a token."""
LONGEST_TOKEN = 1024
HOST_NAME = re.compile(r"(?=.{1,254}$)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
HOW_TO_MAKE = "Make one: (umask 077; openssl rand -hex 32 > FILE)"
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Paths that need no token: their answers say only whether the server works, and probes of Kubernetes
send no token."""
HAS_SECRET = re.compile(r"(/wd/hub)?/session/[^/]+/se/bidi/[^/]+")
"""The paths of BiDi's websockets.  Their clients send no token, but each path has a secret of its
session."""


def read_token(path: str) -> str:
    """The token in a file.

    Raises ConfigError if the file cannot be read, may be read by others, or has no usable token.  No
    message contains the text of the file.
    """
    hint = f"--token-file {path}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would block
    except OSError as error:
        raise ConfigError(f"{hint} cannot be read: {error.strerror}. {HOW_TO_MAKE}.") from error
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise ConfigError(f"{hint} is not a regular file. {HOW_TO_MAKE}.")
        _check_mode(hint, facts)
        raw = os.read(fd, LONGEST_TOKEN + 64)
    finally:
        os.close(fd)
    try:
        token = raw.decode("ascii").strip()
    except UnicodeDecodeError:
        token = ""
    if not TOKEN.fullmatch(token) or len(token) > LONGEST_TOKEN:
        raise ConfigError(
            f"{hint} has no usable token: it must have one line of letters, digits and . _ ~ + / = -, "
            f"of at most {LONGEST_TOKEN} characters. {HOW_TO_MAKE}."
        )
    if len(token) < SHORTEST_TOKEN:
        raise ConfigError(
            f"{hint}: the token has {len(token)} characters, and can be guessed. It must have at least "
            f"{SHORTEST_TOKEN}. {HOW_TO_MAKE}."
        )
    return token


def _check_mode(hint: str, facts: os.stat_result) -> None:
    """Raises ConfigError where another user may read or change the token.

    A file of root that a group may read is accepted if this process is not root's: Kubernetes mounts
    secrets in this way.
    """
    mode = stat.S_IMODE(facts.st_mode)
    if facts.st_uid not in (0, os.geteuid()):
        raise ConfigError(f"{hint} belongs to another user (uid {facts.st_uid}): chown it.")
    is_roots = facts.st_uid == 0 and os.geteuid() != 0
    if mode & (0o037 if is_roots else 0o077):
        raise ConfigError(
            f"{hint} has mode {mode:04o}, so that other users may read or change the token: chmod 600 "
            "the file."
        )


def check_names(names: Iterable[str]) -> None:
    """Raises ConfigError for a ``--allow-host`` that no ``Host`` header could equal, and for an empty
    one, which would allow requests without a ``Host``."""
    for name in names:
        if not HOST_NAME.fullmatch(name):
            raise ConfigError(
                f"--allow-host {_shown(name)} is not the name of a host: give the name alone, such as "
                "browsers.example.com, without scheme, port and wildcard. IP addresses need no "
                "--allow-host."
            )


@dataclasses.dataclass(frozen=True)
class Refusal:
    """The answer to a request that may not go on.

    ``status``: the HTTP status.  401 asks the client for the token, 403 does not.
    """

    status: int
    text: str


class Access:
    """Decides about requests over TCP by their headers.

    ``hosts``: names, besides IP addresses and ``localhost``, by which clients may call the server.
    """

    def __init__(self, token: str = "", hosts: Iterable[str] = ()):
        self._digest = _digest(token) if token else b""
        self._hosts = {"localhost", *(name.lower().rstrip(".") for name in hosts)}

    def __repr__(self) -> str:
        return f"<Access token={'yes' if self._digest else 'no'}>"

    def refusal(self, path: str, headers: Mapping[str, str], *, is_unix: bool) -> Refusal | None:
        """Returns the refusal, None for a request that may go on.  ``path`` is the path as it was sent;
        ``headers`` finds names in upper and lower case."""
        if is_unix:
            return None
        needs_no_token = path in OPEN_PATHS or HAS_SECRET.fullmatch(path)
        return self._of_a_page(headers) or (None if needs_no_token else self._of_a_stranger(headers))

    def _of_a_page(self, headers: Mapping[str, str]) -> Refusal | None:
        """The refusal of a request that a web page has sent, or may have sent.

        A browser sets these headers, and no page can leave them out or change them
        (fetch.spec.whatwg.org, "forbidden request-header").
        """
        host = headers.get("Host", "")
        if not self._is_host_ours(_name_of(host)):
            return Refusal(
                403,
                f"The Host header names {_shown(host)}, which is not this server: a web page may have "
                "sent the request. Call the server by its IP address, by localhost, or by a name given "
                "with --listen or --allow-host.",
            )
        origin = headers.get("Origin")
        if origin is not None and origin.lower() not in _origins_of(host):
            return Refusal(
                403,
                f"A web page has sent this request (Origin: {_shown(origin)}). This server answers no "
                "pages.",
            )
        if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return Refusal(
                403, "A web page has sent this request (Sec-Fetch-Site). This server answers no pages."
            )
        return None

    def _is_host_ours(self, name: str) -> bool:
        """True for the names of the server, and for every IP address: DNS rebinding needs a name."""
        if name.lower().rstrip(".") in self._hosts:
            return True
        try:
            ipaddress.ip_address(name.partition("%")[0])
        except ValueError:
            return False
        return True

    def _of_a_stranger(self, headers: Mapping[str, str]) -> Refusal | None:
        given = headers.get("Authorization")
        if given is None:
            return Refusal(
                401,
                "This server needs its token: as the header `Authorization: Bearer TOKEN`, or in the "
                "address, as http://TOKEN@HOST:PORT.",
            )
        # All candidates are compared, so that the time tells nothing.
        matches = [hmac.compare_digest(_digest(one), self._digest) for one in _tokens_in(given)]
        if not self._digest or not any(matches):
            return Refusal(403, "The token is wrong: it must be the one in the server's --token-file.")
        return None


def _tokens_in(authorization: str) -> list[str]:
    """All texts in the header that may be the token.

    Clients turn http://TOKEN@HOST into ``Basic`` in different ways, such as ``TOKEN:``, ``TOKEN`` and
    (Selenium's Python client) ``TOKEN:None``.
    """
    scheme, _, value = authorization.strip().partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        return [value]
    if scheme.lower() != "basic":
        return []
    try:
        text = base64.b64decode(value, validate=True).decode()
    except ValueError:  # of base64's as well
        return []
    user, _, password = text.partition(":")
    return [user, urllib.parse.unquote(user), password, urllib.parse.unquote(password)]


def _digest(text: str) -> bytes:
    """A digest, whose length is the same for all texts: the time of a comparison says nothing about the
    token's length."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _origins_of(host: str) -> set[str]:
    """The values of ``Origin`` that name this server, which was called by the given ``Host``."""
    return {f"{scheme}://{host.lower()}" for scheme in ("http", "https", "ws", "wss")}


def _name_of(host: str) -> str:
    """The name or the address in a ``Host`` header, without brackets and port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.rpartition(":")
    return name if colon and port.isascii() and port.isdigit() else host


def _shown(text: str) -> str:
    """A client's text for an answer: at most 100 characters, without control characters."""
    return repr(text if len(text) <= 100 else text[:100] + "…")


def names_of_this_machine() -> set[str]:
    """The names by which clients in other containers, or on other machines, may call this machine."""
    return {socket.gethostname().lower()}


__all__ = ["Access", "Refusal", "check_names", "names_of_this_machine", "read_token"]
