"""Managed drivers: subclasses of Selenium's drivers, for sessions and leases.

A managed driver is a ``webdriver.Chrome``, ``Edge`` or ``Firefox`` with three differences: it is given a
driver process that runs already, each of its commands passes through a command handler, and ``quit()``
is the verified end of the session.  The private names of
Selenium's that this needs are in ``selenium_internals``.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol
from urllib.parse import urljoin

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chromium.remote_connection import ChromiumRemoteConnection
from selenium.webdriver.firefox.remote_connection import FirefoxRemoteConnection
from selenium.webdriver.remote.client_config import ClientConfig
from selenium.webdriver.remote.command import Command
from selenium.webdriver.remote.remote_connection import RemoteConnection
from urllib3.exceptions import HTTPError

from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..errors import refuse_to_pickle
from ..selenium_internals import known
from ..selenium_internals.private import OpenConnection, OpenDriver
from ..wire.words import BEGIN_LEASE
from .connection_errors import mark_as_of_connection
from .driver_service import ManagedService, make_service
from .error_codes import CodedErrors, ServerErrors
from .proxies import send_through
from .server_links import Links, ServerPoolManager
from .websockets import CLOSED, DirectWebSocketConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..grid.address import Address
    from ..wire.address import ServerAddress
    from .network import DriverNetwork
    from .websockets import Filter

NO_PORT = "this browser has no debugging port. Start it with debugging='port'."
"""The remedy where Selenium asks for the address of the DevTools protocol."""

CHROMIUM_OPTIONS = {
    "chrome": "goog:chromeOptions",
    "chrome-headless-shell": "goog:chromeOptions",
    "MicrosoftEdge": "ms:edgeOptions",
}
"""The capability that has the address of the debugging port, by ``browserName``."""

END_TIMEOUT = 2.0
"""Seconds for a driver to end after its session has closed the BiDi connection."""


class CommandHandler(Protocol):
    """What a managed driver calls: its session, or the lease that the driver belongs to."""

    def run_command(self, name: str, params: dict[str, Any], command: Callable[[], Any]) -> Any:
        """Returns what ``command()`` returns; may refuse to call it, and may replace its errors."""

    def observe_command(
        self, name: str, params: dict[str, Any]
    ) -> contextlib.AbstractContextManager[None]:
        """For a command that Selenium sends by a connection of its own: the block sends it."""

    def quit_driver(self) -> None:
        """The driver's ``quit()``."""

    @property
    def bidi_filter(self) -> Filter | None:
        """The filter for the driver's BiDi commands; None if they are sent unchanged.

        May raise the error of a lease that is over.
        """


class CommandObserver(Protocol):
    """Sees the commands of one managed driver, in the thread that calls them."""

    def run_command(self, name: str, params: dict[str, Any], command: Callable[[], Any]) -> Any:
        """Calls ``command()`` once, and returns or raises what it does."""

    def observed(self, method: str) -> contextlib.AbstractContextManager[None]:
        """For a command that Selenium sends by its websocket: the block sends it."""


class _Connection(OpenConnection):
    """Marks the errors of the connection to the driver; see drivers/connection_errors.py."""

    def send_request(self, method: str, url: str, body: Any = None) -> Any:
        try:
            return super().send_request(method, url, body)
        except (HTTPError, OSError) as error:
            mark_as_of_connection(error)
            raise


class _ChromiumConnection(_Connection, ChromiumRemoteConnection):
    pass


class _IsolatedConnection(_ChromiumConnection):
    """A connection to a driver in a network namespace of its own."""

    def __init__(self, network: DriverNetwork, *given: Any, **named: Any):
        self._network = network
        super().__init__(*given, **named)

    def make_connection_manager(self) -> Any:
        from .network import InsidePoolManager

        timeout = self.client_config.timeout
        return InsidePoolManager(self._network, timeout=timeout, retries=False)


class _FirefoxConnection(_Connection, FirefoxRemoteConnection):
    pass


