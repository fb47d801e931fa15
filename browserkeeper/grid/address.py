"""Where a Grid is.  Credentials are in fields that are never printed."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import urllib.parse

from ..errors import ConfigError
from ..wire.credentials import GRID_VARIABLE

PORTS = {"http": 80, "https": 443}


@dataclasses.dataclass(frozen=True)
class Address:
    """The parts of a Grid's URL.  ``str()`` and ``repr()`` show no credentials."""

    scheme: str
    host: str
    port: int
    path: str
    username: str = dataclasses.field(default="", repr=False)
    password: str = dataclasses.field(default="", repr=False)

    @classmethod
    def parse(cls, url: object) -> Address:
        """Raises ConfigError for an invalid URL, which the message does not quote: it may have a
        password."""
        form = "give http://HOST:PORT or https://USER:PASSWORD@HOST"
        if not isinstance(url, str):
            raise ConfigError(f"remote= is {type(url).__name__}, not a string: {form}.")
        try:
            parts = urllib.parse.urlsplit(url.strip())
            host, port = parts.hostname, parts.port
        except ValueError as error:
            reason = "it is not a URL"
            if "port" in str(error).lower():
                reason = "its port is not a number from 0 to 65535"
            raise ConfigError(f"remote=: {reason}; {form}.") from None
        if parts.scheme not in PORTS or not host:
            raise ConfigError(f"remote=: no scheme http or https, or no host; {form}.")
        if parts.query or parts.fragment or any(ord(c) <= 32 or ord(c) == 127 for c in url.strip()):
            raise ConfigError(f"remote=: a query, a fragment or a space in the URL; {form}.")
        return cls(
            parts.scheme,
            host,
            port if port is not None else PORTS[parts.scheme],
            urllib.parse.quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~"),
            urllib.parse.unquote(parts.username or ""),
            urllib.parse.unquote(parts.password or ""),
        )

    def completed(self) -> Address:
        """This address with the credentials of ``BROWSERKEEPER_REMOTE``, if that names the same Grid and
        this address has none.  So code, ini files and command lines need no credentials."""
        with contextlib.suppress(ConfigError):
            named = Address.parse(os.environ.get(GRID_VARIABLE))
            if str(named) == str(self) and not self.username:
                return named
        return self

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    @property
    def authorization(self) -> str:
        """The value of an ``Authorization`` header (RFC 7617); "" without credentials."""
        if not self.username:
            return ""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


__all__ = ["Address"]
