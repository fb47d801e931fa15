"""Every use of a private name of Selenium's.

The base classes give such a method or attribute a name of ours, which subclasses in ``drivers`` override
and call; the functions read or set one of an object.  ``known.py`` has the table of the names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.selenium_manager import SeleniumManager
from selenium.webdriver.common.service import Service
from selenium.webdriver.common.webdriver import LocalWebDriver
from selenium.webdriver.remote import websocket_connection

from ..errors import hide_frames as __tracebackhide__  # noqa: F401

# ---------------------------------------------------------------------------- base classes


class OpenDriver(LocalWebDriver):
    """A Selenium driver whose private steps have names that subclasses may override."""

    def _start_bidi(self) -> None:
        self.start_bidi()

    def start_bidi(self) -> None:
        """Open the BiDi connection.  Selenium calls it when the first BiDi module is used."""
        super()._start_bidi()

    def _get_cdp_details(self) -> Any:
        return self.cdp_details()

    def cdp_details(self) -> Any:
        """The version of the browser, and the address of its DevTools websocket."""
        return super()._get_cdp_details()  # type: ignore[no-untyped-call]

    @property
    def websocket(self) -> Any:
        """The connection for BiDi and DevTools; None while there is none."""
        return getattr(self, "_websocket_connection", None)  # also in an object whose start has failed

    @websocket.setter
    def websocket(self, connection: Any) -> None:
        self._websocket_connection = connection

    def take_request_context(self) -> Any:
        """The object behind ``driver.request``, which the driver forgets; None if it was not used."""
        context: Any = getattr(self, "_request", None)  # Selenium 4.40 has none
        if context is not None:
            self._request: Any = None
        return context

    def mark_as_remote(self) -> None:
        """Have Selenium send the files of ``send_keys`` to the machine of the browser."""
        self._is_remote = True


class OpenConnection:
    """To be mixed into a ``RemoteConnection``: its private steps, as methods to override."""

    def _request(self, method: str, url: str, body: Any = None) -> Any:
        return self.send_request(method, url, body)

    def send_request(self, method: str, url: str, body: Any = None) -> Any:
        """Send one HTTP request, and return Selenium's form of the answer."""
        return super()._request(method, url, body=body)  # type: ignore[misc]

    def _get_connection_manager(self) -> Any:
        return self.make_connection_manager()

    def make_connection_manager(self) -> Any:
        """The urllib3 ``PoolManager`` that the requests use."""
        return super()._get_connection_manager()  # type: ignore[misc]


class OpenService(Service):
    """A Selenium service whose way to end the driver may be overridden."""

    def _terminate_process(self) -> None:
        self.terminate_process()

    def terminate_process(self) -> None:
        """End the driver process."""
        super()._terminate_process()


# ------------------------------------------------------------------------------- options


def set_arguments(options: Any, arguments: Iterable[str]) -> None:
    """Replace the arguments of these options; Selenium has a method only to add one."""
    options._arguments = list(arguments)


def extension_files(options: Any) -> tuple[str, ...]:
    """The files of ``ChromeOptions.add_extension()``; () for other options."""
    return tuple(getattr(options, "_extension_files", ()))


def has_encoded_extensions(options: Any) -> bool:
    """True if ``ChromeOptions.add_encoded_extension()`` was called."""
    return bool(getattr(options, "_extensions", ()))


def profile_preferences(profile: Any) -> dict[str, Any]:
    """All preferences that a ``FirefoxProfile`` would write; {} for None."""
    return dict(getattr(profile, "_desired_preferences", None) or {})


def profile_defaults(profile: Any) -> Mapping[str, Any]:
    """The preferences that Selenium gives to a new ``FirefoxProfile``; {} for None.

    Until Selenium 4.45 (the newest that was looked at) they are in two groups.
    """
    found: Mapping[str, Any] = getattr(profile, "DEFAULT_PREFERENCES", None) or {}
    if set(found) == {"frozen", "mutable"}:
        return {**found["mutable"], **found["frozen"]}
    return found


# ------------------------------------------------------------------------------ the rest


def manager_program() -> str | None:
    """The path of Selenium Manager; None where Selenium has none for this platform."""
    try:
        return str(SeleniumManager._get_binary())
    except WebDriverException:
        return None


def connection_pool(context: Any) -> Any:
    """The urllib3 ``PoolManager`` of ``driver.request``, or of a context that was made from it."""
    return context._pool


def set_connection_pool(context: Any, pool: Any) -> None:
    """Replace that ``PoolManager``."""
    context._pool = pool


def bidi_encoder() -> type[json.JSONEncoder] | None:
    """What makes JSON of Selenium's BiDi parameters, which may hold dataclasses; None before 4.45, whose
    parameters are plain."""
    found: type[json.JSONEncoder] | None = getattr(websocket_connection, "_BiDiEncoder", None)
    return found


__all__ = [
    "OpenConnection",
    "OpenDriver",
    "OpenService",
    "bidi_encoder",
    "connection_pool",
    "extension_files",
    "has_encoded_extensions",
    "manager_program",
    "profile_defaults",
    "profile_preferences",
    "set_arguments",
    "set_connection_pool",
]