class _ToServer(_Connection):
    """A connection to a server of ours.

    The request for a session has our capabilities beside those of the user's options.  Our capabilities
    may hold the secrets of an identity: so they are not added to the options, and the request is not
    logged.
    """

    def __init__(self, plan: ServerPlan, *given: Any, **named: Any):
        self._plan = plan
        super().__init__(*given, **named)

    @property
    def socket_path(self) -> str:
        """The server's unix socket; "" for one that listens on TCP."""
        return self._plan.address.socket

    def make_connection_manager(self) -> Any:
        config = self.client_config  # type: ignore[attr-defined]
        given = {"timeout": config.timeout, "retries": False, "cert_reqs": "CERT_REQUIRED"}
        return ServerPoolManager(self._plan.address, self._plan.links, ca_certs=config.ca_certs, **given)

    def execute(self, command: Any, params: Any) -> Any:
        if command != Command.NEW_SESSION:
            return super().execute(command, params)  # type: ignore[misc]
        asked = params["capabilities"]
        always = {**asked.get("alwaysMatch", {}), **self._plan.capabilities}
        body = json.dumps({"capabilities": {**asked, "alwaysMatch": always}})
        return self.send_request("POST", f"{self._plan.address.url}/session", body)

    def send_words(self, session: str, body: dict[str, Any]) -> Any:
        """Send the words of a lease (``wire.words.BEGIN_LEASE``); returns Selenium's answer."""
        url = f"{self._plan.address.url}/session/{session}/{BEGIN_LEASE}"
        return self.send_request("POST", url, json.dumps(body))


class _ChromiumToServer(_ToServer, ChromiumRemoteConnection):
    pass


class _FirefoxToServer(_ToServer, FirefoxRemoteConnection):
    pass


class _NoDebuggerAddress(dict[str, Any]):
    """``goog:chromeOptions`` of a browser without a debugging port; ChromeDriver leaves it out then."""

    def __missing__(self, key: str) -> Any:
        raise KeyError(f"{key}: {NO_PORT}" if key == "debuggerAddress" else key)


