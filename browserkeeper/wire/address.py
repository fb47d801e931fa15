"""The address of a server of ``browserkeeper serve``, with its token, which is never printed."""

from __future__ import annotations

import dataclasses
import os
import urllib.parse
from typing import Any

from ..errors import ConfigError
from .credentials import SERVER_VARIABLE

PORTS = {"http": 80, "https": 443}
LONGEST_PATH = 107
"""Bytes of the path of a unix socket (``sun_path`` in unix(7), without the NUL at its end)."""
FORM = "give unix:/PATH/OF/SOCKET, its path alone, or http://TOKEN@HOST:PORT"


@dataclasses.dataclass(frozen=True)
class ServerAddress:
    """The path of a unix socket (``socket``), or the parts of a URL.  ``str()`` and ``repr()`` do not
    show the token.

    ``source``: the argument or the variable by which this server was chosen, for messages.
    """

    socket: str = ""
    scheme: str = "http"
    host: str = ""
    port: int = 0
    path: str = ""
    token: str = dataclasses.field(default="", repr=False)
    source: str = dataclasses.field(default="server=", compare=False)

    @classmethod
    def parse(cls, given: object, source: str = "server=") -> ServerAddress:
        """Read an address.  Raises ConfigError for any other value.  The message does not quote the
        value, which may contain a token."""
        if isinstance(given, ServerAddress):
            return given
        if isinstance(given, os.PathLike):
            return _of_path(os.fspath(given), source)
        if not isinstance(given, str):
            raise ConfigError(f"{source} is {type(given).__name__}, not a string: {FORM}.")
        text = given.strip()
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            return _of_path(path.removeprefix("//"), source)
        if text.startswith(("/", ".", "~")):
            return _of_path(text, source)
        return _of_url(text, source)

    @property
    def is_local(self) -> bool:
        """True for a unix socket: the server watches its clients by their pidfds."""
        return bool(self.socket)

    @property
    def url(self) -> str:
        """The beginning of the URL of each command.  With a unix socket its host has no meaning."""
        if self.socket:
            return "http://localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    @property
    def headers(self) -> dict[str, str]:
        """The headers of each request: the token (RFC 6750), if there is one."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def __str__(self) -> str:
        return f"unix:{self.socket}" if self.socket else self.url


def choose(given: Any) -> ServerAddress | None:
    """The server for the argument ``server=``; None for browsers of this process.

    ``None``: the server of the environment variable, if that is set.  ``False`` and ``""``: browsers of
    this process, also if the variable is set.  An address without a token gets the token of the
    variable, if the variable names the same server: so code and command lines need no token.  Raises
    ConfigError for an invalid address.
    """
    if given is False or given == "":
        return None
    text = os.environ.get(SERVER_VARIABLE, "").strip()
    if given is None:
        return ServerAddress.parse(text, f"{SERVER_VARIABLE} (in the environment)") if text else None
    address = ServerAddress.parse(given)
    if address.socket or address.token or not text:
        return address
    try:
        named = ServerAddress.parse(text)
    except ConfigError:
        return address
    return dataclasses.replace(address, token=named.token) if str(named) == str(address) else address


def _of_path(path: Any, source: str) -> ServerAddress:
    if not isinstance(path, str) or not path:
        raise ConfigError(f"{source} names no path of a socket: {FORM}.")
    if path.startswith("@") or "\0" in path:
        raise ConfigError(
            f"{source}: a socket without a path (of the abstract kind) has no owner and no mode: {FORM}."
        )
    absolute = os.path.abspath(os.path.expanduser(path))
    if len(os.fsencode(absolute)) > LONGEST_PATH:
        raise ConfigError(
            f"{source}: the socket's path has {len(os.fsencode(absolute))} bytes, and the system allows "
            f"{LONGEST_PATH}. Have the server listen on a shorter one."
        )
    return ServerAddress(socket=absolute, source=source)


def _of_url(text: str, source: str) -> ServerAddress:
    try:
        parts = urllib.parse.urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        reason = "it is not a URL"
        if "port" in str(error).lower():
            reason = "its port is not a number from 0 to 65535"
        raise ConfigError(f"{source}: {reason}; {FORM}.") from None
    if parts.scheme not in PORTS or not host:
        raise ConfigError(f"{source}: no scheme unix, http or https, or no host; {FORM}.")
    if parts.query or parts.fragment or any(ord(c) <= 32 or ord(c) == 127 for c in text):
        raise ConfigError(f"{source}: a query, a fragment or a space in the URL; {FORM}.")
    if parts.password:
        raise ConfigError(f"{source}: a user and a password in the URL; the token stands alone: {FORM}.")
    token = urllib.parse.unquote(parts.username or "")
    if not token.isprintable() or not token.isascii() or " " in token:
        raise ConfigError(f"{source}: the token has a character that no header can hold; {FORM}.")
    return ServerAddress(
        scheme=parts.scheme,
        host=host,
        port=port if port is not None else PORTS[parts.scheme],
        path=urllib.parse.quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~"),
        token=token,
        source=source,
    )


__all__ = ["FORM", "LONGEST_PATH", "ServerAddress", "choose"]
