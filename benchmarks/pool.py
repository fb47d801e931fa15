"""The pool against its rivals: a plain Selenium session, or a Playwright context, for each page."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from browserkeeper import BrowserPool

from . import plain
from .measures import in_turn, timed

PAGES = 12
"""Pages in one round of a comparison of throughputs."""
PAGES_OF_FIREFOX = 5
"""As ``PAGES``; a Firefox takes ten times as long to start."""


def checkout(rounds: int) -> dict[str, list[float]]:
    """Seconds until a command can be sent: by a lease with an idle browser, and by a plain start."""
    results: dict[str, list[float]] = {"plain": [], "lease": []}
    with BrowserPool("chrome", max_size=2, min_idle=1) as pool:
        for _ in range(rounds):
            began = time.perf_counter()
            driver = plain.chrome()
            results["plain"].append(time.perf_counter() - began)
            driver.quit()
            for _ in range(5):
                pool.wait()
                began = time.perf_counter()
                lease = pool.lease()
                _ = lease.driver
                results["lease"].append(time.perf_counter() - began)
                lease.driver.get("about:blank")
                lease.release()
    return results


# ------------------------------------------------------------------ pages in a row


def plain_pages(url: str, pages: int, workers: int, name: str = "chrome") -> None:
    def work(share: int) -> None:
        for _ in range(share):
            driver: Any = plain.START[name]()
            driver.get(url)
            assert driver.title
            driver.quit()

    threads = [threading.Thread(target=work, args=(pages // workers,)) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def visit(driver: Any, url: str) -> str:
    driver.get(url)
    return str(driver.title)


def pool_pages(pool: BrowserPool[Any], url: str, pages: int, workers: int) -> None:
    outcomes = list(pool.map(visit, [url] * pages, workers=workers))
    assert all(outcome.ok for outcome in outcomes)


def playwright_pages(browser: Any, url: str, pages: int) -> None:
    for _ in range(pages):
        context = browser.new_context()
        page = context.new_page()
        page.goto(url)
        assert page.title()
        context.close()


@contextlib.contextmanager
def playwright_browser(binary: str) -> Iterator[Any]:
    """Playwright's browser as its documentation shows it, with the same binary."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=binary, args=arguments)
        yield browser
        browser.close()


def throughput(url: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each rival for ``PAGES`` pages, each page in a fresh isolated session."""
    binary = plain.which("chromium", "google-chrome")
    with (
        BrowserPool("chrome", max_size=1) as one,
        BrowserPool("chrome", max_size=2, min_idle=2) as two,
        BrowserPool("chromium-headless-shell", max_size=2, min_idle=2) as shells,
        playwright_browser(binary) as browser,
    ):
        one.wait()
        two.wait()
        shells.wait()
        rivals: dict[str, Callable[[], object]] = {
            "plain, 1 worker": functools.partial(plain_pages, url, PAGES, 1),
            "plain, 2 workers": functools.partial(plain_pages, url, PAGES, 2),
            "playwright": functools.partial(playwright_pages, browser, url, PAGES),
            "pool of 1, 1 worker": functools.partial(pool_pages, one, url, PAGES, 1),
            "pool of 2, 1 worker": functools.partial(pool_pages, two, url, PAGES, 1),
            "pool of 2, 2 workers": functools.partial(pool_pages, two, url, PAGES, 2),
            "pool of 2 headless shells, 1 worker": functools.partial(pool_pages, shells, url, PAGES, 1),
        }
        return in_turn({name: functools.partial(timed, run) for name, run in rivals.items()}, rounds)


def throughput_of_firefox(url: str, rounds: int) -> dict[str, list[float]]:
    """As :func:`throughput`: a Firefox for each page, and a user context for each page."""
    with BrowserPool("firefox", max_size=1, isolation="context") as one:
        one.wait(300)
        rivals: dict[str, Callable[[], object]] = {
            "plain Firefox": functools.partial(plain_pages, url, PAGES_OF_FIREFOX, 1, "firefox"),
            "pool of 1 Firefox": functools.partial(pool_pages, one, url, PAGES_OF_FIREFOX, 1),
        }
        return in_turn({name: functools.partial(timed, run) for name, run in rivals.items()}, rounds)


# ------------------------------------------------------------------ memory


def memory(url: str, number: int) -> tuple[float, float]:
    """MB of so many plain sessions and of a pool of that size: PSS of all descendants."""
    drivers = [plain.chrome() for _ in range(number)]
    for driver in drivers:
        driver.get(url)
    theirs = tree_pss()
    for driver in drivers:
        driver.quit()
    with BrowserPool("chrome", max_size=number, min_idle=number) as pool:
        pool.wait(120)
        leases = [pool.lease() for _ in range(number)]
        for lease in leases:
            lease.driver.get(url)
        ours = tree_pss()
        for lease in leases:
            lease.release()
    return theirs, ours


def tree_pss() -> float:
    """MB of all processes that descend from this one."""
    pids = [str(os.getpid())]
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                pids += task.read_text().split()
    return sum(map(_pss, pids[1:]))


def _pss(pid: str) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1000
    return 0.0
