"""Identities: what a site can learn of a session or a lease, as one checked value."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from ..errors import ConfigError

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


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a site can learn of a session or a lease.  Each word that is None is the browser's own.

    The constructor raises ConfigError for a word that makes no sense.
    """

    proxy: Any = None
    locale: str | None = None
    timezone: str | None = None
    user_agent: str | None = None
    geolocation: Any = None
    extra_headers: Any = None
    storage_state: Any = None
    block: Any = None

    def __post_init__(self) -> None:
        for name in IDENTITY_WORDS:
            if getattr(self, name) is not None:
                raise ConfigError(f"{name}= is not built yet.")

    @classmethod
    def build(cls, **words: Any) -> Identity:
        """Make an identity of the words that users gave.  Raises ConfigError."""
        return cls(**words)

    def over(self, other: Identity) -> Identity:
        """This identity, with the words that it does not have taken from ``other``."""
        own = {name: getattr(self, name) for name in IDENTITY_WORDS if getattr(self, name) is not None}
        return dataclasses.replace(other, **own)

    def __bool__(self) -> bool:
        """True if any word is given."""
        return any(getattr(self, name) is not None for name in IDENTITY_WORDS)


NO_IDENTITY = Identity()

__all__ = ["IDENTITY_WORDS", "NO_IDENTITY", "Identity", "IdentityArguments"]
