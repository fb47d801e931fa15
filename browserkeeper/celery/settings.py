"""The settings of ``install()`` and of the app's configuration: checked, and frozen for each app.

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
from ..options.check import refuse_unknown

MAX_REDELIVERIES = 3
"""The same as Sidekiq's super_fetch: a job that was recovered three times is a poison pill."""
PREFIX = "browserkeeper_"


@dataclasses.dataclass(frozen=True, eq=False)
class BrowserSpec:
    """A task's browser: the arguments for ``browser()``, and for ``BrowserPool`` if ``pool`` is not
    None.  Compared by identity, since each one has a pool of its own in a worker process."""

    name: str = "chrome"
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    """Not in the repr: a Grid's or a server's URL may contain a password or a token."""
    pool: Mapping[str, Any] | None = dataclasses.field(default=None, repr=False)
    """Not in the repr: it may have the same arguments."""

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        _check_mapping("browser_arguments", self.arguments)
        refuse_unknown(set(self.arguments) - set(BrowserArguments.__annotations__), "browser()")
        SessionConfig.build(name=self.name, **self.arguments)
        if self.pool is not None:
            _check_pool(self)


@dataclasses.dataclass(frozen=True)
class Settings:
    """``max_redeliveries``: None means no bound; ``sweep_every`` is in seconds, None means never."""

    spec: BrowserSpec = dataclasses.field(default_factory=BrowserSpec)
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
    """The settings of ``app``, stored for :func:`settings_of`.  ``given`` wins over ``app.conf``, and
    that over the defaults.

    Raises ConfigError.
    """
    list(app.conf)  # loads the configuration; before that, `app.conf` does not know its prefix
    _check_keys(app.conf)
    chosen = {key: app.conf[PREFIX + key] for key in KEYS if PREFIX + key in app.conf}
    chosen.update(given)
    name, arguments = chosen.pop("browser", "chrome"), chosen.pop("arguments", {})
    spec = BrowserSpec(name, arguments, chosen.pop("pool", None))
    settings = _SETTINGS[app] = Settings(spec, **chosen)
    app.conf[PREFIX + "max_redeliveries"] = settings.max_redeliveries  # read by the doctor
    return settings


def settings_of(app: Any) -> Settings:
    """The settings of ``install()``, else those of ``app.conf`` alone.  Raises ConfigError."""
    return _SETTINGS.get(app) or build(app, {})


def _check_keys(conf: Any) -> None:
    """Raises ConfigError for a misspelt key, which would otherwise be ignored silently."""
    known = [PREFIX + key for key in KEYS]
    namespace = str(conf.prefix or "").lower()  # Django's keys have it, and are in capitals
    for key in list(conf):
        plain = str(key).lower().removeprefix(namespace)
        if plain.startswith(PREFIX) and plain not in known:
            near = difflib.get_close_matches(plain, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"The setting {key} is not known.{hint} Known settings: {', '.join(known)}."
            )


def _check_mapping(name: str, value: object) -> None:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{name}={value!r}: give a dict with string keys.")


def _check_pool(spec: BrowserSpec) -> None:
    """Raises the ConfigError that ``BrowserPool`` would raise later, in the worker.  Starts nothing."""
    from ..pool import BrowserPool

    _check_mapping("pool", spec.pool)
    assert spec.pool is not None
    twice = sorted(set(spec.pool) & set(spec.arguments))
    if twice:
        raise ConfigError(f"{', '.join(twice)}: given for the browser and for the pool. Give it once.")
    BrowserPool(spec.name, **{**spec.arguments, **spec.pool})


__all__ = ["KEYS", "MAX_REDELIVERIES", "BrowserSpec", "Settings", "build", "settings_of"]
