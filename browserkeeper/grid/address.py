"""Where a Grid is.  Credentials stand in fields that are never printed."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import urllib.parse

from ..errors import ConfigError

VARIABLE = "BROWSERKEEPER_REMOTE"
PORTS = {"http": 80, "https": 443}


@dataclasses.dataclass(frozen=True)
class Address:
    """A Grid's URL, taken apart; ``str()`` of it, and its repr, hold no credentials."""

    scheme: str
    host: str
    port: int
    path: str
    username: str = dataclasses.field(default="", repr=False)
    password: str = dataclasses.field(default="", repr=False)

    @classmethod
    def parse(cls, url: object) -> Address:
        """Raises ConfigError, without quoting what may be a password, for what is no address."""
        form = "give http://HOST:PORT or https://USER:PASSWORD@HOST"
        if not isinstance(url, str):
            raise ConfigError(f"remote= is {type(url).__name__}, not a string: {form}.")
        try:
            parts = urllib.parse.urlsplit(url.strip())
            host, port = parts.hostname, parts.port
        except ValueError as error:
            reason = "its port is no number from 0 to 65535" if "ort" in str(error) else "it is no URL"
            raise ConfigError(f"remote=: {reason}; {form}.") from None
        if parts.scheme not in PORTS or not host:
            raise ConfigError(f"remote=: no scheme http or https, or no host; {form}.")
        if parts.query or parts.fragment or any(ord(c) <= 32 or ord(c) == 127 for c in url.strip()):
            raise ConfigError(f"remote=: a query, a fragment or a space in the URL; {form}.")
        return cls(
            parts.scheme,
            host,
            port if port is not None else PORTS[parts.scheme],
            parts.path.rstrip("/"),
            urllib.parse.unquote(parts.username or ""),
            urllib.parse.unquote(parts.password or ""),
        )

    def completed(self) -> Address:
        """With the credentials of ``BROWSERKEEPER_REMOTE``, where it names this Grid and we have none:
        so that they need not stand in code, in an ini file or on a command line."""
        with contextlib.suppress(ConfigError):
            theirs = Address.parse(os.environ.get(VARIABLE))
            if str(theirs) == str(self) and not self.username:
                return theirs
        return self

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    @property
    def authorization(self) -> str:
        """The header's value (RFC 7617), "" without credentials."""
        if not self.username:
            return ""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


__all__ = ["Address"]
