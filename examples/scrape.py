"""Crawl a small book shop with one browser, then prove that nothing of the browser is left.

    python -m examples.scrape [--browser firefox] [--pages N] [--headed]

The shop is the fixture site, which this starts on a free port; no network is needed.  The use of
browserkeeper is in :func:`scrape`: ``browser()`` makes the session, ``with`` starts and ends it,
``session.report`` says how it ended.  The rest is plain Selenium, and some tables.

Exit status: 0 if everything is gone, 1 if something is left, 2 if the browser failed.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urldefrag, urlsplit

import psutil
from rich import box
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver

if not __package__:  # run by its path: the checkout is not importable yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from browserkeeper import BrowserkeeperError, ExitReport, ProcessExit, browser
from fixtures.server import Site

LINKS = "return [...document.links].map(link => link.href)"
STATUS = "return performance.getEntriesByType('navigation')[0].responseStatus"
LONGEST = 120.0
"""Seconds for the whole session, enforced by the guard: it holds even if this program hangs."""


@dataclass(frozen=True)
class Page:
    """One page of the shop; ``price`` and ``stock`` are "" if there is no book on it."""

    path: str
    status: int
    title: str
    price: str
    stock: str
    links: tuple[str, ...]


@dataclass(frozen=True)
class Traces:
    """The pids and the directory of a running session, read from outside."""

    pids: frozenset[int]
    tmpdir: Path


# ------------------------------------------------------------------------------------- the crawl


def scrape(
    name: str, *, headless: bool, most: int | None, console: Console
) -> tuple[list[Page], Traces, ExitReport]:
    """Crawl and end the browser.  Raises BrowserkeeperError if the browser fails."""
    # Without on_leak a leak would be raised as LeakError; this program prints the report instead.
    session = browser(name, headless=headless, timeout=LONGEST, on_leak="ignore")
    with Site() as site, session as driver:
        pages = list(with_progress(crawl(driver, site.url), most, console))
        assert session.pid is not None  # Chromium and Firefox both report it
        traces = look_around(session.pid)
    assert session.report is not None  # it is set when the block ends
    return pages, traces, session.report


def crawl(driver: WebDriver, start: str) -> Iterator[tuple[Page, int]]:
    """Breadth-first over the pages of one host: (page, number of pages known by then)."""
    queue, known = deque([start]), {start}
    while queue:
        page = read_page(driver, queue.popleft())
        for link in page.links:
            url = urldefrag(link).url
            if url not in known and urlsplit(url).netloc == urlsplit(start).netloc:
                known.add(url)
                queue.append(url)
        yield page, len(known)


def read_page(driver: WebDriver, url: str) -> Page:
    driver.get(url)
    return Page(
        path=urlsplit(driver.current_url).path,
        status=driver.execute_script(STATUS),
        title=driver.title.partition(" · ")[0],
        price=text_of(driver, ".price"),
        stock=text_of(driver, ".stock"),
        links=tuple(driver.execute_script(LINKS)),
    )


def text_of(driver: WebDriver, selector: str) -> str:
    """The text of the first such element, "" if there is none."""
    found = driver.find_elements(By.CSS_SELECTOR, selector)
    return found[0].text if found else ""


def with_progress(
    crawled: Iterable[tuple[Page, int]], most: int | None, console: Console
) -> Iterator[Page]:
    """The first ``most`` pages (None: all), with a progress bar that grows as links are found."""
    columns = (
        TextColumn("[bold]crawling[/]"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=1)
        for page, known in itertools.islice(crawled, most):
            total = known if most is None else min(most, known)
            progress.update(task, advance=1, total=total, description=page.path)
            yield page
        progress.update(task, description="")


# ------------------------------------------------------------------------------------- the proof


def look_around(browser_pid: int) -> Traces:
    """Read by psutil, which shares no code with browserkeeper."""
    below_us = frozenset(child.pid for child in psutil.Process().children(recursive=True))
    tmpdir = psutil.Process(browser_pid).environ()["TMPDIR"]
    return Traces(below_us, Path(tmpdir))


def seen_by_ps(pids: Iterable[int]) -> list[str]:
    """The lines of ps(1) for the processes that exist, zombies included."""
    command = ["ps", "-o", "pid=,stat=,comm=", "-p", ",".join(map(str, pids))]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()


def prove(traces: Traces, report: ExitReport, console: Console) -> bool:
    """Look for all that was seen by the session or by this program; True if all of it is gone."""
    pids = sorted(traces.pids | {process.pid for process in report.processes})
    left = seen_by_ps(pids)
    if left:
        console.print(f"[red]ps still sees {len(left)} of {len(pids)} processes:[/]", *left, sep="\n  ")
    else:
        console.print(f"ps -p {pids[0]},…,{pids[-1]}: none of the {len(pids)} processes is there")
    gone = not traces.tmpdir.exists()
    console.print(f"ls {traces.tmpdir}: {'no such directory' if gone else '[red]still there[/]'}")
    return gone and not left


# ------------------------------------------------------------------------------------ the tables


def table_of_pages(pages: Iterable[Page]) -> Table:
    table = Table(title="The pages", title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    for column in ("title", "path"):
        table.add_column(column, overflow="fold")
    for column in ("price", "stock", "HTTP"):
        table.add_column(column, justify="right", no_wrap=True)
    for page in sorted(pages, key=lambda page: (not page.price, page.path)):
        stock = page.stock.removesuffix(" in stock")
        style = "" if page.status == 200 else "red"
        table.add_row(page.title, page.path, page.price, stock, str(page.status), style=style)
    return table


def table_of_processes(report: ExitReport) -> Table:
    title = "How each process ended"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("pid", justify="right")
    table.add_column("name")
    table.add_column("ended")
    table.add_column("after", justify="right")
    table.add_column("")
    for process in report.processes:
        after = "" if process.ended is None else f"{process.ended:.2f} s"
        note = "had left its parents" if process.adopted else ""
        table.add_row(str(process.pid), process.name, ending(process), after, note)
    return table


def ending(process: ProcessExit) -> str:
    """``exited, status 0`` · ``killed, signal 9`` · ``gone``."""
    detail = ""
    if process.signal is not None:
        detail = f", signal {process.signal}"
    elif process.code is not None:
        detail = f", status {process.code}"
    return f"{process.outcome}{detail}"


# --------------------------------------------------------------------------------------- the rest


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--browser", default="chrome", metavar="NAME", help="chrome, firefox, edge …")
    parser.add_argument("--pages", type=positive, metavar="N", help="stop after N pages")
    parser.add_argument("--headed", action="store_true", help="show the browser's window")
    return parser.parse_args()


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of 1 or more")
    return int(text)


def main() -> int:
    arguments = parse_arguments()
    console = Console()
    # One console for both, so that a warning does not tear the progress bar.
    handler = RichHandler(console=console, show_time=False, show_path=False)
    logging.basicConfig(handlers=[handler], format="%(message)s", level=logging.WARNING)
    try:
        pages, traces, report = scrape(
            arguments.browser, headless=not arguments.headed, most=arguments.pages, console=console
        )
    except BrowserkeeperError as error:
        console.print(f"[red]{type(error).__name__}:[/] ", end="")
        console.print(str(error), markup=False)
        return 2
    except KeyboardInterrupt:  # the session has ended already
        console.print("interrupted")
        return 130
    console.print(table_of_pages(pages))
    console.print(table_of_processes(report))
    console.print(str(report), markup=False, highlight=False)
    gone = prove(traces, report, console)
    return 0 if report.clean and gone else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # the reader, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
