"""Selenium's drivers, kept: the only module that subclasses Selenium.

A kept driver is a real ``webdriver.Chrome`` (Edge, Firefox); it differs in three things: it is
given a driver process that is running already, each command passes through its session, and
``quit()`` is the session's verified ending.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any, Protocol

from selenium import webdriver
from selenium.webdriver.chromium.remote_connection import ChromiumRemoteConnection
from selenium.webdriver.common.webdriver import LocalWebDriver
from selenium.webdriver.firefox.remote_connection import FirefoxRemoteConnection
from selenium.webdriver.remote.client_config import ClientConfig
from selenium.webdriver.remote.remote_connection import RemoteConnection

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from ..grid.address import Address

BIDI_INTERVAL = 0.005
"""Seconds between looks for a BiDi answer; Selenium's 0.1 is most of a command's time."""

BIDI_PATIENCE = 2.0
"""Seconds for the thread of a BiDi connection to see that it was cut; it takes milliseconds."""


class CommandHandler(Protocol):
    """What a kept driver asks of its session."""

    def run_command(self, name: str, params: dict[str, Any], command: Callable[[], Any]) -> Any: ...
    def quit_driver(self) -> None: ...


class ManagedService:
    """``driver.service``, for those who look at it.  The process is the guard: below it in the
    process tree is all that belongs to the session."""

    def __init__(self, handler: CommandHandler, path: str, port: int, process: subprocess.Popen[bytes]):
        self._command_handler = handler
        self.path, self.port, self.process = path, port, process

    @property
    def service_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """It is running."""

    def stop(self) -> None:
        """End the session, verified."""
        self._command_handler.quit_driver()

    def is_connectable(self) -> bool:
        return self.process.poll() is None


class _Managed(LocalWebDriver):
    service: Any  # a ManagedService, where Selenium's classes declare a Service

    def __init__(
        self,
        handler: CommandHandler,
        service: ManagedService,
        executor: RemoteConnection,
        options: Any,
        twin: _Managed | None = None,
    ):
        self.command_handler, self.service, self.options, self._twin = (
            handler,
            service,
            options,
            twin,
        )
        # Past the constructors of Chrome and Firefox, which would start a driver of their own.
        LocalWebDriver.__init__(self, command_executor=executor, options=options)  # type: ignore[no-untyped-call]

    def start_session(self, capabilities: dict[str, Any]) -> None:
        if self._twin is None:
            super().start_session(capabilities)
        else:
            self.session_id, self.caps = self._twin.session_id, self._twin.caps

    def execute(self, driver_command: Any, params: dict[str, Any] | None = None) -> Any:
        name = driver_command if isinstance(driver_command, str) else "bidi"
        run = super().execute
        return self.command_handler.run_command(name, params or {}, lambda: run(driver_command, params))

    def _start_bidi(self) -> None:
        """Past :meth:`execute`, Selenium would open this connection after a lease as well."""
        self.command_handler.run_command("bidi", {}, super()._start_bidi)

    def _get_cdp_details(self) -> Any:
        """The same for ``bidi_connection()`` and ``start_devtools()``."""
        return self.command_handler.run_command("devtools", {}, super()._get_cdp_details)

    @property
    def used_bidi(self) -> bool:
        """Did somebody open Selenium's BiDi connection of this driver object?"""
        return getattr(self, "_websocket_connection", None) is not None

    def disconnect_bidi(self) -> None:
        """Close it, with its thread; nothing where there is none."""
        connection: Any = self._websocket_connection
        self._websocket_connection = None
        if connection is not None:
            with contextlib.suppress(Exception):
                # close() alone often waits 10 s for the thread, from under which it took the socket.
                connection._ws.sock.sock.shutdown(socket.SHUT_RDWR)
                connection._ws_thread.join(BIDI_PATIENCE)
            connection.close()

    def quit(self) -> None:
        """End the session, verified; see ``BrowserSession.close``."""
        self.command_handler.quit_driver()


class Chrome(_Managed, webdriver.Chrome):
    """A kept ``webdriver.Chrome``."""


class Edge(_Managed, webdriver.Edge):
    """A kept ``webdriver.Edge``."""


class Firefox(_Managed, webdriver.Firefox):
    """A kept ``webdriver.Firefox``."""


class _RemoteManaged:
    """On a Grid: files are sent to it and fetched from it, as ``webdriver.Remote`` does."""

    def __init__(self, *given: Any):
        super().__init__(*given)
        self._is_remote = True

    download_file = webdriver.Remote.download_file
    get_downloadable_files = webdriver.Remote.get_downloadable_files
    delete_downloadable_files = webdriver.Remote.delete_downloadable_files


class RemoteChrome(_RemoteManaged, Chrome):
    """A kept ``webdriver.Chrome`` whose browser is on a Grid."""


class RemoteEdge(_RemoteManaged, Edge):
    """A kept ``webdriver.Edge`` whose browser is on a Grid."""


class RemoteFirefox(_RemoteManaged, Firefox):
    """A kept ``webdriver.Firefox`` whose browser is on a Grid."""


def client_config(url: str, timeout: float, grid: Address | None = None) -> ClientConfig:
    """No retries: a command that the guard's kill cut off must not be sent again."""
    no_retries = {"init_args_for_pool_manager": {"retries": False}}
    return ClientConfig(
        remote_server_addr=url,
        timeout=timeout,  # type: ignore[arg-type] # a float in fact: it goes to urllib3
        init_args_for_pool_manager=no_retries,
        websocket_interval=BIDI_INTERVAL,
        username=grid.username if grid else None,
        password=grid.password if grid else None,
    )


def connect(
    name: str,
    handler: CommandHandler,
    service: ManagedService,
    options: Any,
    timeout: float,
    grid: Address | None = None,
) -> webdriver.Remote:
    """Open a session on a driver process that is running; ``timeout`` (seconds) is for that.  With
    ``grid`` that process is a relay, which passes the Grid's credentials on.

    ``ignore_proxy``: the driver is on the loopback, whatever ``http_proxy`` says.
    """
    config = client_config(service.service_url, timeout, grid)
    kind: type[_Managed]
    if name == "firefox":
        executor = FirefoxRemoteConnection(service.service_url, ignore_proxy=True, client_config=config)
        kind = RemoteFirefox if grid else Firefox
        return kind(handler, service, executor, options)
    if name == "edge":
        kind, vendor = RemoteEdge if grid else Edge, "ms"
    else:
        kind, vendor = RemoteChrome if grid else Chrome, "goog"
    browser_name = "MicrosoftEdge" if name == "edge" else "chrome"
    chromium = ChromiumRemoteConnection(
        service.service_url, vendor, browser_name, ignore_proxy=True, client_config=config
    )
    return kind(handler, service, chromium, options)


def another(driver: Any, handler: CommandHandler) -> Any:
    """A second driver object on the same session, its commands through ``handler``; nothing is
    sent.  What a user sets on one (file detector, pinned scripts) the other does not have."""
    service = ManagedService(handler, driver.service.path, driver.service.port, driver.service.process)
    return type(driver)(handler, service, driver.command_executor, driver.options, driver)


def set_command_timeout(driver: webdriver.Remote, timeout: float) -> None:
    """Seconds that any one command may take from now on."""
    driver.command_executor.client_config.timeout = timeout  # type: ignore[union-attr]
