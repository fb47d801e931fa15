"""Several leases in one browser: what they cost against a browser each, and against a rival's contexts.

python -m benchmarks.shared [--counts 1 2 4 8 16] [--rounds 3] [--svg docs/shared.svg]

One run measures, for each number: the memory of so many plain Selenium sessions, of Playwright's
contexts in one browser with the same binary (left out where Playwright is not installed: ``pip install
browserkeeper[bench]``), and of so many leases of one browser; all with the same pages.  Then fresh pages
per second, and how long a checkout takes, with one lease in each browser and with several.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from browserkeeper import BrowserPool
from fixtures.server import Site

from . import plain
from .measures import in_turn, median, timed
from .pool import PAGES, playwright_browser, pool_pages, tree_pss

PATIENCE = 600.0
"""Seconds to wait for browsers and leases, also on a busy machine."""
SETTLED = 2.0
"""Seconds between the last page and the reading of the memory, in which browsers free some."""
RIVALS = {"plain": "plain Selenium sessions", "playwright": "Playwright's contexts in one browser"}
OURS = "leases"
BOUNDS = {("plain", 8): 0.42, ("playwright", 8): 0.55, ("plain", 16): 0.35}
"""How much of a rival's memory so many leases may need at the most."""
PAGES_SEEN = ("", "about", "special", "category/fiction")
COLOURS = {OURS: "#2e7d32", "plain": "#c62828", "playwright": "#1565c0"}


# ------------------------------------------------------------------ memory


def page(site: Site, number: int) -> str:
    return site.url_for(PAGES_SEEN[number % len(PAGES_SEEN)])


@contextlib.contextmanager
def plain_sessions(site: Site, number: int) -> Iterator[None]:
    drivers = [plain.chrome() for _ in range(number)]
    for n, driver in enumerate(drivers):
        driver.get(page(site, n))
    yield
    for driver in drivers:
        driver.quit()


@contextlib.contextmanager
def playwright_contexts(site: Site, number: int) -> Iterator[None]:
    with playwright_browser(plain.which("chromium", "google-chrome")) as browser:
        for n in range(number):
            browser.new_context().new_page().goto(page(site, n))
        yield


@contextlib.contextmanager
def leases_of_one_browser(site: Site, number: int) -> Iterator[None]:
    with shared_pool(number) as pool:
        pool.wait(PATIENCE)
        leases = [pool.lease() for _ in range(number)]
        for n, lease in enumerate(leases):
            lease.driver.get(page(site, n))
        yield
        for lease in leases:
            lease.release()


def shared_pool(leases: int, **given: Any) -> BrowserPool[Any]:
    limits = {"checkout_timeout": PATIENCE, "start_timeout": PATIENCE}
    return BrowserPool(
        "chrome", **{"max_size": 1, "leases_per_browser": leases, "min_idle": leases, **limits, **given}
    )


WAYS: dict[str, Callable[[Site, int], contextlib.AbstractContextManager[None]]] = {
    "plain": plain_sessions,
    "playwright": playwright_contexts,
    OURS: leases_of_one_browser,
}


def memory(site: Site, counts: list[int], ways: list[str]) -> dict[str, dict[int, float]]:
    """MB of each way, by the number of sessions, contexts or leases: PSS of all child processes."""
    found: dict[str, dict[int, float]] = {name: {} for name in ways}
    for number in counts:
        for name in ways:
            with WAYS[name](site, number):
                time.sleep(SETTLED)
                found[name][number] = tree_pss()
            print(f"{number:3} {name}: {found[name][number]:.0f} MB", flush=True)
    return found


# ------------------------------------------------------------------ speed


def speed(site: Site, leases: int, rounds: int) -> dict[str, list[float]]:
    """Seconds for PAGES pages, each in a fresh context, in two workers."""
    with (
        shared_pool(1, max_size=2, min_idle=2) as apart,
        shared_pool(leases) as shared,
    ):
        apart.wait(PATIENCE)
        shared.wait(PATIENCE)
        rivals: dict[str, Callable[[], float]] = {
            f"leases_per_browser={k}": functools.partial(
                timed, functools.partial(pool_pages, pool, site.url, PAGES, 2)
            )
            for k, pool in ((1, apart), (leases, shared))
        }
        return in_turn(rivals, rounds)


