"""``driver.service``: a real ``Service`` of Selenium whose driver process browserkeeper has started."""

from __future__ import annotations

import dataclasses
import http.client
import json
from typing import TYPE_CHECKING, Any

from selenium.webdriver.chrome.service import Service as ChromeService
from selenium.webdriver.edge.service import Service as EdgeService
from selenium.webdriver.firefox.service import Service as FirefoxService

from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..selenium_internals.private import OpenService

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..process.child import ChildProcess
    from .network import DriverNetwork

STATUS_TIMEOUT = 1.0
"""Seconds that ``is_connectable()`` waits for the driver, as in Selenium."""


@dataclasses.dataclass(frozen=True)
class DriverProcess:
    """The driver process that a service stands for, which runs already.

    ``process`` is the guard: all processes of the session are below it.  ``url_path`` is the path before
    that of each command; it is a secret where the driver is the relay to a Grid.  ``network`` makes the
    connections to an isolated driver, and is None for any other.
    """

    browser: str
    command: Sequence[str]
    port: int
    process: ChildProcess
    env: Mapping[str, str] = dataclasses.field(repr=False)
    url_path: str = dataclasses.field(default="", repr=False)
    network: DriverNetwork | None = None

    @property
    def url(self) -> str:
        """What the driver itself takes for its address."""
        return f"http://127.0.0.1:{self.port}{self.url_path}"

    @property
    def arguments(self) -> list[str]:
        """Those of the command, without the port: the driver was told 0, and has chosen it."""
        words = [word for word in self.command[1:] if not word.startswith("--port=")]
        if "--port" in words:
            at = words.index("--port")
            del words[at : at + 2]
        return words


class ManagedService(OpenService):
    """What the services of all browsers share.

    Starting does nothing, since the driver runs already; stopping is the driver's ``quit()``.
    """

    path_variable = "SE_CHROMEDRIVER"
    service_args: Any  # a property of the browsers' classes
    process: Any

    def __init__(self, driver_process: DriverProcess, quit_driver: Callable[[], None]):
        # Not the constructors of ChromeService and its like, which obey SE_DEBUG.
        OpenService.__init__(
            self,
            driver_process.command[0],
            driver_process.port,
            env=driver_process.env,
            driver_path_env_key=self.path_variable,
        )
        self.driver_process, self._quit_driver = driver_process, quit_driver
        self.path = driver_process.command[0]  # the constructor prefers that of ``path_variable``
        self.process = driver_process.process
        self.service_args = driver_process.arguments

    @property
    def url_path(self) -> str:
        return self.driver_process.url_path

    @property
    def service_url(self) -> str:
        """The driver's address.  That of an isolated driver, which no other client can connect to, has a
        host whose name says so."""
        if self.driver_process.network is None:
            return self.driver_process.url
        from .network import HOST

        return f"http://{HOST}:{self.port}{self.url_path}"

    def start(self) -> None:
        """Does nothing: the driver runs already."""

    def stop(self) -> None:
        """The driver's ``quit()``: the verified end of the session."""
        self._quit_driver()

    def send_remote_shutdown_command(self) -> None:
        """The same as :meth:`stop`; a driver that is shut down alone would leave its browser."""
        self._quit_driver()

    def terminate_process(self) -> None:
        self._quit_driver()

    def is_connectable(self) -> bool:
        """True if the driver answers to ``/status`` that it is ready for a new session: geckodriver is
        not, while it has one.  Selenium's own method would obey proxy variables."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=STATUS_TIMEOUT)
        network = self.driver_process.network
        try:
            if network is not None:
                connection.sock = network.connect(self.port, STATUS_TIMEOUT)
            connection.request("GET", f"{self.url_path}/status")
            answer = connection.getresponse()
            return answer.status == 200 and json.loads(answer.read())["value"]["ready"] is True
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            return False
        finally:
            connection.close()

    def __del__(self) -> None:
        """Does nothing.  Selenium's stops the driver, which may be in use by another driver object."""


class ManagedChromeService(ManagedService, ChromeService):
    """A managed ``webdriver.ChromeService``."""


class ManagedEdgeService(ManagedService, EdgeService):
    """A managed ``webdriver.EdgeService``."""

    path_variable = "SE_EDGEDRIVER"


class ManagedFirefoxService(ManagedService, FirefoxService):
    """A managed ``webdriver.FirefoxService``."""

    path_variable = "SE_GECKODRIVER"


def make_service(driver_process: DriverProcess, quit_driver: Callable[[], None]) -> ManagedService:
    """The service for this driver; its ``stop()`` calls ``quit_driver``."""
    kinds: Mapping[str, type[ManagedService]] = {
        "edge": ManagedEdgeService,
        "firefox": ManagedFirefoxService,
    }
    return kinds.get(driver_process.browser, ManagedChromeService)(driver_process, quit_driver)
