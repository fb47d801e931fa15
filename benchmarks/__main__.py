"""Run the measurements and write ``RESULTS.md``, each figure with its bound.

python -m benchmarks [--rounds N] [--deaths N] [--quick] [--only pool|firefox]
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fixtures.server import Site

from . import commands, measures, pool
from .measures import median, quantile

BY_HAND = "## Written by hand"
"""The heading in ``RESULTS.md`` from which its text is kept."""


@dataclasses.dataclass(frozen=True)
class Figure:
    """One line of the table; ``met`` is None if there is no bound."""

    what: str
    value: str
    bound: str = ""
    met: bool | None = None


def sessions(name: str, bound: float, site: Site, rounds: int) -> Iterator[Figure]:
    times = measures.sessions(name, site.url, rounds)
    plain = median(times["plain"])
    yield Figure(f"{name}: plain Selenium, start + page + quit", f"{plain:.3f} s")
    for rival in ("browserkeeper", "browserkeeper, TMPDIR on disk"):
        ratio = median(times[rival]) / plain
        bounded = (f"≤ {bound:.2f} ×", ratio <= bound) if rival == "browserkeeper" else ("", None)
        text = f"{median(times[rival]):.3f} s = {ratio:.2f} ×"
        yield Figure(f"{name}: {rival}, verified", text, *bounded)


def deaths(name: str, site: Site, rounds: int) -> Iterator[Figure]:
    times = measures.owner_death(name, site.url, rounds)
    p99 = quantile(times, 0.99)
    text = f"median {median(times):.3f} s, p99 {p99:.3f} s of {rounds}"
    yield Figure(f"{name}: owner's SIGKILL to nothing left", text, "p99 ≤ 0.5 s", p99 <= 0.5)


def crowd(site: Site, rounds: int) -> Iterator[Figure]:
    times = measures.bystanders(site.url, 3000, rounds)
    ratio = median(times["many"]) / median(times["none"])
    text = f"{median(times['none']):.3f} s → {median(times['many']):.3f} s = {ratio:.2f} ×"
    yield Figure("teardown with 0 → 3,000 bystanders", text, "≤ 1.10 ×", ratio <= 1.1)


def own_cost(rounds: int) -> Iterator[Figure]:
    start = measures.guard_start(rounds)
    extra = median(start["guarded"]) - median(start["bare"])
    yield Figure("both guards: start, before the driver's", f"{extra * 1000:.0f} ms")
    first, later = measures.guard_memory()
    text = f"{first:.1f} MB, {later:.1f} MB after 4 s"
    yield Figure("both guards: PSS", text, "< 12 MB", max(first, later) < 12)
    imports = measures.imports(rounds)
    bare = median(imports["bare"])
    rival, ours = median(imports["rival"]) - bare, median(imports["browserkeeper"]) - bare
    text = f"{ours * 1000:.1f} ms against {rival * 1000:.1f} ms = {ours / rival:.2f} ×"
    yield Figure("import browserkeeper / import psutil, json", text, "≤ 2 ×", ours <= 2 * rival)


def kept_commands(rounds: int) -> Iterator[Figure]:
    found = commands.costs(rounds)
    whole = found.pop("whole")
    dearest = max(found.values())
    text = f"{dearest * 1e6:.1f} µs of {whole * 1e6:.0f} µs = {dearest / whole:.4f} ×"
    yield Figure("keeping the last commands, of a whole command", text, "≤ 5 µs", dearest <= 5e-6)


def checkouts(rounds: int) -> Iterator[Figure]:
    times = pool.checkout(rounds)
    for name, q, bound in (("p50", 0.5, 100), ("p95", 0.95, 20)):
        theirs, ours = quantile(times["plain"], q), quantile(times["lease"], q)
        text = f"{theirs * 1000:.0f} ms against {ours * 1000:.2f} ms = {theirs / ours:.0f} ×"
        what = f"plain start / pool checkout, standby ready, {name}"
        yield Figure(what, text, f"≥ {bound} ×", theirs >= bound * ours)


def throughput(site: Site, rounds: int) -> Iterator[Figure]:
    times = pool.throughput(site.url, rounds)
    rates = {name: pool.PAGES / median(seconds) for name, seconds in times.items()}
    bounds = {
        ("pool of 1, 1 worker", "plain, 1 worker"): None,
        ("pool of 2, 1 worker", "plain, 1 worker"): 5.0,
        ("pool of 2, 2 workers", "plain, 2 workers"): None,
        ("pool of 2 headless shells, 1 worker", "plain, 1 worker"): None,
        ("pool of 1, 1 worker", "playwright"): 0.9,
        ("pool of 2, 1 worker", "playwright"): None,
    }
    for (ours, theirs), bound in bounds.items():
        ratio = rates[ours] / rates[theirs]
        text = f"{rates[ours]:.1f} / {rates[theirs]:.1f} = {ratio:.2f} ×"
        judged = (f"≥ {bound:g} ×", ratio >= bound) if bound else ("", None)
        yield Figure(f"fresh pages per second: {ours} / {theirs}", text, *judged)


def throughput_of_firefox(site: Site, rounds: int) -> Iterator[Figure]:
    times = pool.throughput_of_firefox(site.url, rounds)
    ours, theirs = (
        pool.PAGES_OF_FIREFOX / median(times[name]) for name in ("pool of 1 Firefox", "plain Firefox")
    )
    text = f"{ours:.2f} / {theirs:.2f} = {ours / theirs:.2f} ×"
    what = "fresh pages per second: pool of 1 Firefox, 1 worker / plain Firefox, 1 worker"
    yield Figure(what, text, "≥ 5 ×", ours >= 5 * theirs)


def pool_memory(site: Site) -> Iterator[Figure]:
    theirs, ours = pool.memory(site.url, 4)
    text = f"{theirs:.0f} MB → {ours:.0f} MB = {ours / theirs:.2f} ×"
    yield Figure("memory: 4 plain sessions → a pool of 4", text)


def version(program: str) -> str:
    if not shutil.which(program):
        return f"no {program}"
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    browsers = ", ".join(version(p).split(" built")[0] for p in ("chromium", "firefox-esr"))
    drivers = ", ".join(
        version(p).split("\n")[0].split(" (")[0] for p in ("chromedriver", "geckodriver")
    )
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, {browsers}, {drivers}"
    )


def measure(given: argparse.Namespace) -> list[Figure]:
    os.environ["BROWSERKEEPER_OFFLINE"] = "1"
    figures: list[Figure] = []
    with Site() as site, tempfile.TemporaryDirectory(prefix="bkstate-") as state:
        os.environ["BROWSERKEEPER_STATE_DIR"] = state
        of_sessions: list[Callable[[], Iterator[Figure]]] = [
            lambda: sessions("chrome", 0.90, site, given.rounds),
            lambda: sessions("firefox", 0.75, site, max(2, given.rounds // 2)),
            lambda: deaths("chrome", site, given.deaths),
            lambda: deaths("firefox", site, max(2, given.deaths // 3)),
            lambda: crowd(site, max(4, given.rounds // 2)),
            lambda: own_cost(given.rounds),
            lambda: kept_commands(given.rounds),
        ]
        of_firefox: list[Callable[[], Iterator[Figure]]] = [
            lambda: throughput_of_firefox(site, max(1, given.rounds // 4)),
        ]
        of_pools: list[Callable[[], Iterator[Figure]]] = [
            lambda: checkouts(given.rounds),
            lambda: throughput(site, max(2, given.rounds // 2)),
            lambda: pool_memory(site),
            *of_firefox,
        ]
        only = {"pool": of_pools, "firefox": of_firefox}
        for step in only.get(given.only, of_sessions + of_pools):
            for figure in step():
                print(f"{figure.what:58} {figure.value:44} {figure.bound}", flush=True)
                figures.append(figure)
    return figures


def verdict(figure: Figure) -> str:
    return {True: "met", False: "MISSED", None: ""}[figure.met]


def write(figures: list[Figure]) -> None:
    lines = [
        "# Results",
        "",
        f"`make bench` on {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}: {machine()}.",
        "Shared machine: trust the ratios, measured in turn in one run, not the seconds.",
        "",
        "| what | measured | bound | |",
        "| --- | --- | --- | --- |",
        *(f"| {f.what} | {f.value} | {f.bound} | {verdict(f)} |" for f in figures),
        "",
    ]
    results = Path(__file__).with_name("RESULTS.md")
    _, heading, by_hand = (results.read_text() if results.exists() else "").partition(BY_HAND)
    results.write_text("\n".join([*lines, heading + by_hand]))


def show(figures: list[Figure]) -> None:
    table = Table("what", "measured", "bound", "", title="browserkeeper")
    for figure in figures:
        table.add_row(figure.what, figure.value, figure.bound, verdict(figure))
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12, help="of each comparison")
    parser.add_argument("--deaths", type=int, default=60, help="owners to kill")
    parser.add_argument(
        "--only", choices=["pool", "firefox"], help="these measurements, nothing is written"
    )
    parser.add_argument("--quick", action="store_true", help="3 rounds, nothing is written")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.deaths = 3, 6
    figures = measure(given)
    show(figures)
    if not given.quick and not given.only:
        write(figures)


if __name__ == "__main__":
    main()