def checkouts(leases: int, rounds: int) -> list[float]:
    """Seconds until a lease's driver can be used, with a place ready."""
    taken = []
    with shared_pool(leases, max_size=2 if leases == 1 else 1, min_idle=2) as pool:
        for _ in range(rounds):
            pool.wait(PATIENCE)
            began = time.perf_counter()
            lease = pool.lease()
            _ = lease.driver
            taken.append(time.perf_counter() - began)
            lease.driver.get("about:blank")
            lease.release()
    return taken


# ------------------------------------------------------------------ what is shown


def rows(found: Mapping[str, Mapping[int, float]]) -> Iterator[str]:
    yield "| leases | " + " | ".join(found) + " | ratio | bound | |"
    yield "| --- " * (len(found) + 4) + "|"
    for number in found[OURS]:
        ours = found[OURS][number]
        for rival in found:
            if rival == OURS:
                continue
            ratio, bound = ours / found[rival][number], BOUNDS.get((rival, number))
            cells = [str(number), *(f"{found[name][number]:.0f} MB" for name in found)]
            cells.append(f"{ratio:.2f} × {rival}")
            cells += [f"≤ {bound} ×", "met" if ratio <= bound else "MISSED"] if bound else ["", ""]
            yield "| " + " | ".join(cells) + " |"


def picture(found: Mapping[str, Mapping[int, float]]) -> str:
    """How the memory grows, as SVG."""
    width, height, left, bottom = 640, 360, 60, 40
    most = max(max(each.values()) for each in found.values())
    last = max(found[OURS])

    def x(number: float) -> float:
        return left + (width - left - 150) * number / last

    def y(megabytes: float) -> float:
        return height - bottom - (height - bottom - 20) * megabytes / most

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">',
        "<style>text { font: 12px sans-serif }</style>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="14">Memory (PSS, MB) by the number of leases at a time</text>',
        f'<path d="M{left} 20V{height - bottom}H{x(last):.0f}" fill="none" stroke="#666"/>',
    ]
    step = 500 if most > 1000 else 100
    for level in range(0, int(most) + 1, step):
        parts.append(f'<text x="{left - 6}" y="{y(level) + 4:.0f}" text-anchor="end">{level}</text>')
        parts.append(f'<path d="M{left} {y(level):.0f}H{x(last):.0f}" stroke="#ddd"/>')
    for number in found[OURS]:
        parts.append(
            f'<text x="{x(number):.0f}" y="{height - bottom + 16}" text-anchor="middle">{number}</text>'
        )
    for name, values in found.items():
        points = " ".join(f"{x(n):.1f},{y(mb):.1f}" for n, mb in values.items())
        colour, end = COLOURS[name], max(values)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
            f'<text x="{x(end) + 6:.0f}" y="{y(values[end]) + 4:.0f}" fill="{colour}">{name}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4, 8, 12, 16])
    parser.add_argument("--rounds", type=int, default=3, help="of the pages; checkouts: ten times that")
    parser.add_argument("--svg", type=Path, help="where to write the picture")
    given = parser.parse_args()
    ways = list(WAYS)
    if importlib.util.find_spec("playwright") is None:
        print("Playwright is left out: it is not installed (pip install browserkeeper[bench])")
        ways.remove("playwright")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}")
    with Site() as site:
        found = memory(site, given.counts, ways)
        print("\n".join(rows(found)))
        if given.svg:
            given.svg.write_text(picture(found))
        most = max(given.counts)
        rates = {name: PAGES / median(s) for name, s in speed(site, most, given.rounds).items()}
        (_, apart), (_, shared) = rates.items()
        print(*(f"{name}: {rate:.2f} fresh pages per second" for name, rate in rates.items()), sep="\n")
        print(f"ratio: {shared / apart:.2f} (bound: ≥ 1)")
        for leases in (1, most):
            taken = checkouts(leases, 10 * given.rounds)
            print(f"leases_per_browser={leases}: checkout p50 {median(taken) * 1000:.2f} ms")


if __name__ == "__main__":
    main()
