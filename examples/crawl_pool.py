"""Crawl a site with a pool of browsers.  Each page gets a session that knows nothing of earlier pages.

    python -m examples.crawl_pool [--url URL] [--browser firefox] [--size N] [--isolation fresh]
                                  [--limit N]

Without ``--url`` it crawls the fixture site, which it starts on a free port, with its special pages: one
never answers, one opens an alert, one does not exist.  The use of browserkeeper is in :func:`crawl`:
``BrowserPool`` holds the browsers, ``pool.map`` visits one level of links after the other with them.  A
page that fails ends its own lease only.

Exit status: 0 if pages were loaded and every browser is gone, 1 if no page was loaded or something is
left, 2 if no browser could be started.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urlsplit

from rich import box
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.remote.webdriver import WebDriver

if not __package__:  # run by its path: the checkout is not importable yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from browserkeeper import (
    BrowserkeeperError,
    BrowserPool,
    ExitReport,
    LeakError,
    Outcome,
    PoolError,
)
from fixtures.server import Site

PAGE = """return [
    performance.getEntriesByType('navigation')[0].responseStatus,
    document.title,
    [...document.links].map(link => link.href),
]"""
PAGE_TIMEOUT = 5.0
"""Seconds for a page to load, enforced by the browser."""
MAX_LEASE = 15.0
"""Seconds for all that is done with a page, enforced by the browser's guard: it also ends a browser that
hangs itself."""


class BadPageError(Exception):
    """The server answered with an error."""


@dataclass(frozen=True)
class Page:
    title: str
    links: tuple[str, ...]


@dataclass
class Found:
    """The results of the crawl; pages and errors by URL."""

    pages: dict[str, Page] = field(default_factory=dict)
    errors: dict[str, BaseException] = field(default_factory=dict)
    stats: Mapping[str, float] = field(default_factory=dict)
    reports: tuple[ExitReport, ...] = ()


# ------------------------------------------------------------------------------------- the crawl


def crawl(starts: list[str], most: int | None, pool: BrowserPool[Any], console: Console) -> Found:
    """Breadth-first over the pages of the same host, one level of links after the other.

    Raises PoolError if no browser can be started, LeakError if one has left something.
    """
    found, level, known = Found(), starts[:most], set(starts[:most])
    with pool, progress_bar(console) as bar:
        task = bar.add_task("", total=len(level))
        while level:
            links: list[str] = []
            # A second try helps after an error of the browser, not after an error of the server.
            retry_on = (WebDriverException, BrowserkeeperError)
            for outcome in pool.map(read_page, level, retries=1, retry_on=retry_on):
                links += take_in(outcome, found)
                bar.update(task, advance=1, description=urlsplit(outcome.item).path)
            fresh = [url for url in dict.fromkeys(links) if url not in known]
            level = [url for url in fresh if same_host(url, starts[0])]
            level = level[: None if most is None else most - len(known)]
            known.update(level)
            bar.update(task, total=len(known))
        bar.update(task, description="")
        found.stats = pool.stats()
    found.reports = pool.close()  # it is closed already; this returns the reports again
    return found


def read_page(driver: WebDriver, url: str) -> Page:
    driver.set_page_load_timeout(PAGE_TIMEOUT)  # for this lease only
    driver.get(url)
    status, title, links = driver.execute_script(PAGE)
    if status >= 400:
        raise BadPageError(f"HTTP {status}")
    return Page(title, tuple(urldefrag(link).url for link in links))


def take_in(outcome: Outcome[str, Page], found: Found) -> tuple[str, ...]:
    """Store a page or its error; return the links on the page."""
    if isinstance(outcome.error, PoolError):  # no error of this page
        raise outcome.error
    if outcome.error is not None:
        found.errors[outcome.item] = outcome.error
        return ()
    page = found.pages[outcome.item] = outcome.result()
    return page.links


def same_host(url: str, other: str) -> bool:
    return urlsplit(url)[:2] == urlsplit(other)[:2]


# -------------------------------------------------------------------------------------- printing


def progress_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("[bold]crawling[/]"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=console,
    )


def show(found: Found, console: Console) -> None:
    console.print(table("Not loaded", {u: in_short(e) for u, e in found.errors.items()}))
    facts = {name: f"{value:,.1f}".removesuffix(".0") for name, value in found.stats.items() if value}
    console.print(table("The pool", facts))
    console.print(f"{len(found.pages)} pages loaded, {len(found.errors)} not")
    clean = sum(report.clean for report in found.reports)
    console.print(f"{clean} of {len(found.reports)} browsers ended clean: nothing of them is left")


def table(title: str, lines: Mapping[str, str]) -> Table:
    made = Table(title=title, title_justify="left", box=box.SIMPLE, show_header=False, pad_edge=False)
    for name, text in sorted(lines.items()):
        made.add_row(name, text)
    return made


def in_short(error: BaseException) -> str:
    """``TimeoutException: timeout: Timed out receiving message from renderer``"""
    text = str(getattr(error, "msg", None) or error).partition("\n")[0]
    return f"{type(error).__name__}: {text}"


# --------------------------------------------------------------------------------------- the rest


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", help="where to start; without it, the fixture site")
    parser.add_argument("--browser", default="chrome", metavar="NAME", help="chrome, firefox, edge …")
    parser.add_argument("--size", type=positive, metavar="N", help="browsers at the most")
    parser.add_argument("--isolation", default="auto", help="auto, context, fresh or none")
    parser.add_argument("--limit", type=positive, metavar="N", help="stop after N pages")
    return parser.parse_args()


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of 1 or more")
    return int(text)


def main() -> int:
    given, console = parse_arguments(), Console()
    # One console for both, so that a warning does not tear the progress bar.
    handler = RichHandler(console=console, show_time=False, show_path=False)
    logging.basicConfig(handlers=[handler], format="%(message)s", level=logging.WARNING)
    try:
        with contextlib.ExitStack() as stack:
            starts = [given.url]
            if not given.url:
                site = stack.enter_context(Site())
                starts = [site.url, site.url_for("special")]
            pool: BrowserPool[Any] = BrowserPool(
                given.browser, max_size=given.size, isolation=given.isolation, max_lease=MAX_LEASE
            )
            found = crawl(starts, given.limit, pool, console)
    except (BrowserkeeperError, KeyboardInterrupt) as error:  # the pool is closed already
        if isinstance(error, KeyboardInterrupt):
            console.print("interrupted")
            return 130
        console.print(f"[red]{type(error).__name__}:[/] ", end="")
        console.print(str(error), markup=False)
        return 1 if isinstance(error, LeakError) else 2
    show(found, console)
    return 0 if found.pages else 1


if __name__ == "__main__":
    sys.exit(main())
