"""What ``install()`` and the app's configuration ask for, checked, one frozen answer for each app.

The keys of ``app.conf`` are ``browserkeeper_browser``, ``browserkeeper_arguments``,
``browserkeeper_pool``, ``browserkeeper_max_redeliveries`` and ``browserkeeper_sweep_every``; with
Django's ``namespace="CELERY"`` the settings are called ``CELERY_BROWSERKEEPER_BROWSER`` and so on.
"""

from __future__ import annotations

import dataclasses
import difflib
import weakref
from collections.abc import Mapping
from typing import Any

from ..config import BrowserArguments, SessionConfig, check_count, check_seconds
from ..errors import ConfigError

MAX_REDELIVERIES = 3
"""As Sidekiq's super_fetch, which takes a job that was recovered three times for a poison pill."""
PREFIX = "browserkeeper_"


@dataclasses.dataclass(frozen=True, eq=False)
class BrowserSpec:
    """A browser as a task wants it: arguments for ``browser()``, and for ``BrowserPool`` where it
    comes from one.  Equal only to itself, so that it can name its pool."""

    name: str = "chrome"
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    """Not printed: a Grid's URL may hold a password."""
    pool: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        _check_mapping("browser_arguments", self.arguments)
        unknown = sorted(set(self.arguments) - set(BrowserArguments.__annotations__))
        if unknown:
            raise ConfigError(f"browser() has no argument {', '.join(map(repr, unknown))}.")
        SessionConfig.build(name=self.name, **self.arguments)
        if self.pool is not None:
            _check_pool(self)


@dataclasses.dataclass(frozen=True)
class Settings:
    """``max_redeliveries``: None means no bound; ``sweep_every`` is in seconds, None means never."""

    wish: BrowserSpec = dataclasses.field(default_factory=BrowserSpec)
    max_redeliveries: int | None = MAX_REDELIVERIES
    sweep_every: float | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        if self.max_redeliveries is not None:
            check_count("max_redeliveries", self.max_redeliveries, least=0)
        if self.sweep_every is not None:
            check_seconds("sweep_every", self.sweep_every)


KEYS = ("browser", "arguments", "pool", "max_redeliveries", "sweep_every")
_SETTINGS: weakref.WeakKeyDictionary[Any, Settings] = weakref.WeakKeyDictionary()


def build(app: Any, given: Mapping[str, Any]) -> Settings:
    """``given`` before the app's configuration, that before the defaults; remembered for the app.

    Raises ConfigError.
    """
    list(app.conf)  # until somebody looks into it, `app.conf` is a stand-in that knows no prefix
    _check_keys(app.conf)
    chosen = {key: app.conf[PREFIX + key] for key in KEYS if PREFIX + key in app.conf}
    chosen.update(given)
    name, arguments = chosen.pop("browser", "chrome"), chosen.pop("arguments", {})
    wish = BrowserSpec(name, arguments, chosen.pop("pool", None))
    settings = _SETTINGS[app] = Settings(wish, **chosen)
    app.conf[PREFIX + "max_redeliveries"] = settings.max_redeliveries  # where the doctor looks
    return settings


def settings_of(app: Any) -> Settings:
    """Those of ``install()``, else the configuration's.  Raises ConfigError."""
    return _SETTINGS.get(app) or build(app, {})


def _check_keys(conf: Any) -> None:
    """A key that is misspelt would otherwise do nothing, in silence."""
    known = [PREFIX + key for key in KEYS]
    namespace = str(conf.prefix or "").lower()  # Django's keys come with it, and in capitals
    for key in list(conf):
        plain = str(key).lower().removeprefix(namespace)
        if plain.startswith(PREFIX) and plain not in known:
            near = difflib.get_close_matches(plain, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"The setting {key} is not known.{hint} Known: {', '.join(known)}.")


def _check_mapping(name: str, value: object) -> None:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{name}={value!r}: give a dict with string keys.")


def _check_pool(wish: BrowserSpec) -> None:
    """As ``BrowserPool`` will see it in the worker; nothing is started."""
    from ..pool import BrowserPool

    _check_mapping("pool", wish.pool)
    assert wish.pool is not None
    twice = sorted(set(wish.pool) & set(wish.arguments))
    if twice:
        raise ConfigError(f"{', '.join(twice)}: given for the browser and for the pool; say it once.")
    BrowserPool(wish.name, **{**wish.arguments, **wish.pool})


__all__ = ["KEYS", "MAX_REDELIVERIES", "BrowserSpec", "Settings", "build", "settings_of"]
