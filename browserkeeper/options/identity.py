"""Identities: what a site can learn of a session or a lease, as one checked value."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from ..errors import ConfigError
from .blocking import Blocking
from .identity_words import (
    Geolocation,
    Headers,
    check_geolocation,
    check_headers,
    check_locale,
    check_timezone,
    check_user_agent,
)
from .proxy import Proxy
from .storage_state import StorageState

IDENTITY_WORDS = (
    "proxy",
    "locale",
    "timezone",
    "user_agent",
    "geolocation",
    "extra_headers",
    "storage_state",
    "block",
)
"""The keyword arguments that make an identity, the same everywhere."""


SHORTEST_SECRET = 6
"""Characters of a value of a storage state that is taken for a secret."""
QUOTINGS = 4
"""How deep JSON is within JSON in a driver's log: a value of localStorage is in the argument of a
script, in a command of BiDi, in a command of DevTools."""


class IdentityArguments(TypedDict, total=False):
    """The words of an identity as users give them, for type checkers; ``browser()`` describes them."""

    proxy: str | Mapping[str, Any] | None
    locale: str | None
    timezone: str | None
    user_agent: str | None
    geolocation: tuple[float, float] | tuple[float, float, float] | None
    extra_headers: Mapping[str, str] | None
    storage_state: str | os.PathLike[str] | Mapping[str, Any] | None
    block: Sequence[str] | None


CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "proxy": Proxy.parse,
    "locale": check_locale,
    "timezone": check_timezone,
    "user_agent": check_user_agent,
    "geolocation": check_geolocation,
    "extra_headers": check_headers,
    "storage_state": StorageState.load,
    "block": Blocking.parse,
}
"""For each word: the function that checks and converts what a user gave.  It raises ConfigError, and
returns unchanged what it has converted before."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a site can learn of a session or a lease.  For a word that is None, the browser's default
    holds.

    Takes the same keyword arguments as ``browser()``, and raises ConfigError for a value that is not
    valid.  Frozen; its repr shows no secrets.
    """

    proxy: Any = None
    locale: str | None = None
    timezone: str | None = None
    user_agent: str | None = None
    geolocation: Geolocation | None = None
    extra_headers: Headers | None = None
    storage_state: Any = None
    block: Blocking | None = None

    def __post_init__(self) -> None:
        for name, check in CHECKS.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, check(value))

    @classmethod
    def build(cls, given: object = None, /, **words: Any) -> Identity:
        """Returns the identity ``given`` (an Identity, a dict of words, or None) with ``words`` in place
        of its own words of these names.  Raises ConfigError.
        """
        if given is None:
            base = NO_IDENTITY
        elif isinstance(given, Identity):
            base = given
        elif isinstance(given, Mapping):
            unknown = [name for name in given if name not in IDENTITY_WORDS]
            if unknown:
                known = ", ".join(IDENTITY_WORDS)
                raise ConfigError(f"identity= has no word {unknown[0]!r}. Known: {known}.")
            base = cls(**given)
        else:
            kind = type(given).__name__
            raise ConfigError(
                f"identity=: give a browserkeeper.Identity, or a dict of words, not {kind}."
            )
        return cls(**words).over(base)

    @property
    def words(self) -> dict[str, Any]:
        """The words that are not None, with their values."""
        values = {name: getattr(self, name) for name in IDENTITY_WORDS}
        return {name: value for name, value in values.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """The words as JSON can hold them, each as its check takes it: secrets are in it."""
        found = self.words
        if self.extra_headers is not None:
            found["extra_headers"] = dict(self.extra_headers)
        if self.geolocation is not None:
            found["geolocation"] = list(self.geolocation)
        if self.block is not None:
            found["block"] = [*self.block.types, *self.block.patterns]
        for name in ("proxy", "storage_state"):
            if name in found:
                found[name] = found[name].to_json()
        return found

    def over(self, other: Identity) -> Identity:
        """Returns this identity; the words that are None here are taken from ``other``."""
        return dataclasses.replace(other, **self.words)

    def mask(self, text: str) -> str:
        """Returns the text with "…" for the values of ``extra_headers`` and of ``storage_state``, and
        for the proxy's password.

        For the logs of drivers, which contain every command to the driver.  Values of a storage state
        with less than SHORTEST_SECRET characters, such as ``true``, are not replaced.
        """
        secrets = {value for _, value in self.extra_headers or ()}
        if self.proxy is not None and self.proxy.password:
            secrets.add(self.proxy.password)
        if self.storage_state is not None:
            lengths = range(SHORTEST_SECRET, len(text) + 1)  # a value may have megabytes
            secrets |= {one for one in self.storage_state.values() if len(one) in lengths}
        for secret in sorted(secrets, key=len, reverse=True):
            for written in _ways_to_write(secret):
                text = text.replace(written, "…")
        return text

    def __bool__(self) -> bool:
        """True if any word is given."""
        return bool(self.words)

    def __repr__(self) -> str:
        return f"Identity({', '.join(f'{name}={value!r}' for name, value in self.words.items())})"


def _ways_to_write(text: str) -> set[str]:
    """The text as it is, as a JSON string, and as a JSON string within JSON strings, QUOTINGS levels
    deep."""
    ways = {text}
    for is_ascii in (True, False):
        written = text
        for _ in range(QUOTINGS):
            written = json.dumps(written, ensure_ascii=is_ascii)[1:-1]
            ways.add(written)
    return ways


NO_IDENTITY = Identity()

__all__ = ["IDENTITY_WORDS", "NO_IDENTITY", "Identity", "IdentityArguments"]
