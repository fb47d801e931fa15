"""The processor time of a page in a fresh context, by kind of process.

    python -m benchmarks.processor [--pages N] [--browser NAME] [-- ARGUMENT…]

The arguments are passed to the browser, to measure the cost of its switches and features.
"""

from __future__ import annotations

import argparse
import collections
import os
import re
import time
from pathlib import Path
from typing import Any

from browserkeeper import BrowserPool
from fixtures.server import Site

TICK = os.sysconf("SC_CLK_TCK")
WARM_UP = 3


def kind(pid: int) -> str:
    """The type of a process on Chromium's command line, else its name."""
    words = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    match = re.search(r"--type=(\S+)(?:.*--utility-sub-type=(\w+))?", words)
    if match:
        return match[2] or match[1]
    return Path(f"/proc/{pid}/comm").read_text().strip()


def seconds(pid: int) -> tuple[float, float]:
    """Processor time of (the process, its reaped children); a zygote's children are ended renderers."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, children_user, children_system = map(int, fields[11:15])
    return (user + system) / TICK, (children_user + children_system) / TICK


def snapshot(session: Any) -> dict[str, float]:
    found: dict[str, float] = collections.defaultdict(float)
    for process in session.processes():
        name = kind(process.pid)
        own, reaped = seconds(process.pid)
        found[f"{name} {process.pid}" if name == "renderer" else name] += own
        found["renderers of contexts, ended"] += reaped
    return found


def measure(name: str, pages: int, arguments: list[str]) -> dict[str, float]:
    """Milliseconds for each page: processor time by kind of process, and elapsed time as ``wall``."""
    with (
        Site() as site,
        BrowserPool(name, max_size=1, max_uses=None, isolation="context", arguments=arguments) as pool,
    ):

        def visit() -> Any:
            with pool.lease() as lease:
                lease.driver.get(site.url)
                assert lease.driver.title
                return lease.session

        for _ in range(WARM_UP):
            session = visit()
        before, began, ours = snapshot(session), time.perf_counter(), time.process_time()
        for _ in range(pages):
            visit()
        wall, ours = time.perf_counter() - began, time.process_time() - ours
        after = snapshot(session)
    spent = {what: value - before.get(what, 0) for what, value in after.items()}
    spent |= {"python": ours, "sum": sum(spent.values()) + ours, "wall": wall}
    return {what: value / pages * 1000 for what, value in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pages", type=int, default=40)
    parser.add_argument("--browser", default="chrome")
    parser.add_argument("arguments", nargs="*")
    given = parser.parse_args()
    for what, value in sorted(
        measure(given.browser, given.pages, given.arguments).items(), key=lambda pair: -pair[1]
    ):
        if value >= 0.5:
            print(f"{value:7.1f} ms  {what}")


if __name__ == "__main__":
    main()
