"""A program of the trials of the host's limit: uses browsers until it is told to stop.

    python -m tests.system.host_program KIND SETTINGS

KIND: ``with``, ``decorated``, ``threads``, ``pool``, ``pool-fresh`` (a new browser for each lease).  All
but the first use several browsers at once.  SETTINGS is a JSON object:

    arguments   of browser() and BrowserPool
    page        the page that a job opens; "" for none
    seconds     how long a job keeps its browser
    threads     how many threads, and browsers of a pool
    jobs        how many jobs to do; 0: until the file ``stop`` is there
    stop        that file

Each event is one JSON line on standard output, written at once.  Errors of browserkeeper's are expected
where browsers and guards are killed; any other error is reported as ``raw``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium.common.exceptions import WebDriverException

from browserkeeper import BrowserkeeperError, BrowserPool, browser

PAUSE_AFTER_ERROR = 0.05
PATIENCE = 300.0
"""Seconds to wait for a slot; only a failure takes that long."""


def say(event: str, **facts: object) -> None:
    os.write(1, f"{json.dumps({'event': event, 't': time.monotonic(), **facts})}\n".encode())


class Work:
    """The jobs of one program, shared by its threads."""

    def __init__(self, kind: str, settings: dict[str, Any]):
        self.kind = kind
        self.arguments: dict[str, Any] = settings["arguments"]
        self.waiting: dict[str, Any] = {**self.arguments, "wait": PATIENCE}
        self.threads: int = settings["threads"]
        self.page, self.seconds = settings["page"], settings["seconds"]
        self.jobs, self.stop = settings["jobs"], Path(settings["stop"])
        self._lock, self._done = threading.Lock(), 0

    def use(self, driver: Any) -> None:
        if self.page:
            driver.get(self.page)
        _ = driver.title
        time.sleep(self.seconds)

    def next(self) -> bool:
        """Take one more job, if there is one."""
        with self._lock:
            if self.stop.exists() or (self.jobs and self._done >= self.jobs):
                return False
            self._done += 1
            return True

    def give_back(self) -> None:
        """A job that failed is done again."""
        with self._lock:
            self._done -= 1

    def run(self, one: Callable[[], None]) -> None:
        """Do jobs until there is none left; ``one`` does one."""
        while self.next():
            began = time.monotonic()
            try:
                one()
                say("job", kind=self.kind, seconds=time.monotonic() - began)
            except (BrowserkeeperError, WebDriverException) as error:
                say("error", kind=self.kind, type=type(error).__name__, text=str(error)[:600])
                self.give_back()
                time.sleep(PAUSE_AFTER_ERROR)
            except Exception:
                say("raw", kind=self.kind, text=traceback.format_exc()[-3000:])
                self.give_back()
                time.sleep(PAUSE_AFTER_ERROR)

    def in_threads(self, one: Callable[[], None]) -> None:
        threads = [threading.Thread(target=self.run, args=(one,)) for _ in range(self.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    # -- the kinds

    def with_block(self) -> None:
        with browser(**self.waiting) as driver:
            self.use(driver)

    def through_pool(self, isolation: Any) -> None:
        limits: Any = {"max_size": self.threads, "checkout_timeout": PATIENCE}
        with BrowserPool(isolation=isolation, **limits, **self.arguments) as pool:

            def one() -> None:
                with pool.driver() as driver:
                    self.use(driver)

            self.in_threads(one)

    def start(self) -> None:
        if self.kind == "with":
            self.run(self.with_block)
        elif self.kind == "decorated":

            @browser(**self.waiting)
            def task(driver: Any) -> None:
                self.use(driver)

            self.in_threads(task)
        elif self.kind == "threads":
            self.in_threads(self.with_block)
        else:
            self.through_pool("fresh" if self.kind == "pool-fresh" else "none")


def main() -> None:
    say("ready")
    Work(sys.argv[1], json.loads(sys.argv[2])).start()
    say("over")


if __name__ == "__main__":
    main()
