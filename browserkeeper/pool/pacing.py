"""The pace of ``pool.map``: ``per_host``, and the turns for which calls with the same key wait."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any
from urllib.parse import urlsplit

from ..config import check_seconds
from ..errors import ConfigError, refuse_to_pickle

Pace = Callable[[Any], "tuple[Hashable, float] | None"]
"""Called with an item; returns a key, and the seconds between the starts of two calls for items with
this key.  Returns None for an item that does not wait."""

POLL = 0.1
"""Seconds after which a turn is asked for again that another ``map`` has claimed."""
FORGET_ABOVE = 10_000
"""Number of keys above which the keys are removed whose next turn has come."""

_HOST_AND_PORT = re.compile(r"[^/?#@:]+:[0-9]+(?:[/?#].*)?", re.DOTALL)
"""Matches HOST:PORT, which ``urlsplit`` reads as a scheme and a path."""


class Claim:
    """A claimed turn of a key: no other call gets a turn of this key until :meth:`start` or
    :meth:`release`."""

    def __init__(self, turns: Turns, key: Hashable, seconds: float):
        self._turns, self._key, self._seconds = turns, key, seconds

    def start(self) -> None:
        """To be called when the call begins: the key's next turn comes ``seconds`` later."""
        self._turns.settle(self._key, self, time.monotonic() + self._seconds)

    def release(self) -> None:
        """Give the turn back without a call.  Does nothing after :meth:`start`."""
        self._turns.settle(self._key, self, None)


class Turns:
    """For each key, the time of the next turn on the monotonic clock.  Safe to use from several threads,
    but not from signal handlers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: dict[Hashable, float | Claim] = {}

    def claim(self, key: Hashable, seconds: float) -> Claim | float:
        """Returns a claim, if the turn of this key has come; else the seconds after which to ask again:
        POLL if another call has claimed the turn and has not started."""
        now = time.monotonic()
        with self._lock:
            due = self._next.get(key, 0.0)
            if isinstance(due, Claim):
                return POLL
            if due > now:
                return due - now
            claim = self._next[key] = Claim(self, key, seconds)
            return claim

    def settle(self, key: Hashable, claim: Claim, due: float | None) -> None:
        """Replace this claim by the time of the next turn; None: the turn is free at once."""
        with self._lock:
            if self._next.get(key) is not claim:
                return
            if due is not None:
                self._next[key] = due
            else:
                del self._next[key]
            if len(self._next) > FORGET_ABOVE:
                now = time.monotonic()
                kept = {k: d for k, d in self._next.items() if isinstance(d, Claim) or d > now}
                self._next = kept


class PerHost:
    """A pace: see :func:`per_host`."""

    __reduce_ex__ = refuse_to_pickle

    def __init__(self, seconds: float, key: Callable[[Any], Any] | None):
        self.seconds, self._key = float(seconds), key
        self.turns = Turns()

    def __call__(self, item: Any) -> tuple[Hashable, float] | None:
        key = item if self._key is None else self._key(item)
        if self._key is None and not isinstance(key, str):
            raise ConfigError(
                f"per_host(): {_shown(item)} is no URL. Give per_host(…, key=function), which returns "
                "the URL of an item."
            )
        if isinstance(key, str):
            key = self._host_of(key)
        return None if key is None else (key, self.seconds)

    def _host_of(self, text: str) -> str | None:
        """The host of a URL, None for one that has none (``data:``); with ``key=``, any other text as it
        is."""
        try:
            url = urlsplit(text)
            host = url.hostname
        except ValueError as error:
            raise ConfigError(f"per_host(): {_shown(text)} is no URL ({error}).") from None
        if host:
            return _ascii_name(host.rstrip("."))
        is_url = url.scheme and (url.scheme == "data" or not _HOST_AND_PORT.fullmatch(text))
        if self._key is not None and not is_url:
            return text
        if not is_url:
            raise ConfigError(
                f"per_host(): {_shown(text)} is no URL with a host. Give whole URLs, or per_host(…, "
                "key=function), which returns the URL of an item."
            )
        return None

    def __repr__(self) -> str:
        return f"per_host({self.seconds:g})"


def _ascii_name(host: str) -> str:
    """A name with other letters as the DNS has it, so that both ways to write it are one host."""
    try:
        return host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        return host


def per_host(seconds: float, *, key: Callable[[Any], Any] | None = None) -> PerHost:
    """A pace for ``pool.map``: calls for items of the same host start at least ``seconds`` apart.

    An item is a URL, or ``key`` returns the URL of an item.  ``key`` may also return any other hashable
    value in place of a host, and None for an item that does not wait.  Ports and schemes do not count:
    ``http://a`` and ``https://a:8443`` are one host.  Items without a host (``data:``) do not wait.

    One object may be the pace of several ``map`` calls, at the same time or one after another: they
    share the hosts' turns.

    Raises ConfigError for seconds that are not valid, and for a key that cannot be called.
    """
    check_seconds("seconds", seconds)
    if key is not None and not callable(key):
        raise ConfigError(f"key={key!r}: give a function that returns the URL of an item.")
    return PerHost(seconds, key)


def check_pace(pace: Any) -> tuple[Pace, Turns] | None:
    """The pace of one ``map`` call, with its turns; None for None.  Raises ConfigError for a pace that
    cannot be called."""
    if pace is None:
        return None
    if not callable(pace):
        raise ConfigError(
            f"pace={pace!r}: give per_host(seconds), or a function that returns (key, seconds) of an "
            "item."
        )
    return pace, pace.turns if isinstance(pace, PerHost) else Turns()


def turn_of(pace: Pace, item: Any) -> tuple[Hashable, float] | None:
    """The pace's key and seconds for an item; None if it does not wait.  Raises the exceptions of the
    pace, and ConfigError for a result of another form."""
    answer: Any = pace(item)
    if answer is None:
        return None
    try:
        key, seconds = answer
        hash(key)
        is_right = not isinstance(seconds, bool) and 0 <= seconds < math.inf
    except (TypeError, ValueError):
        is_right = False
    if not is_right:
        raise ConfigError(
            f"pace= has returned {_shown(answer)}: it must return (key, seconds), or None for an item "
            "that is not to wait."
        )
    return key, float(seconds)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


__all__ = ["Claim", "Pace", "PerHost", "Turns", "check_pace", "per_host", "turn_of"]