class _Managed(OpenDriver):
    service: Any  # a ManagedService, where Selenium's classes declare a Service
    error_handler_class: type[CodedErrors] = CodedErrors
    base_url = ""
    """What relative addresses of :meth:`get` are relative to; "" if they are sent as they are."""
    observer: CommandObserver | None = None

    @property
    def socket_path(self) -> str:
        """The unix socket of the server that this driver belongs to; "" without one."""
        return ""

    __reduce_ex__ = refuse_to_pickle

    def __copy__(self) -> _Managed:
        """Another object for the same session, as ``copy.copy`` makes it of a plain driver."""
        another: _Managed = object.__new__(type(self))
        vars(another).update(vars(self))
        return another

    def __init__(
        self,
        handler: CommandHandler,
        service: ManagedService,
        executor: RemoteConnection,
        options: Any,
        original: _Managed | None = None,
    ):
        self.command_handler, self.service = handler, service
        self.options, self._original = options, original
        # The constructors of Chrome and Firefox would start another driver, so they are skipped.
        OpenDriver.__init__(self, command_executor=executor, options=options)  # type: ignore[no-untyped-call]
        self.error_handler = self.error_handler_class()

    def start_session(self, capabilities: dict[str, Any]) -> None:
        self.error_handler = self.error_handler_class()
        if self._original is None:
            super().start_session(capabilities)
            self._know_network()
            if key := CHROMIUM_OPTIONS.get(self.caps.get("browserName", "")):
                self.caps.setdefault(key, _NoDebuggerAddress())
        else:
            self.session_id, self.caps = self._original.session_id, self._original.caps

    def _know_network(self) -> None:
        """Have the address of an isolated driver's websocket know how to connect to it."""
        network, url = self.service.driver_process.network, self.caps.get("webSocketUrl")
        if network is not None and isinstance(url, str):
            from .network import InsideUrl

            self.caps["webSocketUrl"] = InsideUrl(url, network)

    def get(self, url: str) -> None:
        """As in Selenium, but an address without a scheme is resolved against :attr:`base_url`."""
        super().get(urljoin(self.base_url, url) if self.base_url and isinstance(url, str) else url)

    def execute(self, driver_command: Any, params: dict[str, Any] | None = None) -> Any:
        """By a weak reference: the thread of a command that an exception has interrupted goes on until
        its answer comes, and must not keep a driver alive that the program has dropped."""
        name = driver_command if isinstance(driver_command, str) else "bidi"
        run, weak = super().execute.__func__, weakref.proxy(self)  # type: ignore[attr-defined]
        handle = functools.partial(
            self.command_handler.run_command,
            *(name, params or {}, lambda: run(weak, driver_command, params)),
        )
        observer = self.observer
        return handle() if observer is None else observer.run_command(name, params or {}, handle)

    @contextlib.contextmanager
    def _observe_command(self, name: str, params: dict[str, Any]) -> Iterator[None]:
        """For a command over Selenium's websocket, which the block sends."""
        observer = self.observer
        seen = observer.observed(params["method"]) if observer else contextlib.nullcontext()
        with seen, self.command_handler.observe_command(name, params):
            yield

    def __setattr__(self, name: str, value: Any) -> None:
        """An object of Selenium's that refers back to this driver gets a weak reference to it.

        Such are FedCM, Script and APIRequestContext (4.51).  In a circle with them, a driver that is
        dropped would be alive until the cyclic garbage collector runs, and its browser with it.
        """
        if type(value).__module__.startswith("selenium."):
            own = getattr(value, "__dict__", {})
            for key in [key for key, held in own.items() if held is self]:
                own[key] = weakref.proxy(self)
        super().__setattr__(name, value)

    def __del__(self) -> None:
        """Ends the thread of the BiDi connection, which would wait for the browser's end."""
        if self.used_bidi:
            with contextlib.suppress(Exception):
                self.disconnect_bidi()

    def start_bidi(self) -> None:
        """Selenium opens this connection without :meth:`execute`: it could be opened after a lease."""
        url, selenium_raises = self.caps.get("webSocketUrl"), super().start_bidi
        bidi_filter = self.command_handler.bidi_filter
        start = (lambda: self._connect_bidi(url, bidi_filter)) if url else selenium_raises
        self.command_handler.run_command("bidi", {}, start)

    def _connect_bidi(self, url: str, bidi_filter: Filter | None = None) -> None:
        """Open Selenium's BiDi connection, without a proxy where the browser is on this machine."""
        config = self.command_executor.client_config  # type: ignore[union-attr]
        if bidi_filter is not None:
            bidi_filter.attach()
        connection = DirectWebSocketConnection(
            url, config.websocket_timeout, bidi_filter, self.socket_path
        )
        connection.observe = weakref.WeakMethod(self._observe_command)
        connection.lost = weakref.WeakMethod(self._raise_bidi_lost)
        self.websocket = connection

    def _raise_bidi_lost(self) -> NoReturn:
        """Raises the error of the lease or the session that has closed the connection, or of a dead
        browser.

        A session closes the connection just before it ends the driver: so this waits for the driver's
        end, END_TIMEOUT at the most.
        """
        self.command_handler.run_command("bidi", {}, lambda: None)  # raises where that is over
        until = time.monotonic() + END_TIMEOUT
        while self.service.process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        self.command_handler.run_command("bidi", {}, _raise_closed)
        _raise_closed()

    def start_devtools(self) -> Any:
        """As Selenium's, without a proxy.

        Where there is a connection already, Selenium's method returns that one and skips the last step,
        which is to attach to the current window.
        """
        if self.used_bidi or self.caps["browserName"].lower() == "firefox":
            return super().start_devtools()
        _import_cdp()
        self._connect_bidi(self.caps.get("se:cdp") or self.cdp_details()[1])
        try:
            devtools, connection = super().start_devtools()
            window = devtools.target.TargetID(self.current_window_handle)
            attach = devtools.target.attach_to_target(window, True)
            connection.session_id = connection.execute(attach)  # type: ignore[no-untyped-call]
        except BaseException:
            self.disconnect_bidi()
            raise
        return devtools, connection

    def bidi_connection(self) -> Any:
        _import_cdp()
        return super().bidi_connection()

    def cdp_details(self) -> Any:
        """As :meth:`start_bidi`, for ``bidi_connection()`` and ``start_devtools()``."""
        get = super().cdp_details
        key = CHROMIUM_OPTIONS.get(self.caps.get("browserName", ""), "")
        if isinstance(self.caps.get(key), _NoDebuggerAddress):
            get = _refuse_cdp
        return self.command_handler.run_command("devtools", {}, get)

    @property
    def webextension(self) -> Any:
        """As in Selenium.  A command handler may refuse it here; what follows is not a command."""
        self.command_handler.run_command("webextension", {}, lambda: None)
        return super().webextension

    @property
    def request(self) -> Any:
        """As in Selenium: sends HTTP requests from this program with the browser's cookies.  They use
        the proxy of ``proxy=``, as the browser's own requests do."""
        if not hasattr(OpenDriver, "request"):
            raise AttributeError(f"driver.request does not exist in selenium {known.installed()}")
        context = super().request
        if (route := getattr(self.command_handler, "proxy_route", None)) is not None:
            send_through(context, route)
        return context

    @property
    def used_bidi(self) -> bool:
        """True if Selenium's BiDi connection of this driver object was opened."""
        return self.websocket is not None

    def disconnect(self) -> None:
        """Close what this driver object holds open besides its connection to the driver: that for BiDi,
        and the request context (``driver.request``).

        To be called before the browser's end, which the thread for BiDi would log as an error.
        """
        if (request := self.take_request_context()) is not None:
            with contextlib.suppress(Exception):
                request.dispose()
        self.disconnect_bidi()

    def disconnect_bidi(self) -> None:
        """Close Selenium's BiDi connection and end its thread, if it was opened."""
        connection, self.websocket = self.websocket, None
        if connection is not None:
            connection.close()

    def quit(self) -> None:
        """End the session, verified; see ``BrowserSession.close``."""
        observer, end = self.observer, self.command_handler.quit_driver
        try:
            end() if observer is None else observer.run_command(Command.QUIT, {}, end)
        finally:
            self.stop_client()


