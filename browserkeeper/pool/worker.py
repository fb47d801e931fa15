"""A thread for each browser, which launches it, renews it between leases, and ends it."""

from __future__ import annotations

import dataclasses
import logging
import queue
import threading
import time
from collections.abc import Callable

from ..errors import BrowserkeeperError, LaunchError
from ..report import ExitReport
from .browser import Browser, NotReusableError

logger = logging.getLogger("browserkeeper")


@dataclasses.dataclass(frozen=True)
class Launched:
    """The browser is ready for its first lease."""

    seconds: float


@dataclasses.dataclass(frozen=True)
class LaunchFailed:
    """Nothing is left of the launch; the worker's thread ends."""

    error: BrowserkeeperError


@dataclasses.dataclass(frozen=True)
class Ready:
    """The browser was renewed, or answered a ping."""

    retire_reason: str
    """Why it should be replaced, although it can be leased; else ""."""
    renewed: bool
    """False after a ping."""


@dataclasses.dataclass(frozen=True)
class NotReusable:
    """The browser is alive, but must not be leased again."""

    reason: str


@dataclasses.dataclass(frozen=True)
class Lost:
    """The browser is dead, or does not answer."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """The browser's end is verified; the worker's thread ends."""

    report: ExitReport


WorkerEvent = Launched | LaunchFailed | Ready | NotReusable | Lost | Ended


class BrowserWorker:
    """Launches its browser when it is made; then does one job after another.

    The browser's guard ends a browser that hangs, so no job blocks for ever.
    """

    def __init__(self, browser: Browser, report: Callable[[WorkerEvent], None], number: int):
        """``report`` is called in the worker's thread, with the result of each job."""
        self._browser, self._report = browser, report
        self._jobs: queue.SimpleQueue[Callable[[], WorkerEvent]] = queue.SimpleQueue()
        name = f"browserkeeper-{number}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    # -- from any thread: each call queues a job and returns at once

    def renew(self) -> None:
        self._jobs.put(self._renew)

    def ping(self) -> None:
        self._jobs.put(self._ping)

    def close(self, reason: str) -> None:
        """End the browser.  This is the last job."""
        self._jobs.put(lambda: Ended(self._browser.end(reason)))

    # -- in the worker's thread

    def _run(self) -> None:
        event = self._launch()
        self._report(event)
        while not isinstance(event, (LaunchFailed, Ended)):
            event = self._jobs.get()()
            self._report(event)

    def _launch(self) -> WorkerEvent:
        began = time.monotonic()
        try:
            self._browser.launch()
        except BrowserkeeperError as error:
            return LaunchFailed(error)
        except Exception as error:  # noqa: BLE001 # requests may be waiting: they are told the cause
            text = f"The browser did not get ready for its first lease: {error}"
            return LaunchFailed(LaunchError(text))
        return Launched(time.monotonic() - began)

    def _renew(self) -> WorkerEvent:
        try:
            return Ready(self._browser.renew(), renewed=True)
        except NotReusableError as error:
            return NotReusable(str(error))
        except Exception as error:  # noqa: BLE001 # a browser that cannot be renewed is replaced
            logger.warning("browser %s cannot be made ready: %s", self._browser.id, error)
            return Lost()

    def _ping(self) -> WorkerEvent:
        try:
            return Ready(self._browser.ping(), renewed=False)
        except Exception as error:  # noqa: BLE001 # a browser that does not answer is replaced
            logger.warning("browser %s does not answer: %s", self._browser.id, error)
            return Lost()
