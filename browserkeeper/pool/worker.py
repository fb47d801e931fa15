"""A thread for each browser: it launches it, renews it between leases, and sees to its end."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Protocol

from ..errors import BrowserkeeperError, LaunchError
from ..report import ExitReport
from .browser import Browser, UnfitError

logger = logging.getLogger("browserkeeper")


class News(Protocol):
    """What an worker tells the pool, from its own thread."""

    def launched(self, seconds: float) -> None: ...
    def launch_failed(self, error: BrowserkeeperError) -> None: ...
    def ready(self, retiring: str, renewed: bool) -> None: ...
    def unfit(self, reason: str) -> None: ...
    def gone(self, report: ExitReport) -> None: ...


class BrowserWorker:
    """Does one thing after another; none takes longer than the guard allows the browser."""

    def __init__(self, browser: Browser, news: News, number: int):
        self._browser, self._news = browser, news
        self._chores: queue.SimpleQueue[Callable[[], bool]] = queue.SimpleQueue()
        name = f"browserkeeper-{number}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    # -- orders: each returns at once

    def renew(self) -> None:
        self._chores.put(self._renew)

    def ping(self) -> None:
        self._chores.put(self._ping)

    def close(self, reason: str) -> None:
        """The last order: the thread ends with the browser."""
        self._chores.put(lambda: self._close(reason))

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    # -- the thread; each chore says whether to go on

    def _run(self) -> None:
        going = self._launch()
        while going:
            going = self._chores.get()()

    def _launch(self) -> bool:
        began = time.monotonic()
        try:
            self._browser.launch()
        except BrowserkeeperError as error:
            self._news.launch_failed(error)
        except Exception as error:  # noqa: BLE001 # whatever it is, somebody waits to be told
            self._news.launch_failed(
                LaunchError(f"The browser did not get ready for its first lease: {error}")
            )
        else:
            self._news.launched(time.monotonic() - began)
            return True
        return False

    def _renew(self) -> bool:
        try:
            retiring = self._browser.renew()
        except UnfitError as error:
            self._news.unfit(str(error))
        except Exception as error:  # noqa: BLE001 # a browser that fails here is of no use, whatever it says
            logger.warning("browser %s cannot be made ready: %s", self._browser.id, error)
            self._news.unfit("lost")
        else:
            self._news.ready(retiring, renewed=True)
        return True

    def _ping(self) -> bool:
        try:
            retiring = self._browser.ping()
        except Exception as error:  # noqa: BLE001 # as above
            logger.warning("browser %s does not answer: %s", self._browser.id, error)
            self._news.unfit("lost")
        else:
            self._news.ready(retiring, renewed=False)
        return True

    def _close(self, reason: str) -> bool:
        self._news.gone(self._browser.end(reason))
        return False