class Chrome(_Managed, webdriver.Chrome):
    """A managed ``webdriver.Chrome``."""


class Edge(_Managed, webdriver.Edge):
    """A managed ``webdriver.Edge``."""


class Firefox(_Managed, webdriver.Firefox):
    """A managed ``webdriver.Firefox``."""


class _RemoteManaged:
    """Methods of ``webdriver.Remote`` that send files to a Grid and fetch them."""

    def __init__(self, *given: Any):
        super().__init__(*given)
        self.mark_as_remote()  # type: ignore[attr-defined]

    download_file = webdriver.Remote.download_file
    get_downloadable_files = webdriver.Remote.get_downloadable_files
    delete_downloadable_files = webdriver.Remote.delete_downloadable_files


class RemoteChrome(_RemoteManaged, Chrome):
    """A managed ``webdriver.Chrome`` whose browser is on a Grid."""


class RemoteEdge(_RemoteManaged, Edge):
    """A managed ``webdriver.Edge`` whose browser is on a Grid."""


class RemoteFirefox(_RemoteManaged, Firefox):
    """A managed ``webdriver.Firefox`` whose browser is on a Grid."""


class _OfServer:
    """The methods that all drivers of leases of a server have."""

    error_handler_class: type[CodedErrors] = ServerErrors

    @property
    def socket_path(self) -> str:
        """The server's unix socket, for websockets; "" for a server on TCP."""
        driver: Any = self
        path: str = driver.command_executor.socket_path
        return path

    def tell_lease(self, body: dict[str, Any]) -> None:
        """Send the words of a lease.  Raises the error that the server sends.  Not sent as a command of
        Selenium's, which would log the identity."""
        driver: Any = self
        executor = driver.command_executor
        answer = executor.send_words(driver.session_id, body)
        if answer:
            self.error_handler_class().check_response(answer)


class ServerChrome(_OfServer, RemoteChrome):
    """A managed ``webdriver.Chrome`` whose browser is a lease of a server."""


class ServerFirefox(_OfServer, RemoteFirefox):
    """A managed ``webdriver.Firefox`` whose browser is a lease of a server."""


def _raise_closed() -> NoReturn:
    raise WebDriverException(CLOSED)


def _refuse_cdp() -> NoReturn:
    raise WebDriverException(f"Can't get debugger address: {NO_PORT}")


