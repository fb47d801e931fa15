"""Celery's prefork workers: pools in the children, against one server for all of them.

    python -m benchmarks.server_celery [--tasks N] [--rounds N] [--children N] [--browsers N]

Each round runs a worker with its own pools, and one with ``install(app, server=…)`` beside a server
whose sessions share one browser (``--browsers``).  Only one of them is there at a time, since processes
that run the same programs share memory.  Measured in each: the memory (PSS) of all processes but
Celery's own, while each child has a page open; and tasks per second, from the first of N sent to the
last result.  The server's own process counts.  Writes ``RESULTS-server-celery.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
from celery import Celery

from examples.services import celery_worker, ended, redis_server, wait_for
from fixtures.server import Site

from .__main__ import machine
from .celery_tasks import seconds_for
from .measures import ROOT, median

RESULTS = ROOT / "benchmarks" / "RESULTS-server-celery.md"
RIVALS = ("pools in the children", "one server")
MEMORY_BOUND = 0.4
RATE_BOUND = 1.0
PATIENCE = 300.0


class Measured(NamedTuple):
    megabytes: float
    rate: float


@contextlib.contextmanager
def server(children: int, browsers: int, state: str) -> Iterator[str]:
    """``browserkeeper serve`` with a place for each child; yields its address."""
    address = f"unix:{state}/s"
    words = [sys.executable, "-m", "browserkeeper", "serve", "--listen", address]
    words += ["--max", str(browsers), "--min-idle", str(browsers), "--queue-timeout", str(PATIENCE)]
    words += ["--leases-per-browser", str(-(-children // browsers))]
    env = {**os.environ, "BROWSERKEEPER_STATE_DIR": state}
    with ended(subprocess.Popen(words, cwd=ROOT, env=env, stderr=subprocess.DEVNULL)) as process:
        wait_for(lambda: Path(state, "s").exists() or process.poll() is not None, "the server", PATIENCE)
        yield address


def measure_one(rival: str, redis: str, url: str, given: argparse.Namespace) -> Measured:
    children = given.children
    with contextlib.ExitStack() as stack:
        state = stack.enter_context(tempfile.TemporaryDirectory(prefix="bkstate-"))
        environment = {"EXAMPLE_REDIS": redis, "BROWSERKEEPER_STATE_DIR": state}
        if rival == "one server":
            environment["BENCH_SERVER"] = stack.enter_context(server(children, given.browsers, state))
        client = stack.enter_context(Celery("bench", broker=redis, backend=redis, set_as_current=False))
        stack.enter_context(
            celery_worker("benchmarks.server_celery_app", "-c", str(children), environment=environment)
        )
        megabytes = memory_of_open_pages(client, url, children)  # after it all children are warm
        seconds_for(client, "visit", url, 2 * children)
        return Measured(megabytes, given.tasks / seconds_for(client, "visit", url, given.tasks))


def memory_of_open_pages(client: Celery, url: str, children: int) -> float:
    with tempfile.TemporaryDirectory(prefix="tmphold") as folder:
        results = [client.send_task("hold", args=[url, folder]) for _ in range(children)]
        wait_for(lambda: len(list(Path(folder).iterdir())) == children, "the pages", PATIENCE)
        megabytes = sum(map(pss, psutil.Process().children(recursive=True)))
        Path(folder, "go").touch()
        for result in results:
            result.get(timeout=PATIENCE)
    return megabytes


def pss(process: psutil.Process) -> float:
    """Megabytes; 0 for Celery's and Redis' own processes, which both rivals have."""
    with contextlib.suppress(psutil.Error):
        words = process.cmdline()
        if "celery" in words or process.name() == "redis-server":
            return 0.0
        return float(process.memory_full_info().pss) / 1e6
    return 0.0


def measure(given: argparse.Namespace) -> dict[str, Measured]:
    """The medians of all rounds."""
    os.environ["BROWSERKEEPER_OFFLINE"] = "1"
    found: dict[str, list[Measured]] = {rival: [] for rival in RIVALS}
    with redis_server() as redis, Site() as site:
        for _ in range(given.rounds):
            for rival in RIVALS:
                found[rival].append(measure_one(rival, redis, site.url, given))
                print(rival, *found[rival][-1], flush=True)
    return {
        rival: Measured(median([one.megabytes for one in all_]), median([one.rate for one in all_]))
        for rival, all_ in found.items()
    }


def lines(found: dict[str, Measured], given: argparse.Namespace) -> list[str]:
    pools, one = (found[rival] for rival in RIVALS)
    memory, rate = one.megabytes / pools.megabytes, one.rate / pools.rate
    today = f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}"
    places = f"--max {given.browsers} --leases-per-browser {-(-given.children // given.browsers)}"
    how = (
        f"Prefork, {given.children} children, {given.tasks} tasks at once, {given.rounds} rounds in "
        "turn, median. Each task opens one page of the fixture site on Chromium. Pools in the children: "
        f'`{{"max_size": 1}}`. The server: `{places}`, its own process counted.'
    )
    rows = (
        ("memory (PSS), a page in each child", *two("{:.0f} MB", pools.megabytes, one.megabytes)),
        ("tasks per second", *two("{:.2f}", pools.rate, one.rate)),
    )
    bounds = (
        f"{memory:.2f} × | ≤ {MEMORY_BOUND:g} ×, {'met' if memory <= MEMORY_BOUND else 'MISSED'}",
        f"{rate:.2f} × | ≥ {RATE_BOUND:g} ×, {'met' if rate >= RATE_BOUND else 'MISSED'}",
    )
    return [
        "# Celery with one server for all children",
        "",
        f"`python -m benchmarks.server_celery` on {today}: {machine()}.",
        how,
        "",
        "| | pools in the children | one server | ratio | bound |",
        "| --- | --- | --- | --- | --- |",
        *(f"| {' | '.join(row)} | {bound} |" for row, bound in zip(rows, bounds, strict=True)),
        "",
    ]


def two(form: str, *values: float) -> list[str]:
    return [form.format(value) for value in values]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server_celery")
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--children", type=int, default=8)
    parser.add_argument("--browsers", type=int, default=1, help="of the server")
    given = parser.parse_args()
    text = "\n".join(lines(measure(given), given))
    RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
