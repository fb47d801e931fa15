"""Crawl a site with a pool of browsers; each page gets a session without a memory of the last.

    python -m examples.crawl_pool [--url URL] [--browser firefox] [--size N] [--isolation fresh]
                                  [--limit N]

Without ``--url`` it is the fixture site, on a port of its own, with its special pages: one never
answers, one opens an alert, one is not there.  What is special to browserkeeper stands in
:func:`crawl`: ``BrowserPool`` keeps the browsers, ``pool.map`` sends one level of links after the
other through them.  A page that fails costs its own lease and nobody else's.

Exit status: 0 when pages came and every browser is gone, 1 when none came or something is left,
2 when there are no browsers to be had.
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
"""Seconds for a page to load, kept by the browser."""
MAX_LEASE = 15.0
"""Seconds for everything that is done with a page, kept by the browser's guard: for what hangs
so that the browser itself does not notice."""


class BadPageError(Exception):
    """The server answered, and not with the page."""


@dataclass(frozen=True)
class Page:
    title: str
    links: tuple[str, ...]


@dataclass
class Found:
    """What the crawl has come to so far; by URL."""

    pages: dict[str, Page] = field(default_factory=dict)
    errors: dict[str, BaseException] = field(default_factory=dict)
    stats: Mapping[str, float] = field(default_factory=dict)
    reports: tuple[ExitReport, ...] = ()


# ------------------------------------------------------------------------------------- the crawl


def crawl(starts: list[str], most: int | None, pool: BrowserPool[Any], console: Console) -> Found:
    """Breadth-first over the pages of the same host, one level of links after the other.

    Raises PoolError where there are no browsers to be had, LeakError where one left something.
    """
    found, level, known = Found(), starts[:most], set(starts[:most])
    with pool, progress_bar(console) as bar:
        task = bar.add_task("", total=len(level))
        while level:
            links: list[str] = []
            # What the server says is final; what the browser stumbles over is worth a second try.
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
    found.reports = pool.close()  # it has been closed; this only returns the reports again
    return found


def read_page(driver: WebDriver, url: str) -> Page:
    driver.set_page_load_timeout(PAGE_TIMEOUT)  # the next lease will not know of it
    driver.get(url)
    status, title, links = driver.execute_script(PAGE)
    if status >= 400:
        raise BadPageError(f"HTTP {status}")
    return Page(title, tuple(urldefrag(link).url for link in links))


def take_in(outcome: Outcome[str, Page], found: Found) -> tuple[str, ...]:
    """Keep what came of a page; the links on it."""
    if isinstance(outcome.error, PoolError):  # it is not the page's fault
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
    console.print(table("What did not come", {u: in_short(e) for u, e in found.errors.items()}))
    facts = {name: f"{value:,.1f}".removesuffix(".0") for name, value in found.stats.items() if value}
    console.print(table("The pool", facts))
    console.print(f"{len(found.pages)} pages came, {len(found.errors)} did not")
    clean = sum(report.clean for report in found.reports)
    console.print(f"{clean} of {len(found.reports)} browsers ended clean, nothing of them is left")


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
    except (BrowserkeeperError, KeyboardInterrupt) as error:  # the pool has been closed on the way here
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