def _import_cdp() -> None:
    """Import what Selenium's DevTools need, in a thread of its own.

    trio (0.31), which is imported there, keeps the frame that imports it, and all frames below, in a
    circle.  They would keep a driver alive that has been dropped.
    """
    module = "selenium.webdriver.common.bidi.cdp"
    if module not in sys.modules:
        thread = threading.Thread(target=importlib.import_module, args=(module,))
        thread.start()
        thread.join()


def client_config(url: str, timeout: float, grid: Address | None = None) -> ClientConfig:
    """Selenium's configuration for a driver at ``url``; ``timeout`` is for one command, in seconds.

    Without urllib3's retries: a command that was cut off by the guard must not be sent again.
    """
    no_retries = {"init_args_for_pool_manager": {"retries": False}}
    return ClientConfig(
        remote_server_addr=url,
        timeout=timeout,  # type: ignore[arg-type] # a float in fact: it goes to urllib3
        init_args_for_pool_manager=no_retries,
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
    """Open a WebDriver session on a driver process that runs already, and return its driver.

    ``timeout``: seconds for that.  ``grid``: the driver process is a relay to this Grid.  Proxies in the
    environment are ignored, since the driver listens on the loopback.
    """
    url, network = service.driver_process.url, service.driver_process.network
    config = client_config(url, timeout, grid)
    kind: type[_Managed]
    if name == "firefox":
        executor = _FirefoxConnection(url, ignore_proxy=True, client_config=config)
        kind = RemoteFirefox if grid else Firefox
        return kind(handler, service, executor, options)
    if name == "edge":
        kind, vendor = RemoteEdge if grid else Edge, "ms"
    else:
        kind, vendor = RemoteChrome if grid else Chrome, "goog"
    browser_name = "MicrosoftEdge" if name == "edge" else "chrome"
    given = (url, vendor, browser_name)
    named: dict[str, Any] = {"ignore_proxy": True, "client_config": config}
    if network is None:
        chromium = _ChromiumConnection(*given, **named)
    else:
        chromium = _IsolatedConnection(network, *given, **named)
    return kind(handler, service, chromium, options)


class ServerPlan(NamedTuple):
    """The request of a session to a server: the server's address, the capabilities beside those of the
    options, and the connections of the session."""

    address: ServerAddress
    capabilities: dict[str, Any]
    links: Links


def connect_to_server(
    name: str,
    handler: CommandHandler,
    service: ManagedService,
    options: Any,
    timeout: float | None,
    plan: ServerPlan,
) -> webdriver.Remote:
    """Lease a session of a server, and return its driver.

    ``timeout``: seconds for the answer, the wait in the server's queue included; None for no limit.
    Raises the errors of Selenium and urllib3, ServerError, and our exceptions that the server sends.
    """
    config = ClientConfig(
        remote_server_addr=plan.address.url,
        timeout=timeout,  # type: ignore[arg-type] # a float in fact: it goes to urllib3
        extra_headers=plan.address.headers,
    )
    given: dict[str, Any] = {"ignore_proxy": True, "client_config": config}
    if name == "firefox":
        executor = _FirefoxToServer(plan, plan.address.url, **given)
        return ServerFirefox(handler, service, executor, options)
    chromium = _ChromiumToServer(plan, plan.address.url, "goog", "chrome", **given)
    return ServerChrome(handler, service, chromium, options)


def another(driver: Any, handler: CommandHandler, reused: Any = None) -> Any:
    """Another driver object on the same WebDriver session, whose commands pass through ``handler``.

    Sends nothing.  State of one driver object (file detector, pinned scripts) is not in the other.
    ``reused``: a managed driver of the same class, which becomes that driver object and loses the state
    that it had.
    """
    service = make_service(driver.service.driver_process, handler.quit_driver)
    if reused is None:
        reused = object.__new__(type(driver))
    vars(reused).clear()
    reused.__init__(handler, service, driver.command_executor, driver.options, driver)
    return reused


def set_command_timeout(driver: webdriver.Remote, timeout: float) -> None:
    """Seconds that any one command may take from now on."""
    driver.command_executor.client_config.timeout = timeout  # type: ignore[union-attr]
